"""Encoding one site's table: from a dataframe to a `TableData`, whose rows are complete, coded and dealt to parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.data.imaging.copies import NONE, identities, with_copies_together
from v6_algorithm.data.names import not_there
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.preparation.agreement import Label
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.splits import Fold, draw_rows
from v6_algorithm.data.subgroups import encode_groups, join_groups
from v6_algorithm.data.synthetic import cut_rows, synthetic_rows
from v6_algorithm.data.table import TableData
from v6_algorithm.data.targets import TargetColumn, coded, encode_targets, known_rows, patient_numbers
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Experiment

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


def load_table(
    frames: Mapping[str, pd.DataFrame],
    experiment: Experiment,
    setup: Setup,
    targets: Sequence[TargetColumn],
    copies: Mapping[str, Array] | None = None,
) -> TableData:
    """Encode and split the tables of one site (or, centralised, of several members).

    Of a table of images `copies` tells which are copies of others, by their places: see `Stack.copies`. They stay in
    one part, and with them all of their groups.

    Raises
    ------
    DataError
        When a cell is empty and `data.missing` is error, or no row can be used.
    """
    none = dict.fromkeys(frames, NONE)
    copies = none | dict(copies or {})
    parts = [_encode(frame, experiment, setup, targets, name, copies[name]) for name, frame in frames.items()]
    if len(parts) == 1:
        return parts[0]
    if len({len(part.folds) for part in parts}) > 1:
        raise DataError("the members have different numbers of folds")
    groups, group_names = join_groups([(part.groups, part.group_names) for part in parts])
    starts = np.cumsum([0, *(len(part.target) for part in parts)])
    return TableData(
        values=np.concatenate([part.values for part in parts]),
        one_hot=np.concatenate([part.one_hot for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        covariates=np.concatenate([part.covariates for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        position=np.concatenate([part.position for part in parts]),
        groups=groups,
        group_names=group_names,
        synthetic=np.concatenate([part.synthetic for part in parts]),
        origin=np.concatenate([part.origin for part in parts]),
        patient=_joined_patients(parts),
        weights=np.concatenate([part.weights for part in parts]),
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
    frame: pd.DataFrame,
    experiment: Experiment,
    setup: Setup,
    targets: Sequence[TargetColumn],
    member: str,
    copies: Array,
) -> TableData:
    data, dtype = experiment.data, experiment.training.dtype
    known = known_rows(frame, targets)
    frame = frame if known.all() else frame.loc[known]
    kind = row_kind(data)
    values, lengths = kind.encode(frame, setup, dtype)
    if data.missing.kind == "error" and (empty := _empty(values, lengths)).any():
        name = setup.features[int(empty.reshape(-1, values.shape[-1]).any(axis=0).argmax())]
        raise DataError(f"column '{name}' has empty cells, and data.missing is error")
    if data.missing.kind == "drop":
        frame, values, lengths = _complete(frame, values, lengths, experiment, setup)

    target, strata = encode_targets(frame, targets, setup.labels_of(targets[0].column), dtype)
    if data.load_limit is not None:
        generator = seeding.numpy_generator(experiment.seed, "load limit", member)
        drawn = draw_rows(data.load_limit, len(frame), generator, strata)
        frame, values, target = frame.iloc[drawn], values[drawn], target[drawn]
        lengths = lengths[drawn] if len(lengths) else lengths
        strata = None if strata is None else strata[drawn]
    synthetic = synthetic_rows(frame, data)
    groups, group_names = encode_groups(frame, experiment.evaluation.subgroups, measured=not synthetic.all())
    one_hot = [_one_hot(frame[name], labels).astype(dtype) for name, labels in setup.categories.items() if labels]
    if data.missing.kind == "impute":
        for name, columns in zip(filter(setup.categories.get, setup.categories), one_hot, strict=True):
            # To be drawn; elsewhere an empty cell is of no category.
            columns[frame[name].isna().to_numpy()] = np.nan
    # A table of synthetic rows only may be without the columns by which rows are cut; see `describe`.
    patients = patient_numbers(frame[data.group]) if data.group in frame.columns else None
    # Of a split that is given, copies in several parts are told and not moved.
    if len(copies) and experiment.split.kind != "given":
        patients = with_copies_together(patients, identities(copies, frame.index.to_numpy(dtype=np.int64)))
    folds = cut_rows(
        experiment,
        member,
        synthetic,
        labels=strata,
        groups=patients,
        given=[frame[name].tolist() if name in frame.columns else [] for name in data.split_columns],
        hospitals=setup.hospitals,
    )
    if data.missing.kind == "impute":
        # One for each table that is made; their rows are the same.
        folds = folds * data.missing.imputations
    return TableData(
        values=values,
        one_hot=np.concatenate(one_hot, axis=1) if one_hot else np.empty((len(frame), 0), dtype=dtype),
        covariates=_covariates(frame, setup.covariates),
        target=target,
        lengths=lengths,
        position=kind.positions(frame),
        groups=groups,
        group_names=group_names,
        member=np.zeros(len(frame), dtype=np.int64),
        members=[member],
        folds=folds,
        synthetic=synthetic,
        origin=_places(frame),
        patient=np.empty(0, dtype=np.int64) if patients is None else patients.astype(np.int64),
        weights=_weights(frame, experiment),
    )


def _complete(
    frame: pd.DataFrame, values: Array, lengths: Array, experiment: Experiment, setup: Setup
) -> tuple[pd.DataFrame, Array, Array]:
    """Return the rows without an empty cell, their values and, of series, lengths; `data.missing` is drop."""
    complete = ~_empty(values, lengths).reshape(len(values), -1).any(axis=1)
    if experiment.model.kind in ("glm", "cox"):
        # Else rows without a category would be what its values are compared with.
        named = [name for name, labels in setup.categories.items() if labels]
        complete = complete & frame[named].notna().all(axis=1).to_numpy(dtype=bool)
    if not complete.any():
        raise DataError("data.missing is drop, and every row has an empty cell")
    if complete.all():
        return frame, values, lengths
    return frame.iloc[np.flatnonzero(complete)], values[complete], lengths[complete] if len(lengths) else lengths


def _weights(frame: pd.DataFrame, experiment: Experiment) -> Array:
    """Return (rows,) weights of a regression's rows, empty where it has none."""
    import pandas as pd

    section = getattr(experiment.model, "weights", None)
    if section is None:
        return np.empty(0)
    name = section.column
    if name not in frame.columns:
        raise DataError(not_there(f"column '{name}' (model.weights)", name, frame.columns))
    weights: Array = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(weights).all():
        raise DataError(
            f"column '{name}' (model.weights) has cells that are empty or no number; data.where: "
            f"{{{name}: '>= 0'}} leaves such rows out"
        )
    if (weights < 0).any():
        raise DataError(f"column '{name}' (model.weights) has weights below 0")
    if section.kind == "frequency" and (weights != np.round(weights)).any():
        raise DataError(
            f"column '{name}' (model.weights, kind frequency) has weights that are no whole numbers: it says how many "
            "rows each stands for; kind analytic takes any"
        )
    if section.kind == "analytic" and (weights == 0).any():
        raise DataError(f"column '{name}' (model.weights, kind analytic) has weights of 0; leave such rows out")
    return weights


def _joined_patients(parts: Sequence[TableData]) -> Array:
    """Number the patients of several hospitals, of whom none is the same person; empty where no table has them."""
    if not any(len(part.patient) for part in parts):
        return np.empty(0, dtype=np.int64)
    numbers, start = [], 0
    for part in parts:
        of_part = part.patient if len(part.patient) else np.arange(len(part.target))
        numbers.append(of_part + start)
        start += int(of_part.max(initial=-1)) + 1
    joined: Array = np.concatenate(numbers)
    return joined


def _empty(values: Array, lengths: Array) -> Array:
    """Say which cells are empty, of the shape of `values`; padding is none."""
    empty: Array = np.isnan(values)
    if len(lengths):
        empty &= (np.arange(values.shape[1]) < lengths[:, None])[:, :, None]
    return empty


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


def _one_hot(column: pd.Series, labels: list[Label]) -> Array:
    """Return (rows, labels) bool; an empty cell is none of the labels."""
    place = {label: number for number, label in enumerate(labels)}
    known = column.notna().to_numpy()
    encoded = np.zeros((len(column), len(labels)), dtype=bool)
    values, code = coded(column[known])
    places = np.array([place.get(value, -1) for value in values], dtype=np.int64)[code]
    rows = np.flatnonzero(known)[places >= 0]
    encoded[rows, places[places >= 0]] = True
    return encoded


def _places(frame: pd.DataFrame) -> Array:
    """Return (rows,) places in the table as it was read, which its index holds unless someone named the rows."""
    index = frame.index.to_numpy()
    if not np.issubdtype(index.dtype, np.integer) or (len(index) and index.min() < 0):
        return np.arange(len(frame), dtype=np.int64)
    places: Array = index.astype(np.int64)
    return places
