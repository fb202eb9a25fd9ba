"""Rows that are made, not a patient's: which they are, and that they only train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.data.splits import Fold, empty_folds, make_folds
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data, Experiment

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


def synthetic_rows(frame: pd.DataFrame, data: Data) -> Array:
    """Say which rows `data.synthetic` calls made, (rows,) bool; none where there is no such column, or an empty cell.

    Raises
    ------
    DataError
        When the column holds other values than 0 and 1.
    """
    import pandas as pd

    if data.synthetic is None or data.synthetic not in frame.columns:
        return np.zeros(len(frame), dtype=bool)
    column = frame[data.synthetic]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if not np.isin(numbers[column.notna().to_numpy()], (0, 1)).all():
        raise DataError(f"column '{data.synthetic}' (data.synthetic) holds other values than 0 and 1 (synthetic)")
    synthetic: Array = numbers == 1
    return synthetic


def cut_rows(
    experiment: Experiment,
    hospital: str,
    synthetic: Array,
    *,
    labels: Array | None,
    groups: Array | None,
    given: Sequence[Sequence[object]],
    hospitals: Sequence[str],
) -> list[Fold]:
    """Cut a hospital's rows as the experiment says; synthetic ones, (rows,) bool, train beside the others.

    The others are cut as if they were alone; see `make_folds` for the rest, and for what it raises.
    """
    real = np.flatnonzero(~synthetic)
    if not len(real):
        folds = empty_folds(experiment.split, columns=len(given), hospitals=hospitals)
    else:
        folds = make_folds(
            experiment.split,
            len(real),
            seeding.numpy_generator(experiment.seed, "split", hospital),
            labels=None if labels is None else labels[real],
            groups=None if groups is None else groups[real],
            given=[[column[row] for row in real.tolist()] for column in given],
            hospital=hospital,
            hospitals=hospitals,
        )
    if not synthetic.any():
        return folds
    at_home = [number for number, name in enumerate(hospitals) if name == hospital]
    return with_synthetic(folds, synthetic, groups, tests_only=at_home)


def with_synthetic(
    folds: Sequence[Fold], synthetic: Array, groups: Array | None, *, tests_only: Sequence[int]
) -> list[Fold]:
    """Let synthetic rows train in the folds that real rows were cut into.

    Parameters
    ----------
    folds
        Of the real rows by themselves, numbered from 0.
    synthetic
        (rows,) bool, of all rows.
    groups
        (rows,) int: where rows of a group, a patient's, are validated or tested, none trains that was made of them.
    tests_only
        Folds in which this hospital trains nothing.

    Returns
    -------
    list of Fold
        Of all rows.
    """
    real, made = np.flatnonzero(~synthetic), np.flatnonzero(synthetic)
    joined = []
    for number, fold in enumerate(folds):
        train, validation, test = real[fold.train], real[fold.validation], real[fold.test]
        added = made[:0] if number in tests_only else made
        if groups is not None:
            added = added[~np.isin(groups[added], groups[np.concatenate([validation, test])])]
        joined.append(Fold(np.sort(np.concatenate([train, added])), validation, test))
    return joined
