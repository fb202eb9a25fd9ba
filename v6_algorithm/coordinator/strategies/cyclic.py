"""Cyclic weight transfer: the model visits the sites, and nothing is averaged."""

from __future__ import annotations

from collections.abc import Sequence

from v6_algorithm import seeding
from v6_algorithm.coordinator.strategies.pipeline import FedAvg


class Cyclic(FedAvg):
    """Cyclic weight transfer: in each round the model visits one site after another, and is trained at each.

    No average, so sites may differ in the number of their rows at will; but the model remembers the last site best,
    and a round takes as long as all sites together. A site that gives no model is passed over.

    References
    ----------
    Chang et al., Distributed deep learning networks among institutions for medical imaging, JAMIA 2018.
    """

    def turns(self, number: int, sites: Sequence[str]) -> list[list[str]]:
        """Return one site a turn, by name or drawn anew each round."""
        order = list(sites)
        if self.section.order == "random":
            generator = seeding.numpy_generator(self.experiment.seed, "turns", number)
            order = [order[index] for index in generator.permutation(len(order))]
        return [[site] for site in order]
