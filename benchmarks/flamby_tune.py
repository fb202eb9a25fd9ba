"""The best strategy that `tune` finds on FLamby's Fed-Heart-Disease: chosen on validation rows, then tested.

    python benchmarks/flamby_tune.py

FLamby's split has no validation rows, so a fifth of each site's training rows is cut off to choose by, with each seed
another; test rows are not among what is tuned on. The strategy with the lowest mean validation loss over the seeds then
trains on all training rows, and is measured on the test rows once for each seed. Published, pooled model: 0.795.
"""

import statistics

from common import table, tables, train
from flamby_heart import SEEDS, SITES, experiment, mean_sd, validation_from_train

from v6_algorithm.coordinator.tuning import Tuning
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

SPACE = {
    "strategy": [
        "fedavg",
        {"kind": "fedprox", "mu": 0.1},
        "scaffold",
        "fednova",
        {"kind": "fedavgm", "momentum": 0.5},
        {"kind": "fedadam", "lr": 0.01, "beta2": 0.999},
        {"kind": "fedyogi", "lr": 0.01, "beta2": 0.999},
        {"kind": "fedadagrad", "lr": 0.1},
    ],
    "training.optimizer.lr": [0.001, 0.003, 0.01, 0.03],
}
SHOWN = 8


def main() -> None:
    """Tune with every seed, choose over all of them, and test the choice."""
    sites = tables("flamby_heart", SITES)
    searches = []
    for seed in SEEDS:
        cut = {name: validation_from_train(source, seed, name) for name, source in sites.items()}
        content = experiment(seed, 0.01, "federation") | {"tune": {"space": SPACE, "metric": "loss"}}
        search = Tuning(Experiment.parse(content))
        federation = local_federation(Experiment.parse(content), cut)
        search.search(lambda trial, federation=federation: federation, lambda event: None)
        searches.append(search)
    scores = {
        trial.number: statistics.mean(search.trials[trial.number - 1].scores[0] for search in searches)
        for trial in searches[0].trials
    }
    ranked = sorted(scores, key=scores.__getitem__)
    settings = {trial.number: trial.to_json() for trial in searches[0].trials}
    rows = [[settings[number]["text"], f"{scores[number]:.4f}"] for number in ranked[:SHOWN]]
    print(table(["setting", "validation loss, mean over seeds 42-46"], rows))
    print()
    best = searches[0].trials[ranked[0] - 1].experiment.resolved()
    results = [train(best | {"seed": seed}, sites) for seed in SEEDS]
    rows = [
        [
            f"chosen: {settings[ranked[0]]['text']}",
            mean_sd([one["metrics"]["test"]["pooled"]["accuracy"] for one in results]),
        ],
        ["FLamby's pooled model", "0.795 ± 0.003"],
    ]
    print(table(["pooled test accuracy, seeds 42-46", ""], rows))


if __name__ == "__main__":
    main()
