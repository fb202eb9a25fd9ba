"""What a site tells by group of rows for Table 1 and survival curves: counts, sums and times, never of few rows.

A group of fewer rows than a cell is withheld, with as many others that it is no difference of what is told. A column
of which any group has too few values is withheld in all groups here, and so is a label, for what one group hides would
be the difference to the others and to all rows, which `describe` tells. The groups that are withheld together count as
one more group in these rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.preparation import Moments
from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.data.preparation.times import coarse_times
from v6_algorithm.data.subgroups import encode_groups
from v6_algorithm.data.summary.cells import Label, tell_labels
from v6_algorithm.data.summary.table import numeric_values, tells_few
from v6_algorithm.data.targets import TargetColumn, canonical, encode_targets, labels_of
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data
from v6_algorithm.experiment.evaluation import SITE, Subgroup

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


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
    """Tell rows, moments of numeric columns, label counts and leaving times of each group.

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
    labelled = {target.column: target for target in targets if target.kind in ("class", "event")}
    for column in [*labelled, *data.categorical]:
        if column in frame.columns:
            _add_labels(groups, sets, tested, frame[column], column, labelled.get(column), smallest)
    kinds = {target.kind for target in targets}
    if {"duration", "event"} <= kinds and all(target.column in frame.columns for target in targets):
        _add_curves(groups, sets, frame, targets, smallest, cell)
    return {
        "groups": list(groups.values()),
        "withheld": int(rest.sum()),
        "hidden": [name for name, few in zip(features, hidden, strict=True) if few],
        "cell": list(cell or (1, 1)),
    }


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
) -> None:
    order = sorted((target for target in targets if target.kind in ("duration", "event")), key=lambda item: item.kind)
    known = np.logical_and.reduce([frame[target.column].notna().to_numpy() for target in order])
    times = np.full((len(frame), 2), np.nan)
    times[known] = encode_targets(frame[known], order, {}, "float64")[0]
    for name, rows in sets.items():
        time, event = times[rows & known].T
        event = event == 1
        if len(time) < smallest or 0 < event.sum() < smallest:
            continue
        if cell is not None:
            time = coarse_times(time, event, *cell)
        distinct, place = np.unique(time, return_inverse=True)
        groups[name]["curve"] = pack_arrays(
            {
                "time": distinct,
                "events": np.bincount(place, event, len(distinct)).astype(np.float64),
                "leaving": np.bincount(place, minlength=len(distinct)).astype(np.float64),
            }
        )
