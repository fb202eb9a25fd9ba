"""The groups that rows are measured by at the end: the values of a column, or bands of its numbers.

`encoding` encodes them by row; `site` decides which of them are large enough to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.description.describe import column_kind
from v6_algorithm.data.names import not_there
from v6_algorithm.data.targets import coded
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.evaluation import LONGEST_GROUP_NAME, MOST_GROUPS, NOT_KNOWN, Subgroup

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# Codes (rows, columns) of each row's group, and the names of each column's groups.
Groups = tuple[Array, list[list[str]]]


def encode_groups(frame: pd.DataFrame, subgroups: Sequence[Subgroup], *, measured: bool = True) -> Groups:
    """Number the group of each row in each column.

    Parameters
    ----------
    frame
        The rows.
    subgroups
        The experiment's columns.
    measured
        False for rows that only train: of them a column may be missing, for no group of theirs is told.

    Returns
    -------
    (array, list of list of str)
        (rows, columns) int64 places in the names of each column's groups, which are those that occur; a row without
        a value is in the group "not known".

    Raises
    ------
    DataError
        When a column is not there, holds what makes no groups, or makes too many.
    """
    codes, names = np.empty((len(frame), len(subgroups)), dtype=np.int64), []
    for number, subgroup in enumerate(subgroups):
        absent = subgroup.column not in frame.columns and not measured
        values = [NOT_KNOWN] * len(frame) if absent else _groups_of(frame, subgroup)
        distinct = sorted(set(values))
        codes[:, number] = np.searchsorted(np.array(distinct, dtype=object), np.array(values, dtype=object))
        names.append(distinct)
    return codes, names


def join_groups(parts: Sequence[Groups]) -> Groups:
    """Put the rows of several members together."""
    names = [
        sorted(set().union(*columns)) for columns in zip(*(member_names for _, member_names in parts), strict=True)
    ]
    codes = [
        np.stack(
            [
                np.array([every.index(name) for name in member_names] or [0], dtype=np.int64)[coded[:, number]]
                for number, (member_names, every) in enumerate(zip(labels, names, strict=True))
            ],
            axis=1,
        )
        if names
        else coded
        for coded, labels in parts
    ]
    return np.concatenate(codes), names


def _groups_of(frame: pd.DataFrame, subgroup: Subgroup) -> list[str]:
    """Return the name of each row's group."""
    import pandas as pd

    name, what = subgroup.column, f"column '{subgroup.column}' (evaluation.subgroups)"
    if name not in frame.columns:
        raise DataError(not_there(what, name, frame.columns))
    column = frame[name]
    kind = column_kind(column)
    if kind == "other":
        raise DataError(f"{what} holds dates or arrays, which make no groups; give a column of words or numbers")
    if subgroup.bands:
        if kind == "text":
            raise DataError(f"{what} holds text, and bands are of numbers; leave bands out, or clean it there")
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        places = np.searchsorted(np.array(subgroup.bands), numbers, side="right")
        bands = subgroup.band_names
        return [NOT_KNOWN if np.isnan(number) else bands[place] for number, place in zip(numbers, places, strict=True)]
    known = column.notna().to_numpy()
    labels, code = coded(column[known])
    advice = "give bands, such as {column: age, bands: [40, 60]}"
    if any(isinstance(label, float) for label in labels):
        raise DataError(f"{what} holds numbers that are not whole; {advice}")
    if len(set(labels)) > MOST_GROUPS:
        raise DataError(f"{what} has over {MOST_GROUPS} values; {advice}" if kind == "numeric" else _too_many(what))
    names = np.full(len(column), NOT_KNOWN, dtype=object)
    names[known] = np.array([str(label)[:LONGEST_GROUP_NAME] for label in labels], dtype=object)[code]
    return [str(group) for group in names]


def _too_many(what: str) -> str:
    return f"{what} has over {MOST_GROUPS} values: an identifier?"
