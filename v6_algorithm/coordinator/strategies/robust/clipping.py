"""Robust rules that shorten what is far away: norm clipping and centred clipping.

What all rules take, return and raise is in the docstring of `robust`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.robust.coordinates import median_of_rows
from v6_algorithm.coordinator.strategies.robust.updates import (
    Updates,
    require_sites,
    squared_distance,
    weighted_sum,
    weights_for,
)


def centred_clipping(
    updates: Updates,
    radius: float | None = None,
    centre: Tensor | None = None,
    weights: Tensor | None = None,
    malicious: int = 0,
    *,
    iterations: int = 1,
) -> Tensor:
    """Return the centre moved by the mean of the sites' differences from it, none longer than `radius`.

    v <- v + sum_s w_s (x_s - v) min(1, radius / ||x_s - v||). One site moves the result by no more than its weight
    times the radius an iteration, whatever it sends. The centre is best the last round's aggregate; and a radius
    that many honest sites exceed slows training down.

    Parameters
    ----------
    radius
        In units of the updates; if absent, in each iteration the median of the sites' distances from the centre, which
        the malicious cannot raise beyond the honest ones' while they are fewer than half.
    centre
        (numbers,), where to start from; zero if absent.
    malicious
        Sites to bear; 2f + 1 sites are needed.
    iterations
        How often the centre moves.

    References
    ----------
    Karimireddy, He, Jaggi, Learning from History for Byzantine Robust Optimization, ICML 2021, there with equal
    weights and a given radius.
    """
    require_sites("centred_clipping", len(updates), malicious)
    weights = weights_for(updates, weights)
    point = torch.zeros(len(updates[0]), dtype=torch.float64) if centre is None else centre.double()
    for _ in range(iterations):
        distances = torch.tensor([squared_distance(update, point) for update in updates], dtype=torch.float64).sqrt()
        limit = float(median_of_rows(distances)) if radius is None else radius
        # A site at the centre moves nothing: no division by its distance.
        pull = weights / weights.sum() * (limit / distances.clamp(min=limit) if limit > 0 else distances.new_zeros(1))
        point = (1 - pull.sum()) * point + weighted_sum(updates, pull)
    return point


def norm_clipping(
    updates: Updates, bound: float | None = None, weights: Tensor | None = None, malicious: int = 0
) -> Tensor:
    """Return the weighted mean of the updates, each shortened to a norm of at most `bound`.

    This is centred clipping about zero, so the updates must be differences from the model that was sent. It bears
    large updates, not small ones in a wrong direction.

    Parameters
    ----------
    bound
        Largest norm; if absent, the median of the sites' norms.
    malicious
        Sites to bear; 2f + 1 sites are needed.

    References
    ----------
    Sun et al., Can You Really Backdoor Federated Learning?, 2019.
    """
    require_sites("norm_clipping", len(updates), malicious)
    return centred_clipping(updates, bound, None, weights)
