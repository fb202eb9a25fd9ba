"""One model of a fold on its way through an evaluation: what each site is asked of it, and what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from v6_algorithm.coordinator.folds import FoldProgress, States
from v6_algorithm.coordinator.preparation.negotiate import Plan
from v6_algorithm.learning.metrics.survival import cumulative


@dataclass
class ModelEvaluation:
    """One model of a fold, with the states of each part by hospital, and each hospital's sums of a baseline hazard.

    `round` is the one that made the model, where one did. With `personal` each site first trains it on with its own
    rows, and measures what comes of that.
    """

    fold: FoldProgress
    model: str
    states: dict[str, States]
    sums: list[dict[str, Any]] = field(default_factory=list)
    personal: bool = False
    round: int | None = None

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
            self.states[part] |= members
        self.sums += item.get("baseline", {}).values()
        if "samples" in item and self.round is not None:
            self.fold.samples[self.round] = item["samples"]

    def score(self) -> None:
        """Let the fold know how good its last round's model is."""
        if self.fold.unscored and self.model == self.fold.model:
            self.fold.score(self.states.get("validation", {}))


def candidates(folds: Sequence[FoldProgress], parts: Sequence[str]) -> list[ModelEvaluation]:
    """Return the models that may be kept: which one it is may hang on the last one's score."""
    return [
        ModelEvaluation(fold, model, {part: {} for part in parts}, round=fold.round_of(model))
        for fold in folds
        for model in fold.candidates
    ]


def personal(folds: Sequence[FoldProgress], parts: Sequence[str]) -> list[ModelEvaluation]:
    """Return the kept models, to be trained on at each site."""
    return [
        ModelEvaluation(fold, fold.kept, {part: {} for part in parts}, personal=True) for fold in folds if fold.kept
    ]


def with_baseline(plan: Plan, evaluations: Sequence[ModelEvaluation], times: Sequence[float]) -> Plan:
    """Return the plan with the baseline hazards of the kept models in its setup."""
    hazard = np.zeros((len(plan.counts), len(times)))
    for evaluation in evaluations:
        if evaluation.model == evaluation.fold.kept:
            hazard[evaluation.fold.number] = cumulative(evaluation.sums, times)
    return replace(plan, setup=replace(plan.setup, baseline=hazard))
