"""What the robust rules share: how many sites each needs, slices of coordinates, distances and weighted sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from v6_algorithm.errors import TooFewSitesError
from v6_algorithm.experiment.strategy.combine import MINIMUM

Updates = Tensor | Sequence[Tensor]

# Coordinates that are in memory as float64 at a time: 2 MB a site.
SLICE = 2**18


def require_sites(rule: str, sites: int, malicious: int) -> None:
    """Raise TooFewSitesError when `sites` updates are too few for this rule to bear `malicious` malicious ones."""
    factor, constant = MINIMUM[rule]
    needed = factor * malicious + constant
    if sites < needed:
        raise TooFewSitesError(
            f"{rule} needs at least {needed} sites ({factor}f + {constant}, f = {malicious} malicious), given: {sites}"
        )


def by_slices(updates: Updates, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a rule that treats each coordinate by itself, (sites, k) to (k,), to a slice of coordinates at a time."""
    result = torch.empty(len(updates[0]), dtype=torch.float64)
    for start in range(0, len(result), SLICE):
        rows = [update[start : start + SLICE].double() for update in updates]
        result[start : start + SLICE] = rule(torch.stack(rows))
    return result


def squared_distance(first: Tensor, second: Tensor) -> float:
    """Return the squared Euclidean distance of two vectors, in float64 and the same whichever comes first.

    From differences: by the squared norms and the inner product, nearby vectors come out at a negative distance.
    """
    slices = zip(first.split(SLICE), second.split(SLICE), strict=True)
    return sum(float((left.double() - right.double()).square().sum()) for left, right in slices)


def weighted_sum(updates: Updates, weights: Tensor) -> Tensor:
    """Return the sum of the updates with these weights: (numbers,), float64."""
    return by_slices(updates, lambda rows: (rows * weights.unsqueeze(1)).sum(dim=0))


def weights_for(updates: Updates, weights: Tensor | None) -> Tensor:
    """Return the weights in float64, or equal ones; raises ValueError unless each is >= 0 and one is larger."""
    if weights is None:
        return torch.ones(len(updates), dtype=torch.float64)
    if len(weights) != len(updates) or bool((weights < 0).any()) or not float(weights.sum()) > 0:
        raise ValueError("one weight per site is needed, none negative and not all zero")
    return weights.double()
