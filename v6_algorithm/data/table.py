"""One site's table as the model sees it: described, checked, encoded, split and prepared.

`describe` tells the federation what columns there are; `TableData` is what training and evaluation index into.
In a centralised run one `TableData` holds several hospitals (its members), each split as it would be at home.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.data.splits import Fold, make_folds
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Data, Experiment, parse_condition
from v6_algorithm.preparation import Setup
from v6_algorithm.preparation.columns import Label
from v6_algorithm.preparation.combat import Sums
from v6_algorithm.preparation.statistics import site_scaling

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# More labels than this are no classes, and more categories no category but an identifier.
_MOST_CLASSES = 200
_MOST_CATEGORIES = 100
_SHOWN = 30


@dataclass
class TableData:
    """Rows of one site.

    Attributes
    ----------
    values
        (rows, features) raw numeric features, NaN where missing.
    one_hot
        (rows, categories) 0/1 inputs that are neither filled nor scaled.
    target
        (rows,) int64 class numbers, or floats of the training dtype.
    member
        (rows,) index into `members`, the hospital each row is from.
    folds
        Row numbers of the parts, one `Fold` a fold.
    covariates
        (rows, columns) numbers that only harmonisation uses.
    """

    values: Array
    one_hot: Array
    target: Array
    member: Array
    members: list[str]
    folds: list[Fold]
    covariates: Array = field(default_factory=lambda: np.empty((0, 0)))

    def training_values(self, setup: Setup | None = None, data: Data | None = None) -> list[Array]:
        """Return the features of the training rows of each fold, which is all that statistics may see.

        They are raw, or filled and harmonised where a setup says how.
        """
        if setup is None or data is None or setup.combat is None:
            return [self.values[fold.train] for fold in self.folds]
        return [self.harmonised(setup, data, number)[fold.train] for number, fold in enumerate(self.folds)]

    def combat_sums(self, setup: Setup, data: Data) -> Sums:
        """Return what ComBat needs of the training rows of each hospital and fold."""
        design = [self._design(setup, data, number) for number in range(len(self.folds))]
        filled = [self._filled(setup, number) for number in range(len(self.folds))]
        return Sums.of(
            [
                (filled[number][rows], design[number][rows])
                for rows in (fold.train[self.member[fold.train] == member] for member in range(len(self.members)))
            ]
            for number, fold in enumerate(self.folds)
        )

    def harmonised(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return (rows, features) of one fold, filled and without their hospital's location and scale."""
        if setup.combat is None:
            return self.values
        filled, design, train = self._filled(setup, fold), self._design(setup, data, fold), self.folds[fold].train
        adjusted = np.empty_like(filled)
        for member in range(len(self.members)):
            own = np.flatnonzero(self.member == member)
            basis = np.flatnonzero(np.isin(own, train))
            # A hospital that trains nothing in this fold is known by all its rows, whose targets are not looked at.
            basis = basis if len(basis) else np.arange(len(own))
            adjusted[own] = setup.combat.adjust(filled[own], design[own], fold, basis)
        return adjusted

    def _filled(self, setup: Setup, fold: int) -> Array:
        if setup.preparation is None:
            raise DataError("the request carries no preparation")
        return np.where(np.isnan(self.values), setup.preparation.fill[fold].astype(self.values.dtype), self.values)

    def _design(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return the (rows, columns) covariates of ComBat; see `Setup.design_columns`."""
        filled, columns, start = self._filled(setup, fold), {}, 0
        for name, labels in setup.categories.items():
            columns[name] = self.one_hot[:, start + 1 : start + len(labels)]
            start += len(labels)
        for name in data.harmonisation.covariates:
            if name in setup.features:
                columns[name] = filled[:, [setup.features.index(name)]]
            elif name in setup.covariates:
                columns[name] = self.covariates[:, [setup.covariates.index(name)]]
        parts = [columns[name] for name in data.harmonisation.covariates]
        return np.concatenate([np.empty((len(filled), 0)), *parts], axis=1)

    def _own_values(self) -> list[Array]:
        """Return what a site scales itself with: its training rows, or in a fold where it only tests, all its rows.

        Scaling does not see the target, so a new hospital can do as much before it knows a single outcome.
        """
        return [values if len(values) else self.values for values in self.training_values()]

    def inputs(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return (rows, inputs) filled and scaled inputs of one fold."""
        if setup.preparation is None:
            raise DataError("the request carries no preparation")
        preparation = setup.preparation
        if data.scaling.scope == "site" and data.scaling.kind != "none":
            preparation = site_scaling(data.scaling.kind, self._own_values(), preparation)
        return np.concatenate([preparation.apply(self.harmonised(setup, data, fold), fold), self.one_hot], axis=1)

    def counts(self) -> list[dict[str, dict[str, int]]]:
        """Return rows for each fold, member and part."""
        return [
            {
                name: {part: int((self.member[fold[part]] == number).sum()) for part in PARTS}
                for number, name in enumerate(self.members)
            }
            for fold in self.folds
        ]


def describe(frame: pd.DataFrame, data: Data, *, classification: bool) -> dict[str, Any]:
    """Tell which columns there are and which labels and categories occur; see `preparation.agree`.

    Raises
    ------
    DataError
        When the target, group, split or a categorical column is missing, or cannot be used as such.
    """
    for role, name in (("target", data.target), ("group", data.group), ("split_column", data.split_column)):
        if name is not None and name not in frame.columns:
            raise DataError(f"column '{name}' (data.{role}) is not there; {_named(list(frame.columns))}")
    if frame.columns.duplicated().any():
        raise DataError(f"column '{frame.columns[frame.columns.duplicated()][0]}' is there twice")
    if not classification and column_kind(frame[data.target]) not in ("numeric", "empty"):
        raise DataError(f"column '{data.target}' (data.target) holds text; regression needs numbers")
    known = _has_target(frame[data.target], classification)
    if not known.any():
        raise DataError(f"column '{data.target}' (data.target) is empty")
    labels: list[Label] = []
    if classification:
        labels = sorted(set(target_labels(frame.loc[known, data.target], data)), key=str)
        if len(labels) > _MOST_CLASSES:
            raise DataError(
                f"column '{data.target}' (data.target) has over {_MOST_CLASSES} distinct values; "
                "use problem regression, or data.positive to make it 0/1"
            )
    categories = {}
    for name in data.categorical:
        if name in frame.columns:
            categories[name] = sorted(set(canonical(frame[name].dropna())), key=str)
            if len(categories[name]) > _MOST_CATEGORIES:
                raise DataError(
                    f"column '{name}' (data.categorical) has over {_MOST_CATEGORIES} values: an identifier?"
                )
        else:
            categories[name] = []
    return {
        "rows": int(known.sum()),
        "rows_without_target": int((~known).sum()),
        "columns": {str(name): column_kind(frame[name]) for name in frame.columns},
        "labels": labels,
        "categories": categories,
    }


def _named(columns: list[str]) -> str:
    """List column names for a message, unless they look like a row: a file without a header line starts with one."""
    for name in columns:
        try:
            float(name)
        except ValueError:
            continue
        return "its column names hold numbers, which are not shown: does the file begin with a header line?"
    return f"it has: {', '.join(columns[:_SHOWN])}{', …' if len(columns) > _SHOWN else ''}"


def column_kind(column: pd.Series) -> str:
    """Classify a column as ``numeric``, ``text``, ``empty`` or ``other``; text that is all numbers is numeric."""
    import pandas as pd

    if column.isna().all():
        return "empty"
    if pd.api.types.is_numeric_dtype(column):
        return "numeric"
    # A time span would be a number, but of days at one site and of seconds at another.
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return "other"
    numbers = pd.to_numeric(column, errors="coerce")
    return "numeric" if bool((numbers.notna() == column.notna()).all()) else "text"


def canonical(column: pd.Series) -> list[Label]:
    """Give labels one form at all sites: 1, 1.0, True and '1' are 1; text is stripped. No cell may be empty."""
    return [_canonical(value) for value in column.tolist()]


def _canonical(value: Any) -> Label:
    if isinstance(value, bool):
        return int(value)
    text = str(value).strip()
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        number = float(text)
        if np.isfinite(number):
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return text


def target_labels(column: pd.Series, data: Data) -> list[Label]:
    labels = canonical(column)
    if data.positive is None:
        return labels
    operator, threshold = parse_condition(data.positive)
    if operator in ("==", "!="):
        wanted = _canonical(threshold)
        return [int((label == wanted) == (operator == "==")) for label in labels]
    if any(isinstance(label, str) for label in labels):
        raise DataError(f"column '{data.target}' (data.target) holds text, data.positive is '{data.positive}'")
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[operator]
    return [int(hit) for hit in compare(np.asarray(labels, dtype=float), threshold)]


def load_table(frames: Mapping[str, pd.DataFrame], experiment: Experiment, setup: Setup) -> TableData:
    """Encode and split the tables of one site (or, centralised, of several members).

    Raises
    ------
    DataError
        When a cell is empty and `data.missing` is error, or no row can be used.
    """
    parts = [_encode(frame, experiment, setup, name) for name, frame in frames.items()]
    if len({len(part.folds) for part in parts}) > 1:
        raise DataError("the members have different numbers of folds")
    starts = np.cumsum([0, *(len(part.target) for part in parts)])
    return TableData(
        values=np.concatenate([part.values for part in parts]),
        one_hot=np.concatenate([part.one_hot for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        covariates=np.concatenate([part.covariates for part in parts]),
        member=np.repeat(np.arange(len(parts)), [len(part.target) for part in parts]),
        members=list(frames),
        folds=[
            Fold(
                *(
                    np.concatenate(
                        [part.folds[number][name] + start for part, start in zip(parts, starts, strict=False)]
                    )
                    for name in PARTS
                )
            )
            for number in range(len(parts[0].folds))
        ],
    )


def _encode(frame: pd.DataFrame, experiment: Experiment, setup: Setup, member: str) -> TableData:
    import pandas as pd

    data, dtype = experiment.data, experiment.training.dtype
    frame = frame.loc[_has_target(frame[data.target], setup.classes is not None)]
    values = np.empty((len(frame), len(setup.features)), dtype=dtype)
    for number, name in enumerate(setup.features):
        values[:, number] = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=dtype, na_value=np.nan)
    values[~np.isfinite(values)] = np.nan
    if data.missing.kind == "error" and np.isnan(values).any():
        column = setup.features[int(np.isnan(values).any(axis=0).argmax())]
        raise DataError(f"column '{column}' has empty cells, and data.missing is error")
    if data.missing.kind == "drop":
        complete = ~np.isnan(values).any(axis=1)
        frame, values = frame.iloc[np.flatnonzero(complete)], values[complete]
        if not len(frame):
            raise DataError("data.missing is drop, and every row has an empty cell")

    target, numbers = _target(frame, experiment, setup)
    one_hot = [_one_hot(frame[name], labels).astype(dtype) for name, labels in setup.categories.items() if labels]
    folds = make_folds(
        experiment.split,
        len(frame),
        seeding.numpy_generator(experiment.seed, "split", member),
        labels=numbers,
        groups=None if data.group is None else _codes(frame[data.group]),
        given=None if data.split_column is None else frame[data.split_column].tolist(),
    )
    return TableData(
        values=values,
        one_hot=np.concatenate(one_hot, axis=1) if one_hot else np.empty((len(frame), 0), dtype=dtype),
        covariates=_covariates(frame, setup.covariates),
        target=target,
        member=np.zeros(len(frame), dtype=np.int64),
        members=[member],
        folds=folds,
    )


def _covariates(frame: pd.DataFrame, names: list[str]) -> Array:
    """Return (rows, names) float64; a covariate must be known, for what is not cannot be kept."""
    import pandas as pd

    columns = np.empty((len(frame), len(names)))
    for number, name in enumerate(names):
        columns[:, number] = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if not np.isfinite(columns[:, number]).all():
            raise DataError(
                f"column '{name}' (data.harmonisation.covariates) has empty cells; fill it, or leave it out"
            )
    return columns


def _has_target(column: pd.Series, classification: bool) -> pd.Series[bool]:
    """Say which rows can be learned from; an infinite number is no target."""
    import pandas as pd

    known = column.notna()
    if classification:
        return known
    return known & np.isfinite(pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan))


def _one_hot(column: pd.Series, labels: list[Label]) -> Array:
    """Return (rows, labels) bool; an empty cell is none of the labels."""
    place = {label: number for number, label in enumerate(labels)}
    known = column.notna().to_numpy()
    encoded = np.zeros((len(column), len(labels)), dtype=bool)
    for row, value in zip(np.flatnonzero(known), canonical(column[known]), strict=True):
        if value in place:
            encoded[row, place[value]] = True
    return encoded


def _target(frame: pd.DataFrame, experiment: Experiment, setup: Setup) -> tuple[Array, Array | None]:
    column = frame[experiment.data.target]
    if setup.classes is None:
        return column.astype(float).to_numpy(dtype=experiment.training.dtype), None
    number = {label: index for index, label in enumerate(setup.classes)}
    try:
        classes = np.asarray([number[label] for label in target_labels(column, experiment.data)], dtype=np.int64)
    except KeyError:
        raise DataError(f"column '{experiment.data.target}' has a class that was not there at preparation") from None
    return classes, classes


def _codes(column: pd.Series) -> Array:
    """Number the groups; a row without a group is a group of its own."""
    codes, _ = column.factorize()
    alone = codes < 0
    codes = codes.astype(np.int64)
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return codes
