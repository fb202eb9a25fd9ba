"""Partitions that look at no label: at random in given sizes, and in the order of a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from v6_algorithm.data.partition.dealing import Array, apportion, keep_groups_whole, parts_of, split_evenly
from v6_algorithm.errors import ExperimentError


def at_random(
    rows: int, shares: Sequence[float], generator: np.random.Generator, groups: Array | None = None
) -> list[Array]:
    """Deal `rows` rows at random; sites get `shares` of them (see `apportion`), with groups to about one group."""
    counts = apportion(shares, rows)
    order = generator.permutation(rows)
    rest = split_evenly(order[len(counts) :], counts - 1)
    owner = np.empty(rows, dtype=np.int64)
    for site, row in enumerate(rest):
        owner[row] = owner[order[site]] = site
    return parts_of(
        keep_groups_whole(owner, len(counts), np.zeros(rows, dtype=np.int64), groups, generator), len(counts)
    )


def continuous(
    values: Array, sites: int, strictness: float, generator: np.random.Generator, groups: Array | None = None
) -> list[Array]:
    """Cut the rows, in the order of a number with noise, into sites of one size.

    The order is of ``strictness * z + (1 - strictness) * noise``, with z the standardised number and standard normal
    noise. A group is placed by its mean number; its rows count towards the size of the site it begins in.

    Parameters
    ----------
    values
        (rows,) finite numbers.
    sites
        Their number.
    strictness
        1: sorted; 0: at random.
    generator
        The source of the noise.
    groups
        (rows,) group of each row, or None.
    """
    unit = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    lengths = np.bincount(unit)
    if len(lengths) < sites:
        what = "rows" if groups is None else "groups"
        raise ExperimentError(f"{sites} sites need at least as many {what}, the table has {len(lengths)}")
    number = np.bincount(unit, weights=values) / lengths
    spread = number.std()
    z = (number - number.mean()) / (spread if spread > 0 else 1.0)
    key = strictness * z + (1 - strictness) * generator.standard_normal(len(z))
    # Ties, as among ages in years, are broken at random, not by their place in the table.
    order = np.lexsort((generator.permutation(len(key)), key))
    middle = np.cumsum(lengths[order]) - lengths[order] / 2
    place = np.minimum((middle / len(values) * sites).astype(np.int64), sites - 1)
    # Large groups may jump over a site: each site starts no later than its number of groups from the end allows.
    place = np.minimum(place, np.arange(len(place)))
    place = np.maximum(place, np.arange(len(place)) - len(place) + sites)
    home = np.empty(len(lengths), dtype=np.int64)
    home[order] = _without_gaps(place)
    return parts_of(home[unit], sites)


def _without_gaps(place: Array) -> Array:
    """Take ascending places that skip some, and let none be skipped; the first is 0 and the last stays."""
    for index in range(len(place) - 2, -1, -1):
        place[index] = max(place[index], place[index + 1] - 1)
    return place
