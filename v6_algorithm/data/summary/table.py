"""What a site tells about its whole table in answer to `RPC_summary`: counts, sums, cells of values, never a small one.

Each step is a call of its own, for what it asks for follows from the answers to the one before; `summary.federated`
makes the calls. All rows count, with or without a target: see `summary.cells` for why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.description.describe import column_kind, column_kinds, hints_of
from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.names import check_once
from v6_algorithm.data.preparation import Moments
from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.data.quantiles import Cells, check_windows
from v6_algorithm.data.summary.cells import tell_labels
from v6_algorithm.data.targets import TargetColumn, canonical, labels_of
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Data

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# Products of columns over few rows are those rows, up to a rotation: at least this many rows for each column.
ROWS_PER_COLUMN = 3
# Number, mean and standard deviation are three equations for the counts of this many distinct values.
_TOLD_BY_MOMENTS = 3


def columns(frame: pd.DataFrame, data: Data, smallest: int, targets: Sequence[TargetColumn]) -> dict[str, Any]:
    """Tell rows, columns with their kinds, and the labels of targets, of events, and of the categorical columns."""
    check_once(frame.columns.tolist())
    labels = {}
    labelled = {target.column: target for target in targets if target.kind in ("class", "event")}
    for name in [*labelled, *data.categorical]:
        if name in frame.columns:
            known = frame[name].dropna()
            counts = Counter(labels_of(known, labelled[name]) if name in labelled else canonical(known))
            shown, hidden = tell_labels({label: counts[label] for label in sorted(counts, key=str)}, smallest)
            labels[name] = {
                "counts": [[label, rows] for label, rows in shown.items()],
                "hidden": hidden,
                "missing": len(frame) - len(known),
            }
    looked_up = TableColumns(frame)
    return {
        "rows": len(frame),
        "columns": (kinds := column_kinds(frame, looked_up)),
        "hints": hints_of(frame, kinds, looked_up),
        "labels": labels,
    }


def moments(frame: pd.DataFrame, features: Sequence[str], smallest: int) -> dict[str, Any]:
    """Tell count, mean and sum of squared deviations of numeric columns, and which have too few values for that."""
    values, hidden = _values(frame, features, smallest)
    return {
        "moments": pack_arrays(Moments.of([values], with_range=False).arrays()),
        "hidden": [name for name, few in zip(features, hidden, strict=True) if few],
    }


def shape(
    frame: pd.DataFrame, features: Sequence[str], smallest: int, asked: Mapping[str, Array], *, products: bool
) -> dict[str, Any]:
    """Tell cells of the columns' values, and, where the rows are enough, products of standardised columns.

    `asked` has `mean` and `sd`, (features,) each, and, when it is asked again, `windows`: where to cut further, see
    `data.quantiles`. The products are of each pair of columns, over the rows in which both have a value: their
    number (`pairs`), and, with ``z = (x - mean) / sd``, ``sum(z_i z_j)`` (`sums`), ``sum(z_i)`` (`first`) and
    ``sum(z_i^2)`` (`squares`). Rows that share with few others which of their values are there are in none of them
    (`left_out`); see `in_products`.
    """
    values, _ = _values(frame, features, smallest)
    seen = ~np.isnan(values)
    windows = check_windows(asked["windows"], len(features)) if "windows" in asked else None
    cells = Cells.of((values[seen[:, i], i] for i in range(len(features))), smallest, windows)
    reply: dict[str, Any] = {"cells": pack_arrays(cells.arrays()), "products": None}
    if products and len(values) >= ROWS_PER_COLUMN * len(features):
        if any(name not in asked or asked[name].shape != (len(features),) for name in ("mean", "sd")):
            raise WireError(f"asked must have mean and sd of the {len(features)} features")
        scale = np.where(asked["sd"] > 0, asked["sd"], 1.0)
        standard = np.where(seen, (values - asked["mean"]) / scale, 0.0)
        kept = in_products(values, smallest)
        standard, both = standard[kept], seen[kept].astype(np.float64)
        left_out = int((~kept).sum())
        reply["products"] = pack_arrays(
            {
                "pairs": both.T @ both,
                "sums": standard.T @ standard,
                "first": standard.T @ both,
                "squares": (standard**2).T @ both,
                "left_out": np.array([max(left_out, smallest) if left_out else 0]),
            }
        )
    return reply


def in_products(values: Array, smallest: int) -> Array:
    """Say which rows may be in sums over pairs of columns, (rows,) bool from (rows, columns) with NaN where missing.

    Pairs are seen in different rows, so the difference of two sums is one over the rows that have one value and lack
    another. Every sum is one over whole patterns, the rows with values in the same columns. So a pattern is in if it
    is of a cell's rows, and of three for each of its columns, and tells of no few rows by itself, and what is left out
    of any column is a cell's rows as well, or nothing: means of all its rows are told too.
    """
    kept = np.ones(len(values), dtype=bool)
    if smallest <= 1:
        return kept
    seen = ~np.isnan(values)
    patterns, number = np.unique(seen, axis=0, return_inverse=True)
    number = number.reshape(-1)
    rows = np.bincount(number, minlength=len(patterns))
    holds = rows >= np.maximum(smallest, ROWS_PER_COLUMN * patterns.sum(axis=1))
    for pattern in np.flatnonzero(holds).tolist():
        of_pattern = values[number == pattern][:, patterns[pattern]]
        holds[pattern] = not any(tells_few(column, smallest) for column in of_pattern.T)
    while holds.any():
        out = ~holds[number]
        few = [
            column for column in range(values.shape[1]) if tells_few(values[out & seen[:, column], column], smallest)
        ]
        within = [pattern for pattern in np.flatnonzero(holds).tolist() if patterns[pattern][few].any()]
        if not within:
            break
        holds[min(within, key=lambda pattern: int(rows[pattern]))] = False
    return np.asarray(holds[number], dtype=bool)


def _values(frame: pd.DataFrame, features: Sequence[str], smallest: int) -> tuple[Array, Array]:
    """Return (rows, features) float64 with NaN where missing, all of a column of few values; and which those are."""
    values = numeric_values(frame, features)
    hidden = np.array([tells_few(column[~np.isnan(column)], smallest) for column in values.T], dtype=bool)
    values[:, hidden] = np.nan
    return values, hidden


def numeric_values(frame: pd.DataFrame, features: Sequence[str]) -> Array:
    """Return (rows, features) float64, NaN where missing, not finite, or where a column is not numeric."""
    import pandas as pd

    values = np.full((len(frame), len(features)), np.nan)
    for number, name in enumerate(features):
        if name in frame.columns and column_kind(frame[name]) == "numeric":
            values[:, number] = pd.to_numeric(frame[name]).to_numpy(dtype=np.float64, na_value=np.nan)
    values[~np.isfinite(values)] = np.nan
    return values


def tells_few(known: Array, smallest: int) -> bool:
    """Say whether mean and standard deviation of these values would tell about fewer than `smallest` rows.

    They do when there are fewer values, and when fewer differ from the commonest one; and of up to three distinct
    values, as in a column of 0 and 1, they are as good as the count of each.
    """
    if not len(known):
        return False
    rows = np.unique(known, return_counts=True)[1]
    few_differ = 0 < len(known) - rows.max() < smallest
    return len(known) < smallest or few_differ or (len(rows) <= _TOLD_BY_MOMENTS and rows.min() < smallest)
