"""What overlapping rounds (`pipeline: 1`) cost in accuracy, and what they save in time where the way is long.

    python benchmarks/pipeline.py                 accuracy, in this process
    python benchmarks/network.py --kinds empty ours "ours, pipeline" "plain FedAvg"      seconds, on real nodes

scikit-learn's tables at five sites with skewed labels (Dirichlet 0.5), an MLP, Adam at the sites, three partitions.
Each experiment is run with and without, all else the same; nothing was tuned. Printed are the best pooled validation
accuracy in so many rounds, and of each partition the first round within 1 % of what both reach.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from common import table

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.experiment import Experiment

SEEDS = (1, 2, 3)
TABLES = {"digits": 25, "breast_cancer": 10}
STEPS = (5, 25, 100)
OUTER = {
    "mean": {},
    "outer Nesterov": {"server": {"kind": "sgd", "lr": 0.7, "momentum": 0.9, "nesterov": True}},
    "mean, server rate 0.5": {"server": {"kind": "sgd", "lr": 0.5}},
}


def experiment(source: str, seed: int, steps: int, outer: str, pipeline: int) -> dict[str, Any]:
    """Return the experiment."""
    return {
        "name": "pipeline",
        "seed": seed,
        "sites": {
            "source": f"builtin:{source}",
            "partition": {"kind": "dirichlet", "sites": 5, "alpha": 0.5, "minimum_rows": 40},
        },
        "data": {"target": "target"},
        "model": {"kind": "mlp", "hidden": [64]},
        "rounds": TABLES[source],
        "training": {"local_steps": steps, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 0.001}},
        "strategy": {"kind": "fedavg", **OUTER[outer]},
        "stopping": {"patience": None},
        "pipeline": pipeline,
    }


def main() -> None:
    """Run every combination with every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    chosen = parser.parse_args()
    lines = []
    for source in chosen.tables:
        for steps in chosen.steps:
            for outer in OUTER:
                best: dict[int, list[float]] = {0: [], 1: []}
                reached: dict[int, list[int]] = {0: [], 1: []}
                for seed in SEEDS:
                    histories = {}
                    for pipeline in (0, 1):
                        asked = Experiment.parse(experiment(source, seed, steps, outer, pipeline))
                        result = run(local_federation(asked, tables_of(asked, Path()), way="fast"), asked)
                        histories[pipeline] = result["history"]["validation_accuracy"]
                        best[pipeline].append(max(histories[pipeline]))
                    wanted = min(max(values) for values in histories.values()) - 0.01
                    for pipeline, values in histories.items():
                        reached[pipeline].append(next(at for at, value in enumerate(values, 1) if value >= wanted))
                lines.append(
                    [
                        source,
                        steps,
                        outer,
                        *(f"{statistics.mean(best[pipeline]):.3f}" for pipeline in (0, 1)),
                        *(", ".join(map(str, reached[pipeline])) for pipeline in (0, 1)),
                    ]
                )
                print(*lines[-1], sep=" | ", flush=True)
    header = [
        "table",
        "local steps",
        "server",
        "best, one after the other",
        "best, pipeline",
        "rounds",
        "rounds, pipeline",
    ]
    print(table(header, lines))


if __name__ == "__main__":
    main()
