"""The columns that are learned: described to the federation, checked, and turned into an array.

A problem says which columns it learns and as what (`TargetColumn`); `encoding` reads them by that. No message says what
is in a cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from v6_algorithm.data.description.hints import HINTS, hint, holds_complex
from v6_algorithm.data.preparation.spelling import check_comparable, check_written
from v6_algorithm.data.reading.cells import blurred
from v6_algorithm.data.reading.texts import has_value
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import parse_condition

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.preparation.agreement import Label

Array = np.ndarray
# More labels than this are no classes.
_MOST_CLASSES = 200
# Of what a regression's target spans, how much rounding to float32 may take.
_LOST = 0.05


@dataclass(frozen=True)
class TargetColumn:
    """One column that is learned.

    Attributes
    ----------
    column
        Its name.
    role
        The key of the `data` section that names it, for messages: ``target``, ``target.event``, ``targets.sex``.
    kind
        ``class`` (labels), ``number``, ``count`` (whole numbers from 0), ``duration`` (from 0), ``event`` (0 or 1),
        ``entry`` (from 0, below the duration) or ``patient`` (whose row it is: a number that never leaves). A row
        without a class, number or count is left out; a survival time without its event would be a guess.
    positive
        A condition that makes labels, or events, 0/1.
    above_zero
        Of a number: whether 0 and below are refused, as of a gamma distribution.
    """

    column: str
    role: str = "target"
    kind: Literal["class", "number", "count", "duration", "event", "entry", "patient"] = "number"
    positive: str | None = None
    above_zero: bool = False

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"column '{self.column}' (data.{self.role})"


def known_rows(frame: pd.DataFrame, targets: Sequence[TargetColumn]) -> Array:
    """Say which rows can be learned from: (rows,) bool, those with any target."""
    return np.logical_or.reduce([_known(frame[target.column], target) for target in targets])


def describe_targets(frame: pd.DataFrame, targets: Sequence[TargetColumn]) -> dict[str, list[Label]]:
    """Check the targets; return the labels that occur, by column, of those that are classes.

    Raises
    ------
    DataError
        When a column is empty, or holds what its kind does not allow.
    """
    labels = {}
    for target in targets:
        column = frame[target.column]
        _check(column, target)
        if target.kind == "class":
            distinct = set(coded_labels(_cells(column, _known(column, target)), target)[0])
            if len(distinct) > _MOST_CLASSES:
                raise DataError(
                    f"{target.name} has over {_MOST_CLASSES} distinct values; "
                    "use problem regression, or data.positive to make it 0/1"
                )
            labels[target.column] = sorted(distinct, key=str)
    _check_entry(frame, targets)
    return labels


def rows_at_zero(frame: pd.DataFrame, targets: Sequence[TargetColumn]) -> Array:
    """Say which rows have a time of 0 until the event or their end: (rows,) bool, none where no times are learned."""
    at_zero = np.zeros(len(frame), dtype=bool)
    for target in targets:
        if target.kind == "duration" and target.column in frame.columns:
            at_zero |= _as_numbers(frame[target.column]) == 0
    return at_zero


def event_times(frame: pd.DataFrame, targets: Sequence[TargetColumn]) -> Array:
    """Return the times of the rows whose event is seen: (events,) float64, none where no times are learned."""
    columns = {target.kind: target for target in targets if target.column in frame.columns}
    if "duration" not in columns or "event" not in columns:
        return np.empty(0)
    event = _numbers(frame[columns["event"].column], columns["event"])
    return _as_numbers(frame[columns["duration"].column])[event == 1]


def rows_of_labels(frame: pd.DataFrame, targets: Sequence[TargetColumn]) -> dict[str, dict[Label, int]]:
    """Count the rows of each label that occurs, by column, of targets that are classes."""
    counted: dict[str, dict[Label, int]] = {}
    for target in targets:
        if target.kind == "class":
            column = frame[target.column]
            labels, code = coded_labels(_cells(column, _known(column, target)), target)
            counts = counted[target.column] = {}
            for label, rows in zip(labels, np.bincount(code, minlength=len(labels)).tolist(), strict=True):
                counts[label] = counts.get(label, 0) + rows
    return counted


def encode_targets(
    frame: pd.DataFrame, targets: Sequence[TargetColumn], classes: Mapping[str, list[Label]], dtype: str
) -> tuple[Array, Array | None]:
    """Turn the targets of rows that have any into an array, and into strata for the split.

    Parameters
    ----------
    frame
        The rows.
    targets
        What to read.
    classes
        The federation's labels, by column.
    dtype
        Of numbers.

    Returns
    -------
    (array, array or None)
        (rows,) int64 class numbers of a single class, or floats: (rows,) of one target, (rows, targets) of several,
        in which a class is its number and NaN is missing. And (rows,) int64: rows of one class, or with the
        event or without, are spread over the parts alike.

    Raises
    ------
    DataError
        When a label was not there at preparation, a column holds what its kind does not allow, or float32 is too
        coarse for it.
    """
    columns, strata = [], []
    _check_entry(frame, targets)
    for target in targets:
        column = frame[target.column]
        if target.kind == "patient":
            columns.append(patient_numbers(column).astype(dtype))
            continue
        _check(column, target)
        if target.kind != "class":
            numbers = _numbers(column, target)
            if dtype == "float32" and target.kind == "number" and blurred(numbers[:, None], _LOST).any():
                raise DataError(
                    f"{target.name} holds numbers so far from 0 that float32 makes neighbouring ones the same; "
                    "training.dtype: float64, or subtract a constant there"
                )
            columns.append(numbers.astype(dtype))
            strata += [numbers.astype(np.int64)] if target.kind == "event" else []
            continue
        known = _known(column, target)
        place = {label: index for index, label in enumerate(classes[target.column])}
        encoded = np.full(len(column), -1, dtype=np.int64)
        try:
            labels, code = coded_labels(_cells(column, known), target)
            encoded[known] = np.array([place[label] for label in labels], dtype=np.int64)[code]
        except KeyError:
            raise DataError(f"column '{target.column}' has a class that was not there at preparation") from None
        strata.append(encoded)
        columns.append(encoded if len(targets) == 1 else np.where(known, encoded, np.nan).astype(dtype))
    rows = columns[0] if len(targets) == 1 else np.stack(columns, axis=1)
    if not strata:
        return rows, None
    return rows, strata[0] if len(strata) == 1 else np.unique(np.stack(strata), axis=1, return_inverse=True)[1]


def encoded_target(column: pd.Series, target: TargetColumn) -> tuple[Array, Array]:
    """Return which rows have a target, (rows,) bool, and of these the number of its label, or the number itself."""
    if target.kind == "class":
        known = _known(column, target)
        labels, code = coded_labels(_cells(column, known), target)
        first: dict[Label, int] = {}
        return known, np.array([first.setdefault(label, len(first)) for label in labels], dtype=np.int64)[code]
    numbers = _numbers(column, target)
    known = np.isfinite(numbers)
    return known, numbers[known]


def patient_numbers(column: pd.Series) -> Array:
    """Number patients: (rows,) int64; a row without one is a patient by itself."""
    codes, _ = column.factorize()
    alone = codes < 0
    numbers: Array = codes.astype(np.int64)
    numbers[alone] = numbers.max(initial=-1) + 1 + np.arange(alone.sum())
    return numbers


def _check_entry(frame: pd.DataFrame, targets: Sequence[TargetColumn]) -> None:
    """Raise DataError where a row is left before it is entered."""
    by_kind = {target.kind: target for target in targets}
    if "entry" not in by_kind or "duration" not in by_kind:
        return
    entry, duration = by_kind["entry"], by_kind["duration"]
    early = _as_numbers(frame[entry.column]) >= _as_numbers(frame[duration.column])
    if early.any():
        raise DataError(
            f"{entry.name} holds times that are not before {duration.name}: a row is watched from entry to duration"
        )


def labels_of(column: pd.Series, target: TargetColumn) -> list[Label]:
    """Return the labels of cells that are not empty, as `canonical` writes them, or 0/1 by `target.positive`."""
    labels, code = coded_labels(column, target)
    return [labels[number] for number in code.tolist()]


def coded_labels(column: pd.Series, target: TargetColumn) -> tuple[list[Label], Array]:
    """Return the labels of cells that are not empty by their places: labels, some of which may be the same, and (rows,)
    the place of each row's."""
    distinct, code = _distinct(column)
    return _labels_of(distinct, target), code


def _labels_of(values: Sequence[Any], target: TargetColumn) -> list[Label]:
    labels = [_canonical(value) for value in values]
    if target.positive is None:
        return labels
    operator, threshold = parse_condition(target.positive)
    if operator in ("==", "!="):
        wanted = _canonical(threshold)
        wanted = as_truth(wanted, labels)
        check_written(labels, [wanted], target.name, _positive(target))
        check_comparable(labels, wanted, target.name, _positive(target))
        return [int((label == wanted) == (operator == "==")) for label in labels]
    if any(isinstance(label, str) for label in labels):
        raise DataError(
            f"{target.name} holds text, {_positive(target)} is '{target.positive}', which compares numbers; "
            "'== word' asks for a word"
        )
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[operator]
    return [int(hit) for hit in compare(np.asarray(labels, dtype=float), threshold)]


def as_truth(wanted: Label, labels: Sequence[Label]) -> Label:
    """Return 1 for true and 0 for false where a column holds nothing else: of one site TRUE is what 1 is of another."""
    word = str(wanted).lower()
    return int(word == "true") if word in ("true", "false") and set(labels) <= {0, 1} else wanted


def _positive(target: TargetColumn) -> str:
    """Return the key of the target's condition."""
    return f"data.{target.role}.positive" if target.role.split(".")[0] == "targets" else "data.positive"


def canonical(column: pd.Series) -> list[Label]:
    """Give labels one form at all sites: 1, 1.0, True and '1' are 1; text is stripped. No cell may be empty."""
    distinct, code = _distinct(column)
    labels = [_canonical(value) for value in distinct]
    return [labels[number] for number in code.tolist()]


def coded(column: pd.Series) -> tuple[list[Label], Array]:
    """Return the labels of `canonical` by their places: labels, some of which may be the same, and (rows,) places."""
    distinct, code = _distinct(column)
    return [_canonical(value) for value in distinct], code


def _distinct(column: pd.Series) -> tuple[list[Any], Array]:
    """Return the distinct values of cells that are not empty, in the order they come in, and (rows,) the place of each
    row's: a column has few labels and many rows."""
    import pandas as pd

    dtype = column.dtype
    plain = (
        isinstance(dtype, pd.StringDtype) or pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype)
    )
    if plain or (pd.api.types.is_object_dtype(dtype) and pd.api.types.infer_dtype(column, skipna=False) == "string"):
        cells = column.array if isinstance(dtype, pd.api.extensions.ExtensionDtype) else column.to_numpy()
        code, distinct = pd.factorize(cells, use_na_sentinel=False)
        return distinct.tolist(), np.asarray(code, dtype=np.int64)
    # Of several types: a bool is no 1 here, nor is a text.
    places: dict[tuple[type, Any], int] = {}
    code = np.array([places.setdefault((type(value), value), len(places)) for value in column.tolist()], dtype=np.int64)
    return [value for _, value in places], code


def _canonical(value: Any) -> Label:
    if isinstance(value, bool):
        return int(value)
    text = str(value).strip()
    if re.fullmatch(r"[+-]?0\d+", text):  # a code, such as 01, and not the number 1
        return text
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        number = float(text)
        if np.isfinite(number):
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return text


def _known(column: pd.Series, target: TargetColumn) -> Array:
    """Return (rows,) bool; an infinite number is no target."""
    known = has_value(column)
    if target.kind in ("class", "event", "duration", "entry", "patient"):
        return known
    return known & np.isfinite(_as_numbers(column))


def _cells(column: pd.Series, known: Array) -> pd.Series:
    """Return the cells that are known; most columns have no others."""
    return column if known.all() else column[known]


def _numbers(column: pd.Series, target: TargetColumn) -> Array:
    """Return (rows,) float64 numbers; those that cannot be learned from are NaN."""
    if target.kind == "event" and target.positive is not None:
        return np.asarray(labels_of(column, target), dtype=float)
    numbers = _as_numbers(column)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _as_numbers(column: pd.Series) -> Array:
    import pandas as pd

    numbers: Array = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return numbers


_NEEDS = {
    "number": "holds text; regression needs numbers",
    "count": "holds text; loss poisson needs counts",
    "duration": "holds text; survival needs times as numbers",
    "entry": "holds text; survival needs times as numbers",
    "event": "holds text; survival needs 0 and 1, or data.positive to tell an event, such as '== dead'",
}


def _needs(column: pd.Series, target: TargetColumn) -> str:
    """Say what a column holds in place of numbers, what its kind needs, and what would make it so."""
    import pandas as pd

    dates = pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column)
    reason = "dates" if dates else hint(column, "text")
    if reason is None:
        return _NEEDS[target.kind]
    holds, remedy = HINTS[reason]
    return f"{_NEEDS[target.kind].replace('holds text', f'holds {holds}', 1)}: {remedy}"


def _check(column: pd.Series, target: TargetColumn) -> None:
    """Raise DataError unless the column holds what its kind allows."""
    import pandas as pd

    if target.kind == "patient":
        return
    if holds_complex(column):
        raise DataError(
            f"{target.name} holds complex numbers; write the real part, or the magnitude, in a column of its own there"
        )
    if target.kind == "class":
        if not has_value(column).any():
            raise DataError(f"{target.name} is empty")
        return
    numbers = _as_numbers(column)
    if target.positive is None:
        text = np.isnan(numbers) & has_value(column)
        if text.any() or pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
            raise DataError(f"{target.name} {_needs(column, target)}")
    if not _known(column, target).any():
        raise DataError(f"{target.name} is empty")
    finite = numbers[np.isfinite(numbers)]
    if target.kind == "count" and ((finite < 0) | (finite != np.floor(finite))).any():
        raise DataError(f"{target.name} holds numbers that are not counts; loss poisson needs whole numbers from 0")
    if target.above_zero and (finite <= 0).any():
        raise DataError(
            f"{target.name} holds numbers that are not above 0; model.family gamma needs those; data.where: "
            f"{{{target.column}: '> 0'}} leaves out rows without"
        )
    if target.kind in ("duration", "event", "entry") and column.isna().any():
        raise DataError(
            f"{target.name} has empty cells; survival needs every row's time and event; "
            + (
                f"if an empty cell means that it is not seen, write 0 there; data.where: {{{target.column}: "
                "'>= 0'} leaves out rows without"
                if target.positive is None and target.kind == "event"
                else f"data.where: {{{target.column}: '>= 0'}} leaves out rows without"
                if target.positive is None
                else "fill them there, or leave the rows out"
            )
        )
    if target.kind == "duration" and not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise DataError(
            f"{target.name} holds times below 0, or not finite; data.where: {{{target.column}: '>= 0'}} leaves out "
            "those below"
        )
    if target.kind == "entry" and not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise DataError(f"{target.name} holds times below 0, or not finite")
    if target.kind == "event" and target.positive is None and not np.isin(numbers, (0, 1)).all():
        # As R's survival has them.
        coded = "; of 1 and 2, 2 is the event most often: data.positive: '== 2'" if set(finite) <= {1, 2} else ""
        raise DataError(
            f"{target.name} holds other values than 0 (not seen until then) and 1 (seen); "
            f"data.positive makes it 0/1, such as '== dead'{coded}"
        )
