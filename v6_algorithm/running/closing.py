"""What `master` asks when training is over: how good each model is that may be the kept one, and of a Cox model the
sums behind its baseline hazard."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from v6_algorithm.errors import WireError
from v6_algorithm.metrics.survival import check_baseline, cumulative
from v6_algorithm.preparation.negotiate import Plan
from v6_algorithm.running.folds import FoldProgress, States


@dataclass
class Measured:
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
            own = item | {"personal": True} | self.fold.rate_to_tell()
            return own if item["evaluate"] and rows["train"] else None
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


def candidates(folds: Sequence[FoldProgress], parts: Sequence[str]) -> list[Measured]:
    """Return the models that may be kept: which one it is may hang on the last one's score."""
    return [
        Measured(fold, model, {part: {} for part in parts}, round=fold.round_of(model))
        for fold in folds
        for model in fold.candidates
    ]


def personal(folds: Sequence[FoldProgress], parts: Sequence[str]) -> list[Measured]:
    """Return the kept models, to be trained on at each site."""
    return [Measured(fold, fold.kept, {part: {} for part in parts}, personal=True) for fold in folds if fold.kept]


def check_sums(item: Mapping[str, Any], times: int | None, hospitals: Collection[str]) -> None:
    """Check what a site told of the baseline hazard, of so many times if it was asked; raises as `check_baseline`."""
    if ("baseline" in item) != bool(times):
        raise WireError("it tells of a baseline hazard and was not asked, or was and does not")
    for name, state in item.get("baseline", {}).items():
        if name not in hospitals:
            raise WireError(f"it measured a hospital '{name[:40]}' that is not known")
        check_baseline(state, times or 0)


def with_baseline(plan: Plan, found: Sequence[Measured], times: Sequence[float]) -> Plan:
    """Return the plan with the baseline hazards of the kept models in its setup."""
    hazard = np.zeros((len(plan.counts), len(times)))
    for one in found:
        if one.model == one.fold.kept:
            hazard[one.fold.number] = cumulative(one.sums, times)
    return replace(plan, setup=replace(plan.setup, baseline=hazard))
