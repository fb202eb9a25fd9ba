"""Metric states whose every number may be added up, and back: what secure aggregation sends of a state.

Most states are sums already. A regression's mean and sum of squared deviations are not: they become the sums of the
targets and of their squares, exact fractions, so that nothing cancels on the way back. Histograms and
survival's cells, of which a state lists those that have rows, become tables of all there are, for which ones have rows
tells about single rows. In the same numbers travel the tables of where the rows of joined bins and cells may be, which
bounds of ranking metrics are made of (`joined`, `joined_cells`). A generator's sums are numbers in place of packed
text.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.exchange.secure_aggregation.packing import MOST_COUNTS, MOST_ROWS, pack, unpack
from v6_algorithm.learning.metrics import generation_state, joined, sparse
from v6_algorithm.learning.metrics.histogram import COARSE_BINS, bin_index, middles
from v6_algorithm.learning.metrics.survival import joined_cells
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS
from v6_algorithm.learning.metrics.tasks import shape_of_tasks

_PACKED = ("real", "made")


def to_sums(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state in the form that adds up; raises ValueError for a kind that has none."""
    kind = state["kind"]
    if kind == "plugin":
        return state
    if kind == "classification":
        return _classification_to_sums(state)
    if kind == "regression":
        return _regression_to_sums(state)
    if kind == "multitask":
        tasks = {name: to_sums(task) for name, task in state["tasks"].items()}
        return state | {"shape": shape_of_tasks(tasks), "tasks": tasks}
    if kind == "survival":
        return _survival_to_sums(state)
    if kind == "generation":
        return state | {name: generation_state.unpack_numbers(state, name).tolist() for name in _PACKED}
    raise ValueError(f"metrics of kind {kind} are not sums of numbers, one by one")


def _classification_to_sums(state: dict[str, Any]) -> dict[str, Any]:
    """All bins are sent, so there are fewer; with each its rows, and those that joined bins may have in it."""
    bins = state["bins"]

    def coarse(places: NDArray[np.int64]) -> NDArray[np.int64]:
        # Each bin goes where its middle is.
        return places if bins == COARSE_BINS else bin_index(middles(places, bins), COARSE_BINS).astype(np.int64)

    packed, known = [], []
    for positives, negatives in zip(state["positives"], state["negatives"], strict=True):
        places, above, below = sparse.paired(positives, negatives)
        ends, *pairs = joined.ends_of(positives, negatives, bool(state["joined"]), bins, coarse)
        tables = np.zeros((2 + len(joined.ENDS), COARSE_BINS), dtype=np.int64)
        for table, (where, rows) in zip(tables, [(coarse(places), above), (coarse(places), below), *ends], strict=True):
            np.add.at(table, where, rows)
        packed.append(pack(tables))
        known.append(pairs)
    rest = {key: value for key, value in state.items() if key not in ("positives", "negatives")}
    listed = joined.listed([(state["positives"], state["negatives"], bool(state["joined"]))])
    return rest | {"bins": COARSE_BINS, "rows_by_bin": packed, "known_pairs": known, "listed": listed}


def _classification_from_sums(sums: dict[str, Any]) -> dict[str, Any]:
    _check_rows(sums)
    state = {key: value for key, value in sums.items() if key not in ("rows_by_bin", "known_pairs", "listed")}
    tables = np.stack([unpack(numbers, 2 + len(joined.ENDS)) for numbers in sums["rows_by_bin"]])
    state |= {name: sparse.from_table(tables[:, place]) for place, name in enumerate(("positives", "negatives"))}
    if sums["joined"]:
        ends = {name: sparse.from_table(tables[:, 2 + place]) for place, name in enumerate(joined.ENDS)}
        classes = [
            {name: ends[name][number] for name in ends} | dict(zip(joined.KNOWN, pairs, strict=True))
            for number, pairs in enumerate(sums["known_pairs"])
        ]
        state["ends"] = {"listed": sums["listed"], "classes": classes}
    return state


def _survival_to_sums(state: dict[str, Any]) -> dict[str, Any]:
    times = len(state["edges"]) + 1
    part = (state["cells"], bool(state["joined"]))
    tables = np.concatenate([joined_cells.own_tables(state["cells"], times), joined_cells.tables_of(part, times)])
    flat = tables.reshape(len(tables), -1)
    packed = [pack(flat[start : start + MOST_COUNTS]) for start in range(0, len(flat), MOST_COUNTS)]
    listed = len(state["cells"]) if state["joined"] else 0
    rest = {key: value for key, value in state.items() if key != "cells"}
    return rest | {"rows_by_cell": packed, "within": list(joined_cells.pairs_in(tables[2:])), "listed": listed}


def _survival_from_sums(sums: dict[str, Any]) -> dict[str, Any]:
    _check_rows(sums)
    times, left = len(sums["edges"]) + 1, joined_cells.TABLES + 2
    pieces = []
    for numbers in sums["rows_by_cell"]:
        pieces.append(unpack(numbers, min(left, MOST_COUNTS)))
        left -= MOST_COUNTS
    tables = np.concatenate(pieces).reshape(-1, times, SCORE_BINS)
    state = {key: value for key, value in sums.items() if key not in ("rows_by_cell", "within", "listed")}
    state["cells"] = joined_cells.listed_cells(tables[:2])
    if sums["joined"]:
        cells = joined_cells.listed_cells(tables[2:])
        state["ends"] = {"listed": sums["listed"], "within": sums["within"], "cells": cells}
    return state


def _check_rows(sums: dict[str, Any]) -> None:
    if not 0 <= sums["n"] <= MOST_ROWS:
        raise ValueError(f"n of the metric state must be at most {MOST_ROWS} under secure aggregation")


def from_sums(sums: dict[str, Any]) -> dict[str, Any]:
    """Return the state that sums of the form of `to_sums` are of; its reals are exact fractions, in and out."""
    kind = sums["kind"]
    if kind == "classification":
        return _classification_from_sums(sums)
    if kind == "regression":
        return _regression_from_sums(sums)
    if kind == "multitask":
        return sums | {"tasks": {name: from_sums(task) for name, task in sums["tasks"].items()}}
    if kind == "survival":
        return _survival_from_sums(sums)
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
