"""What `master` asks when training is over: how good each model is that may be the kept one, of a Cox model the sums
behind its baseline hazard, and of the kept model how good it is on groups of rows and trained on at each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.folds import FoldProgress, States
from v6_algorithm.coordinator.preparation.negotiate import Plan
from v6_algorithm.coordinator.progress import ProgressEvents
from v6_algorithm.coordinator.reply_checks import ReplyCheck
from v6_algorithm.coordinator.sample_grid import SampleGrids
from v6_algorithm.coordinator.stragglers import Stragglers
from v6_algorithm.coordinator.subgroups import GroupSums
from v6_algorithm.data.preparation.times import baseline_times
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics.survival import cumulative


class FinalEvaluation:
    """The calls at the end of one group's training.

    Parameters
    ----------
    experiment, plan, folds
        What was trained.
    caller, check
        How sites are asked, and their replies checked.
    stragglers, pictures, progress
        Those of the rounds, for what is the same in every call.
    parts
        On which rows the kept model is measured.
    quorum
        How many sites have to answer.

    Attributes
    ----------
    plan
        The plan; when a Cox model was measured, with its baseline hazard.
    groups
        What was told of groups of rows.
    """

    def __init__(
        self,
        experiment: Experiment,
        plan: Plan,
        folds: Sequence[FoldProgress],
        *,
        caller: Caller,
        check: ReplyCheck,
        stragglers: Stragglers,
        pictures: SampleGrids,
        progress: ProgressEvents,
        parts: Sequence[str],
        quorum: int,
    ) -> None:
        self.plan = plan
        self.groups = GroupSums(experiment.evaluation)
        self._experiment, self._folds, self._quorum = experiment, folds, quorum
        self._caller, self._check = caller, check
        self._stragglers, self._pictures, self._progress = stragglers, pictures, progress
        self._parts = [part for part in parts if plan.has(part)]
        # A search for settings looks at validation rows only, and not closely.
        self._grouped = bool(experiment.evaluation.subgroups) and "test" in parts

    def run(self, sites: Sequence[str]) -> None:
        """Score the last round's models and measure the kept ones on validation and test, in one call.

        Which model is kept may hang on the last one's score, so both candidates are measured; the choice looks at
        validation only. A Cox model has survival curves only with its baseline hazard, which takes a call before.
        """
        if not self._parts or not sites or not any(fold.candidates for fold in self._folds):
            return
        if times := baseline_times(self._experiment, self.plan.setup.sums.get("event_times")):
            found = self._measure(sites, ["validation"] if self.plan.has("validation") else [], times)
            self.plan = with_baseline(self.plan, found, times)
            self._check.expect_other_metrics()  # of survival curves
        for one in self._measure(sites, self._parts):
            if one.model == one.fold.kept:
                one.fold.measured = one.states
        if self._grouped:
            self._measure_groups(sites)
        if self._experiment.personal:
            own = personal(self._folds, self._parts)
            self._ask(own, sites)
            for one in own:
                one.fold.personal = one.states
        self._caller.on_event({"event": "tested"})

    def _measure(
        self, sites: Sequence[str], parts: Sequence[str], times: Sequence[float] = ()
    ) -> list[ModelEvaluation]:
        """Measure the models that may be kept, in one call; `times` are those of a baseline hazard to ask for."""
        found = candidates(self._folds, parts)
        replies = self._ask(found, sites, times)
        replies.require(min(self._quorum, len(replies.requests)), "evaluation")
        for one in found:
            one.score()
        # Of two calls the first has told of the round.
        if self.plan.setup.baseline is None:
            self._progress.round(self._last_round, replies)
        return found

    def _measure_groups(self, sites: Sequence[str]) -> None:
        """Let the sites measure the kept models on groups of rows, in one call."""
        asked = {
            site: items for site in sites if (items := self.groups.questions(self.plan, self._folds, site, self._parts))
        }
        for site, reply in (replies := self._call(asked)):
            self._check.groups(replies, site, reply, asked[site], self.groups)

    def _ask(self, found: Sequence[ModelEvaluation], sites: Sequence[str], times: Sequence[float] = ()) -> Replies:
        """Let the sites measure models, in one call."""
        asked = {
            site: [(one, item) for one in found if (item := one.question(self.plan, site, times))] for site in sites
        }
        self._pictures.ask_at_the_end(pair for pairs in asked.values() for pair in pairs)
        items = {site: [item for _, item in pairs] for site, pairs in asked.items() if pairs}
        replies = self._call(items)
        self._stragglers.name_resting(replies, set(self.plan.sites) - set(sites))
        for site, reply in replies:
            answered = self._check.items(replies, site, reply, items[site])
            for (one, _), item in zip(asked[site], answered, strict=False):
                one.take(item)
        return replies

    def _call(self, items: Mapping[str, list[dict[str, Any]]]) -> Replies:
        setup = self.plan.setup.to_json()
        bodies = {site: {"setup": setup, "folds": own} for site, own in items.items()}
        return self._caller.call("RPC_evaluate", self._last_round, bodies)

    @property
    def _last_round(self) -> int:
        return max(fold.rounds_done for fold in self._folds)


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


def with_baseline(plan: Plan, found: Sequence[ModelEvaluation], times: Sequence[float]) -> Plan:
    """Return the plan with the baseline hazards of the kept models in its setup."""
    hazard = np.zeros((len(plan.counts), len(times)))
    for one in found:
        if one.model == one.fold.kept:
            hazard[one.fold.number] = cumulative(one.sums, times)
    return replace(plan, setup=replace(plan.setup, baseline=hazard))
