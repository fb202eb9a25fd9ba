"""Columns that are written, or measured, in two ways: decimal marks, words behind counts, two units.

`hints.hint` asks here, for hints only: nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np

from v6_algorithm.data.description.unknown import CODES, NEGATIVE_CODES
from v6_algorithm.data.reading.cells import some_rows

Array = np.ndarray
COMMA = re.compile(r"[+-]?\d+,\d+")
_POINT = re.compile(r"[+-]?\d*\.\d+")
_ONE_GROUP = re.compile(r"[+-]?\d{1,3}\.\d{3}")
# "3 episodes", "1 episode"; how much of a word is the same of one thing and of several; and how many other texts, in
# how many of the rows, may stand beside them ("none").
_COUNTED = re.compile(r"(\d+(?:[.,]\d+)?)\s+([^\W\d_][^\W\d_ -]*(?:-[^\W\d_]+)*)\.?")
_STEM, _FEWEST_COUNTS, _MOST_OTHERS, _OTHERS = 3, 3, 3, 0.5
# By what laboratory values differ between units: of glucose, creatinine, cholesterol, triglycerides, bilirubin, urea
# (and its nitrogen), calcium, urate, phosphate and pressures; powers of ten; inches and pounds.
_FACTORS = np.array(
    [18.02, 88.4, 38.67, 88.57, 17.1, 2.8, 6.0, 4.0, 59.48, 3.1, 7.5, 10, 100, 1000, 1e4, 1e6, 2.54, 2.2046]
)
# Of so many rows, so many different ones and such a share of all in the smaller group are no outliers.
_ROWS, _FEWEST, _DIFFERENT, _SHARE = 40, 10, 6, 0.02
# How far the factor may be off, how wide the gap is at least (as a factor and as a share of the factor's logarithm),
# and how much one group's spread may be of the other's, in logarithms.
_OFF, _GAP, _GAP_SHARE, _ALIKE = 0.12, 1.5, 0.25, 2.5
# Standard errors of a median and of a mean, their quotient; and the share of rows below which it counts.
_ERROR_OF_MEDIAN, _FEW_LOST = 1.25, 0.15
# Of the distance between the quartiles: counts of viruses reach 10,000 of them.
_FAR_OUT = 1e6


def mixed_marks(cells: Collection[str]) -> bool:
    """Say whether some of these texts have a decimal comma and others a point that is no mark of thousands."""
    points = [cell for cell in cells if _POINT.fullmatch(cell)]
    commas = any(COMMA.fullmatch(cell) for cell in cells)
    return commas and any(not _ONE_GROUP.fullmatch(cell) for cell in points)


def counted(rows: Mapping[str, int]) -> bool:
    """Say whether most rows hold a number and the same word behind it, which may stand for several; (text: rows)."""
    found = {cell: match for cell in rows if (match := _COUNTED.fullmatch(cell))}
    words = {match[2].casefold() for match in found.values()}
    stems = {word[:_STEM] for word in words}
    numbers = {match[1] for match in found.values()}
    others = len(rows) - len(found) <= _MOST_OTHERS
    most = others and sum(rows[cell] for cell in found) >= _OTHERS * sum(rows.values())
    return len(stems) == 1 and len(words) <= 2 and len(numbers) >= _FEWEST_COUNTS and most


def has_two_units(known: Array) -> bool:
    """Say whether numbers lie in two groups, with nothing in between, as far apart as those of two units do."""
    values = np.sort(known[(known > 0) & ~np.isin(known, CODES) & ~np.isin(known, NEGATIVE_CODES)])
    if len(values) < _ROWS or len(values) < len(known) - len(known) // 10:
        return False
    logs = np.log(values)
    place = int(np.argmax(np.diff(logs))) + 1
    lower, upper = logs[:place], logs[place:]
    enough = min(len(lower), len(upper)) >= max(_FEWEST, _SHARE * len(logs))
    if not enough or min(len(np.unique(lower)), len(np.unique(upper))) < _DIFFERENT:
        return False
    gap, apart = upper[0] - lower[-1], float(np.median(upper) - np.median(lower))
    spreads = sorted([float(lower.std()), float(upper.std())])
    near = bool((np.abs(apart - np.log(_FACTORS)) < np.log1p(_OFF)).any())
    if not near and len(upper) < _FEW_LOST * len(logs):
        # A decimal point that a few rows lost: their median is off by as much again.
        error = _ERROR_OF_MEDIAN * float(upper.std()) / np.sqrt(len(upper))
        near = abs(apart - np.log(10.0)) < np.log1p(_OFF) + error
    alike = spreads[1] <= _ALIKE * spreads[0]
    return near and alike and gap >= max(np.log(_GAP), _GAP_SHARE * apart)


def has_outlier(known: Array) -> bool:
    """Say whether a number is so far from all others that scaling by mean and deviation leaves these next to alike."""
    if len(known) < _ROWS:
        return False
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    spread = high - low
    return bool(spread > 0 and np.abs(known - middle).max() > _FAR_OUT * spread)


def may_have_outlier(numbers: Array, low: Array, high: Array) -> Array:
    """Say of which columns, (columns,) bool of (rows, columns) with their ends, `has_outlier` has to look closer."""
    if len(numbers) < _ROWS:
        return np.zeros(numbers.shape[1], dtype=bool)
    size = np.sort(np.abs(numbers[some_rows(len(numbers))]), axis=0)
    middle = size[np.maximum(np.isfinite(size).sum(axis=0) - 1, 0) // 2, np.arange(numbers.shape[1])]
    may: Array = np.maximum(np.abs(low), np.abs(high)) > _FAR_OUT / 10 * middle
    return may


def may_have_two_units(numbers: Array, low: Array, high: Array) -> Array:
    """Say of which columns, (columns,) bool of (rows, columns) with their ends, `has_two_units` has to look closer."""
    may: Array = (low >= 0) & (high > _GAP * _GAP * np.maximum(low, 0))
    if len(numbers) < _ROWS or not may.any():
        return np.zeros_like(may)
    columns = np.flatnonzero(may)
    some = numbers[some_rows(len(numbers))][:, columns]
    some = np.sort(np.where(some > 0, some, np.nan), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        widest = np.nanmax(np.where(np.isnan(some[1:]), 1.0, some[1:] / some[:-1]), axis=0, initial=1.0)
    may[columns] = widest >= _GAP
    return may
