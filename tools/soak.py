"""A long run in which much goes wrong, and the proof that nothing came of it: ``python -m tools.soak``.

    python -m tools.soak                        # 200 rounds, 8 sites
    python -m tools.soak --rounds 2000 --sites 16 --seed 7

Sites are killed, answers lost, delayed, cut, damaged, doubled and reordered, the coordinator is killed and goes on from
its checkpoint, the server is away, the disk is full: by a seeded plan (`tools.faults`). At the end the model, the
metrics and the history must be, bit for bit, those of a run without any fault over the sites that counted in each
round, and every answer that did not count stands in the participation table with its reason. Prints rounds,
faults by kind and answers dropped by reason; exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.faults import HARMLESS, FaultPlan, FaultyFederation, FullDisk, Killed, Replay
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

_ROWS = 24
# What differs between two runs to the same end.
_EQUAL = ("metrics", "history", "parameters", "best_round", "rounds_run", "status")


@dataclass
class Soak:
    """What a soak came to.

    Attributes
    ----------
    rounds, starts
        Rounds done, and how often the coordinator was started.
    faults
        Kind to how often it was met.
    dropped
        Reason, as the participation table has it, to how many answers did not count.
    differences
        What is not as in the run without faults; nothing where all is well.
    seconds
        Of the run with faults.
    """

    rounds: int
    starts: int
    faults: Counter[str]
    dropped: Counter[str]
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """Return what the command prints."""
        return [
            f"rounds: {self.rounds}, the coordinator was started {self.starts} times, {self.seconds:.1f} s",
            f"faults met: {sum(self.faults.values())}",
            *(f"  {kind}: {count}" for kind, count in sorted(self.faults.items())),
            f"answers that did not count, by reason in the participation table: {sum(self.dropped.values())}",
            *(f"  {reason}: {count}" for reason, count in sorted(self.dropped.items())),
            *(self.differences or ["equal to the run without faults over the same participants, bit for bit"]),
        ]


def hospitals(sites: int) -> dict[str, TableSource]:
    """Return small tables that all fit, with a signal in them."""
    made = {}
    for number in range(sites):
        generator = np.random.default_rng(number)
        frame = pd.DataFrame(generator.normal(size=(_ROWS + number, 3)), columns=["a", "b", "c"])
        made[f"site{number:02d}"] = TableSource(frame=frame.assign(y=(frame["a"] > frame["b"]).astype(int)))
    return made


def experiment(rounds: int, seed: int) -> Experiment:
    """Return an experiment with a server optimiser, whose state must survive as well."""
    return Experiment.parse(
        {
            "name": "soak",
            "seed": seed,
            "data": {"target": "y"},
            "model": {"kind": "mlp", "hidden": [4]},
            "rounds": rounds,
            "stopping": {"patience": None},
            "strategy": {"kind": "fedadam"},
            "training": {"batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.05}},
        }
    )


def soak(rounds: int, sites: int, seed: int, folder: Path, *, rate: float = 0.12) -> Soak:
    """Run with faults until the rounds are over, then without, and compare.

    Parameters
    ----------
    rounds, sites, seed
        The size of it, and the seed of model and faults.
    folder
        For the checkpoint.
    rate
        Share of the answers that meet a fault.
    """
    asked, tables = experiment(rounds, seed), hospitals(sites)
    spared = list(tables)[: asked.participation.minimum]
    plan = FaultPlan(seed, rate, spared=spared)
    fired: set[int] = set()
    faults: Counter[str] = Counter()
    starts, begun = 0, time.perf_counter()
    result: dict[str, Any] = {"status": "stopped"}
    while result["status"] != "completed":
        starts += 1
        if starts > rounds:
            raise SystemExit(f"the run makes no progress: {result.get('stopped_because')}")
        federation = FaultyFederation(local_federation(asked, tables), plan, fired)
        try:
            result = run(federation, asked, checkpoints=FullDisk(folder / "checkpoint.safetensors", federation, plan))
        except Killed:
            pass
        finally:
            faults += federation.met
    seconds = time.perf_counter() - begun
    book = [entry for entry in result["participation"] if entry["call"] == "train"]
    whole = run(Replay(local_federation(asked, tables), result["participation"]), asked)
    dropped = Counter(kind for entry in book for kind in map(_kind, entry["missing"].values()))
    for entry in book:
        dropped.update(why for reasons in entry.get("dropped", {}).values() for why in reasons)
    done = Soak(result["rounds_run"], starts, faults, dropped, seconds=seconds)
    done.differences = [f"{key} differs" for key in _EQUAL if result[key] != whole[key]]
    done.differences += _unaccounted(book, plan, list(tables), rounds)
    return done


def _unaccounted(book: list[dict[str, Any]], plan: FaultPlan, sites: list[str], rounds: int) -> list[str]:
    """Name rounds without an entry, sites that are neither there nor missing, and faulty answers that counted."""
    wrong = []
    if [entry["round"] for entry in book] != list(range(1, rounds + 1)):
        wrong.append("a round is not in the participation table once")
    for entry in book:
        told = sorted([*entry["answered"], *entry["missing"]])
        if told != sites:
            wrong.append(f"round {entry['round']}: {set(sites) ^ set(told) or 'a site'} is told of not once")
        for number, site in enumerate(sites):
            kind = plan.at_site(entry["round"], number, site)
            if kind is not None and kind not in HARMLESS and site in entry["answered"]:
                wrong.append(f"round {entry['round']}: the answer of {site} counted, which met '{kind}'")
    return wrong


def _kind(reason: str) -> str:
    """Shorten a reason to its kind and, of wrong answers, what was wrong."""
    kind, _, what = reason.partition(": ")
    if kind != "wrong":
        return kind
    for words in ("of round", "of attempt", "of site", "not JSON", "shape"):
        if words in what:
            return f"wrong, {words}"
    return "wrong"


def main() -> int:
    """Parse the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.12, help="share of the answers that meet a fault")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        done = soak(options.rounds, options.sites, options.seed, Path(folder), rate=options.rate)
    print("\n".join(done.lines()))
    return 1 if done.differences else 0


if __name__ == "__main__":
    sys.exit(main())
