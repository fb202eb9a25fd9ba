"""FLamby's strategies on its Fed-Heart-Disease, at its constants: seeds 42 to 46, pooled test accuracy.

    python benchmarks/flamby_strategies.py

The protocol is that of flamby_heart.py: its own split, each site scaled by its own training rows, the pooled test rows
by the pooled training rows. FLamby's learning rates are from its configuration for this data set.
"""

from common import table, tables, train
from flamby_heart import SEEDS, SITES, accuracy_with_pooled_scaling, experiment, mean_sd

_ADAPTIVE = {"beta1": 0.9, "beta2": 0.999, "tau": 1e-8}
# Name, FLamby's figure, learning rate of the sites, strategy.
STRATEGIES = [
    ("FedAvg", 0.748, 0.001, {"kind": "fedavg"}),
    ("FedProx", 0.748, 0.001, {"kind": "fedprox", "mu": 0.01}),
    ("SCAFFOLD", 0.748, 0.001, {"kind": "scaffold"}),
    ("FedAdam", 0.779, 0.01, {"kind": "fedadam", "lr": 0.01, **_ADAPTIVE}),
    ("FedYogi", 0.779, 0.003162, {"kind": "fedyogi", "lr": 0.01, **_ADAPTIVE}),
    ("FedAdagrad", 0.779, 0.003162, {"kind": "fedadagrad", "lr": 0.316228, **_ADAPTIVE}),
]


def main() -> None:
    """Run every strategy with every seed."""
    sites = tables("flamby_heart", SITES)
    rows = []
    for name, published, lr, strategy in STRATEGIES:
        results = [train(experiment(seed, lr, "site") | {"strategy": strategy}, sites) for seed in SEEDS]
        found = [accuracy_with_pooled_scaling(result, sites) for result in results]
        rows.append([name, f"{published:.3f}", mean_sd(found), f"{sum(found) / len(found) - published:+.3f}"])
    print(table(["pooled test accuracy, seeds 42-46", "FLamby", "v6_algorithm", "difference"], rows))


if __name__ == "__main__":
    main()
