"""Folds of a cross-validation brought together for the result: by repeat, in which each patient is tested once, and
over all folds. Called by `result.assemble`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.result.averages import mean_and_spread, scores
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.experiment import Experiment, KFold
from v6_algorithm.learning.metrics import compute, intervals, merge_states


def repeats_of(folds: Sequence[FoldProgress], experiment: Experiment) -> list[list[FoldProgress]]:
    """Return the folds by repeat; all in one where nothing is repeated."""
    split = experiment.split
    if not isinstance(split, KFold) or split.repeats == 1:
        return [list(folds)]
    repeats: dict[int, list[FoldProgress]] = {}
    for fold in folds:
        repeats.setdefault(fold.number // split.folds, []).append(fold)
    return [repeats[number] for number in sorted(repeats)]


def repeats_in(experiment: Experiment) -> int:
    """Return how often each row is tested."""
    return experiment.split.repeats if experiment.split.kind == "kfold" else 1


def repeats_note(experiment: Experiment) -> list[str]:
    """Say what the numbers of a repeated cross-validation are of."""
    if repeats_in(experiment) == 1:
        return []
    return [
        f"split.repeats: {repeats_in(experiment)} repeats have the same patients: metrics are the means over the "
        "repeats, n is that of one, intervals are those of one repeat widened by the variance between them",
        "split.repeats: the interval of the mean over folds is Nadeau and Bengio's; confusion, calibration and ROC "
        "count each row in every repeat, and groups have no intervals",
    ]


def over_folds(
    folds: Sequence[FoldProgress], part: str, plans: Sequence[Plan], experiment: Experiment
) -> dict[str, Any]:
    """Return mean and sample standard deviation over the folds, each fold's sites (or, alone, their models) pooled.

    Of k-fold cross-validation with its corrected interval; see `corrected_over_folds`.
    """
    states: dict[int, list[dict[str, Any]]] = {}
    for fold in folds:
        states.setdefault(fold.number, []).extend(fold.measured.get(part, {}).values())
    rows = [scores(compute(merge_states(members))) for members in states.values() if members]
    scopes = mean_and_spread(rows)
    if experiment.split.kind != "kfold" or part != "test":
        return scopes
    parts = [counts for plan in plans for fold in plan.counts for counts in fold.values()]
    tested, trained = (fmean([counts[name] for counts in parts]) for name in ("test", "train"))
    ends: dict[str, float | None] = {}
    for name in scopes["mean_over_folds"]:
        values = [value for row in rows if (value := row.get(name)) is not None]
        if interval := intervals.corrected_over_folds(values, tested, trained):
            ends |= intervals.ends(name, intervals.on_scale(name, interval))
    return scopes | {"mean_over_folds": scopes["mean_over_folds"] | ends}
