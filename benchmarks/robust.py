"""One of the sites sends wrong updates: test accuracy of the mean and of each robust rule.

    python benchmarks/robust.py

Digits (1797 images of 8 x 8, ten classes) cut into 5 sites, and into 7 for bulyan, which needs that many to bear one;
a small network, 20 rounds, mean and standard deviation over the seeds. From the second round on the last site sends
its update turned round and five times as long ("flipped"), or numbers drawn from a standard normal distribution in
its place ("random"). Test rows are those of all sites; the attacker's are as good as the others'.
"""

import argparse
import statistics
from pathlib import Path

import torch
from common import table

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.strategy.combine import MINIMUM

LENGTH = 5.0
ATTACKS = ("none", "flipped", "random")


class Attacked:
    """A federation of which one site's replies are replaced."""

    def __init__(self, federation, attack: str) -> None:
        self._federation = federation
        self._attack = attack
        self._bad = federation.sites()[-1].name

    def sites(self):
        """Return the sites."""
        return self._federation.sites()

    def call(self, method, requests, *, deadline_s):
        """Pass the call on, and change what the bad site answers to training."""
        replies = self._federation.call(method, requests, deadline_s=deadline_s)

        def arrivals():
            for site, reply in replies:
                if method == "RPC_train" and site == self._bad and self._attack != "none":
                    for item, asked in zip(reply["folds"], requests[site]["folds"], strict=True):
                        if asked["parameters"] is not None:
                            item["parameters"] = self._instead(item["parameters"], asked["parameters"], reply["round"])
                yield Arrival(site, wire.to_text(reply))

        return Replies(requests, arrivals(), {})

    def _instead(self, trained: str, sent: str, number: int) -> str:
        model, before = wire.unpack(trained), wire.unpack(sent)
        generator = torch.Generator().manual_seed(number)
        changed = {}
        for name, tensor in model.items():
            update = -LENGTH * (tensor - before[name])
            if self._attack == "random":
                update = torch.randn(tensor.shape, generator=generator)
            changed[name] = before[name] + update
        return wire.pack(changed)


def accuracy(combine: str, attack: str, sites: int, alpha: float, seed: int) -> float:
    """Run one experiment, and return the accuracy on the test rows of all sites."""
    experiment = Experiment.parse(
        {
            "seed": seed,
            "sites": {"source": "builtin:digits", "partition": {"kind": "dirichlet", "sites": sites, "alpha": alpha}},
            "data": {"target": "target"},
            "model": {"kind": "mlp", "hidden": [32]},
            "rounds": 20,
            "training": {"local_epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.1}},
            "strategy": {"kind": "fedavg", "combine": combine},
            "stopping": {"patience": None},
            "output": {"model": "last"},
        }
    )
    federation = Attacked(local_federation(experiment, tables_of(experiment, Path())), attack)
    return run(federation, experiment)["metrics"]["test"]["pooled"]["accuracy"]


def main() -> None:
    """Run all of them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--alpha", type=float, default=1.0, help="of the Dirichlet distribution of the labels")
    arguments = parser.parse_args()
    rows = []
    for sites, rules in ((5, ["mean", *(rule for rule in MINIMUM if rule != "bulyan")]), (7, ["mean", "bulyan"])):
        for rule in rules:
            cells = []
            for attack in ATTACKS:
                found = [accuracy(rule, attack, sites, arguments.alpha, seed) for seed in range(arguments.seeds)]
                cells.append(f"{statistics.mean(found):.3f} ± {statistics.pstdev(found):.3f}")
            rows.append([sites, rule, *cells])
            print(*rows[-1], flush=True)
    print(table(["sites", "combine", *ATTACKS], rows))


if __name__ == "__main__":
    main()
