"""Metric states whose every number may be added up, and back: what secure aggregation sends of a state.

Most states are sums already. A regression's mean and sum of squared deviations are not: they become the sums of the
targets and of their squares, exact fractions, so that nothing cancels on the way back. Histograms and
survival's cells, of which a state lists those that have rows, become tables of all there are, for which ones have rows
tells about single rows; a generator's sums are numbers in place of packed text.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from v6_algorithm.learning.metrics import generation_state, sparse
from v6_algorithm.learning.metrics.histogram import COARSE_BINS, bin_index, middles
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS
from v6_algorithm.learning.metrics.tasks import shape_of_tasks

_PACKED = ("real", "made")


def to_sums(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state in the form that adds up; raises ValueError for a kind that has none."""
    kind = state["kind"]
    if kind == "plugin":
        return state
    if kind == "classification":
        # All bins are sent, so there are fewer.
        bins = state["bins"]
        tables = {
            name: sparse.table([_coarse(histogram, bins) for histogram in state[name]], COARSE_BINS).tolist()
            for name in ("positives", "negatives")
        }
        return state | {"bins": COARSE_BINS} | tables
    if kind == "regression":
        return _regression_to_sums(state)
    if kind == "multitask":
        tasks = {name: to_sums(task) for name, task in state["tasks"].items()}
        return state | {"shape": shape_of_tasks(tasks), "tasks": tasks}
    if kind == "survival":
        table = np.zeros((len(state["edges"]) + 1, SCORE_BINS, 2), dtype=np.int64)
        for time, score, events, censored in state["cells"]:
            table[time, score] = events, censored
        return state | {"cells": table.tolist()}
    if kind == "generation":
        return state | {name: generation_state.unpack_numbers(state, name).tolist() for name in _PACKED}
    raise ValueError(f"metrics of kind {kind} are not sums of numbers, one by one")


def _coarse(histogram: sparse.Histogram, bins: int) -> sparse.Histogram:
    """Return a histogram by the bins that secure aggregation sums: each bin goes where its middle is."""
    if bins == COARSE_BINS:
        return histogram
    middle = middles(np.array(histogram["bins"], dtype=np.int64), bins)
    return sparse.folded(histogram, bin_index(middle, COARSE_BINS))


def from_sums(sums: dict[str, Any]) -> dict[str, Any]:
    """Return the state that sums of the form of `to_sums` are of; its reals are exact fractions, in and out."""
    kind = sums["kind"]
    if kind == "classification":
        return sums | {name: sparse.from_lists(sums[name]) for name in ("positives", "negatives")}
    if kind == "regression":
        return _regression_from_sums(sums)
    if kind == "multitask":
        return sums | {"tasks": {name: from_sums(task) for name, task in sums["tasks"].items()}}
    if kind == "survival":
        table = np.array(sums["cells"], dtype=np.int64)
        filled = np.argwhere(table.any(axis=-1)).tolist()
        return sums | {"cells": [[time, score, *table[time, score].tolist()] for time, score in filled]}
    if kind == "generation":
        packed = {name: np.array(sums[name], dtype=np.float64) for name in _PACKED}
        return sums | {name: generation_state.pack_numbers(numbers) for name, numbers in packed.items()}
    return sums


def _regression_to_sums(state: dict[str, Any]) -> dict[str, Any]:
    n, mean, m2 = state["n"], Fraction(state["target_mean"]), Fraction(state["target_m2"])
    rest = {key: value for key, value in state.items() if key not in ("target_mean", "target_m2")}
    return rest | {"target_sum": n * mean, "target_squares": m2 + n * mean**2}


def _regression_from_sums(sums: dict[str, Any]) -> dict[str, Any]:
    n, total, squares = sums["n"], sums["target_sum"], sums["target_squares"]
    rest = {key: value for key, value in sums.items() if key not in ("target_sum", "target_squares")}
    mean = total / n if n else Fraction(0)
    # What is left of rounding at 2^-96 must not make a constant target vary, nor its spread negative.
    spread = squares - n * mean**2
    return rest | {"target_mean": mean, "target_m2": spread if spread > (1 + abs(mean)) / 2**80 else Fraction(0)}
