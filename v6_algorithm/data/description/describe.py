"""What a site tells of its table before anything is learned: its columns by kind, labels and categories.

`site` calls `describe`; `summary` classifies columns by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.description.hints import hint, holds_complex, without_hint
from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.identifiers import are_measured, looks_like_identifier, says_whose
from v6_algorithm.data.names import check_once, not_there
from v6_algorithm.data.reading.texts import Texts, texts_of
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.sequences import holds_arrays
from v6_algorithm.data.synthetic import synthetic_rows
from v6_algorithm.data.targets import TargetColumn, coded, describe_targets, known_rows
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data

if TYPE_CHECKING:
    import pandas as pd

# Rows of which one has a number in all but a few columns that have any.
_FIRST_ROWS = 100
# More categories than this are no category but an identifier.
_MOST_CATEGORIES = 100
# Of a column that says whose rows these are: fewer are groups of another kind.
_FEWEST_PATIENTS, _ROWS_OF_ONE = 10, 1.2
_LARGEST_CODE = 1000
# Grades and scores have no more codes.
MOST_CODES = 10
# A table of more columns is one of genes, which are not looked at one by one.
MOST_HINTED = 2000


def describe(
    frame: pd.DataFrame, data: Data, targets: Sequence[TargetColumn], columns: TableColumns | None = None
) -> dict[str, Any]:
    """Tell which columns there are and which labels and categories occur; see `preparation.agree`.

    `columns` are the table's, where somebody else asks of them as well.

    Raises
    ------
    DataError
        When the target, group, split or a categorical column is missing, or cannot be used as such.
    """
    roles: list[tuple[str, str | None]] = [(target.role, target.column) for target in targets]
    # Rows that only train are not cut into parts: a table of nothing else (of `generate`) needs no columns for it.
    if not synthetic_rows(frame, data).all():
        roles += [("group", data.group), *(("split_column", name) for name in data.split_columns)]
    kind = row_kind(data)
    roles += kind.columns().items()
    for role, name in roles:
        if name is not None and name not in frame.columns:
            raise DataError(not_there(f"column '{name}' (data.{role})", name, frame.columns))
    columns = columns or TableColumns(frame)
    check_once(columns.names)
    labels = describe_targets(frame, targets)
    known = known_rows(frame, targets)
    categories = {}
    for name in data.categorical:
        if name in frame.columns:
            categories[name] = sorted(set(coded(frame[name].dropna())[0]), key=str)
            if len(categories[name]) > _MOST_CATEGORIES:
                raise DataError(
                    f"column '{name}' (data.categorical) has over {_MOST_CATEGORIES} values: an identifier?"
                )
        else:
            categories[name] = []
    return {
        "rows": int(known.sum()),
        "rows_without_target": int((~known).sum()),
        "synthetic": int((synthetic_rows(frame, data) & known).sum()),
        "columns": (kinds := column_kinds(frame, columns)),
        "hints": hints_of(frame, kinds, columns),
        "labels": [] if data.targets is not None else next(iter(labels.values()), []),
        "task_labels": {} if data.targets is None else labels,
        "categories": categories,
        "sequence": None,
        **kind.describe(frame if known.all() else frame.loc[known]),
    }


def hints_of(frame: pd.DataFrame, kinds: dict[str, str], columns: TableColumns | None = None) -> dict[str, str]:
    """Say why columns are not used as they stand, where that is clear; see `hints.HINTS`."""
    if frame.shape[1] > MOST_HINTED:
        return {}
    columns = columns or TableColumns(frame)
    plain = {
        name
        for names, numbers in columns.blocks()
        for name, nothing in zip(names, without_hint(numbers).tolist(), strict=True)
        if nothing
    }
    hints: dict[str, str | None] = {}
    for name in (name for name in kinds if name not in plain):
        hints[name] = hint(frame[name], kinds[name], columns.texts_of(name))
    hints |= {
        name: "measured"
        for name, kind in kinds.items()
        if kind == "numeric" and hints.get(name) is None and looks_like_identifier(name)
        if are_measured(name, columns.numbers_of(name))
    }
    hints |= {
        name: "repeats"
        for name, kind in kinds.items()
        if kind != "other" and says_whose(name) and _repeats(frame[name])
    }
    return {name: reason for name, reason in hints.items() if reason is not None}


def codes_of(frame: pd.DataFrame, smallest: int, columns: TableColumns | None = None) -> dict[str, tuple[int, ...]]:
    """Return the whole numbers of each column that holds two and no others, or 3 to 10 that follow each other.

    Each must be of at least so many rows.
    """
    columns = columns or TableColumns(frame)
    # Most columns show a fraction in their first rows, and are not looked at further.
    may_hold = [
        name
        for names, numbers in columns.blocks(rows=np.arange(min(len(frame), _FIRST_ROWS)))
        for name, fraction in zip(names, (numbers > np.floor(numbers)).any(axis=0).tolist(), strict=True)
        if not fraction
    ]
    codes: dict[str, tuple[int, ...]] = {}
    for names, numbers in columns.blocks(may_hold):
        low, high = np.fmin.reduce(numbers, axis=0), np.fmax.reduce(numbers, axis=0)
        far = np.maximum(np.abs(low), np.abs(high))
        may = np.flatnonzero((low == np.floor(low)) & (high == np.floor(high)) & (far <= _LARGEST_CODE) & (low < high))
        if not len(may):
            continue
        some, low, high = numbers[:, may], low[may], high[may]
        lows, highs = (some == low).sum(axis=0), (some == high).sum(axis=0)
        known = (~np.isnan(some)).sum(axis=0)
        enough = np.minimum(lows, highs) >= max(smallest, 1)
        for place in np.flatnonzero(enough & (lows + highs == known)).tolist():
            codes[names[may[place]]] = int(low[place]), int(high[place])
        follow = enough & (lows + highs < known) & (high - low >= 2) & (high - low < MOST_CODES)
        for place in np.flatnonzero(follow).tolist():
            found, counts = np.unique(some[~np.isnan(some[:, place]), place], return_counts=True)
            if (np.diff(found) == 1).all() and counts.min() >= smallest:
                codes[names[may[place]]] = tuple(map(int, found))
    return codes


def _repeats(column: pd.Series) -> bool:
    """Say whether a column that is called as patients' numbers are has each number in some rows, of many."""
    known = column.dropna()
    numbers = known.nunique()
    return numbers >= _FEWEST_PATIENTS and len(known) >= _ROWS_OF_ONE * numbers


def column_kinds(frame: pd.DataFrame, columns: TableColumns | None = None) -> dict[str, str]:
    """Classify all columns; many at a time where they are numbers, for a table may have 18,000 of them."""
    columns = columns or TableColumns(frame)
    kinds: dict[str, str | None] = dict.fromkeys(columns.names)
    for names, numbers in columns.blocks(rows=np.arange(min(len(frame), _FIRST_ROWS))):
        kinds |= dict.fromkeys(compress(names, (~np.isnan(numbers)).any(axis=0)), "numeric")
    for name in (name for name, kind in kinds.items() if kind is None):
        kinds[name] = column_kind(frame[name], columns.texts_of(name))
    return {str(name): str(kind) for name, kind in kinds.items()}


def column_kind(column: pd.Series, texts: Texts | None = None) -> str:
    """Classify a column as ``numeric``, ``text``, ``empty`` or ``other``; text that is all numbers is numeric.

    `texts` are the column's, where somebody has looked them up.
    """
    import pandas as pd

    texts = texts or texts_of(column)
    if texts is not None:
        return ("numeric" if texts.are_numbers else "text") if texts.values else "empty"
    known = column.dropna()
    if not len(known):
        return "empty"
    if holds_complex(known):
        return "other"
    if pd.api.types.is_numeric_dtype(column):
        return "numeric"
    # A time span would be a number, but of days at one site and of seconds at another.
    if holds_arrays(known) or pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return "other"
    return "numeric" if bool(pd.to_numeric(known, errors="coerce").notna().all()) else "text"
