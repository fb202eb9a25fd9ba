"""What a simulated round costs by strategy and by problem, beside a hand-written FedAvg loop.

    python benchmarks/rounds_by_kind.py
    python benchmarks/rounds_by_kind.py --sites 100 --only regression scaffold --exact

CPU milliseconds of a round, the median of those after the first, and of the final evaluation, in this process with one
thread; with `--exact` also of sites one after another. The loop has the same rows, network and steps, and measures the
loss on the validation rows.
What is said at the end of a line is why sites were not trained together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import table
from torch import nn
from torch.nn import functional

from v6_algorithm.coordinator import master
from v6_algorithm.engines.simulation.local import Way
from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.experiment import Experiment

ROWS, COLUMNS, HIDDEN, CLASSES, BATCH, LR = 36, 64, 64, 10, 8, 0.05
ONE_STEP = {"batch_size": None, "local_steps": 1}
MEDIAN = {"kind": "median", "malicious": 0}
PROBLEMS: dict[str, dict[str, Any]] = {
    "classification": {},
    "regression": {"problem": "regression", "data": {"target": "score"}},
    "survival, discrete time": {"problem": {"kind": "survival", "method": "discrete_time"}},
    "survival, Cox": {"problem": {"kind": "survival", "method": "cox"}},
    "two targets": {
        "problem": "multitask",
        "data": {"targets": {"score": "regression", "label": "classification"}},
    },
}
KINDS: dict[str, dict[str, Any]] = PROBLEMS | {
    "fedprox": {"strategy": {"kind": "fedprox", "mu": 0.1}},
    "scaffold": {"strategy": "scaffold"},
    "fednova": {"strategy": "fednova"},
    "feddyn": {"strategy": {"kind": "feddyn", "alpha": 0.1}},
    "moon": {"strategy": "moon"},
    "qfedavg": {"strategy": "qfedavg"},
    "agnostic": {"strategy": "agnostic"},
    "fedadam": {"strategy": "fedadam"},
    "fedsgd": {"strategy": "fedsgd", "training": ONE_STEP},
    "clip": {"strategy": {"kind": "fedavg", "clip": 1.0}},
    "median": {"strategy": {"kind": "fedavg", "combine": MEDIAN}},
    "compressed": {"strategy": {"kind": "fedavg", "compress": "int8"}},
    "rounded": {"strategy": {"kind": "fedavg", "compress_down": "float16"}},
    "half of the sites": {"participation": {"fraction": 0.5}},
    "three folds": {"split": {"kind": "kfold", "folds": 3}},
    "dropout": {"model": {"dropout": 0.2}},
    "BatchNorm": {"model": {"norm": "batch"}},
}


def experiment(kind: str, sites: int, rounds: int, folder: Path) -> Experiment:
    """Write the table, and return the experiment."""
    generator = np.random.default_rng(1)
    values = generator.standard_normal((ROWS * sites, COLUMNS), dtype=np.float32)
    score = values[:, :8].sum(axis=1) + generator.standard_normal(len(values))
    label = np.searchsorted(np.quantile(score, np.linspace(0, 1, CLASSES + 1)[1:-1]), score)
    frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(COLUMNS)]).assign(
        score=score,
        label=[f"class {number}" for number in label],
        time=np.exp(generator.standard_normal(len(values)) / 2 - score / 4),
        event=(generator.random(len(values)) < 0.7).astype(int),
    )
    changes = KINDS[kind]
    problem = changes.get("problem", "classification")
    target: Any = {"duration": "time", "event": "event"} if isinstance(problem, dict) else "label"
    data = {"target": target} | changes.get("data", {})
    data = {"targets": data["targets"]} if "targets" in data else data
    used = [*data.get("targets", {}), *(target.values() if isinstance(target, dict) else [data.get("target")])]
    others = {"score", "label", "time", "event"} - set(used)
    frame.drop(columns=sorted(others)).to_parquet(folder / "table.parquet", index=False)
    content = {
        "name": "rounds",
        "sites": {"source": "table.parquet", "partition": {"kind": "iid", "sites": sites}},
        "data": data,
        "problem": problem,
        "split": changes.get("split", {"kind": "ratio", "train": 0.7, "validation": 0.15, "test": 0.15}),
        "model": {"kind": "mlp", "hidden": [HIDDEN], "norm": "none"} | changes.get("model", {}),
        "rounds": rounds,
        "training": {"batch_size": BATCH, "optimizer": {"kind": "sgd", "lr": LR}} | changes.get("training", {}),
        "strategy": changes.get("strategy", "fedavg"),
        "participation": changes.get("participation", {}),
        "stopping": {"monitor": "loss", "patience": None},
        "output": {"model": "last"},
    }
    return Experiment.parse(content)


def measure(kind: str, sites: int, rounds: int, way: Way) -> tuple[float, float, str]:
    """Return CPU milliseconds of a round and of the evaluation, and why sites were trained one after another."""
    with tempfile.TemporaryDirectory() as name:
        asked, marks = experiment(kind, sites, rounds, Path(name)), [0.0]
        federation = local_federation(asked, tables_of(asked, Path(name)), way=way)

        def listen(event: dict[str, Any]) -> None:
            if event["event"] in ("round", "tested"):
                marks.append(time.process_time())

        master.run(federation, asked, listen)
        # The last event of a round is the final evaluation's.
        evaluation = (marks[-1] - marks[rounds]) * 1000
        return _median(marks[1 : rounds + 1]), evaluation, federation.how().get("because") or ""


def measure_loop(sites: int, rounds: int) -> float:
    """Return CPU milliseconds of a round of classification with FedAvg by hand."""
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Linear(COLUMNS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    values = torch.randn(sites, ROWS, COLUMNS, generator=generator)
    labels = torch.randint(CLASSES, (sites, ROWS), generator=generator)
    trained, measured = slice(0, round(0.7 * ROWS)), slice(round(0.7 * ROWS), round(0.85 * ROWS))
    state, marks = {name: tensor.clone() for name, tensor in network.state_dict().items()}, [time.process_time()]
    for _ in range(rounds):
        total = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for inputs, target in zip(values, labels, strict=True):
            network.load_state_dict(state)
            with torch.no_grad():
                functional.cross_entropy(network(inputs[measured]), target[measured]).item()
            optimizer = torch.optim.SGD(network.parameters(), lr=LR)
            for batch in torch.randperm(trained.stop, generator=generator).split(BATCH):
                optimizer.zero_grad()
                functional.cross_entropy(network(inputs[batch]), target[batch]).backward()
                optimizer.step()
            for name, tensor in network.state_dict().items():
                total[name].add_(tensor, alpha=1 / sites)
        state = total
        marks.append(time.process_time())
    return _median(marks[1:])


def _median(marks: list[float]) -> float:
    return statistics.median(np.diff(marks).tolist()) * 1000


def main() -> None:
    """Parse the command line, measure each kind, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--exact", action="store_true", help="measure sites one after another too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways: list[Way] = ["fast", "exact"] if given.exact else ["fast"]
    rows = []
    for kind in given.only:
        loop = measure_loop(given.sites, given.rounds)
        measured = [measure(kind, given.sites, given.rounds, way) for way in ways]
        cells = [f"{milliseconds:.1f}" for of_way in measured for milliseconds in of_way[:2]]
        rows.append([kind, *cells, f"{loop:.1f}", f"{measured[0][0] / loop:.2f}", measured[0][2]])
        print(rows[-1], flush=True)
    headers = [name for way in ways for name in (way, f"{way}, final evaluation")]
    print(f"\n{given.sites} sites of {ROWS} rows (load {os.getloadavg()[0]:.0f}), CPU ms a round\n")
    print(table(["", *headers, "loop", "of the loop's", "why one after another"], rows))


if __name__ == "__main__":
    main()
