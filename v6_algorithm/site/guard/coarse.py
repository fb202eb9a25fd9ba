"""Answers with cells of few rows made coarser: histograms, counts, and smallest and largest values.

Neighbouring bins are joined until each that is told holds a cell's rows; the rows stay as many, and all of a joined
bin stand in the one that is their mean. So a metric that comes of them is one of ties among neighbours, and no row's
score or value is told. Called by the guard, where the node's rule `coarse_histograms` is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
    filled = np.flatnonzero(counts.sum(axis=0))
    places, rows = _groups(counts[:, filled], smallest, filled)
    joined = np.zeros_like(counts)
    joined[:, places] = rows
    return joined


def _groups(counts: Array, smallest: int, places: Array) -> tuple[Array, Array]:
    """Join neighbouring bins, of which each holds a row; return where the joined ones stand, and their rows by kind.

    `places` (bins,) says which bins these are.
    """
    groups: list[list[int]] = [[]]
    rows = 0
    for number, in_bin in enumerate(counts.sum(axis=0).tolist()):
        if rows >= smallest:
            groups.append([])
            rows = 0
        groups[-1].append(number)
        rows += in_bin
    if rows < smallest and len(groups) > 1:
        last = groups.pop()
        groups[-1] += last
    at, joined = np.zeros(len(groups), dtype=np.int64), np.zeros((len(counts), len(groups)), dtype=np.int64)
    for number, group in enumerate(groups) if counts.shape[1] else ():
        group_counts = counts[:, group]
        # The mean of the rows' bins, which is a sum over a cell's rows; the middle row's bin would be that row's.
        at[number] = round(float(group_counts.sum(axis=0) @ places[group] / group_counts.sum()))
        joined[:, number] = group_counts.sum(axis=1)
    return (at, joined) if counts.shape[1] else (at[:0], joined[:, :0])


def coarse_state(state: Any, smallest: int) -> Any:
    """Return a metric state, of one target or several, with joined bins and without single rows' confidences."""
    if isinstance(state, list):
        return [coarse_state(item, smallest) for item in state]
    if not isinstance(state, Mapping):
        return state
    coarse = {key: coarse_state(value, smallest) for key, value in state.items()}
    if {"positives", "negatives", "calibration"} <= set(state):
        pairs = [_joined(*pair, smallest) for pair in zip(state["positives"], state["negatives"], strict=True)]
        coarse["positives"], coarse["negatives"] = map(list, zip(*pairs, strict=True))
        coarse["calibration"] = _coarse_calibration(state["calibration"], smallest)
    return coarse


def _joined(positives: Mapping[str, Any], negatives: Mapping[str, Any], smallest: int) -> list[dict[str, list[int]]]:
    """Join the bins of a sparse pair of histograms."""
    from v6_algorithm.learning.metrics.sparse import paired

    places, *counts = paired(dict(positives), dict(negatives))
    at, joined = _groups(np.stack(counts), smallest, places)
    return [{"bins": at[rows > 0].tolist(), "rows": rows[rows > 0].tolist()} for rows in joined]


def _coarse_calibration(calibration: list[list[int]], smallest: int) -> list[list[int]]:
    """Tell of a bin of few rows that their confidence is the bin's middle, and nothing closer."""
    from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS, CONFIDENCE_UNITS

    rows, confidence, hits = (list(line) for line in calibration)
    for place, count in enumerate(rows):
        if 0 < count < smallest:
            confidence[place] = round(count * (place + 0.5) * CONFIDENCE_UNITS / CALIBRATION_BINS)
    return [rows, confidence, hits]


def coarse_edges(folds: Iterable[Array], low: Array, high: Array, smallest: int) -> tuple[Array, Array]:
    """Return for the smallest and the largest value of each column the mean of the `smallest` outermost ones.

    Parameters
    ----------
    folds
        (rows, features) for each fold, NaN where a value is missing.
    low, high
        (folds, features), as measured; columns without values stay.
    """
    low, high = low.copy(), high.copy()
    for fold, values in enumerate(folds):
        # NaN is sorted to the end.
        ordered = np.sort(np.asarray(values, dtype=np.float64), axis=0)
        counts = (~np.isnan(ordered)).sum(axis=0)
        for column, count in enumerate(counts.tolist()):
            if count:
                low[fold, column] = ordered[: min(smallest, count), column].mean()
                high[fold, column] = ordered[max(count - smallest, 0) : count, column].mean()
    return low, high


def at_least(counts: Any, smallest: int) -> Any:
    """Return nested lists of counts in which one of a few, but not of none, is told as that of a cell."""
    if isinstance(counts, list):
        return [at_least(item, smallest) for item in counts]
    return smallest if 0 < counts < smallest else counts
