"""What a simulation costs as it grows: sites, sampled sites, parameters, rows, classes, folds, one at a time.

    python benchmarks/growth.py
    python benchmarks/growth.py --only sites sampled --largest 1000
    python benchmarks/growth.py --only classes folds --repeats 5

Each size is `v6-algorithm run` in a process of its own, from the command to the files, with one thread; of `--repeats`
processes each cost is the median, the sizes of an axis in turns (the first compiles the byte code). CPU seconds are
counted until all is prepared (reading, agreeing, statistics; the start of Python and torch is taken off), for a round
(the median of those after the first), from the last round to the end of the final evaluation, and from there to the
files. The number behind each is how it grew from the size before, as a power of the unit: 1 is linear, 0 costs nothing
more, above 1 is superlinear. Of parameters a hand-written loop's round and evaluation stand beside, measured in turns:
a model that no longer fits a processor's cache costs the loop more than its size as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import table

# By axis the sizes.
AXES = {
    "sites": [10, 100, 1000, 10_000],
    "sampled": [100, 1000, 10_000],
    "parameters": [100_000, 1_000_000, 10_000_000, 50_000_000],
    "rows": [10_000, 100_000, 1_000_000],
    "classes": [2, 10, 50],
    "folds": [3, 5, 10],
}
WHAT = {
    "sites": "sites of 32 rows x 8 columns, all of them in every round",
    "sampled": "sites of 32 rows x 8 columns, 50 of them drawn in each round",
    "parameters": "numbers of an MLP at 4 sites of 64 rows x 100 columns",
    "rows": "rows x 20 columns at 2 sites, one parquet file",
    "classes": "classes at 10 sites, 20,000 rows x 8 columns in all",
    "folds": "folds at 10 sites, 2,000 rows x 8 columns in all",
}


def made_up(folder: Path, rows: int, columns: int, classes: int) -> str:
    """Write a table, whose classes are those of a linear score; return its name."""
    import pandas as pd

    generator = np.random.default_rng(1)
    values = generator.standard_normal((rows, columns), dtype=np.float32)
    score = values @ np.linspace(1, 0.1, columns, dtype=np.float32) + generator.standard_normal(rows, dtype=np.float32)
    label = np.searchsorted(np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]), score)
    frame = pd.DataFrame(values, columns=[f"x{number:03d}" for number in range(columns)])
    frame.assign(y=[f"class {number}" for number in label.tolist()]).to_parquet(folder / "table.parquet", index=False)
    return "table.parquet"


def experiment(axis: str, size: int, folder: Path) -> dict[str, Any]:
    """Write the table of an experiment, and return the experiment."""
    sites, rows, columns, classes, hidden, rounds, fraction = 10, 2000, 8, 2, [8], 4, 1.0
    split: Any = {"kind": "ratio", "train": 0.7, "validation": 0.15, "test": 0.15}
    batch = 16
    if axis in ("sites", "sampled"):
        sites, rows, fraction = size, 32 * size, 1.0 if axis == "sites" else 50 / size
    elif axis == "parameters":
        # 100 h + h * w + 2 w and biases, of two layers of nearly the same width.
        sites, rows, columns = 4, 256, 100
        width = round((math.sqrt(102**2 + 4 * size) - 102) / 2)
        hidden = [width, width]
    elif axis == "rows":
        sites, rows, columns, batch = 2, size, 20, 256
    elif axis == "classes":
        rows, classes, batch = 20_000, size, 64
    elif axis == "folds":
        split = {"kind": "kfold", "folds": size}
    return {
        "name": f"{axis}-{size}",
        "sites": {"source": made_up(folder, rows, columns, classes), "partition": {"kind": "iid", "sites": sites}},
        "data": {"target": "y"},
        "split": split,
        "problem": "classification",
        "model": {"kind": "mlp", "hidden": hidden, "norm": "none"},
        "rounds": rounds,
        "participation": {"fraction": fraction},
        "training": {"batch_size": batch, "optimizer": {"kind": "sgd", "lr": 0.01}},
        "stopping": {"monitor": "loss", "patience": None},
        "output": {"model": "last"},
    }


def measure(axis: str, size: int) -> dict[str, float]:
    """Run one in this process; return CPU seconds by phase, and the peak of memory in MB."""
    import torch
    import yaml

    from v6_algorithm.coordinator import master
    from v6_algorithm.researcher.cli import main

    torch.set_num_threads(1)
    marks: list[tuple[str, float]] = []
    run = master.run

    def watched(federation: Any, asked: Any, on_event: Any = None, **more: Any) -> Any:
        def listen(event: dict[str, Any]) -> None:
            on_event(event)
            if event["event"] in ("prepared", "round", "tested"):
                marks.append((event["event"], time.process_time()))

        return run(federation, asked, listen, **more)

    master.run = watched
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment(axis, size, folder)))
        sys.argv = ["v6-algorithm", "run", str(folder / "experiment.yaml"), "--out", str(folder / "run"), "-q"]
        begun = time.process_time()
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
        over = time.process_time()
    at = dict(marks)
    # The last event of a round is the final evaluation's.
    rounds = [moment for kind, moment in marks if kind == "round"][:-1]
    return {
        "prepared": at["prepared"] - begun,
        "round": statistics.median(np.diff(rounds).tolist()),
        "evaluation": at["tested"] - rounds[-1],
        "files": over - at["tested"],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def measure_loop(size: int) -> dict[str, float]:
    """Return CPU seconds of a round and of the final evaluation of a loop that trains the same network by hand."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        asked = experiment("parameters", size, Path(folder))
    width, batch = asked["model"]["hidden"][0], asked["training"]["batch_size"]
    sites, columns, rows = asked["sites"]["partition"]["sites"], 100, 64
    network = nn.Sequential(
        nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
    )
    data = [(torch.randn(rows, columns), torch.randint(2, (rows,))) for _ in range(sites)]
    parts = [round(share * rows) for share in (0.7, 0.15)]
    parts.append(rows - sum(parts))
    split = [[list(zip(*(tensor.split(parts) for tensor in site), strict=True))] for site in data]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    marks = [time.process_time()]
    for _ in range(asked["rounds"]):
        total = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for ((train, validation, _),) in split:
            network.load_state_dict(state)
            with torch.no_grad():
                functional.cross_entropy(network(validation[0]), validation[1])
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
            for inputs, labels in zip(*(tensor.split(batch) for tensor in train), strict=True):
                optimizer.zero_grad()
                functional.cross_entropy(network(inputs), labels).backward()
                optimizer.step()
            for name, tensor in network.state_dict().items():
                total[name].add_(tensor, alpha=1 / sites)
        state = total
        marks.append(time.process_time())
    network.load_state_dict(state)
    with torch.no_grad():
        for (parts_of_site,) in split:
            for inputs, labels in parts_of_site[1:]:
                functional.cross_entropy(network(inputs), labels)
    evaluation = time.process_time() - marks[-1]
    return {"round": statistics.median(np.diff(marks[1:]).tolist()), "evaluation": evaluation}


def growth(before: tuple[int, float] | None, size: int, cost: float) -> str:
    """Return how a cost grew, as a power of the size; nothing where it is too small to tell."""
    if before is None or min(before[1], cost) < 0.02:
        return ""
    return f" ({math.log(cost / before[1]) / math.log(size / before[0]):.2f})"


def of_process(axis: str, size: int) -> dict[str, float]:
    """Measure one size in a process of its own."""
    command = [sys.executable, __file__, "--one", axis, str(size)]
    # With it Python would compile the package anew in each process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{axis} {size} failed:\n{done.stderr[-2000:]}")
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def measured(axis: str, sizes: list[int], repeats: int) -> dict[int, dict[str, float]]:
    """Return the median cost of each size over so many processes, in turns, so that load meets all sizes alike."""
    costs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            cost = of_process(axis, size)
            if axis == "parameters":
                cost |= {f"loop's {phase}": seconds for phase, seconds in of_process("loop", size).items()}
            costs[size].append(cost)
            print(axis, size, {phase: round(value, 3) for phase, value in cost.items()}, file=sys.stderr, flush=True)
    return {
        size: {phase: statistics.median(cost[phase] for cost in of_size) for phase in of_size[0]}
        for size, of_size in costs.items()
    }


def main() -> None:
    """Parse the command line, measure each size, print a table for each axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=AXES, default=list(AXES))
    parser.add_argument("--largest", type=int, help="leave larger sizes out")
    parser.add_argument("--repeats", type=int, default=1, help="processes of each size, of which the median counts")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        axis, size = given.one[0], int(given.one[1])
        print(json.dumps(measure_loop(size) if axis == "loop" else measure(axis, size)))
        return
    for axis in given.only:
        rows: list[list[str]] = []
        before: dict[str, tuple[int, float]] = {}
        sizes = [size for size in AXES[axis] if given.largest is None or size <= given.largest]
        for size, cost in measured(axis, sizes, given.repeats).items():
            phases = [phase for phase in cost if phase != "memory"]
            cells = [f"{cost[phase]:.3f}{growth(before.get(phase), size, cost[phase])}" for phase in phases]
            before = {phase: (size, cost[phase]) for phase in phases}
            rows.append([f"{size:,}", *cells, f"{cost['memory']:.0f}"])
        print(f"\n{axis}: {WHAT[axis]} (load {os.getloadavg()[0]:.0f})\n")
        header = [axis, "prepared", "a round", "final evaluation", "result and files"]
        header += ["a loop's round", "a loop's evaluation"] if axis == "parameters" else []
        header.append("peak memory, MB")
        print(table(header, rows), flush=True)


if __name__ == "__main__":
    main()
