"""Sentences of a result on what it left out, could not do, or is easily read wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v6_algorithm.coordinator.evaluation.subgroups import withheld
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.result.repeats import repeats_note
from v6_algorithm.coordinator.rounds.folds import States
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.coordinator.strategies.fairness import AgnosticFL
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import merge_states
from v6_algorithm.learning.metrics.explanations import explain_part
from v6_algorithm.learning.metrics.joined import MOST_LISTED, joins

_SHOWN_WEIGHTS = 10


def notes_of_result(
    experiment: Experiment,
    runs: Sequence[RunContext],
    measured: dict[str, States],
    subgroups: dict[str, dict[str, dict[str, Any]]],
    metrics: dict[str, Any],
) -> list[str]:
    """Return the notes that only a whole result can tell.

    Parameters
    ----------
    experiment
        As it was run.
    runs
        Each group of sites that trained together.
    measured
        Metric states of each part, by site, over all folds.
    subgroups, metrics
        As the result has them.
    """
    plans = [run.plan for run in runs]
    return [
        *_explanations(measured),
        *repeats_note(experiment),
        *_small_risk_sets(experiment, plans),
        *_ranks_across_strata(experiment, plans),
        *(withheld(subgroups, metrics, experiment.evaluation) if any(run.subgroups.asked for run in runs) else []),
        *_without_private(experiment),
        *(note for run in runs for note in _lost_work(run)),
        *_imprecise(experiment, runs),
        *_weights_of_sites(runs),
    ]


def _explanations(measured: dict[str, States]) -> list[str]:
    notes = []
    joined = sorted({name for members in measured.values() for name, state in members.items() if joins(state)})
    if joined:
        notes.append(
            f"neighbouring score bins are joined at {', '.join(joined)} (by the node's rules, or for there were more "
            f"than {MOST_LISTED:,}): ranking metrics over sites are of joined bins, and their resolutions contain that"
        )
    for part, members in measured.items():
        notes += explain_part(part, merge_states(members.values()), members if len(members) > 1 else {})
    return notes


def _lost_work(run: RunContext) -> list[str]:
    """Tell which folds had to wait for sites, and which were left without a test."""
    plan, folds = run.plan, run.folds
    notes = []
    for fold in folds:
        if fold.waited:
            rounds = ", ".join(map(str, fold.waited))
            notes.append(f"fold {fold.number}: not trained in round {rounds}; too few of its sites gave a model")
        if fold.uneven:
            rounds = ", ".join(map(str, fold.uneven))
            notes.append(
                f"fold {fold.number}: round {rounds} was not validated by the same sites as the best round before it; "
                "compared over the sites common to both"
            )
        tested = [name for name, parts in plan.counts[fold.number].items() if parts["test"]]
        if tested and fold.rounds_done and not fold.measured.get("test"):
            notes.append(f"fold {fold.number}: not tested, no answer came from {', '.join(tested)}")
    for number in set(range(len(plan.counts))) - set(plan.folds):
        notes.append(f"fold {number}: left out, its site '{plan.setup.hospitals[number]}' was lost before training")
    return notes


def _small_risk_sets(experiment: Experiment, plans: Sequence[Plan]) -> list[str]:
    batch = experiment.training.batch_size
    if experiment.problem.kind != "survival" or experiment.problem.options().method != "cox" or batch is None:
        return []
    rows = max(parts["train"] for plan in plans for fold in plan.counts for parts in fold.values())
    if batch >= rows:
        return []
    return [
        f"training.batch_size: Cox's risk sets are of the {batch} rows of a batch, not of a site's up to {rows}, which "
        "changes what is estimated; `batch_size: null` takes all rows of a site"
    ]


def _ranks_across_strata(experiment: Experiment, plans: Sequence[Plan]) -> list[str]:
    """Say of a stratified Cox model that its C-index over all rows compares patients of different hospitals too."""
    if experiment.problem.kind != "survival" or experiment.problem.options().method != "cox":
        return []
    hospitals = {name for plan in plans for fold in plan.counts for name in fold}
    measured = any(plan.has(part) for plan in plans for part in ("validation", "test"))
    if len(hospitals) < 2 or not measured or getattr(experiment.model, "strata", "site") != "site":
        return []
    return [
        "c_index of all sites ranks patients of different sites too, whose baseline hazards a stratified Cox model "
        "does not compare; c_index_within is over pairs of one site, which is what the model says"
    ]


def _without_private(experiment: Experiment) -> list[str]:
    if experiment.private is None:
        return []
    return ["strategy.private: the model is returned without the sites' own layers; metrics are with each site's own"]


def _imprecise(experiment: Experiment, runs: Sequence[RunContext]) -> list[str]:
    if experiment.training.precision != "mixed":
        return []
    devices = {site: device for run in runs for site, device in sorted(run.check.devices.items())}
    full = [f"{site} ({device['name']})" for site, device in devices.items() if device["precision"] == "full"]
    return [f"trained in full precision, for want of bfloat16: {', '.join(full)}"] if full else []


def _weights_of_sites(runs: Sequence[RunContext]) -> list[str]:
    """Say of agnostic learning how much each site counted in the end: one may have come to carry all."""
    notes = []
    for run in runs:
        for fold, strategy in run.strategies.items():
            if not isinstance(strategy, AgnosticFL):
                continue
            weights = sorted(strategy.shares().items(), key=lambda item: -item[1])
            shown = ", ".join(f"{site} {weight:.2f}" for site, weight in weights[:_SHOWN_WEIGHTS])
            more = f", … {len(weights) - _SHOWN_WEIGHTS} more" if len(weights) > _SHOWN_WEIGHTS else ""
            notes.append(
                f"fold {fold}: strategy agnostic weighs the sites by how bad the model is there, and one may come to "
                f"carry all weight, so that the model is of its rows; at the end: {shown}{more}"
            )
    return notes
