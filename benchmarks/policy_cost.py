"""What a node's preset costs: the same experiments under trusted, standard and strict, over seeds; prints a table.

Run: OMP_NUM_THREADS=1 python benchmarks/policy_cost.py [SEEDS [NAME …]], NAME the beginning of an experiment's.
Splits differ between the presets, for standard mixes a secret of the node into them: means over seeds are compared,
beside the standard error of their difference. Bytes are those from all sites in the rounds of one run. Under strict
the owner has approved the experiment, and each site has a ledger.

    python benchmarks/policy_cost.py --rules [FIRST] LAST    rules apart from splits, of robust scaling: seeds to LAST

There trusted and standard nodes have the same secret of the folds, and so the same splits; and trusted ones two others.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from attacks_on_models import rules

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.policy import Policy

PRESETS = ("trusted", "standard", "strict")
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


# Metrics that are compared, and the pairs of nodes: what the second changes.
METRICS = ("accuracy", "auroc", "loss")
PAIRS = (
    ("trusted, secret 1", "standard, secret 1"),
    ("trusted, secret 2", "standard, secret 2"),
    ("trusted, secret 1", "trusted, secret 1, cells of 20 rows"),
    ("trusted", "trusted, secret 1"),
    ("trusted", "trusted, secret 2"),
)


def rules_apart(seeds: Iterable[int], name: str = "breast cancer, MLP, robust scaling") -> None:
    """Print by how much rules alone, and splits alone, move the pooled test metrics of one experiment."""
    gaps: dict[tuple[str, str, str], list[float]] = {(*pair, metric): [] for pair in PAIRS for metric in METRICS}
    for seed in seeds:
        experiment = Experiment.parse({**EXPERIMENTS[name], "name": "cost", "seed": seed})
        trusted, secrets = Policy.of("trusted"), {1: f"{seed + 1:064x}", 2: f"{seed + 1001:064x}"}
        nodes = {"trusted": trusted}
        for number, secret in secrets.items():
            nodes[f"trusted, secret {number}"] = replace(trusted, secret_folds=True, folds_secret=secret)
            nodes[f"standard, secret {number}"] = Policy.of("standard", folds_secret=secret)
        nodes["trusted, secret 1, cells of 20 rows"] = replace(nodes["trusted, secret 1"], minimum_cell=20)
        metrics = {}
        for node, policy in nodes.items():
            federation = local_federation(experiment, tables_of(experiment, Path()), policy, way="wire")
            metrics[node] = run(federation, experiment)["metrics"]["test"]["pooled"]
        for first, second, metric in gaps:
            gaps[first, second, metric].append(metrics[second][metric] - metrics[first][metric])
    print("| of | to | metric | difference | equal to the last bit |\n|---|---|---|---|---|")
    for (first, second, metric), found in gaps.items():
        error = statistics.stdev(found) / len(found) ** 0.5
        equal = sum(gap == 0 for gap in found)
        print(
            f"| {first} | {second} | {metric} | {statistics.mean(found):+.4f} ± {error:.4f} | {equal} of {len(found)} |"
        )


def measure(content: dict, preset: str, seed: int) -> tuple[dict, float, int]:
    """Return pooled test metrics, seconds and bytes from the sites of one run."""
    experiment = Experiment.parse({**content, "name": "cost", "seed": seed})
    tables = tables_of(experiment, Path())
    start = time.perf_counter()
    federation = local_federation(experiment, tables, rules(preset, experiment), way="wire")
    result = run(federation, experiment)
    told = sum(sum(call["bytes_received"].values()) for call in result["timing"]["rounds"])
    return result["metrics"]["test"]["pooled"], time.perf_counter() - start, told


def main(seeds: int, names: tuple[str, ...] = ()) -> None:
    """Print the table, of experiments whose names begin so."""
    print(f"| experiment | metric | {' | '.join(PRESETS)} | standard - trusted | seconds | kB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, content in EXPERIMENTS.items():
        if names and not name.startswith(names):
            continue
        runs: dict[str, list] = {preset: [] for preset in PRESETS}
        for seed in range(seeds):  # interleaved: the machine is shared
            for preset in PRESETS:
                runs[preset].append(measure(content, preset, seed))
        seconds = [statistics.median(second for _, second, _ in runs[preset]) for preset in PRESETS]
        told = [statistics.mean(number for _, _, number in runs[preset]) / 1000 for preset in PRESETS]
        for metric in ("auroc", "accuracy", "loss", "r2"):
            values = {preset: [metrics.get(metric) for metrics, _, _ in runs[preset]] for preset in PRESETS}
            if None in values["trusted"]:
                continue
            gaps = [b - a for a, b in zip(values["trusted"], values["standard"], strict=True)]
            error = statistics.stdev(gaps) / seeds**0.5
            means = [f"{statistics.mean(values[preset]):.4f}" for preset in PRESETS]
            print(
                f"| {name} | {metric} | {' | '.join(means)} | {statistics.mean(gaps):+.4f} ± {error:.4f} "
                f"| {', '.join(f'{second:.2f}' for second in seconds)} | {', '.join(f'{size:.0f}' for size in told)} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rules"]:
        rules_apart(range(*map(int, sys.argv[2:4])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, tuple(sys.argv[2:]))
