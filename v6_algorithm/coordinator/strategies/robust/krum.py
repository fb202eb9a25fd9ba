"""Robust rules that select whole updates by their distances from the others: krum, multi-krum and bulyan.

All count sites and know no weights. Of sites with equal scores the one whose update comes first in dictionary order
is taken, so that the choice hangs on the updates and never on the order of the sites.

What all rules take, return and raise is in the docstring of `robust`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.robust.coordinates import median_of_rows
from v6_algorithm.coordinator.strategies.robust.updates import SLICE, Updates, by_slices, require_sites


def krum(updates: Updates, malicious: int) -> Tensor:
    """Return the one update with the smallest score: the sum of its squared distances to its n - f - 2 nearest others.

    It is one site's update, so the other sites' data are not used in this round; `multi_krum` is the milder form.

    Parameters
    ----------
    malicious
        f; 2f + 3 sites are needed.

    References
    ----------
    Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, NeurIPS 2017.
    """
    require_sites("krum", len(updates), malicious)
    return updates[_ranked(updates, malicious)[0]].double()


def multi_krum(updates: Updates, malicious: int, *, keep: int | None = None) -> Tensor:
    """Return the mean of the `keep` updates with the smallest krum scores.

    Parameters
    ----------
    malicious
        f; 2f + 3 sites are needed.
    keep
        From 1, which is krum, to n - f; n - f - 2 if absent, the most that the proof allows.

    Raises
    ------
    TooFewSitesError, ValueError
        When there are too few sites, or `keep` is not within its bounds.

    References
    ----------
    Blanchard et al. 2017, as for `krum`; the default is that of El Mhamdi et al. 2018, as for `bulyan`.
    """
    require_sites("multi_krum", len(updates), malicious)
    most = len(updates) - malicious
    keep = most - 2 if keep is None else keep
    if not 1 <= keep <= most:
        raise ValueError(f"multi_krum: keep must be from 1 to {most} (sites less malicious), given: {keep}")
    return _mean(updates, _ranked(updates, malicious)[:keep])


def bulyan(updates: Updates, malicious: int) -> Tensor:
    """Return, of the n - 2f updates that krum selects one after another, a trimmed mean of each coordinate.

    Krum runs on what is left n - 2f times; when few are left, the score is over the nearest one. Then, of the
    selected values of each coordinate, the n - 4f closest to their median are averaged; of two equally close, the
    smaller comes first. Against krum alone, an update that is close to the others but for one coordinate gets
    through; here that coordinate is trimmed.

    Parameters
    ----------
    malicious
        f; 4f + 3 sites are needed.

    References
    ----------
    El Mhamdi, Guerraoui, Rouault, The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018.
    """
    require_sites("bulyan", len(updates), malicious)
    distances, left, selected = _distances(updates), list(range(len(updates))), []
    for _ in range(len(updates) - 2 * malicious):
        among = [updates[number] for number in left]
        selected.append(left.pop(_ranked(among, malicious, distances[left][:, left])[0]))
    return by_slices([updates[number] for number in selected], lambda rows: _near_median(rows, 2 * malicious))


def _near_median(rows: Tensor, dropped: int) -> Tensor:
    ordered = rows.sort(dim=0).values
    nearest = (ordered - median_of_rows(rows)).abs().argsort(dim=0, stable=True)
    return ordered.gather(0, nearest[: len(rows) - dropped]).sort(dim=0).values.mean(dim=0)


def _distances(updates: Updates) -> Tensor:
    """Return the squared distances of all pairs, (sites, sites), float64, from differences as in `squared_distance`."""
    sites = len(updates)
    of_pairs = torch.zeros(sites * (sites - 1) // 2, dtype=torch.float64)
    for start in range(0, len(updates[0]), SLICE):
        rows = [update[start : start + SLICE].double() for update in updates]
        of_pairs += torch.pdist(torch.stack(rows)).square()
    distances = torch.zeros(sites, sites, dtype=torch.float64)
    first, second = torch.triu_indices(sites, sites, 1)
    distances[first, second] = distances[second, first] = of_pairs
    return distances


def _ranked(updates: Updates, malicious: int, distances: Tensor | None = None) -> list[int]:
    """Return the numbers of the sites in order of their krum scores."""
    distances = _distances(updates) if distances is None else distances
    nearest = max(len(updates) - malicious - 2, 1)
    # The first of a row's sorted distances is that of the site to itself.
    scores = distances.sort(dim=1).values[:, 1 : nearest + 1].sum(dim=1).tolist()

    def compare(first: int, second: int) -> int:
        if scores[first] != scores[second]:
            return -1 if scores[first] < scores[second] else 1
        return _dictionary_order(updates[first], updates[second])

    return sorted(range(len(updates)), key=cmp_to_key(compare))


def _dictionary_order(left: Tensor, right: Tensor) -> int:
    differs = (left != right).nonzero()
    if not len(differs):
        return 0
    first = int(differs[0])
    return -1 if left[first] < right[first] else 1


def _mean(updates: Updates, numbers: Sequence[int]) -> Tensor:
    # Sorted, so that the order of the sum does not hang on the order of the sites.
    return by_slices([updates[number] for number in numbers], lambda rows: rows.sort(dim=0).values.mean(dim=0))
