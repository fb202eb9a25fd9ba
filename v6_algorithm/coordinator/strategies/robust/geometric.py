"""The geometric median of the sites' updates: the point with the smallest sum of distances to them.

What all rules take, return and raise is in the docstring of `robust`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.robust.updates import (
    Updates,
    require_sites,
    squared_distance,
    weighted_sum,
    weights_for,
)

# Sums of distances, or points, that differ by less than this share are the same with other rounding.
_ROUNDING = 1e-12
# Further away than this is infinitely far, for its square is; among the sums of distances it must compare.
_FAR = 1e150


def geometric_median(
    updates: Updates,
    weights: Tensor | None = None,
    malicious: int = 0,
    *,
    closeness: float = 1e-9,
    iterations: int = 400,
    tolerance: float = 1e-10,
) -> Tensor:
    """Return the geometric median by the Weiszfeld algorithm, the aggregate of RFA.

    It minimises the sum over sites of weight times distance. Each iteration is the mean with the weights divided by
    the distances from the point of before. It begins at the best of the sites' updates, rather than at the mean,
    which one site can put anywhere; and it leaves a site only for something better, by Vardi and Zhang's step. RFA
    instead calls no distance smaller than a constant, and then creeps towards a minimum that is at a site.

    Half of the *weight* must be honest, so weighting by rows, as the literature does, trusts what a site says of its
    rows. Where several points are minimal, as between two sites, it is the mean of the sites that are.

    Parameters
    ----------
    malicious
        Sites to bear; 2f + 1 sites are needed.
    closeness
        Sites closer to the point than this share of the (weighted) median distance, or than rounding, count as being
        there.
    iterations, tolerance
        It ends after so many iterations, or when one moves the point by no more than `tolerance` times the median
        distance from the sites. Most need a few dozen; from sites that all but coincide, of which one is the best, the
        point moves away by a tenth of the distance an iteration, so that a hundred are too few.

    References
    ----------
    Pillutla, Kakade, Harchaoui, Robust Aggregation for Federated Learning, IEEE TSP 2022.
    Vardi, Zhang, The multivariate L1-median and associated data depth, PNAS 2000.
    """
    require_sites("geometric_median", len(updates), malicious)
    weights = weights_for(updates, weights)
    point = _best_site(updates, weights)
    for _ in range(iterations):
        distances = _distances(updates, point)
        middle = _weighted_median(distances, weights)
        # Where half of the weight sent the same, the median distance is nothing but the rounding of their mean.
        here = distances <= max(closeness * middle, _ROUNDING * float(point.norm()))
        pull = torch.where(here, 0.0, weights / distances)
        total, staying = float(pull.sum()), float(weights[here].sum())
        if not total > 0:
            # Every other site is at the point, or further away than float64 can tell.
            break
        moved = weighted_sum(updates, pull / total)
        leaving = total * squared_distance(moved, point) ** 0.5
        if staying >= leaving:
            break
        moved += (point - moved) * (staying / leaving)
        step, point = squared_distance(moved, point) ** 0.5, moved
        if step <= tolerance * middle:
            break
    return point


def _distances(updates: Updates, point: Tensor) -> Tensor:
    return torch.tensor([squared_distance(update, point) for update in updates], dtype=torch.float64).sqrt()


def _weighted_median(distances: Tensor, weights: Tensor) -> float:
    """Return the distance within which more than half of the weight is: small only where the minimum is close by."""
    order = distances.argsort()
    within = weights[order].cumsum(0)
    place = int(torch.searchsorted(within, within[-1] / 2, right=True))
    return float(distances[order][place])


def _best_site(updates: Updates, weights: Tensor) -> Tensor:
    """Return the update with the smallest sum of distances to the others; of several, their mean."""
    totals = torch.stack([(weights * _distances(updates, update).clamp(max=_FAR)).sum() for update in updates])
    best = totals <= totals.min() * (1 + _ROUNDING)
    return weighted_sum(updates, best.double() / best.sum())
