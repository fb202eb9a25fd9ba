"""How the sites' replies become the next model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from v6_algorithm.experiment import Strategy

if TYPE_CHECKING:
    from v6_algorithm.strategies.averaging import WeightedMean
    from v6_algorithm.wire import StateSpec


class FedAvg:
    """Federated averaging: the mean of the sites' models, weighted by their training rows or uniformly.

    With one full-batch step of plain gradient descent at each site, and weights by rows, a round is one step of
    gradient descent on the pooled rows (FedSGD). Many local steps save rounds; sites with different data then
    drift apart, and the mean of their models is no longer a step on the mean of their losses.

    References
    ----------
    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._weighting = strategy.weighting

    def begin(self, spec: StateSpec) -> WeightedMean:
        """Start a round's aggregate."""
        from v6_algorithm.strategies.averaging import WeightedMean

        return WeightedMean(spec)

    def weight(self, rows: int) -> float:
        """Return the weight of a site with this many training rows."""
        return float(rows if self._weighting == "samples" else rows > 0)


def create_strategy(strategy: Strategy) -> FedAvg:
    """Build the experiment's strategy."""
    return FedAvg(strategy)
