"""Many sites on a local Ray cluster against one process: the same numbers, and what it costs.

    python benchmarks/ray_sites.py                       # 1,000 sites, 2 workers
    python benchmarks/ray_sites.py --sites 100 --workers 4

Each site has 30 rows of noise with a signal. Both ways train one local epoch a round, `--exact`: the parameters, the
history and the metrics must be equal bit for bit, or the command fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import numpy as np
import pandas as pd

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, ray_federation
from v6_algorithm.experiment import Experiment

SAME = ("history", "site_history", "metrics", "sites", "parameters", "best_round")


def tables_of(sites: int) -> dict[str, TableSource]:
    """Make each site's rows: eight columns, two of which tell the class."""
    tables = {}
    for number in range(sites):
        generator = np.random.default_rng(number)
        values = generator.standard_normal((30, 8))
        frame = pd.DataFrame(values, columns=[f"x{column}" for column in range(8)])
        frame["y"] = (values[:, 0] - values[:, 1] + generator.standard_normal(30) > 0).astype(int)
        tables[f"s{number:05d}"] = TableSource(frame=frame)
    return tables


def main() -> None:
    """Run both ways, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # Workers import what this process imports.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    experiment = Experiment.parse(
        {
            "name": "ray",
            "data": {"target": "y"},
            "rounds": given.rounds,
            "model": {"kind": "mlp", "hidden": [16]},
            "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 8},
            "output": {"model": "last"},
        }
    )
    tables = tables_of(given.sites)
    results: dict[str, Any] = {}
    print("| engine | workers | begun, s | run, s | a round, s | AUROC |")
    print("|---" * 6 + "|")
    for name in ("local", "ray"):
        start = time.perf_counter()
        federation: Any = (
            ray_federation(experiment, tables, way="exact", workers=given.workers)
            if name == "ray"
            else local_federation(experiment, tables, way="exact")
        )
        begun = time.perf_counter()
        result = results[name] = run(federation, experiment)
        end = time.perf_counter()
        federation.close()
        rounds = [entry["round_s"] for entry in result["timing"]["rounds"] if entry["call"] == "train"]
        print(
            f"| {name} | {result['engine'].get('workers', 1)} | {begun - start:.1f} | {end - begun:.1f} | "
            f"{sorted(rounds)[len(rounds) // 2]:.2f} | {result['metrics']['test']['pooled']['auroc']:.4f} |",
            flush=True,
        )
    different = [key for key in SAME if results["local"][key] != results["ray"][key]]
    if different:
        raise SystemExit(f"not the same: {', '.join(different)}")
    print(f"{given.sites} sites: {', '.join(SAME)} are equal bit for bit")


if __name__ == "__main__":
    main()
