"""Joining neighbouring bins of a histogram until each holds a cell's rows. `coarse` and `coarse_survival` use it."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def join_bins(counts: Array, smallest: int) -> Array:
    """Join neighbouring bins until each has enough rows.

    Parameters
    ----------
    counts
        (kinds, bins) rows of each kind, such as positives and negatives, in each bin.
    smallest
        Fewest rows of all kinds together in a bin that is told; where there are fewer in all, one bin has them.

    Returns
    -------
    Array
        (kinds, bins), with the same sums over bins.
    """
    joined = np.zeros_like(counts)
    for place, group in joined_groups(counts, smallest):
        joined[:, place] = counts[:, group].sum(axis=1)
    return joined


def joined_groups(counts: Array, smallest: int, bins: Array | None = None) -> list[tuple[int, list[int]]]:
    """Return which filled bins of (kinds, bins) are joined: the bin that stands for each group, and the group's.

    `bins` (bins,) says which bins the columns are, where only some of very many are given.
    """
    filled = np.flatnonzero(counts.sum(axis=0))
    if not len(filled):
        return []
    groups: list[list[int]] = [[]]
    rows = 0
    for place in filled.tolist():
        if rows >= smallest:
            groups.append([])
            rows = 0
        groups[-1].append(place)
        rows += counts[:, place].sum()
    if rows < smallest and len(groups) > 1:
        last = groups.pop()
        groups[-1] += last
    # The mean of the rows' bins, which is a sum over a cell's rows; the middle row's bin would be that row's.
    sums = [counts[:, group].sum(axis=0) for group in groups]
    number = np.arange(counts.shape[1]) if bins is None else bins
    places = [round(float(rows @ number[group] / rows.sum())) for rows, group in zip(sums, groups, strict=True)]
    return list(zip(places, groups, strict=True))
