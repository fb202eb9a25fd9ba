"""Strategies for which no site should be left behind: a site whose loss is large gets a larger voice.

They need each site's loss of the model it received, which it measures on its training rows before it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import Combiner, State, WeightedMean
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.coordinator.strategies.reply import Reply

# A loss of 0 has no negative power.
_SMALLEST_LOSS = 1e-10


class QFedAvg(FedAvg):
    """q-FedAvg: it minimises the sum of the sites' losses to the power q + 1; `q: 0` is FedAvg of equal weights.

    With L = `lipschitz`, Fᵢ a site's loss at x and dᵢ = L(x − yᵢ): x ← x − Σ Fᵢ^q dᵢ / Σ (q Fᵢ^(q−1) ‖dᵢ‖² + L Fᵢ^q).
    Larger q, more equal sites, and often a worse mean.

    References
    ----------
    Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020.
    """

    needs_sent = needs_start_loss = True
    joins = True

    def weigh(self, reply: Reply) -> float:
        """Return F^q."""
        return float(self._loss(reply) ** self.section.q)

    @property
    def scales(self) -> bool:
        """True: `scale` looks at each update's length."""
        return True

    def scale(self, reply: Reply, length: float) -> float:
        """Return 1, and book the reply's part of the denominator."""
        q, large = self.section.q, self._lipschitz
        self._denominator += q * self._loss(reply) ** (q - 1) * (large * length) ** 2 + large * self._loss(reply) ** q
        return 1.0

    def step(self, combined: State) -> State:
        """Scale the mean update, which is that of FedAvg for q = 0."""
        total = sum(self.weigh(reply) for reply in self.seen)
        return super().step(self.moved(combined, lambda length: self._lipschitz * total / self._denominator))

    @property
    def _lipschitz(self) -> float:
        return float(self.section.lipschitz or 1 / self.experiment.training.optimizer.options()["lr"])

    def _loss(self, reply: Reply) -> float:
        return max(reply.start_loss or 0.0, _SMALLEST_LOSS)

    def _begin(self) -> None:
        super()._begin()
        self._denominator = 0.0


class AgnosticFL(FedAvg):
    """Agnostic federated learning: the sites' weights λ climb towards the mixture on which the model is worst.

    λ starts equal; after a round λᵢ ← λᵢ + ηFᵢ/F̄ with the loss Fᵢ at the model received, projected to the simplex. F̄ is
    the mean loss of the first round's sites: without it a target in grams would climb a thousand times as fast as one
    in kilograms. The model follows the mean by λ. One site with much noise can take all the weight; where none of a
    round's sites has any (with `participation.fraction`), they count the same, which is the nearest point of their
    simplex.

    References
    ----------
    Mohri et al., Agnostic Federated Learning, ICML 2019.
    """

    needs_start_loss = True
    joins = True
    # Site to λ, which stays through a round.
    _in_round: dict[str, float]

    def admit(self, rows: Mapping[str, float]) -> None:
        """Give who joins the weight of an equal share, which all others bear in proportion."""
        before = self.shares()
        super().admit(rows)
        new = len(self.rows) - len(before)
        left = 1 - new / len(self.rows)
        weights = [before[site] * left if site in before else 1 / len(self.rows) for site in self.rows]
        # The unit of the loss stays that of the first round.
        joined = {"weights": torch.tensor(weights, dtype=torch.float64)}
        self.kept["weights"] = self.kept.get("weights", {}) | joined

    def weigh(self, reply: Reply) -> float:
        """Return the site's λ."""
        if not self._in_round:
            self._in_round = self.shares()
        return self._in_round[reply.site]

    def shares(self) -> dict[str, float]:
        """Return each site's λ."""
        return dict(zip(self.rows, self._weights.tolist(), strict=True))

    def make_combiner(self) -> Combiner:
        """Return the mean by λ, or the plain mean of sites without any."""
        return _MeanOrEqual(self.make_mean(), self.make_mean())

    def step(self, combined: State) -> State:
        """Step as FedAvg does, and let the weights climb."""
        following, weights = super().step(combined), self._weights.clone()
        places = {site: place for place, site in enumerate(self.rows)}
        unit = self.kept.get("weights", {}).get("unit")
        if unit is None:
            losses = [reply.start_loss or 0.0 for reply in self.seen]
            mean = abs(sum(losses)) / len(losses)
            unit = torch.tensor(max(mean, _SMALLEST_LOSS), dtype=torch.float64)
        for reply in self.seen:
            weights[places[reply.site]] += self.section.lr * (reply.start_loss or 0.0) / float(unit)
        self.kept["weights"] = {"weights": project(weights), "unit": unit}
        return following

    def _begin(self) -> None:
        super()._begin()
        self._in_round = {}

    @property
    def _weights(self) -> Tensor:
        count = len(self.rows)
        start = {"weights": torch.full((count,), 1 / count, dtype=torch.float64)}
        return self.kept.get("weights", start)["weights"]


class _MeanOrEqual:
    """The mean by the weights given; of states whose weights are all 0, the mean that counts each the same."""

    def __init__(self, mean: WeightedMean, equal: WeightedMean) -> None:
        self._mean, self._equal = mean, equal
        self._has_weight = False
        self.takes_stacks = mean.takes_stacks

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Add one site's checked state with a weight >= 0."""
        self._has_weight = self._has_weight or weight > 0
        self._mean.add(state, weight)
        if not self._has_weight:
            self._equal.add(state, 1.0)

    def add_stack(
        self, stacks: Mapping[str, Tensor], names: Sequence[str], weights: Sequence[float], *update: Any
    ) -> None:
        """Add several sites' checked states; see `WeightedMean`."""
        self._has_weight = self._has_weight or any(weight > 0 for weight in weights)
        self._mean.add_stack(stacks, names, weights, *update)
        if not self._has_weight:
            self._equal.add_stack(stacks, names, [1.0] * len(weights), *update)

    def combined(self) -> State:
        """Return the mean in float64; raises ValueError when nothing was added."""
        return (self._mean if self._has_weight else self._equal).combined()


def project(point: Tensor) -> Tensor:
    """Return the nearest point, in Euclidean distance, whose numbers are >= 0 and add up to 1.

    References
    ----------
    Duchi et al., Efficient Projections onto the l1-Ball for Learning in High Dimensions, ICML 2008.
    """
    ordered = point.sort(descending=True).values
    counts = torch.arange(1, len(point) + 1, dtype=point.dtype)
    excess = (ordered.cumsum(0) - 1) / counts
    kept = (ordered > excess).nonzero()
    if not len(kept):
        # The first always is among them, but for rounding of numbers beside which 1 is nothing.
        return project(point - ordered[0])
    return (point - excess[int(kept.max())]).clamp(min=0)
