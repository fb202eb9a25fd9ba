"""What `master` asks when training is over: how good each model is that may be the kept one, of a Cox model the sums
behind its baseline hazard, and of the kept model how good it is on groups of rows and trained on at each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.coordinator.model_evaluation import ModelEvaluation, candidates, personal, with_baseline
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.data.preparation.times import baseline_times
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

    def run(self) -> None:
        """Score the last round's models and measure the kept ones on validation and test, in one call.

        Which model is kept may hang on the last one's score, so both candidates are measured; the choice looks at
        validation only. A Cox model has survival curves only with its baseline hazard, which takes a call before.

        Raises
        ------
        FederationError
            When too few sites answered.
        """
        context, sites = self._context, self._reachable()
        if not context.parts or not sites or not any(fold.candidates for fold in context.folds):
            return
        if times := baseline_times(context.experiment, context.plan.setup.sums.get("event_times")):
            evaluations = self._measure(sites, ["validation"] if context.plan.has("validation") else [], times)
            by_site = context.experiment.problem.options().baseline == "site"
            context.plan, notes = with_baseline(context.plan, evaluations, times, by_site=by_site)
            context.notes += notes
            context.check.expect_other_metrics()  # of survival curves
        for evaluation in self._measure(sites, context.parts):
            if evaluation.model == evaluation.fold.kept:
                evaluation.fold.measured = evaluation.states
        if context.measures_subgroups:
            self._measure_subgroups(sites)
        if context.experiment.personal:
            of_sites = personal(context.folds, context.parts)
            self._ask(of_sites, sites)
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
        self, sites: Sequence[str], parts: Sequence[str], times: Sequence[float] = ()
    ) -> list[ModelEvaluation]:
        """Measure the models that may be kept, in one call; `times` are those of a baseline hazard to ask for."""
        context = self._context
        evaluations = candidates(context.folds, parts)
        replies = self._ask(evaluations, sites, times)
        replies.require(min(context.quorum, len(replies.requests)), "evaluation")
        for evaluation in evaluations:
            evaluation.score()
        # Of two calls the first has told of the round.
        if context.plan.setup.baseline is None:
            context.progress.round(context.last_round, replies)
        return evaluations

    def _measure_subgroups(self, sites: Sequence[str]) -> None:
        """Let the sites measure the kept models on groups of rows, in one call."""
        context, asked = self._context, {}
        for site in sites:
            if items := context.subgroups.questions(context.plan, context.folds, site, context.parts):
                asked[site] = items
        for site, reply in (replies := self._call(asked)):
            context.check.groups(replies, site, reply, asked[site], context.subgroups)

    def _ask(
        self, evaluations: Sequence[ModelEvaluation], sites: Sequence[str], times: Sequence[float] = ()
    ) -> Replies:
        """Let the sites measure models, in one call."""
        context = self._context
        asked = {
            site: [(asking, item) for asking in evaluations if (item := asking.question(context.plan, site, times))]
            for site in sites
        }
        context.grids.ask_at_the_end(pair for pairs in asked.values() for pair in pairs)
        items = {site: [item for _, item in pairs] for site, pairs in asked.items() if pairs}
        replies = self._call(items)
        context.stragglers.name_resting(replies, set(context.plan.sites) - set(sites))
        for site, reply in replies:
            answered = context.check.items(replies, site, reply, items[site])
            for (evaluation, _), item in zip(asked[site], answered, strict=False):
                evaluation.take(item)
        return replies

    def _call(self, items: Mapping[str, list[dict[str, Any]]]) -> Replies:
        context = self._context
        setup = context.plan.setup
        packed = setup.to_json()
        # A site is a hospital, or holds them all.
        several = setup.baselines and len(context.plan.sites) > 1
        setups = {site: setup.for_hospitals([site]).to_json() if several else packed for site in items}
        bodies = {site: {"setup": setups[site], "folds": of_site} for site, of_site in items.items()}
        return context.caller.call("RPC_evaluate", context.last_round, bodies)
