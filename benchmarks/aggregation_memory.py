"""What `master` needs in memory to average the models of several sites, in multiples of the model's size.

    python benchmarks/aggregation_memory.py                         8 sites, 100 million parameters
    python benchmarks/aggregation_memory.py --millions 25 --sites 4

One reply is made and lies in a file; each site's arrives from it as `engines/results` hands over a large one, in a
file, is checked, read and added; then the next model is made and packed, as the next requests carry it. The peak is the
largest resident size of the process less that before the first reply, so a model that is held anyway is not in it. With
`--text` the replies come as text, as before.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.rounds.reply_checks import ReplyCheck
from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.in_file import TextFile
from v6_algorithm.exchange.protocol import Arrival, Replies
from v6_algorithm.experiment import Experiment

ROWS = 100


def resident_bytes() -> int:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_reply(file: Path, spec: wire.StateSpec) -> None:
    """Write a site's reply of a round; in a process of its own, so that making it is not measured."""
    state = {name: torch.randn(item.shape) for name, item in spec.items()}
    trained = {"rows": ROWS, "loss": {"sum": 50.0, "rows": ROWS}, "steps": 4}
    item = {"fold": 0, "metrics": {}, "parameters": wire.pack(state), **trained}
    body = {"folds": [item], "device": {"name": "cpu", "precision": "float32"}}
    file.write_text(wire.to_text(wire.message(site="SITE", round=2, attempt=1, status="ok", **body)))


def main() -> None:
    """Average, and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, default=100)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--text", action="store_true", help="replies as text in memory")
    chosen = parser.parse_args()
    layers = 20
    spec = {
        f"model.{number}.weight": wire.TensorSpec((int(chosen.millions * 1e6 / layers / 1000), 1000), "float32")
        for number in range(layers)
    }
    sites = [f"site{number}" for number in range(chosen.sites)]
    experiment = Experiment.parse({"data": {"target": "y"}, "model": {"kind": "mlp", "hidden": [4]}})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "reply.json")
        import multiprocessing

        maker = multiprocessing.get_context("spawn").Process(target=write_reply, args=(file, spec))
        maker.start()
        maker.join()
        counts = [{site: {"train": ROWS, "validation": 0, "test": 0} for site in sites}]
        rows = {site: [counts[0][site]] for site in sites}
        plan = Plan(sites, Setup(features=["a"], categories={}, classes=[0, 1]), spec, counts, rows)
        strategy = create_strategy(experiment, spec, dict.fromkeys(sites, float(ROWS)))
        check = ReplyCheck(plan, {0: strategy.read})
        asked = [{"fold": 0, "train": True, "evaluate": [], "parameters": None}]
        requests = {site: wire.message(site="SITE", round=2, attempt=1) for site in sites}
        strategy.configure(2, sites, None)
        # What torch itself takes at its first sum is no part of a model.
        torch.randn(1000).double().sum()
        before, start = resident_bytes(), time.perf_counter()

        def arrived() -> str | TextFile:
            if chosen.text:
                return file.read_text(encoding="ascii")
            text = TextFile(folder)
            with file.open("rb") as content:
                while piece := content.read(2**20):
                    text.write(piece)
            return text

        replies = Replies(requests, (Arrival(site, arrived()) for site in sites), {})
        for site, reply in replies:
            for item in check.items(replies, site, reply, asked):
                strategy.add(item.pop("reply"))
        if replies.missing:
            raise SystemExit(f"replies were dropped: {replies.missing}")
        summed = resident_bytes()
        following = strategy.aggregate()
        averaged = resident_bytes()
        packed = wire.pack(following, keep=True, consume=True)
        if not packed:
            raise SystemExit("nothing was packed")
    model = wire.spec_bytes(spec)
    print(
        f"{chosen.sites} sites, {chosen.millions:g} million parameters ({model / 1e6:.0f} MB): "
        f"{(summed - before) / model:.2f} times the model while replies come in, "
        f"{(averaged - before) / model:.2f} with the next model, "
        f"{(resident_bytes() - before) / model:.2f} with it packed; {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
