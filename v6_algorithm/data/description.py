"""What a site tells of its table before anything is learned: its columns by kind, labels and categories.

`site` calls `describe`; `summary` classifies columns by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.cells import columns_at, hint, holds_complex, without_hint
from v6_algorithm.data.names import check_once, not_there
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.rows.numbers import says_whose
from v6_algorithm.data.sequences import holds_arrays
from v6_algorithm.data.synthetic import synthetic_rows
from v6_algorithm.data.targets import TargetColumn, coded, describe_targets, known_rows
from v6_algorithm.data.texts import Texts, texts_of
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data

if TYPE_CHECKING:
    import pandas as pd

# Rows of which one has a number in all but a few columns that have any.
_FIRST_ROWS = 100
# Cells of numbers that are looked at together.
_MOST_CELLS = 2_000_000
# More categories than this are no category but an identifier.
_MOST_CATEGORIES = 100
# Of a column that says whose rows these are: fewer are groups of another kind.
_FEWEST_PATIENTS, _ROWS_OF_ONE = 10, 1.2
_LARGEST_CODE = 1000
# Grades and scores have no more codes.
MOST_CODES = 10
# A table of more columns is one of genes, which are not looked at one by one.
MOST_HINTED = 2000


def describe(frame: pd.DataFrame, data: Data, targets: Sequence[TargetColumn]) -> dict[str, Any]:
    """Tell which columns there are and which labels and categories occur; see `preparation.agree`.

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
    check_once(frame.columns)
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
    looked_up = LookedUp()
    return {
        "rows": int(known.sum()),
        "rows_without_target": int((~known).sum()),
        "synthetic": int((synthetic_rows(frame, data) & known).sum()),
        "columns": (kinds := column_kinds(frame, looked_up)),
        "hints": hints_of(frame, kinds, looked_up),
        "labels": [] if data.targets is not None else next(iter(labels.values()), []),
        "task_labels": {} if data.targets is None else labels,
        "categories": categories,
        "sequence": None,
        **kind.describe(frame if known.all() else frame.loc[known]),
    }


@dataclass
class LookedUp:
    """What `column_kinds` and `hints_of` both look up of one table.

    Attributes
    ----------
    texts
        Of columns that are not numpy's numbers, by name.
    numbers
        The columns of numpy's numbers, as `_numbers` yields them, of a table so small that it is worth keeping.
    """

    texts: dict[str, Texts | None] = field(default_factory=dict)
    numbers: list[tuple[list[str], np.ndarray]] | None = None

    def texts_of(self, name: str, column: pd.Series) -> Texts | None:
        """Return the texts of a column."""
        if name not in self.texts:
            self.texts[name] = texts_of(column)
        return self.texts[name]

    def numbers_of(self, frame: pd.DataFrame) -> Iterable[tuple[list[str], np.ndarray]]:
        """Return the columns of numpy's numbers; see `_numbers`."""
        if len(frame) > _FIRST_ROWS or frame.shape[1] > MOST_HINTED:
            return _numbers(frame)
        if self.numbers is None:
            self.numbers = list(_numbers(frame))
        return self.numbers


def hints_of(frame: pd.DataFrame, kinds: dict[str, str], looked_up: LookedUp | None = None) -> dict[str, str]:
    """Say why columns are not used as they stand, where that is clear; see `cells.HINTS`."""
    if frame.shape[1] > MOST_HINTED:
        return {}
    looked_up = looked_up or LookedUp()
    plain = {
        name
        for names, numbers in looked_up.numbers_of(frame)
        for name, nothing in zip(names, without_hint(numbers).tolist(), strict=True)
        if nothing
    }
    hints: dict[str, str | None] = {}
    for name in (name for name in kinds if name not in plain):
        column = frame[name]
        hints[name] = hint(column, kinds[name], looked_up.texts_of(name, column))
    hints |= {
        name: "repeats"
        for name, kind in kinds.items()
        if kind != "other" and says_whose(name) and _repeats(frame[name])
    }
    return {name: reason for name, reason in hints.items() if reason is not None}


def codes_of(frame: pd.DataFrame, smallest: int) -> dict[str, tuple[int, ...]]:
    """Return the whole numbers of each column that holds two and no others, or 3 to 10 that follow each other.

    Each must be of at least so many rows.
    """
    codes: dict[str, tuple[int, ...]] = {}
    for names, numbers in _numbers(frame):
        low, high = np.fmin.reduce(numbers, axis=0), np.fmax.reduce(numbers, axis=0)
        whole = (
            (low == np.floor(low)) & (high == np.floor(high)) & (np.maximum(np.abs(low), np.abs(high)) <= _LARGEST_CODE)
        )
        lows, highs = (numbers == low).sum(axis=0), (numbers == high).sum(axis=0)
        known = (~np.isnan(numbers)).sum(axis=0)
        enough = (low < high) & whole & (np.minimum(lows, highs) >= max(smallest, 1))
        for place in np.flatnonzero(enough & (lows + highs == known)).tolist():
            codes[names[place]] = int(low[place]), int(high[place])
        follow = enough & (lows + highs < known) & (high - low >= 2) & (high - low < MOST_CODES)
        for place in np.flatnonzero(follow).tolist():
            found, counts = np.unique(numbers[~np.isnan(numbers[:, place]), place], return_counts=True)
            if (np.diff(found) == 1).all() and counts.min() >= smallest:
                codes[names[place]] = tuple(map(int, found))
    return codes


def _repeats(column: pd.Series) -> bool:
    """Say whether a column that is called as patients' numbers are has each number in some rows, of many."""
    known = column.dropna()
    numbers = known.nunique()
    return numbers >= _FEWEST_PATIENTS and len(known) >= _ROWS_OF_ONE * numbers


def _numbers(frame: pd.DataFrame) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the columns of numpy's numbers, some at a time: their names, and (rows, columns) float64."""
    names, dtypes = frame.columns.tolist(), frame.dtypes.tolist()
    places = [place for place, dtype in enumerate(dtypes) if isinstance(dtype, np.dtype) and dtype.kind in "biuf"]
    step = max(_MOST_CELLS // max(len(frame), 1), 1)
    for start in range(0, len(places), step):
        some = places[start : start + step]
        yield [names[place] for place in some], columns_at(frame, some).to_numpy(dtype=np.float64)


def column_kinds(frame: pd.DataFrame, looked_up: LookedUp | None = None) -> dict[str, str]:
    """Classify all columns; many at a time where they are numbers, for a table may have 18,000 of them."""
    looked_up = looked_up or LookedUp()
    kinds: dict[str, str | None] = dict.fromkeys(frame.columns.tolist())
    for names, numbers in looked_up.numbers_of(frame if len(frame) <= _FIRST_ROWS else frame.head(_FIRST_ROWS)):
        kinds |= dict.fromkeys(compress(names, (~np.isnan(numbers)).any(axis=0)), "numeric")
    for name in (name for name, kind in kinds.items() if kind is None):
        column = frame[name]
        kinds[name] = column_kind(column, looked_up.texts_of(name, column))
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
