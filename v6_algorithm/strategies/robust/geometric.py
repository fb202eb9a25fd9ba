"""The geometric median of the sites' updates: the point with the smallest sum of distances to them."""

from __future__ import annotations

import torch
from torch import Tensor

from v6_algorithm.strategies.robust.coordinates import coordinate_median
from v6_algorithm.strategies.robust.updates import (
    Updates,
    require_sites,
    squared_distance,
    weighted_sum,
    weights_for,
)


def geometric_median(
    updates: Updates,
    weights: Tensor | None = None,
    malicious: int = 0,
    *,
    smoothing: float = 1e-6,
    iterations: int = 100,
    tolerance: float = 1e-10,
) -> Tensor:
    """Return the geometric median by the smoothed Weiszfeld algorithm (RFA).

    It minimises the sum over sites of weight times distance. Each iteration is a weighted mean, with the weights
    divided by the distance to the point of before, but no less than `smoothing`. Half of the *weight* must be honest,
    so weighting by rows, as the literature does, trusts what a site says of its rows. Unlike RFA it starts from the
    median of each coordinate rather than the mean, which one site can put anywhere.

    Parameters
    ----------
    updates
        (sites, numbers) or that many vectors.
    weights
        (sites,), none negative; equal ones if absent.
    malicious
        Sites to bear; 2f + 1 sites are needed.
    smoothing
        Distance, in units of the updates, below which a site counts as this far away; the first iterations have more.
    iterations, tolerance
        It ends after so many iterations, or when one moves the point by no more than `tolerance` times the median of
        its distances from the sites.

    Returns
    -------
    Tensor
        (numbers,), float64.

    Raises
    ------
    TooFewSitesError, ValueError
        When there are too few sites, or the weights are not weights.

    References
    ----------
    Pillutla, Kakade, Harchaoui, Robust Aggregation for Federated Learning, IEEE TSP 2022.
    """
    require_sites("geometric_median", len(updates), malicious)
    weights = weights_for(updates, weights)
    point = coordinate_median(updates)
    for number in range(iterations):
        distances = _distances(updates, point)
        middle = float(distances.median())
        # A start at a site is one that the iteration hardly leaves, so at first whoever is near counts as further away.
        nearest = max(smoothing, middle / 2**number)
        pull = weights / distances.clamp(min=nearest)
        if not float(pull.sum()) > 0:
            # Every site is further away than float64 can tell.
            break
        moved = weighted_sum(updates, pull / pull.sum())
        step, point = squared_distance(moved, point) ** 0.5, moved
        if nearest == smoothing and step <= tolerance * middle:
            break
    return _or_site(updates, weights, point)


def _distances(updates: Updates, point: Tensor) -> Tensor:
    return torch.tensor([squared_distance(update, point) for update in updates], dtype=torch.float64).sqrt()


def _or_site(updates: Updates, weights: Tensor, point: Tensor) -> Tensor:
    """Return the site's update nearest to the point if it is the better minimum: the iteration only creeps up to it."""
    distances = _distances(updates, point)
    nearest = updates[int(distances.argmin())].double()
    total, at_site = float((weights * distances).sum()), float((weights * _distances(updates, nearest)).sum())
    return nearest if at_site < total * (1 - 1e-9) else point
