"""Medians, and the tests of Mann-Whitney and of Kruskal and Wallis, from rows of groups in bins; `table_one` calls it.

References
----------
Mann and Whitney (1947), Annals of Mathematical Statistics 18(1); Kruskal and Wallis (1952), JASA 47(260); Lehmann
(1975), Nonparametrics, section 1.4 (ties).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.distributions import chi_square_p
from v6_algorithm.data.quantiles import EQUAL, CellColumn, places, quantiles

Array = np.ndarray
# Of bins that leave more of the order open a reader is told.
_COARSE = 0.01


@dataclass(frozen=True)
class SiteBins:
    """One column's bins at one site.

    Attributes
    ----------
    low, equal
        (bins,) lower edges, that of the first bin says nothing, and whether (bool) all rows have one value.
    rows, mean
        Of each group, (bins,) rows and the mean of their values.
    """

    low: Array
    equal: Array
    rows: Mapping[str, Array]
    mean: Mapping[str, Array]

    def cells_of(self, group: str) -> CellColumn | None:
        """Return a group's rows as cells, those that hold any; None where none does."""
        rows = self.rows.get(group, np.empty(0))
        held = rows > 0
        if not held.any():
            return None
        state = np.where(self.equal[held], EQUAL, EQUAL - 1)
        return rows[held].astype(np.int64), self.mean[group][held], self.low[held], state


def middle(sites: Sequence[SiteBins], group: str) -> dict[str, float] | None:
    """Return the `median` of a group and its quartiles, `lower` and `upper`, where its bins have any rows."""
    cells = [known for site in sites if (known := site.cells_of(group)) is not None]
    if not cells:
        return None
    lower, median, upper = (quantile.value for quantile in quantiles(cells, (0.25, 0.5, 0.75)))
    return {"median": median, "lower": lower, "upper": upper}


def rank_test(sites: Sequence[SiteBins], groups: Sequence[str]) -> dict[str, Any] | None:
    """Compare groups by the ranks of their rows; None of fewer than two, or where all rows are equal.

    The rows of a bin are taken to be spread evenly around the mean of the group's rows in it, those of one value to be
    at it. The statistic is that of Kruskal and Wallis, corrected for ties, chi-square of all groups but one; of two
    groups it is the square of Mann and Whitney's z without a correction for continuity.

    Returns
    -------
    dict
        `name`, `statistic`, `freedom`, `p`; of two groups `superiority`, the chance that a row of the second is above
        one of the first, ties counted half; `resolution`, how far binning may have moved it at most (of more groups
        half the share of all pairs that the bins leave open), and `coarse` where that is so much that a reader is told.
    """
    known = {name: [cells for site in sites if (cells := site.cells_of(name)) is not None] for name in groups}
    names = [name for name in groups if known[name]]
    if len(names) < 2:
        return None
    spread_rows = [places(known[name]) for name in names]
    values, place = np.unique(np.concatenate([where for where, _ in spread_rows]), return_inverse=True)
    group = np.repeat(np.arange(len(names)), [len(where) for where, _ in spread_rows])
    counts = np.zeros((len(names), len(values)))
    np.add.at(counts, (group, place), np.concatenate([np.diff(until, prepend=0.0) for _, until in spread_rows]))
    every, of_group = counts.sum(axis=0), counts.sum(axis=1)
    total = float(every.sum())
    rank = np.cumsum(every) - every / 2 + 0.5
    average = (total + 1) / 2
    # Of rows without ties the squares of the ranks come to this; of each set of ties its share is missing.
    spread = float(total**3 - total - (every**3 - every)[every > 1].sum()) / 12
    if spread <= 0:
        return None
    means = (counts @ rank) / of_group
    statistic = float((total - 1) * (of_group @ (means - average) ** 2) / spread)
    test: dict[str, Any] = {
        "name": "Mann-Whitney" if len(names) == 2 else "Kruskal-Wallis",
        "statistic": statistic,
        "freedom": len(names) - 1,
        "p": chi_square_p(statistic, len(names) - 1),
    }
    low, high, same = _spans(sites)
    binned = np.concatenate(
        [np.stack([site.rows.get(name, np.zeros(len(site.low))) for name in names]) for site in sites], axis=1
    )
    if len(names) == 2:
        # The rank of a row of the second group less its rank within the group is how many of the first are below it.
        test["superiority"] = float((means[1] - (of_group[1] + 1) / 2) / of_group[0])
        unsure = float(binned[1] @ _unsure(low, high, same, binned[0]))
        test["resolution"] = unsure / 2 / float(of_group[0] * of_group[1])
    else:
        all_rows = binned.sum(axis=0)
        test["resolution"] = float(all_rows @ _unsure(low, high, same, all_rows)) / 2 / total**2
    test["coarse"] = test["resolution"] > _COARSE
    return test


def _spans(sites: Sequence[SiteBins]) -> tuple[Array, Array, Array]:
    """Return where the values of each bin of all sites lie, from and up to but without, and which have one value."""
    lows, highs, known = [], [], []
    for site in sites:
        value = np.max([np.where(site.rows[name] > 0, site.mean[name], -np.inf) for name in site.rows], axis=0)
        same = site.equal & np.isfinite(value)
        low = np.concatenate([[-np.inf], site.low[1:]])[: len(site.low)]
        high = np.concatenate([site.low[1:], [np.inf]])[: len(site.low)]
        lows.append(np.where(same, value, low))
        highs.append(np.where(same, np.nextafter(value, np.inf, where=np.isfinite(value), out=high.copy()), high))
        known.append(same)
    return np.concatenate(lows), np.concatenate(highs), np.concatenate(known)


def _below(low: Array, high: Array, counts: Array) -> Array:
    """Return how many rows are certainly below those of each bin."""
    order = np.argsort(high, kind="stable")
    until = np.concatenate([[0.0], np.cumsum(counts[order])])
    return np.asarray(until[np.searchsorted(high[order], low, side="right")])


def _above(low: Array, high: Array, counts: Array) -> Array:
    order = np.argsort(low, kind="stable")
    until = np.concatenate([[0.0], np.cumsum(counts[order])])
    return np.asarray(until[-1] - until[np.searchsorted(low[order], high, side="left")])


def _unsure(low: Array, high: Array, known: Array, counts: Array) -> Array:
    """Return with how many rows those of each bin could stand either way."""
    same = np.zeros(len(low))
    values, place = np.unique(low[known], return_inverse=True)
    if len(values):
        same[known] = np.bincount(place, counts[known])[place]
    return np.asarray(counts.sum() - _below(low, high, counts) - _above(low, high, counts) - same)
