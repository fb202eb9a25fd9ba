"""What a node's preset costs: the same experiments under trusted and standard, over seeds; prints a table.

Run: OMP_NUM_THREADS=1 python benchmarks/policy_cost.py [SEEDS]. Splits differ between the presets, for standard mixes
a secret of the node into them: means over seeds are compared, beside the standard error of their difference.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulate import local_federation, own_policy, tables_of
from v6_algorithm.experiment import Experiment

PARTITION = {"kind": "dirichlet", "sites": 3, "alpha": 5.0}
EXPERIMENTS = {
    "breast cancer, MLP, 10 rounds": {
        "sites": {"source": "builtin:breast_cancer", "partition": PARTITION},
        "data": {"target": "target"},
        "rounds": 10,
    },
    "breast cancer, MLP, robust scaling": {
        "sites": {"source": "builtin:breast_cancer", "partition": PARTITION},
        "data": {"target": "target", "scaling": "robust"},
        "rounds": 10,
    },
    "breast cancer, 5 folds": {
        "sites": {"source": "builtin:breast_cancer", "partition": PARTITION},
        "data": {"target": "target"},
        "rounds": 10,
        "split": {"kind": "kfold", "folds": 5},
    },
    "diabetes, linear": {
        "sites": {"source": "builtin:diabetes", "partition": {"kind": "iid", "sites": 3}},
        "data": {"target": "target", "target_scaling": "standard"},
        "problem": "regression",
        "model": "linear",
        "rounds": 20,
    },
}


def measure(content: dict, preset: str, seed: int) -> tuple[dict, float]:
    """Return pooled test metrics and seconds of one run."""
    experiment = Experiment.parse({**content, "name": "cost", "seed": seed})
    tables = tables_of(experiment, Path())
    start = time.perf_counter()
    result = run(local_federation(experiment, tables, own_policy(preset)), experiment)
    return result["metrics"]["test"]["pooled"], time.perf_counter() - start


def main(seeds: int) -> None:
    print("| experiment | metric | trusted | standard | difference ± its standard error | seconds |")
    print("|---|---|---|---|---|---|")
    for name, content in EXPERIMENTS.items():
        found = {
            preset: [measure(content, preset, seed) for seed in range(seeds)] for preset in ("trusted", "standard")
        }
        seconds = [statistics.mean(second for _, second in found[preset]) for preset in found]
        for metric in ("auroc", "accuracy", "loss", "r2"):
            values = {preset: [metrics.get(metric) for metrics, _ in runs] for preset, runs in found.items()}
            if None in values["trusted"]:
                continue
            gaps = [b - a for a, b in zip(values["trusted"], values["standard"], strict=True)]
            error = statistics.stdev(gaps) / seeds**0.5
            means = [statistics.mean(values[preset]) for preset in values]
            print(
                f"| {name} | {metric} | {means[0]:.4f} | {means[1]:.4f} | {means[1] - means[0]:+.4f} ± {error:.4f} "
                f"| {seconds[0]:.2f}, {seconds[1]:.2f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
