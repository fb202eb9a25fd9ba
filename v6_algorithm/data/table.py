"""One site's table as the model sees it: described, checked, encoded, split and prepared.

`describe` tells the federation what columns there are; `TableData` is what training and evaluation index into.
In a centralised run one `TableData` holds several hospitals (its members), each split as it would be at home.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.data.sequences import describe_sequences, holds_arrays, stack_sequences
from v6_algorithm.data.splits import Fold, draw_rows, make_folds
from v6_algorithm.data.targets import TargetColumn, canonical, describe_targets, encode_targets, known_rows
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Data, Experiment
from v6_algorithm.preparation import Setup
from v6_algorithm.preparation.columns import Label
from v6_algorithm.preparation.combat import Sums
from v6_algorithm.preparation.statistics import site_scaling

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# More categories than this are no category but an identifier.
_MOST_CATEGORIES = 100
_SHOWN = 30
_BLOCK_COLUMNS = 512


@dataclass
class TableData:
    """Rows of one site.

    Attributes
    ----------
    values
        (rows, features) raw numeric features, or (rows, time, channels), NaN where missing.
    one_hot
        (rows, categories) 0/1 inputs that are neither filled nor scaled.
    target
        (rows,) int64 class numbers or floats of the training dtype, or (rows, targets) floats; see `encode_targets`.
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

    def training_values(self, setup: Setup | None = None, data: Data | None = None) -> Iterable[Array]:
        """Return the features of the training rows of each fold, which is all that statistics may see.

        They are raw, or filled and harmonised where a setup says how. Of time series each time is a row, and each
        channel a feature.
        """
        if setup is None or data is None or setup.combat is None:
            return _TrainingValues(lambda number: self.values, self.folds)
        return _TrainingValues(lambda number: self.harmonised(setup, data, number), self.folds)

    def combat_sums(self, setup: Setup, data: Data) -> Sums:
        """Return what ComBat needs of the training rows of each hospital and fold."""
        return Sums.of(self._by_hospital(setup, data, number) for number in range(len(self.folds)))

    def _by_hospital(self, setup: Setup, data: Data, fold: int) -> list[tuple[Array, Array]]:
        """Return filled values and covariates of each hospital's training rows."""
        train = self.folds[fold].train
        filled, design = self._filled(setup, fold), self._design(setup, data, fold)
        own = [train[self.member[train] == member] for member in range(len(self.members))]
        return [(filled[rows], design[rows]) for rows in own]

    def harmonised(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return (rows, features) of one fold, filled and without their hospital's location and scale."""
        if setup.combat is None:
            return self.values
        filled, design, train = self._filled(setup, fold), self._design(setup, data, fold), self.folds[fold].train
        for member in range(len(self.members)):
            own = np.flatnonzero(self.member == member)
            basis = np.flatnonzero(np.isin(own, train))
            # A hospital that trains nothing in this fold is known by all its rows, whose targets are not looked at.
            basis = basis if len(basis) else np.arange(len(own))
            filled[own] = setup.combat.adjust(filled[own], design[own], fold, basis)
        return filled

    def _filled(self, setup: Setup, fold: int) -> Array:
        if setup.preparation is None:
            raise DataError("the request carries no preparation")
        return np.where(np.isnan(self.values), setup.preparation.fill[fold].astype(self.values.dtype), self.values)

    def _design(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return the (rows, columns) covariates of ComBat; see `Setup.design_columns`."""
        if setup.preparation is None:
            raise DataError("the request carries no preparation")
        columns, start = {}, 0
        for name, labels in setup.categories.items():
            columns[name] = self.one_hot[:, start + 1 : start + len(labels)]
            start += len(labels)
        for name in data.harmonisation.covariates:
            if name in setup.features:
                number = setup.features.index(name)
                column, fill = self.values[:, [number]], setup.preparation.fill[fold, number]
                columns[name] = np.where(np.isnan(column), fill.astype(column.dtype), column)
            elif name in setup.covariates:
                columns[name] = self.covariates[:, [setup.covariates.index(name)]]
        parts = [columns[name] for name in data.harmonisation.covariates]
        return np.concatenate([np.empty((len(self.values), 0)), *parts], axis=1)

    def _own_values(self) -> Iterator[Array]:
        """Return what a site scales itself with: its training rows, or in a fold where it only tests, all its rows.

        Scaling does not see the target, so a new hospital can do as much before it knows a single outcome.
        """
        return (values if len(values) else _series(self.values) for values in self.training_values())

    def inputs(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return (rows, inputs) or (rows, time, channels) filled and scaled inputs of one fold."""
        if setup.preparation is None:
            raise DataError("the request carries no preparation")
        preparation = setup.preparation
        if data.scaling.scope == "site" and data.scaling.kind != "none":
            preparation = site_scaling(data.scaling.kind, self._own_values(), preparation)
        values = self.harmonised(setup, data, fold)
        if not self.one_hot.shape[1]:
            return preparation.apply(values, fold)
        features = values.shape[1]
        inputs = np.empty((len(values), features + self.one_hot.shape[1]), dtype=values.dtype)
        preparation.apply(values, fold, out=inputs[:, :features])
        inputs[:, features:] = self.one_hot
        return inputs

    def counts(self) -> list[dict[str, dict[str, int]]]:
        """Return rows for each fold, member and part."""
        return [
            {
                name: {part: int((self.member[fold[part]] == number).sum()) for part in PARTS}
                for number, name in enumerate(self.members)
            }
            for fold in self.folds
        ]


@dataclass(frozen=True)
class _TrainingValues:
    """The training rows of each fold, made one fold at a time: ten copies of a wide table would not fit."""

    values: Callable[[int], Array]
    folds: list[Fold]

    def __iter__(self) -> Iterator[Array]:
        return (_series(self.values(number)[fold.train]) for number, fold in enumerate(self.folds))


def _series(values: Array) -> Array:
    return values.reshape(-1, values.shape[-1])


def describe(frame: pd.DataFrame, data: Data, targets: Sequence[TargetColumn]) -> dict[str, Any]:
    """Tell which columns there are and which labels and categories occur; see `preparation.agree`.

    Raises
    ------
    DataError
        When the target, group, split or a categorical column is missing, or cannot be used as such.
    """
    roles = [*((target.role, target.column) for target in targets), ("group", data.group)]
    roles += [("split_column", name) for name in data.split_columns]
    roles += [("sequence", data.sequence.column)] if data.sequence is not None else []
    for role, name in roles:
        if name is not None and name not in frame.columns:
            raise DataError(f"column '{name}' (data.{role}) is not there; {_named(list(frame.columns))}")
    if frame.columns.duplicated().any():
        raise DataError(f"column '{frame.columns[frame.columns.duplicated()][0]}' is there twice")
    labels = describe_targets(frame, targets)
    known = known_rows(frame, targets)
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
        "columns": column_kinds(frame),
        "labels": [] if data.targets is not None else next(iter(labels.values()), []),
        "task_labels": {} if data.targets is None else labels,
        "categories": categories,
        "sequence": None
        if data.sequence is None
        else describe_sequences(frame.loc[known, data.sequence.column], data.sequence),
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


def column_kinds(frame: pd.DataFrame) -> dict[str, str]:
    """Classify all columns; in blocks where they are numbers, for a table may have 18,000 of them."""
    import pandas as pd

    numeric = {dtype: pd.api.types.is_numeric_dtype(dtype) for dtype in set(frame.dtypes)}
    kinds: dict[str, str] = {}
    for start in range(0, frame.shape[1], _BLOCK_COLUMNS):
        block = frame.iloc[:, start : start + _BLOCK_COLUMNS]
        for name, dtype, empty in zip(block.columns, block.dtypes, block.isna().all(), strict=True):
            if empty:
                kinds[str(name)] = "empty"
            else:
                kinds[str(name)] = "numeric" if numeric[dtype] else column_kind(block[name])
    return kinds


def column_kind(column: pd.Series) -> str:
    """Classify a column as ``numeric``, ``text``, ``empty`` or ``other``; text that is all numbers is numeric."""
    import pandas as pd

    if column.isna().all():
        return "empty"
    if pd.api.types.is_numeric_dtype(column):
        return "numeric"
    # A time span would be a number, but of days at one site and of seconds at another.
    if (
        holds_arrays(column)
        or pd.api.types.is_datetime64_any_dtype(column)
        or pd.api.types.is_timedelta64_dtype(column)
    ):
        return "other"
    numbers = pd.to_numeric(column, errors="coerce")
    return "numeric" if bool((numbers.notna() == column.notna()).all()) else "text"


def load_table(
    frames: Mapping[str, pd.DataFrame], experiment: Experiment, setup: Setup, targets: Sequence[TargetColumn]
) -> TableData:
    """Encode and split the tables of one site (or, centralised, of several members).

    Raises
    ------
    DataError
        When a cell is empty and `data.missing` is error, or no row can be used.
    """
    parts = [_encode(frame, experiment, setup, targets, name) for name, frame in frames.items()]
    if len(parts) == 1:
        return parts[0]
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


def _encode(
    frame: pd.DataFrame, experiment: Experiment, setup: Setup, targets: Sequence[TargetColumn], member: str
) -> TableData:
    data, dtype = experiment.data, experiment.training.dtype
    known = known_rows(frame, targets)
    frame = frame if known.all() else frame.loc[known]
    if data.sequence is not None:
        column = frame[data.sequence.column]
        values = stack_sequences(column, data.sequence, setup.sequence_length or 0, len(setup.features), dtype)
        values[~np.isfinite(values)] = np.nan
    else:
        values = _values(frame, setup.features, dtype)
    if data.missing.kind == "error" and np.isnan(values).any():
        empty = setup.features[int(np.isnan(values).reshape(-1, values.shape[-1]).any(axis=0).argmax())]
        raise DataError(f"column '{empty}' has empty cells, and data.missing is error")
    if data.missing.kind == "drop":
        complete = ~np.isnan(values).reshape(len(values), -1).any(axis=1)
        if not complete.all():
            frame, values = frame.iloc[np.flatnonzero(complete)], values[complete]
        if not len(frame):
            raise DataError("data.missing is drop, and every row has an empty cell")

    target, strata = encode_targets(frame, targets, setup.labels_of(targets[0].column), dtype)
    if data.load_limit is not None:
        generator = seeding.numpy_generator(experiment.seed, "load limit", member)
        drawn = draw_rows(data.load_limit, len(frame), generator, strata)
        frame, values, target = frame.iloc[drawn], values[drawn], target[drawn]
        strata = None if strata is None else strata[drawn]
    one_hot = [_one_hot(frame[name], labels).astype(dtype) for name, labels in setup.categories.items() if labels]
    folds = make_folds(
        experiment.split,
        len(frame),
        seeding.numpy_generator(experiment.seed, "split", member),
        labels=strata,
        groups=None if data.group is None else _codes(frame[data.group]),
        given=[frame[name].tolist() for name in data.split_columns],
        hospital=member,
        hospitals=setup.hospitals,
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


def _values(frame: pd.DataFrame, features: list[str], dtype: str) -> Array:
    """Return (rows, features) numbers, NaN where a cell is empty or infinite; some columns at a time."""
    import pandas as pd

    values = np.empty((len(frame), len(features)), dtype=dtype)
    for start in range(0, len(features), _BLOCK_COLUMNS):
        block = frame[features[start : start + _BLOCK_COLUMNS]]
        text = [name for name, kind in block.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        block = block.assign(**{str(name): pd.to_numeric(block[name], errors="coerce") for name in text})
        numbers = block.to_numpy(dtype=dtype, na_value=np.nan)
        values[:, start : start + _BLOCK_COLUMNS] = np.where(np.isfinite(numbers), numbers, np.nan)
    return values


def _one_hot(column: pd.Series, labels: list[Label]) -> Array:
    """Return (rows, labels) bool; an empty cell is none of the labels."""
    place = {label: number for number, label in enumerate(labels)}
    known = column.notna().to_numpy()
    encoded = np.zeros((len(column), len(labels)), dtype=bool)
    for row, value in zip(np.flatnonzero(known), canonical(column[known]), strict=True):
        if value in place:
            encoded[row, place[value]] = True
    return encoded


def _codes(column: pd.Series) -> Array:
    """Number the groups; a row without a group is a group of its own."""
    codes, _ = column.factorize()
    alone = codes < 0
    codes = codes.astype(np.int64)
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return codes
