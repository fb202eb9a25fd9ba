"""Fewer rounds by many local steps: the mean of the models, against an outer optimiser on it (DiLoCo).

    python benchmarks/local_steps.py

scikit-learn's 1,797 digits at five sites with skewed labels (Dirichlet 0.5), an MLP, AdamW at the sites, three
partitions. Nothing was tuned: the outer step is DiLoCo's, SGD with Nesterov momentum 0.9 and rate 0.7. For each number
of local steps: the first round whose model has 95 % of the pooled validation rows right, and the best in 30 rounds.

Douillard et al., DiLoCo: Distributed Low-Communication Training of Language Models, 2023.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import table, train

from v6_algorithm.engines.simulation.simulate import tables_of
from v6_algorithm.experiment import Experiment

SEEDS = (1, 2, 3)
ROUNDS, WANTED = 30, 0.95
STEPS = (5, 25, 100)
OUTER: dict[str, dict[str, Any]] = {
    "mean": {},
    "outer Nesterov": {"server": {"kind": "sgd", "lr": 0.7, "momentum": 0.9, "nesterov": True}},
    "outer Nesterov, momentum 0.5": {"server": {"kind": "sgd", "lr": 0.7, "momentum": 0.5, "nesterov": True}},
}


def experiment(seed: int, steps: int, outer: str) -> dict[str, Any]:
    """Return the experiment of a number of local steps and an outer optimiser."""
    return {
        "name": "local-steps",
        "seed": seed,
        "sites": {
            "source": "builtin:digits",
            "partition": {"kind": "dirichlet", "sites": 5, "alpha": 0.5, "minimum_rows": 40},
        },
        "data": {"target": "target"},
        "model": {"kind": "mlp", "hidden": [64]},
        "rounds": ROUNDS,
        "training": {"local_steps": steps, "batch_size": 32, "optimizer": {"kind": "adamw", "lr": 0.001}},
        "strategy": {"kind": "fedavg", **OUTER[outer]},
        "stopping": {"patience": None},
    }


def main() -> None:
    """Run every combination with every seed."""
    rows = []
    for steps in STEPS:
        for outer in OUTER:
            reached, best = [], []
            for seed in SEEDS:
                content = experiment(seed, steps, outer)
                found = train(content, tables_of(Experiment.parse(content), Path()))["history"]["validation_accuracy"]
                reached.append(next((at for at, value in enumerate(found, start=1) if value >= WANTED), None))
                best.append(max(found))
            shown = ", ".join(str(number or f"not in {ROUNDS}") for number in reached)
            rows.append([steps, outer, shown, f"{sum(best) / len(best):.3f}"])
            print(f"{steps} steps, {outer}: {shown}; {best}", flush=True)
    print(table(["local steps", "server", f"rounds to {WANTED:.0%}, three seeds", "best accuracy, mean"], rows))


if __name__ == "__main__":
    main()
