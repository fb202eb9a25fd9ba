"""Rows that meet the conditions of ``data.where``; `site` leaves out the others before anything is counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.targets import canonical, coded
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import parse_condition

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
_COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}


def rows_where(frame: pd.DataFrame, where: Mapping[str, Any]) -> Array:
    """Say which rows meet all conditions: (rows,) bool. An empty cell meets none, ``!=`` neither.

    Raises
    ------
    DataError
        When a column is not there, or holds text where a number is compared.
    """
    kept = np.ones(len(frame), dtype=bool)
    for name, given in where.items():
        if name == "any":
            kept &= np.logical_or.reduce([rows_where(frame, part) for part in given])
        elif name == "all":
            kept &= np.logical_and.reduce([rows_where(frame, part) for part in given])
        else:
            if name not in frame.columns:
                raise DataError(f"column '{name}' (data.where) is not there")
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
        if str(threshold).lower() in ("true", "false") and all(isinstance(value, bool) for value in column[known]):
            wanted = int(str(threshold).lower() == "true")
        met[known] = np.array([(label == wanted) == (operator == "==") for label in labels], dtype=bool)[code]
        return met
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if np.isnan(numbers[known]).any():
        raise DataError(f"column '{column.name}' (data.where) holds text, and the condition is '{condition}'")
    met[known] = _COMPARE[operator](numbers[known], threshold)
    return met
