"""Answers with cells of few rows made coarser: histograms, counts, and smallest and largest values.

Neighbouring bins are joined until each that is told holds a cell's rows; the rows stay as many, and all of a joined
bin stand in the one that is their mean. So a metric that comes of them is one of ties among neighbours, and no row's
score or value is told. Called by the guard, where the node's rule `coarse_histograms` is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from v6_algorithm.site.guard.coarse_survival import coarse_survival
from v6_algorithm.site.guard.join import join_bins, joined_groups

__all__ = ["at_least", "coarse_edges", "coarse_state", "join_bins"]
Array = np.ndarray


def coarse_state(state: Any, smallest: int) -> Any:
    """Return a metric state, of one target or several, with joined bins and without single rows' confidences."""
    if isinstance(state, list):
        # Histograms are lists of numbers, or of lists of them.
        return [coarse_state(item, smallest) for item in state] if state and isinstance(state[0], Mapping) else state
    if not isinstance(state, Mapping):
        return state
    coarse = {key: coarse_state(value, smallest) for key, value in state.items()}
    if {"positives", "negatives", "calibration"} <= set(state):
        pairs = [_joined(*pair, smallest) for pair in zip(state["positives"], state["negatives"], strict=True)]
        coarse["positives"], coarse["negatives"] = map(list, zip(*pairs, strict=True))
        coarse["joined"] = 1
        coarse["calibration"] = _coarse_calibration(state["calibration"], smallest)
    if state.get("kind") == "survival":
        return coarse_survival(state, smallest)
    return coarse


def _joined(positives: Mapping[str, Any], negatives: Mapping[str, Any], smallest: int) -> list[dict[str, list[int]]]:
    """Join the bins of a sparse pair of histograms."""
    from v6_algorithm.learning.metrics.sparse import paired

    places, *pair = paired(dict(positives), dict(negatives))
    counts = np.stack(pair)
    groups = joined_groups(counts, smallest, places)
    rows = [(place, counts[:, group].sum(axis=1).tolist()) for place, group in groups]
    return [
        {"bins": [place for place, both in rows if both[kind]], "rows": [both[kind] for _, both in rows if both[kind]]}
        for kind in (0, 1)
    ]


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
