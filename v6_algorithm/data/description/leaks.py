"""Columns that tell the target by themselves, as a copy of it does: what a model learns from them is no prediction.

`site` asks of its own rows and tells names only; `coordinator.preparation.leaks` makes notes of them. A column tells a
class where it is another code for it, where a threshold on it separates the classes, or where it is empty in just the
rows of some classes; and a number where it is a straight line of it, or rises or falls with it in every row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.targets import TargetColumn, coded, encoded_target

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# What is told of a column, with what the note says.
REASONS = {
    "copy": "is the target written differently: each value stands for one class",
    "nearly": "is the target written differently in all but a few rows",
    "separates": "separates the classes in every row, by a threshold",
    "empty": "is empty in just the rows of some classes, so that whether it is known tells the class",
    "line": "is the target but for a factor and a constant",
    "follows": "rises or falls with the target in every row",
}
# How often, over all columns of a table, the same would come by chance.
_BY_CHANCE = 1e-3
# Of the rows of the rarer class, how many a copy may have wrong.
_FEW_WRONG = 0.05
# Of a numeric target: correlation of what was rounded, such as kilograms and pounds; and the fewest different values.
_LINE, _FEWEST_VALUES = 0.9999, 10
# Of longer tables so many rows are looked at first, and then all rows of those columns that may still tell the target;
# so many times as many may be wrong among them, and the correlation may be so much lower.
_FIRST_ROWS, _SLACK, _FIRST_LINE = 20_000, 4.0, 0.999


def telling_columns(
    frame: pd.DataFrame, columns: Collection[str], categorical: Collection[str], targets: Sequence[TargetColumn],
    smallest: int, looked_up: TableColumns | None = None,
) -> dict[str, str]:  # fmt: skip
    """Return the columns that tell a target, with the key of `REASONS`.

    Parameters
    ----------
    frame
        The rows.
    columns
        Columns of numbers to look at; those of targets are passed over.
    categorical
        Columns of labels.
    targets
        What is learned.
    smallest
        Of a class with fewer rows nothing is told.
    looked_up
        The table's columns, where somebody else asks of them as well.
    """
    table = looked_up or TableColumns(frame)
    told: dict[str, str] = {}
    learned = {target.column for target in targets}
    names = [name for name in columns if name not in learned]
    labels = [name for name in categorical if name in frame.columns and name not in learned]
    for target in targets:
        if target.kind not in ("class", "event", "number", "count", "duration"):
            continue
        known, values = encoded_target(frame[target.column], target)
        is_class = target.kind in ("class", "event")
        groups, rows = np.unique(values, return_counts=True)
        if not _enough(rows, smallest, len(names) + len(labels), is_class=is_class):
            continue
        order = np.argsort(values, kind="stable")
        starts = np.concatenate([[0], np.cumsum(rows)[:-1]])
        places = np.flatnonzero(known)[order]
        looked_at = [name for name in names if name not in told]
        if len(places) > _FIRST_ROWS:
            looked_at = _left_after_some_rows(table, looked_at, places, values[order], starts, is_class=is_class)
        for some, numbers in table.blocks(looked_at, places):
            told |= {
                name: reason
                for name, reason in zip(some, _reasons(numbers, groups, starts, is_class=is_class), strict=True)
                if reason is not None
            }
        for name in labels if is_class else ():
            if name not in told and _is_recoded(frame[name].iloc[places], starts):
                told[name] = "copy"
    return told


def _left_after_some_rows(
    table: TableColumns, names: Sequence[str], places: Array, ordered: Array, starts: Array, *, is_class: bool
) -> list[str]:
    """Return the columns that may tell the target by all rows, for they seem to by some.

    `ordered` is the target of the rows at `places`, ascending. Of classes as many rows of each are looked at.
    """
    if is_class:
        lengths = np.diff(np.append(starts, len(places)))
        each = max(_FIRST_ROWS // len(lengths), 2)
        chosen = np.concatenate(
            [start + _spread(int(length), each) for start, length in zip(starts, lengths, strict=True)]
        )
    else:
        chosen = _spread(len(places), _FIRST_ROWS)
    groups, firsts = np.unique(ordered[chosen], return_index=True)
    left: list[str] = []
    for some, numbers in table.blocks(names, places[chosen]):
        reasons = _reasons(numbers, groups, firsts, is_class=is_class, wrong=_SLACK * _FEW_WRONG, line=_FIRST_LINE)
        left += [name for name, reason in zip(some, reasons, strict=True) if reason is not None]
    return left


def _spread(length: int, most: int) -> Array:
    """Return at most so many places, evenly over a length."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).astype(np.int64))


def _enough(rows: Array, smallest: int, columns: int, *, is_class: bool) -> bool:
    """Say whether what is seen of so many rows of each value of the target is hardly by chance, and tells of no few."""
    if not is_class:
        return len(rows) >= _FEWEST_VALUES and int(rows.sum()) >= max(2 * _FEWEST_VALUES, smallest)
    if len(rows) < 2 or rows.min() < max(smallest, 2):
        return False
    # Of all orders of the rows those in which each class stands together: k! over the multinomial coefficient.
    log = (
        math.lgamma(len(rows) + 1)
        + sum(math.lgamma(int(count) + 1) for count in rows)
        - math.lgamma(int(rows.sum()) + 1)
    )
    return log + math.log(max(columns, 1)) < math.log(_BY_CHANCE)


def _reasons(
    numbers: Array, groups: Array, starts: Array, *, is_class: bool, wrong: float = _FEW_WRONG, line: float = _LINE
) -> list[str | None]:
    """Say of each column, (rows, columns) ordered by the target, what it tells; `starts` are its groups' first rows."""
    empty = ~np.isfinite(numbers)
    rows = np.diff(np.append(starts, len(numbers)))
    empties = np.add.reduceat(empty, starts, axis=0, dtype=np.int64)
    low = np.minimum.reduceat(np.where(empty, np.inf, numbers), starts, axis=0)
    high = np.maximum.reduceat(np.where(empty, -np.inf, numbers), starts, axis=0)
    whole = ~empty.any(axis=0)
    if is_class:
        always, never = empties == rows[:, None], empties == 0
        by_gaps = (always | never).all(axis=0) & always.any(axis=0) & never.any(axis=0)
        ranked = np.argsort(low, axis=0)
        ends, begins = np.take_along_axis(high, ranked, 0)[:-1], np.take_along_axis(low, ranked, 0)[1:]
        apart = whole & (ends < begins).all(axis=0)
        copies = apart & (low == high).all(axis=0)
        nearly = whole & ~apart & _nearly(numbers, starts, rows, wrong)
        return _named({"copy": copies, "separates": apart, "empty": by_gaps, "nearly": nearly}, numbers.shape[1])
    values = np.repeat(groups.astype(np.float64), rows)
    several = np.array([len(np.unique(column)) >= _FEWEST_VALUES for column in numbers.T], dtype=bool) & whole
    rises, falls = (high[:-1] <= low[1:]).all(axis=0), (low[:-1] >= high[1:]).all(axis=0)
    lines = several & (np.abs(_correlation(np.where(empty, 0.0, numbers), values)) >= line)
    return _named({"line": lines, "follows": several & (rises | falls)}, numbers.shape[1])


def _nearly(numbers: Array, starts: Array, rows: Array, few: float) -> Array:
    """Say which columns of two values tell one of two classes from the other, but for few rows of the rarer one."""
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    two = ((numbers == low) | (numbers == high)).all(axis=0) & (low < high)
    if len(rows) != 2 or not two.any():
        return np.zeros(numbers.shape[1], dtype=bool)
    highs = np.add.reduceat(numbers == high, starts, axis=0, dtype=np.int64)
    wrong = highs[0] + rows[1] - highs[1]
    wrong = np.minimum(wrong, rows.sum() - wrong)
    nearly: Array = two & (wrong <= few * rows.min())
    return nearly


def _correlation(numbers: Array, values: Array) -> Array:
    """Return the correlation of each column with some values, 0 where one does not vary."""
    centred, middle = numbers - numbers.mean(axis=0), values - values.mean()
    size = np.sqrt((centred**2).sum(axis=0) * (middle**2).sum())
    correlation: Array = np.divide(middle @ centred, size, out=np.zeros(numbers.shape[1]), where=size > 0)
    return correlation


def _named(found: Mapping[str, Array], columns: int) -> list[str | None]:
    return [next((reason for reason, of in found.items() if of[place]), None) for place in range(columns)]


def _is_recoded(column: pd.Series, starts: Array) -> bool:
    """Say whether labels, in the order of the target, are one in each group and another in the next."""
    if column.isna().any():
        return False
    spelled, code = coded(column)
    first: dict[object, int] = {}
    same = np.array([first.setdefault(label, place) for place, label in enumerate(spelled)])[code]
    low, high = np.minimum.reduceat(same, starts), np.maximum.reduceat(same, starts)
    return bool((low == high).all()) and len(set(low.tolist())) == len(starts)
