"""One site's table as the model sees it: encoded, split and prepared.

`TableData` is what training and evaluation index into; what a table holds is told by `description`.
In a centralised run one `TableData` holds several hospitals (its members), each split as it would be at home.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.imaging.stack import TableImages
from v6_algorithm.data.imaging.statistics import image_moments
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.preparation.combat import Sums
from v6_algorithm.data.preparation.imputation import blocks_of, outcome_of, products
from v6_algorithm.data.preparation.statistics import Moments, Preparation, site_scaling
from v6_algorithm.data.splits import Fold
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Data

if TYPE_CHECKING:
    pass

Array = np.ndarray


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
    lengths
        (rows,) times of each row before its padding; empty where no row has any.
    position
        (rows,) place of each row in its hospital's table, where its image stands; empty where there are none.
    groups
        (rows, columns) place of each row's group in `group_names`, for each column of `evaluation.subgroups`.
    group_names
        Names of each of these columns' groups.
    synthetic
        (rows,) bool: synthetic rows, which only train.
    images
        The images, whose channels are the features; `values` is empty then.
    origin
        (rows,) place of each row in its hospital's table, whether or not there are images.
    patient
        (rows,) number of each row's group in `data.group`; empty where there is no such column.
    weights
        (rows,) float64 weights of a regression's rows; empty where it has none.
    matches
        Whether imputed cells are values of other rows (predictive mean matching), or drawn from the regression alone.
    """

    values: Array
    one_hot: Array
    target: Array
    member: Array
    members: list[str]
    folds: list[Fold]
    covariates: Array = field(default_factory=lambda: np.empty((0, 0)))
    lengths: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    position: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    groups: Array = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    group_names: list[list[str]] = field(default_factory=list)
    synthetic: Array = field(default_factory=lambda: np.empty(0, dtype=bool))
    images: TableImages | None = None
    origin: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    patient: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    weights: Array = field(default_factory=lambda: np.empty(0))
    matches: bool = field(default=True, init=False)

    def training_moments(self, *, with_range: bool) -> Moments:
        """Measure the features of the training rows of each fold, or the channels of their images."""
        if self.images is None:
            return Moments.of(self.training_values(), with_range=with_range)
        return image_moments(self.images, [fold.train for fold in self.folds], with_range=with_range)

    def training_values(self, setup: Setup | None = None, data: Data | None = None) -> Iterable[Array]:
        """Return the features of the training rows of each fold, which is all that statistics may see.

        They are raw, or filled and harmonised where a setup says how. Of time series each time is a row, and each
        channel a feature.
        """
        if setup is None or data is None or setup.combat is None:
            return _TrainingValues(lambda number: self._series(self.values, self.folds[number].train), self.folds)
        return _TrainingValues(
            lambda number: self._series(self.harmonised(setup, data, number), self.folds[number].train), self.folds
        )

    def _series(self, values: Array, rows: Array) -> Array:
        """Return some rows of values; of time series each time that is not padding is one."""
        chosen = values[rows]
        return (
            chosen[~self._padding(rows)]
            if len(self.lengths)
            else chosen.reshape(math.prod(chosen.shape[:-1]), chosen.shape[-1])
        )

    def _padding(self, rows: Array) -> Array:
        """Say which times of some rows are padding: (rows, time) bool."""
        padding: Array = np.arange(self.values.shape[1]) >= self.lengths[rows, None]
        return padding

    def combat_sums(self, setup: Setup, data: Data) -> Sums:
        """Return what ComBat needs of the training rows of each hospital and fold."""
        return Sums.of(self._by_hospital(setup, data, number) for number in range(len(self.folds)))

    def _by_hospital(self, setup: Setup, data: Data, fold: int) -> list[tuple[Array, Array]]:
        """Return filled values and covariates of each hospital's training rows."""
        train = self.folds[fold].train
        filled, design = self._filled(setup, fold), self._design(setup, data, fold)
        hospital_rows = [train[self.member[train] == member] for member in range(len(self.members))]
        return [(filled[rows], design[rows]) for rows in hospital_rows]

    def harmonised(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return (rows, features) of one fold, filled and without their hospital's location and scale."""
        if setup.combat is None:
            return self.values
        filled, design, train = self._filled(setup, fold), self._design(setup, data, fold), self.folds[fold].train
        for member in range(len(self.members)):
            hospital_rows = np.flatnonzero(self.member == member)
            basis = np.flatnonzero(np.isin(hospital_rows, train))
            # A hospital that trains nothing in this fold is known by all its rows, whose targets are not looked at.
            basis = basis if len(basis) else np.arange(len(hospital_rows))
            filled[hospital_rows] = setup.combat.adjust(filled[hospital_rows], design[hospital_rows], fold, basis)
        return filled

    def imputed(self, setup: Setup, fold: int) -> tuple[Array, Array]:
        """Return (rows, features) in units of the columns and (rows, categories) of one imputation, both float64.

        Empty cells are drawn; of a category they are those of another row, or shares that add up to 1.
        """
        if setup.imputation is None or setup.preparation is None:
            raise DataError("the request carries no imputation")
        if not 0 <= fold < setup.imputation.imputations:
            raise DataError("the request has fewer imputations than folds")
        shift, scale = setup.preparation.shift[fold], setup.preparation.scale[fold]
        values, features = self.values.astype(np.float64), self.values.shape[1]
        scaled, known = (values - shift) / scale, self.one_hot.astype(np.float64)
        completed = np.empty((len(values), features + known.shape[1]))
        donors = np.zeros(len(values), dtype=bool)
        donors[self.folds[fold].train] = self.matches
        outcome = outcome_of(self.target, self.folds[fold].train, self.member)
        blocks = blocks_of(setup.imputation.columns, setup.features, setup.categories)
        for member, name in enumerate(self.members):
            rows = self.member == member
            completed[rows] = setup.imputation.complete(
                scaled[rows], known[rows], outcome[rows], blocks, fold, [name], donors[rows]
            )
        filled: Array = np.where(np.isnan(values), completed[:, :features] * scale + shift, values)
        return filled, completed[:, features:]

    def without_few_empty(self, least: int, *, patterns: bool) -> TableData:
        """Return the table with no row to train on that has an empty cell, where a hospital has fewer than `least`.

        Imputed tables differ in these rows alone. With `patterns` the same holds of rows whose cells are empty in the
        same columns, those with none too: sums are over the rows in which a column has a value, and so differ in these.
        """
        few = np.zeros(len(self.values), dtype=bool)
        if self.values.ndim == 2 and len(self.values):
            empty = np.isnan(np.column_stack([self.values, self.one_hot]))
            trained = np.zeros(len(self.values), dtype=bool)
            trained[np.concatenate([fold.train for fold in self.folds])] = True
            for member in range(len(self.members)):
                rows = np.flatnonzero((self.member == member) & trained)
                if not empty[rows].any():
                    continue
                kind = empty[rows] if patterns else empty[rows].any(axis=1, keepdims=True)
                _, number, counts = np.unique(kind, axis=0, return_inverse=True, return_counts=True)
                of_kind = counts[number.reshape(-1)]
                few[rows] = (of_kind < least) & (patterns | kind.any(axis=1))
        if not few.any():
            return self
        kept = [Fold(*(fold[part][~few[fold[part]]] for part in PARTS)) for fold in self.folds]
        return replace(self, folds=kept)

    def products(self, setup: Setup, counted: Sequence[bool]) -> Array:
        """Return what the next sweep of an imputation needs of the training rows.

        Parameters
        ----------
        setup
            With the sweeps so far.
        counted
            Of each column that is imputed, whether enough rows here have a value.

        Returns
        -------
        ndarray
            (imputations, columns, width, width) sums of products.
        """
        made, preparation = setup.imputation, setup.preparation
        if made is None or preparation is None:
            raise DataError("the request carries no imputation")
        known = self.known_cells(setup) & np.array(counted, dtype=bool)
        sums = []
        for number in range(made.imputations):
            train = self.folds[number].train
            values, categories = self.imputed(setup, number)
            scaled = (values - preparation.shift[number]) / preparation.scale[number]
            outcome = outcome_of(self.target, train, self.member)
            completed = np.column_stack([scaled, categories])
            sums.append(products(completed[train], outcome[train], known[train]))
        return np.stack(sums)

    def known_cells(self, setup: Setup) -> Array:
        """Say of each column that is imputed in which rows it has a value, (rows, columns) bool."""
        if setup.imputation is None:
            raise DataError("the request carries no imputation")
        inputs = np.column_stack([self.values, self.one_hot])
        blocks = blocks_of(setup.imputation.columns, setup.features, setup.categories)
        known: Array = ~np.isnan(inputs[:, [block[0] - 1 for block in blocks]])
        return known

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
        everything = np.arange(len(self.values))
        return (values if len(values) else self._series(self.values, everything) for values in self.training_values())

    def inputs(self, setup: Setup, data: Data, fold: int) -> Array:
        """Return (rows, inputs) or (rows, time, channels) filled and scaled inputs of one fold.

        They may be `values` themselves, so nobody writes into them.
        """
        if setup.preparation is None:
            raise DataError("the request carries no preparation")
        preparation = setup.preparation
        if data.scaling.scope == "site" and data.scaling.kind != "none":
            preparation = site_scaling(data.scaling.kind, self._own_values(), preparation)
        if setup.terms is not None:
            return self._with_terms(setup, preparation, fold, *self._completed(setup, data, fold))
        values, categories = self._completed(setup, data, fold)
        if len(self.lengths):
            prepared = preparation.apply(values, fold, out=np.empty(values.shape, self.one_hot.dtype))
            # No other input is NaN: the network knows a row's end by it.
            prepared[self._padding(np.arange(len(values)))] = np.nan
            return prepared
        if not self.one_hot.shape[1]:
            if values.dtype == self.one_hot.dtype and preparation.leaves(values, fold):
                # Not a second time in memory: inputs are read only.
                return values
            # What is centred is rounded to what is trained in; values may be in more digits, see `numbers_of`.
            return preparation.apply(values, fold, out=np.empty(values.shape, self.one_hot.dtype))
        features = values.shape[1]
        inputs = np.empty((len(values), features + self.one_hot.shape[1]), dtype=self.one_hot.dtype)
        preparation.apply(values, fold, out=inputs[:, :features])
        inputs[:, features:] = categories
        if setup.unknown and (untrained := setup.unknown[fold]):
            inputs[:, [features + place for place in untrained]] = 0
        return inputs

    def _completed(self, setup: Setup, data: Data, fold: int) -> tuple[Array, Array]:
        """Return values and categories of one fold, of which the values may be empty where nothing is imputed."""
        if setup.imputation is None:
            return self.harmonised(setup, data, fold), self.one_hot
        return self.imputed(setup, fold)

    def _with_terms(self, setup: Setup, preparation: Preparation, fold: int, values: Array, known: Array) -> Array:
        """Return scaled features, categories, and the columns of a regression's curves and products."""
        assert setup.terms is not None  # noqa: S101
        if set(setup.terms.splines) - set(setup.terms.knots):
            raise DataError("the request carries no knots")
        known = known.astype(np.float64)
        if setup.unknown and (untrained := setup.unknown[fold]):
            known[:, untrained] = 0
        scaled = preparation.apply(values.astype(np.float64), fold)
        inputs = np.concatenate([scaled, known], axis=1)
        shift, scale = preparation.shift[fold], preparation.scale[fold]
        made = setup.terms.columns(inputs, setup.features, setup.categories, fold, shift, scale)
        return np.concatenate([inputs, made], axis=1).astype(self.one_hot.dtype)

    def counts(self, *, real: bool = False) -> list[dict[str, dict[str, int]]]:
        """Return rows for each fold, member and part; with `real` without synthetic ones."""
        member = np.where(self.synthetic, -1, self.member) if real else self.member
        return [
            {
                name: {part: int((member[fold[part]] == number).sum()) for part in PARTS}
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
        return (self.values(number) for number in range(len(self.folds)))
