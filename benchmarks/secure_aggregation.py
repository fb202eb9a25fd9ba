"""What secure aggregation costs: seconds and bytes of set-up, masking and unmasking, and of a whole run.

    python benchmarks/secure_aggregation.py                   # the protocol at 1,000,000 parameters, 3 to 20 sites
    python benchmarks/secure_aggregation.py --parameters N
    python benchmarks/secure_aggregation.py --run             # rounds on the local engine, with and without

In the first table one site of each call drops out after its numbers would have been due, so that unmasking has both
kinds of masks to take off. Seconds are of one site, or of the coordinator, on one core.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from common import table

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange.secure_aggregation import fixed_point, protocol
from v6_algorithm.exchange.secure_aggregation.keys import SiteKeys, check_participants, digest
from v6_algorithm.exchange.secure_aggregation.ring import Vector
from v6_algorithm.experiment import Experiment

RUN = "0" * 32
CLIP = 8.0
# Numbers beside the updates: losses, counts and the histograms of two classes.
SUMS = 1_200


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` returns, and its seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def protocol_costs(sites: int, parameters: int) -> list[str]:
    """Go through one call with one drop-out, and return the row of the table."""
    threshold, rng = sites // 2 + 1, np.random.default_rng(0)
    keys, setup_s = [], []
    for number in range(sites):
        made, seconds = timed(lambda: SiteKeys.derive(secrets.token_bytes(32), RUN, f"site {number:02d}"))  # noqa: B023
        keys.append(made)
        setup_s.append(seconds)
    people = tuple(key.public(RUN) for key in keys)
    _, checked_s = timed(lambda: check_participants(people, RUN, people[0], None))
    setup_bytes = len(json.dumps([person.to_json() for person in people]))
    call = protocol.Call(RUN, 1, people, threshold, digest(["benchmark"]))
    bits, words = fixed_point.words_for(None, sites)
    masked, mask_s, plain = {}, [], np.zeros(parameters)
    for key in keys[:-1]:
        values = rng.normal(0, 0.01, parameters)
        plain += values

        def hide(key: SiteKeys = key, values: np.ndarray = values) -> protocol.Masked:
            encoded, _ = fixed_point.encode_updates(values, CLIP, bits, words)
            vector = Vector(encoded, fixed_point.encode_sums([1] * SUMS, sites))
            return protocol.mask_vector(vector, call, key)

        masked[key.site], seconds = timed(hide)
        mask_s.append(seconds)
    first = masked[keys[0].site]
    text = json.dumps({"numbers": first.vector.to_text(), "letters": first.letters, "seals": first.seals})
    names = sorted(masked)
    answers, open_s = {}, []
    for key in keys[:-1]:
        letters = {name: masked[name].letters[key.site] for name in names}
        answers[key.site], seconds = timed(lambda: protocol.open_letters(call, key, names, letters))  # noqa: B023
        open_s.append(seconds)
    letters_bytes = len(json.dumps({name: masked[name].letters[keys[0].site] for name in names}))
    answer_bytes = len(json.dumps(answers[keys[0].site]))
    total, sum_s = timed(lambda: protocol.unmask(call, masked, answers, first.vector.shape))
    error = np.abs(fixed_point.decode_updates(total.updates, CLIP, bits) - plain).max()
    if fixed_point.decode_sums(total.sums)[0] != sites - 1:
        raise SystemExit("the masks did not cancel")
    return [
        str(sites),
        f"{statistics.median(setup_s) * 1e3 + checked_s * 1e3:.1f} ms, {setup_bytes / 1e3:.1f} kB",
        f"{statistics.median(mask_s):.3f}",
        f"{len(text) / 1e6:.2f}",
        f"{statistics.median(open_s) * 1e3:.1f} ms, {(letters_bytes + answer_bytes) / 1e3:.1f} kB",
        f"{sum_s:.3f}",
        f"{error:.1e}",
    ]


def run_costs(parameters: int, rounds: int) -> None:
    """Train a network of about so many parameters at three sites, with and without."""
    features = 500
    hidden = max(parameters // (features + 2), 1)
    generator = np.random.default_rng(0)
    sources = {}
    for site in range(3):
        values = generator.standard_normal((400, features), dtype=np.float32)
        frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(features)])
        sources[f"site{site}"] = TableSource(frame=frame.assign(target=(values[:, 0] > 0).astype(int)))
    rows = []
    for name, privacy in (("in the clear", {}), ("secure aggregation", {"secure_aggregation": {"threshold": 2}})):
        experiment = Experiment.parse(
            {
                "data": {"target": "target"},
                "model": {"kind": "mlp", "hidden": [hidden]},
                "rounds": rounds,
                "training": {"batch_size": 64},
                "privacy": privacy,
            }
        )
        result, seconds = timed(lambda: run(local_federation(experiment, sources), experiment))  # noqa: B023
        calls = result["timing"]["rounds"]
        trained = [call for call in calls if call["round"] >= 2 and call["call"] in ("train", "unmask")]
        of_round = len({call["round"] for call in trained})
        received = sum(sum(call["bytes_received"].values()) for call in trained) / of_round / 3
        sent = sum(sum(call["bytes_sent"].values()) for call in trained) / of_round / 3
        loss = result["history"]["train_loss"][-1]
        rows.append([name, f"{seconds:.2f}", f"{seconds / rounds:.2f}", f"{received / 1e6:.2f}", f"{sent / 1e6:.2f}",
                     f"{loss:.6f}"])  # fmt: skip
    print(f"{hidden * (features + 1) + 2 * hidden + 2:,} parameters, 3 sites, {rounds} rounds, local engine")
    print(table(["", "run, s", "s a round", "MB from a site a round", "MB to it", "last training loss"], rows))


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--run", action="store_true")
    arguments = parser.parse_args()
    if arguments.run:
        run_costs(arguments.parameters, arguments.rounds)
        return
    print(f"{arguments.parameters:,} parameters and {SUMS:,} sums; in float32 {arguments.parameters * 16 / 3e6:.2f} MB")
    header = ["sites", "set-up", "mask, s a site", "reply, MB", "open, a site", "sum, s", "largest error of the sum"]
    print(table(header, [protocol_costs(sites, arguments.parameters) for sites in (3, 5, 10, 20)]))


if __name__ == "__main__":
    main()
