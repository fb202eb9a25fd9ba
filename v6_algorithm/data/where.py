"""Rows that meet the conditions of ``data.where``; `site` leaves out the others before anything is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.description.hints import HINTS, hint
from v6_algorithm.data.names import not_there
from v6_algorithm.data.preparation.spelling import check_comparable, check_written
from v6_algorithm.data.targets import as_truth, canonical, coded
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import parse_condition
from v6_algorithm.experiment.where import columns_of

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
_COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}


def rows_where(frame: pd.DataFrame, where: Mapping[str, Any]) -> Array:
    """Say which rows meet all conditions: (rows,) bool. An empty cell meets none, ``!=`` neither.

    Raises
    ------
    DataError
        When a column is not there, holds text where a number is compared, or what is asked for spelled differently.
    """
    import pandas as pd

    for name in {*columns_of(where)} & {*frame.columns}:
        asked = [canonical(pd.Series([text], dtype=object))[0] for text in _asked(where, name)]
        if asked:
            labels = coded(frame[name].dropna())[0]
            check_written(labels, asked, f"column '{name}'", "data.where")
            for wanted in asked:
                check_comparable(labels, as_truth(wanted, labels), f"column '{name}'", "data.where")
    return _rows_where(frame, where)


def not_met(frame: pd.DataFrame, where: Mapping[str, Any]) -> list[str]:
    """Return the columns of which no cell meets what is asked of it, whatever else is."""
    return [name for name in where if not _rows_where(frame, {name: where[name]}).any()]


def _asked(where: Mapping[str, Any], column: str) -> Iterator[Any]:
    """Yield what conditions say that a column's cells are, or are not."""
    for name, given in where.items():
        if name in ("any", "all"):
            for part in given:
                yield from _asked(part, column)
        elif name == column:
            yield from (text for operator, text in map(parse_condition, given) if operator in ("==", "!="))


def _rows_where(frame: pd.DataFrame, where: Mapping[str, Any]) -> Array:
    kept = np.ones(len(frame), dtype=bool)
    for name, given in where.items():
        if name == "any":
            kept &= np.logical_or.reduce([_rows_where(frame, part) for part in given])
        elif name == "all":
            kept &= np.logical_and.reduce([_rows_where(frame, part) for part in given])
        else:
            if name not in frame.columns:
                raise DataError(not_there(f"column '{name}' (data.where)", name, frame.columns))
            for condition in given:
                kept &= _meets(frame[name], condition)
    return kept


def _meets(column: pd.Series, condition: str) -> Array:
    import pandas as pd

    operator, threshold = parse_condition(condition)
    known = column.notna().to_numpy()
    met = np.zeros(len(column), dtype=bool)
    if operator in ("==", "!="):
        (wanted,) = canonical(pd.Series([threshold], dtype=object))
        labels, code = coded(column[known])
        wanted = as_truth(wanted, labels)
        met[known] = np.array([(label == wanted) == (operator == "==") for label in labels], dtype=bool)[code]
        return met
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if np.isnan(numbers[known]).any():
        holds, remedy = HINTS.get(hint(column, "text") or "", ("text", ""))
        mended = f": {remedy}" if remedy else ""
        raise DataError(
            f"column '{column.name}' (data.where) holds {holds}, and the condition '{condition}' needs numbers{mended}"
        )
    met[known] = _COMPARE[operator](numbers[known], threshold)
    return met
