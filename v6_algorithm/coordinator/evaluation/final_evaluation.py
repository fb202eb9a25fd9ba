"""What `master` asks when training is over: how good each model is that may be the kept one, of a Cox model the sums
behind its baseline hazard, and of the kept model how good it is on groups of rows and trained on at each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.coordinator.evaluation.model_evaluation import (
    ModelEvaluation,
    candidates,
    personal,
    with_baseline,
    with_fitted_baseline,
)
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.data.preparation.times import baseline_times
from v6_algorithm.exchange.joint import Joint
from v6_algorithm.exchange.protocol import Replies


class FinalEvaluation:
    """The calls at the end of one group's training.

    Parameters
    ----------
    context
        What was trained. Its folds are left with what was measured, its plan with a Cox model's baseline hazard.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._told = False

    def run(self) -> None:
        """Score the last round's models and measure the kept ones on validation and test, in one call.

        Which model is kept may hang on the last one's score, so both candidates are measured; the choice looks at
        validation only. Groups of rows are of the kept one: they go with this call where it is known by now which that
        is. Else they go with the personal models, in a second call, for a site that fails to train one must not cost
        the test. A Cox model has survival curves only with its baseline hazard: that which it was fitted with, where
        it was with one for all sites, else from the sums of a call before.

        Raises
        ------
        FederationError
            When too few sites answered.
        """
        context, sites = self._context, self._reachable()
        setup = context.plan.setup
        times = baseline_times(context.experiment, setup.sums.get("event_times"), setup.middle)
        # A Cox model predicts survival also where all rows were trained on and none are left to measure it on.
        if not (context.parts or times) or not sites or not any(fold.candidates for fold in context.folds):
            return
        if times and (plan := with_fitted_baseline(context.plan, context.folds, times)):
            context.plan = plan
            context.check.expect_other_metrics()  # of survival curves
        elif times:
            evaluations = self._measure(sites, ["validation"] if context.plan.has("validation") else [], times)
            # Without strata it is the model's assumption that all sites have one.
            stratified = getattr(context.experiment.model, "strata", "site") == "site"
            by_site = stratified and context.experiment.problem.options().baseline == "site"
            context.plan, notes = with_baseline(context.plan, evaluations, times, by_site=by_site)
            context.notes += notes
            context.check.expect_other_metrics()  # of survival curves
        if not context.parts:
            return
        subgroups = context.measures_subgroups
        at_once = subgroups and all(len(fold.candidates) <= 1 for fold in context.folds)
        for evaluation in self._measure(sites, context.parts, subgroups=at_once):
            if evaluation.model == evaluation.fold.kept:
                evaluation.fold.measured = evaluation.states
        of_sites = personal(context.folds, context.parts) if context.experiment.personal else []
        if of_sites or (subgroups and not at_once):
            self._ask(of_sites, sites, subgroups=subgroups and not at_once)
        for evaluation in of_sites:
            evaluation.fold.personal = evaluation.states
        context.caller.on_event({"event": "tested"})

    def _reachable(self) -> list[str]:
        """Return the sites to ask; none where too few are there and a deadline was waited for them."""
        context = self._context
        reachable = [site for site in context.plan.sites if not context.stragglers.away(site)]
        if len(reachable) >= context.quorum:
            return reachable
        return [] if context.stopped_because else context.plan.sites

    def _measure(
        self,
        sites: Sequence[str],
        parts: Sequence[str],
        times: Sequence[float] = (),
        *,
        subgroups: bool = False,
    ) -> list[ModelEvaluation]:
        """Measure the models that may be kept, in one call.

        `times` are those of a baseline hazard to ask for; with `subgroups` the kept models are measured on them too.
        """
        context = self._context
        evaluations = candidates(context.folds, parts)
        replies = self._ask(evaluations, sites, times, subgroups=subgroups)
        replies.require(min(context.quorum, len(replies.requests)), "evaluation")
        for evaluation in evaluations:
            evaluation.score()
        # Of two calls the first tells of the round.
        if not self._told:
            context.progress.round(context.last_round, replies)
            self._told = True
        return evaluations

    def _ask(
        self,
        evaluations: Sequence[ModelEvaluation],
        sites: Sequence[str],
        times: Sequence[float] = (),
        *,
        subgroups: bool = False,
    ) -> Replies:
        """Let the sites measure models, and with `subgroups` the kept ones on groups of rows, in one call."""
        context = self._context
        measured = {
            site: [(one, item) for one in evaluations if (item := one.question(context.plan, site, times))]
            for site in sites
        }
        context.grids.ask_at_the_end(pair for pairs in measured.values() for pair in pairs)
        asked: dict[str, list[tuple[ModelEvaluation | None, dict[str, Any]]]] = {
            site: [*(self._group_items(site, pairs) if subgroups else []), *pairs] for site, pairs in measured.items()
        }
        items = {site: [item for _, item in pairs] for site, pairs in asked.items() if pairs}
        replies = self._call(items)
        context.stragglers.name_resting(replies, set(context.plan.sites) - set(sites))
        for site, reply in replies.taken():
            if not isinstance(reply, Joint):
                self._take(replies, site, reply, items[site], asked[site])
            elif not self._take_joint(reply, items, asked):
                for each, of_site in reply.split().items():
                    self._take(replies, each, of_site, items[each], asked[each])
        return replies

    def _take(
        self,
        replies: Replies,
        site: str,
        reply: dict[str, Any],
        items: list[dict[str, Any]],
        asked: Sequence[tuple[ModelEvaluation | None, dict[str, Any]]],
    ) -> None:
        """Take in one site's reply to these items, where nothing is wrong with it."""
        context = self._context
        answered = context.check.items(replies, site, reply, items)
        if (
            answered
            and any(item.get("subgroups") for item in items)
            and not context.check.groups(replies, site, reply, items, context.subgroups)
        ):
            return
        for (evaluation, _), item in zip(asked, answered, strict=False):
            if evaluation is not None:
                evaluation.take(item)

    def _take_joint(
        self,
        joint: Joint,
        items: Mapping[str, list[dict[str, Any]]],
        asked: Mapping[str, list[tuple[ModelEvaluation | None, dict[str, Any]]]],
    ) -> bool:
        """Take in the replies of several sites at once; returns whether that could be done, and nothing was if not."""
        measured = [evaluation for evaluation, _ in asked[next(iter(joint.heads))]]
        for site in joint.heads:
            if [evaluation for evaluation, _ in asked[site]] != measured:
                return False
        states = self._context.check.joint(joint, {site: items[site] for site in joint.heads})
        if states is None:
            return False
        for evaluation, by_part, item in zip(measured, states, joint.items, strict=True):
            if evaluation is not None:
                evaluation.take_joint(by_part, item.baseline)
        return True

    def _group_items(
        self, site: str, measured: Sequence[tuple[ModelEvaluation, dict[str, Any]]]
    ) -> list[tuple[None, dict[str, Any]]]:
        """Ask a site for groups of rows with the items that measure the kept models; return items where none does."""
        context, items = self._context, []
        for question in context.subgroups.questions(context.plan, context.folds, site, context.parts):
            of_kept = [
                item
                for one, item in measured
                if one.fold.number == question["fold"] and one.model == one.fold.kept and not one.personal
            ]
            if of_kept:
                of_kept[0]["subgroups"] = question["subgroups"]
            else:
                items.append((None, question))
        return items

    def _call(self, items: Mapping[str, list[dict[str, Any]]]) -> Replies:
        context = self._context
        setup = context.plan.setup
        packed = setup.to_json()
        # A site is a hospital, or holds them all.
        several = setup.baselines and len(context.plan.sites) > 1
        setups = {site: packed | setup.for_hospitals([site]).hazards() if several else packed for site in items}
        bodies = {site: {"setup": setups[site], "folds": of_site} for site, of_site in items.items()}
        return context.caller.call("RPC_evaluate", context.last_round, bodies)
