"""One model of a fold on its way through an evaluation: what each site is asked of it, and what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.rounds.folds import FoldProgress, States
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.joint import JointStates
from v6_algorithm.learning.metrics.by_site import beside
from v6_algorithm.learning.metrics.survival import cumulative

# Fewest events of a hospital's training rows for a baseline hazard of its own: its standard error at the end is then
# about a quarter of it.
LEAST_EVENTS = 20


@dataclass
class ModelEvaluation:
    """One model of a fold, with the states of each part by hospital, and each hospital's sums of a baseline hazard.

    `round` is the one that made the model, where one did; `scores` says that nobody has validated it yet. With
    `personal` each site first trains it on with its own rows, and measures what comes of that.
    """

    fold: FoldProgress
    model: wire.Model
    states: dict[str, States]
    sums: dict[str, dict[str, Any]] = field(default_factory=dict)
    personal: bool = False
    round: int | None = None
    scores: bool = False

    def question(self, plan: Plan, site: str, times: Sequence[float]) -> dict[str, Any] | None:
        """Return what a site is asked about this model; None if it has no rows for it, as in leave-one-site-out."""
        rows = plan.rows[site][self.fold.number]
        item = self.fold.item(site, [part for part in self.states if rows[part]], model=self.model)
        if self.personal:
            trained_on = item | {"personal": True} | self.fold.rate_to_tell()
            return trained_on if item["evaluate"] and rows["train"] else None
        if times and rows["train"]:
            return item | {"baseline": len(times)}
        return item if item["evaluate"] else None

    def take(self, item: Mapping[str, Any]) -> None:
        """Add a site's checked answer."""
        for part, members in item["metrics"].items():
            self.states[part] = {**self.states[part], **members}
        self.sums |= item.get("baseline", {})
        if "samples" in item and self.round is not None:
            self.fold.samples[self.round] = item["samples"]

    def take_joint(self, measured: Mapping[str, States], baseline: JointStates | None = None) -> None:
        """Add the checked answers of several sites at once: by part the states by hospital, and their sums."""
        for part, states in measured.items():
            self.states[part] = beside(self.states[part], states)
        for _, sums in baseline.by_site() if baseline is not None else ():
            self.sums |= sums

    def score(self) -> None:
        """Let the fold know how good the model of one of its last rounds is."""
        if self.scores and self.round is not None:
            self.fold.score(self.states.get("validation", {}), self.round)


def candidates(folds: Sequence[FoldProgress], parts: Sequence[str]) -> list[ModelEvaluation]:
    """Return the models that may be kept: which one it is may hang on the last one's score."""
    return [
        ModelEvaluation(fold, model, {part: {} for part in parts}, round=fold.round_of(model), scores=model in unscored)
        for fold in folds
        for unscored in [[model for _, model in fold.unscored_models]]
        for model in fold.candidates
    ]


def personal(folds: Sequence[FoldProgress], parts: Sequence[str]) -> list[ModelEvaluation]:
    """Return the kept models, to be trained on at each site."""
    return [
        ModelEvaluation(fold, fold.kept, {part: {} for part in parts}, personal=True) for fold in folds if fold.kept
    ]


def with_fitted_baseline(plan: Plan, folds: Sequence[FoldProgress], times: Sequence[float]) -> Plan | None:
    """Return the plan with the baseline hazards that Cox models were fitted with; None where they were not, or by site.

    A model with one baseline for all sites is fitted by sums at each event time, which its hazard's steps come of.
    """
    grid = plan.setup.event_times
    fitted = [fold.fitted.get("hazard") for fold in folds if fold.candidates == [fold.model]]
    if grid is None or None in fitted or len(fitted) != len(plan.counts):
        return None
    # Before the first event time the hazard is 0.
    steps = np.concatenate([np.zeros((len(fitted), 1)), np.array(fitted)], axis=1)
    hazard = steps[:, np.searchsorted(grid, times, side="right")]
    return replace(plan, setup=replace(plan.setup, baseline=hazard, baselines={}))


def with_baseline(
    plan: Plan, evaluations: Sequence[ModelEvaluation], times: Sequence[float], *, by_site: bool
) -> tuple[Plan, list[str]]:
    """Return the plan with the baseline hazards of the kept models in its setup, and notes on whose they are.

    `by_site`: beside that of all hospitals together, each has one of its own where its events suffice.
    """
    hazard = np.zeros((len(plan.counts), len(times)))
    baselines: dict[str, np.ndarray] = {}
    pooled: set[str] = set()
    for evaluation in evaluations:
        if evaluation.model != evaluation.fold.kept:
            continue
        number = evaluation.fold.number
        hazard[number] = cumulative(evaluation.sums.values(), times)
        # One hospital's is that of all.
        for name, sums in evaluation.sums.items() if by_site and len(evaluation.sums) > 1 else ():
            if sum(sums["events"]) < LEAST_EVENTS:
                pooled.add(name)
                continue
            rows = baselines.setdefault(name, np.full(hazard.shape, -1.0))
            rows[number] = cumulative([sums], times)
    notes = []
    if pooled:
        notes.append(
            f"survival curves of {listed(sorted(pooled))} come from the baseline hazard of all sites: fewer than "
            f"{LEAST_EVENTS} events among the training rows there, in a fold or in all"
        )
    return replace(plan, setup=replace(plan.setup, baseline=hazard, baselines=baselines)), notes
