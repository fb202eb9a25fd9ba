"""What a site tells by group of rows for Table 1 and survival curves: counts, sums and times, never of few rows.

A group of fewer rows than a cell is withheld, with as many others that it is no difference of what is told. A column
of which any group has too few values is withheld in all groups here, and so is a label, for what one group hides would
be the difference to the others and to all rows, which `describe` tells. The groups that are withheld together count as
one more group in these rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.preparation import Moments
from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.data.preparation.times import coarse_entries, coarse_times
from v6_algorithm.data.subgroups import encode_groups
from v6_algorithm.data.summary.cells import Label, tell_labels
from v6_algorithm.data.summary.ranks import group_bins
from v6_algorithm.data.summary.table import numeric_values, tells_few
from v6_algorithm.data.targets import TargetColumn, canonical, encode_targets, labels_of
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data, SurvivalTarget
from v6_algorithm.experiment.evaluation import SITE, Subgroup

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# The targets that make a curve, in the order in which they are read.
_OF_TIME = {"duration": 0, "event": 1, "entry": 2, "patient": 3}


def group_names(frame: pd.DataFrame, by: str) -> Array:
    """Return the (rows,) name of each row's group; all rows of a site are one where sites are compared."""
    if by == SITE:
        return np.full(len(frame), SITE, dtype=object)
    try:
        codes, (names,) = encode_groups(frame, [Subgroup(column=by)])
    except DataError as error:
        text = str(error).replace("evaluation.subgroups", "evaluation.by").partition("; give bands")[0]
        raise DataError(text) from None
    return np.array(names, dtype=object)[codes[:, 0]]


def by_group(
    frame: pd.DataFrame,
    names: Array,
    features: Sequence[str],
    data: Data,
    targets: Sequence[TargetColumn],
    smallest: int,
    cell: tuple[int, int] | None,
) -> dict[str, Any]:
    """Tell rows, moments and binned values of numeric columns, label counts and leaving times of each group.

    Parameters
    ----------
    frame, names
        The rows, and the name of each row's group.
    features
        Numeric columns.
    data, targets
        Say which columns have labels, and which are a duration and an event.
    smallest
        Fewest rows of a cell that may be told.
    cell
        Fewest events and rows that a time may stand for; None: times are told as they are.
    """
    counts = Counter(names.tolist())
    shown, _ = tell_labels({name: counts[name] for name in sorted(counts)}, smallest)
    sets = {str(name): names == name for name in shown}
    rest = ~np.isin(names.astype(str), list(sets))
    tested = [*sets.values(), *([rest] if rest.any() else [])]
    values = numeric_values(frame, features)
    known = ~np.isnan(values)
    hidden = np.array(
        [
            any(tells_few(column[rows & there], smallest) for rows in tested)
            for column, there in zip(values.T, known.T, strict=True)
        ],
        dtype=bool,
    )
    values[:, hidden] = np.nan
    groups: dict[str, dict[str, Any]] = {
        name: {
            "name": name,
            "rows": int(rows.sum()),
            "moments": pack_arrays(Moments.of([values[rows]], with_range=False).arrays()),
            "labels": {},
            "curve": None,
        }
        for name, rows in sets.items()
    }
    binned = [group_bins(column, list(sets.values()), tested, smallest) for column in values.T]
    for place, group in enumerate(groups.values()):
        group["ranks"] = pack_arrays(
            {key: _concatenated([getattr(column, key)[place] for column in binned]) for key in ("rows", "mean")}
        )
    labelled = {target.column: target for target in targets if target.kind in ("class", "event")}
    for column in [*labelled, *data.categorical]:
        if column in frame.columns:
            _add_labels(groups, sets, tested, frame[column], column, labelled.get(column), smallest)
    kinds = {target.kind for target in targets}
    if {"duration", "event"} <= kinds and all(target.column in frame.columns for target in targets):
        competing = data.target.competing if isinstance(data.target, SurvivalTarget) else []
        _add_curves(groups, sets, frame, targets, smallest, cell, competing)
    return {
        "groups": list(groups.values()),
        "withheld": int(rest.sum()),
        "hidden": [name for name, few in zip(features, hidden, strict=True) if few],
        "cell": list(cell or (1, 1)),
        "bins": pack_arrays(
            {
                "number": np.array([len(column.low) for column in binned], dtype=np.int64),
                "low": _concatenated([column.low for column in binned]),
                "equal": _concatenated([column.equal for column in binned]).astype(np.int64),
            }
        ),
    }


def _concatenated(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.empty(0), *parts])


def _add_labels(
    groups: dict[str, dict[str, Any]],
    sets: dict[str, Array],
    tested: Sequence[Array],
    column: pd.Series,
    name: str,
    target: TargetColumn | None,
    smallest: int,
) -> None:
    there = column.notna().to_numpy()
    labels = np.full(len(column), None, dtype=object)
    known = column[there]
    labels[there] = np.array(labels_of(known, target) if target else canonical(known), dtype=object)
    every = sorted(set(labels[there].tolist()), key=str)
    table = np.array([[int((labels[rows] == label).sum()) for rows in tested] for label in every]).reshape(
        len(every), len(tested)
    )
    withheld = withheld_labels(table, smallest)
    for group, rows in sets.items():
        counts: list[list[Label | int]] = [
            [label, int((labels[rows] == label).sum())] for label, few in zip(every, withheld, strict=True) if not few
        ]
        missing = int((rows & ~there).sum())
        groups[group]["labels"][name] = {
            "counts": counts,
            "hidden": int(rows.sum()) - missing - sum(int(count) for _, count in counts),
            "missing": missing,
        }


def withheld_labels(table: Array, smallest: int) -> Array:
    """Say which labels are told of no group: (labels,) bool from (labels, groups) counts.

    Those that are few in a group, and as many others that what is withheld in a group is at least two labels and a
    cell's rows, or none.
    """
    hidden: Array = np.asarray(((table > 0) & (table < smallest)).any(axis=1))
    order = np.argsort(table.sum(axis=1), kind="stable")
    while 0 < hidden.sum() < len(hidden):
        together = table[hidden].sum(axis=0)
        if hidden.sum() > 1 and not ((together > 0) & (together < smallest)).any():
            break
        hidden[next(place for place in order.tolist() if not hidden[place])] = True
    return hidden


def _add_curves(
    groups: dict[str, dict[str, Any]],
    sets: dict[str, Array],
    frame: pd.DataFrame,
    targets: Sequence[TargetColumn],
    smallest: int,
    cell: tuple[int, int] | None,
    competing: Sequence[str],
) -> None:
    order = sorted((target for target in targets if target.kind in _OF_TIME), key=lambda item: _OF_TIME[item.kind])
    known = np.logical_and.reduce([frame[target.column].notna().to_numpy() for target in order])
    columns = np.full((len(frame), len(order)), np.nan)
    columns[known] = encode_targets(frame[known], order, {}, "float64")[0]
    kinds = {target.kind: place for place, target in enumerate(order)}
    causes = _causes(frame, next(target for target in order if target.kind == "event"), competing, known)
    for name, group in sets.items():
        rows = columns[group & known]
        time, event = rows[:, kinds["duration"]], rows[:, kinds["event"]] == 1
        entry = rows[:, kinds["entry"]] if "entry" in kinds else None
        if entry is not None and "patient" in kinds:
            time, event, entry, kept = _whole_stays(time, event, entry, rows[:, kinds["patient"]])
        else:
            kept = np.arange(len(time))
        of_cause: Array = np.column_stack([event, causes[group & known][kept]])
        seen = of_cause.sum(axis=0)
        if len(time) < smallest or ((seen > 0) & (seen < smallest)).any():
            continue
        if cell is not None:
            time = coarse_times(time, np.asarray(of_cause.any(axis=1)), *cell, of_cause)
            entry = None if entry is None else coarse_entries(entry, time, max(cell[1], smallest))
        groups[name]["curve"] = pack_arrays(_counts_by_time(time, of_cause, entry))


def _whole_stays(time: Array, event: Array, entry: Array, patient: Array) -> tuple[Array, Array, Array, Array]:
    """Join a patient's rows that follow each other: (stays,) end, event, entry, and the place of each last row."""
    order = np.lexsort((entry, patient))
    time, event, entry, patient = time[order], event[order], entry[order], patient[order]
    follows = (patient[1:] == patient[:-1]) & (time[:-1] == entry[1:]) & ~event[:-1]
    last, first = np.concatenate([~follows, [True]]), np.concatenate([[True], ~follows])
    return time[last], event[last], entry[first], order[last]


def _causes(frame: pd.DataFrame, event: TargetColumn, competing: Sequence[str], known: Array) -> Array:
    """Return (rows, causes) bool: whether a row's event is of a competing cause, and no other one."""
    found = np.zeros((len(frame), len(competing)), dtype=bool)
    column = frame.loc[known, event.column]
    taken = np.asarray(labels_of(column, event)) == 1 if event.positive is not None else np.zeros(len(column), bool)
    for number, condition in enumerate(competing):
        meets = np.asarray(labels_of(column, replace(event, positive=condition))) == 1
        if (meets & taken).any():
            raise DataError(
                f"{event.name}: a value meets '{condition}' (data.target.competing) and another condition as well; "
                "each value is the event, of one cause, or neither"
            )
        taken |= meets
        found[known, number] = meets
    return found


def _counts_by_time(time: Array, of_cause: Array, entry: Array | None) -> dict[str, Array]:
    """Count who leaves and who joins by time; see docs/what-leaves-the-hospital.md."""
    distinct, place = np.unique(time, return_inverse=True)
    by_cause = [np.bincount(place, cause, len(distinct)).astype(np.float64) for cause in of_cause.T]
    arrays = {
        "time": distinct,
        "events": by_cause[0],
        "leaving": np.bincount(place, minlength=len(distinct)).astype(np.float64),
        "competing": np.stack(by_cause[1:], axis=1) if len(by_cause) > 1 else np.zeros((len(distinct), 0)),
        "entry_time": np.empty(0),
        "entering": np.empty(0),
    }
    if entry is not None:
        joins, of_row = np.unique(entry, return_inverse=True)
        arrays |= {"entry_time": joins, "entering": np.bincount(of_row, minlength=len(joins)).astype(np.float64)}
    return arrays
