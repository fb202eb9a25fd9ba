"""Bins of a column's values in which a site counts the rows of each group, for medians and rank tests; see `groups`.

The bins are cells of the tree that `data.quantiles` cuts all rows into, which follows from the values and the smallest
cell alone; neighbours are joined until every group has none or enough rows in each. So the counts of any two answers,
by whatever groups, differ by the rows of whole cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from v6_algorithm.data.quantiles import EQUAL, tree_cells

Array = np.ndarray
# Cells of a column at most.
_CELLS = 128


@dataclass(frozen=True)
class GroupBins:
    """The bins of one column.

    Attributes
    ----------
    low
        (bins,) lower edges; of the first bin 0, which says nothing.
    equal
        (bins,) 1 where all rows of the bin have one value.
    rows, mean
        (groups, bins) rows of each group, and the mean of their values; 0 without rows.
    """

    low: Array
    equal: Array
    rows: Array
    mean: Array


def group_bins(values: Array, sets: Sequence[Array], tested: Sequence[Array], smallest: int) -> GroupBins:
    """Count the known values, (rows,), of groups, each (rows,) bool; `tested` are those that must not be few."""
    known = ~np.isnan(values)
    if not known.any():
        return GroupBins(np.empty(0), np.empty(0, dtype=np.int64), np.empty((len(sets), 0)), np.empty((len(sets), 0)))
    cells = tree_cells(np.sort(values[known]) + 0.0, smallest, _CELLS)
    low = np.array([cell[2] for cell in cells])
    place = np.searchsorted(low[1:], values[known] + 0.0, side="right")
    counts = np.stack([np.bincount(place[rows[known]], minlength=len(cells)) for rows in tested])
    joined = _joined(counts, smallest)
    firsts = np.flatnonzero(np.diff(joined, prepend=-1))
    alone = np.bincount(joined) == 1
    equal = np.array([cells[first][3] for first in firsts.tolist()]) == EQUAL
    bins, of_row = len(firsts), joined[place]
    rows = (
        np.stack([np.bincount(of_row[group[known]], minlength=bins) for group in sets]) if sets else np.zeros((0, bins))
    )
    sums = [np.bincount(of_row[group[known]], values[known & group], minlength=bins) for group in sets]
    mean = np.stack(sums) / np.maximum(rows, 1) if sets else np.zeros((0, bins))
    value = np.array([cells[first][1] for first in firsts.tolist()])
    same = equal & alone
    # Of one value the mean is that value, to the last digit.
    mean = np.where(same & (rows > 0), value, mean)
    return GroupBins(low[firsts], same.astype(np.int64), rows.astype(np.float64), mean)


def _joined(counts: Array, smallest: int) -> Array:
    """Return the bin of each cell: (cells,) int64, from (groups, cells) rows."""

    def few(rows: Array) -> bool:
        return bool(((rows > 0) & (rows < smallest)).any())

    starts: list[int] = []
    have, begun = np.zeros(len(counts)), True
    for cell, rows in enumerate(counts.T):
        if begun:
            starts.append(cell)
            have = np.zeros(len(counts))
        have = have + rows
        begun = not few(have)
    while not begun and len(starts) > 1:
        # What is left at the end goes to the bins before, as many as it takes.
        starts.pop()
        begun = not few(counts[:, starts[-1] :].sum(axis=1))
    place = np.zeros(counts.shape[1], dtype=np.int64)
    place[starts[1:]] = 1
    joined: Array = np.cumsum(place)
    return joined
