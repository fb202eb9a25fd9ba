"""A survival metric's state made coarser: no cell of time and score is of few rows, no squared error of a few events.

`coarse` calls it where the node's rule `coarse_histograms` is on. Pairs within the site stay counted by their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from v6_algorithm.site.guard.join import join_bins, joined_groups

Array = np.ndarray


def coarse_survival(state: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Return a state of `SurvivalMetrics` whose cells each hold enough rows.

    Bins of time of few rows are joined with neighbours first, then, within each, neighbouring bins of score. Events
    that shared no bin of time and now do are added to the pairs that a bin leaves open, which is exact.

    Parameters
    ----------
    state
        As `SurvivalMetrics.state` returns it.
    smallest
        Fewest rows of a cell; of fewer rows in all, there is one cell.
    """
    from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS, pairs_of_cells

    cells = np.asarray(state["cells"], dtype=np.int64).reshape(-1, 4)
    times = len(state["edges"]) + 1
    full = np.zeros((2, times, SCORE_BINS), dtype=np.int64)
    full[0][cells[:, 0], cells[:, 1]], full[1][cells[:, 0], cells[:, 1]] = cells[:, 2], cells[:, 3]
    comparable, events, mixed = state["exact"][1:]
    joined = np.zeros_like(full)
    for place, group in joined_groups(full.sum(axis=2), smallest):
        by_time = full[:, group].sum(axis=2)
        later = by_time.sum(axis=1, keepdims=True) - np.cumsum(by_time, axis=1)
        events += int(by_time[0] @ later[0])
        mixed += int(by_time[0] @ later[1])
        joined[:, place] = join_bins(full[:, group].sum(axis=1), smallest)
    filled = np.argwhere(joined.sum(axis=0))
    coarse = [[int(time), int(score), *joined[:, time, score].tolist()] for time, score in filled]
    array = np.asarray(coarse, dtype=np.int64).reshape(-1, 4)
    return {
        **state,
        "joined": 1,
        "cells": coarse,
        "exact": [state["exact"][0], comparable, events, mixed],
        "binned": list(pairs_of_cells(array, len(state["edges"]))),
        **_coarse_squares(state, smallest),
    }


def _coarse_squares(state: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Return squared errors in which those of few rows are the mean of more, or a quarter where there are no more."""
    from v6_algorithm.learning.metrics.survival.collector import SQUARE_UNITS

    left = np.asarray(state["leaving"], dtype=np.int64)
    horizons = left.shape[1] - 1
    early = np.asarray(state["early"], dtype=np.int64).reshape(horizons, horizons)
    late = np.asarray(state["late"], dtype=np.int64)
    events = left[0]
    there = left.sum() - np.cumsum(left.sum(axis=0))[:-1]
    coarse_early, coarse_late, ratio = early.copy(), late.copy(), SQUARE_UNITS / 4
    for horizon in range(early.shape[1]):
        before = events[: horizon + 1]
        total = before.sum()
        mean = early[: horizon + 1, horizon].sum() / total if total >= smallest else SQUARE_UNITS / 4
        few = before < smallest
        coarse_early[: horizon + 1, horizon][few] = np.rint(before[few] * mean)
        if there[horizon] >= smallest:
            ratio = late[horizon] / there[horizon]
        else:
            coarse_late[horizon] = round(float(there[horizon] * ratio))
    return {"early": coarse_early.tolist(), "late": coarse_late.tolist()}
