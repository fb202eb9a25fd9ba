"""The rounds of one group of sites; `master` runs them, then the final evaluation.

One call a round: the sites validate the model they receive, which is the one the round before has just produced,
and then train it on. So a round costs one trip over the network, and the history still tells for every round how
good the model was that this very round made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from v6_algorithm import seeding
from v6_algorithm.coordinator.result.privacy_report import spent
from v6_algorithm.coordinator.rounds.fold_round import FoldRound
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.coordinator.rounds.pretraining import pretrain
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.errors import FederationError
from v6_algorithm.exchange.protocol import Replies


class Rounds:
    """Training of one group of sites, round by round.

    Parameters
    ----------
    context
        What the rounds share; it is left with the models, the history and the books.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._validates = context.plan.has("validation")

    def run(self, save: Callable[[], None]) -> None:
        """Train until all folds have stopped or the rounds are over; `save` is called after each round.

        Raises
        ------
        FederationError
            When too few sites answered.
        """
        context = self._context
        if context.experiment.start.pretrain_epochs and not context.pretrained:
            context.notes += pretrain(
                context.experiment.start.pretrain_epochs, context.plan, context.folds, context.caller, context.check
            )
            context.pretrained = True
            save()
        while context.rounds_over < context.experiment.rounds and context.active:
            context.let_in(context.rounds_over + 1)
            self._round(context.rounds_over + 1)
            context.rounds_over += 1
            save()
        if not context.trained:
            raise FederationError(f"no round had {context.quorum} sites that trained the same fold")

    def _round(self, number: int) -> None:
        context, active = self._context, self._context.active
        awake = self._awake(number, active)
        rounds = [
            FoldRound(
                fold,
                context.strategies[fold.number],
                number,
                self._sample(number, self._trainers(fold, awake)),
                context.plan.spec,
            )
            for fold in active
        ]
        calls: list[Replies] = []
        for turn in range(max(len(fold_round.turns) for fold_round in rounds)):
            # Who is lost in one turn would only cost the others another deadline in the next.
            lost = {site for call in calls for site in call.missing}
            calls.append(self._turn(number, turn, rounds, [site for site in awake if site not in lost]))
        replies = Replies.of(calls)
        replies.require(min(context.quorum, len(replies.requests)), f"round {number}")
        for fold_round in rounds:
            fold = fold_round.fold
            if fold.unscored and self._validates:
                fold.score(fold_round.states)
            if fold.finished:
                continue
            if fold_round.gave < context.quorum:
                # As when a small federation loses a site while another one is left out: the fold goes on next round.
                fold.waited.append(number)
                continue
            fold_round.finish(spent(context.check.epsilons))
            fold.finished = fold.finished or fold_round.strategy.converged
            fold.fitted = dict(fold_round.strategy.fitted)
        context.progress.round(number, replies, spent(context.check.epsilons))

    def _turn(self, number: int, turn: int, rounds: list[FoldRound], awake: list[str]) -> Replies:
        """Ask the sites of one turn; with the first, those that only validate are asked as well."""
        context = self._context
        for fold_round in rounds:
            fold_round.begin(turn)
        asked: dict[str, list[dict[str, Any]]] = {}
        for site in awake:
            for fold_round in rounds:
                validates = turn == 0 and fold_round.fold.unscored
                item = fold_round.item(
                    site, self._with_rows(site, fold_round.fold, ["validation"] if validates else [])
                )
                if item["train"] or item["evaluate"]:
                    asked.setdefault(site, []).append(item)
        if not asked:
            return Replies({}, iter(()), {})
        if turn == 0:
            context.grids.ask(item for items in asked.values() for item in items)
        mixed = context.experiment.strategy.combine.sites_in_result
        setup = context.plan.setup.to_json()
        replies = context.caller.call(
            "RPC_train",
            number,
            {site: {"setup": setup, "folds": items} for site, items in asked.items()},
            together=min((mixed(len(sites)) for round_ in rounds if (sites := round_.trainers(turn))), default=0),
        )
        if turn == 0:
            self._name_left_out(number, replies, set(context.plan.sites) - set(awake))
        by_fold = {fold_round.fold.number: fold_round for fold_round in rounds}
        for site, reply in replies:
            items = context.check.items(replies, site, reply, asked[site])
            if items:
                context.progress.reply(number, site, items, replies.site_s.get(site))
            for item in items:
                by_fold[item["fold"]].take(item)
        if turn == 0 and context.experiment.participation.late == "stale":
            self._take_belated(number, by_fold, replies)
        elif turn == 0:
            for site, of in context.stragglers.came_too_late():
                replies.belated[site] = f"round {of} (not used, participation.late: drop)"
        context.stragglers.book(replies, number)
        context.quarantine.book(replies, number)
        return replies

    def _name_left_out(self, number: int, replies: Replies, sites: set[str]) -> None:
        """Let the replies say of each site that was not asked whether it was late, or failed too often."""
        held = {site for site in sites if self._context.quarantine.holds(site, number)}
        self._context.quarantine.name(replies, held)
        self._context.stragglers.name_resting(replies, sites - held)

    def _take_belated(self, number: int, by_fold: dict[int, FoldRound], replies: Replies) -> None:
        """Take in what sites have made of an earlier round's model, when they were late for that round."""
        for site, request, reply in self._context.caller.belated("RPC_train"):
            checked = Replies({site: request}, iter(()), {})
            items = self._context.check.items(checked, site, reply, request["folds"])
            for asked, item in zip(request["folds"], items, strict=False):
                if item["fold"] in by_fold and "reply" in item:
                    by_fold[item["fold"]].take_belated(item["reply"], asked, number - request["round"])
            dropped = checked.missing.get(site)
            replies.belated[site] = f"round {request['round']}" + (f" (dropped, {dropped})" if dropped else "")

    def _awake(self, number: int, active: list[FoldProgress]) -> list[str]:
        """Return the sites that neither rest nor are in quarantine; nobody is where a fold's quorum needs them."""
        context = self._context
        awake = [
            site
            for site in context.plan.sites
            if not context.stragglers.rests(site, number) and not context.quarantine.holds(site, number)
        ]
        enough = all(len(self._trainers(fold, awake)) >= context.quorum for fold in active)
        return awake if enough else context.plan.sites

    def _trainers(self, fold: FoldProgress, sites: Sequence[str]) -> list[str]:
        return [site for site in self._context.plan.trainers(fold.number) if site in sites]

    def _with_rows(self, site: str, fold: FoldProgress, parts: list[str]) -> list[str]:
        return [part for part in parts if self._context.plan.rows[site][fold.number][part]]

    def _sample(self, number: int, sites: Sequence[str]) -> list[str]:
        """Draw those of `sites` that train in this round."""
        experiment = self._context.experiment
        wanted = math.ceil(experiment.participation.fraction * len(sites))
        count = min(len(sites), max(self._context.quorum, wanted))
        generator = seeding.numpy_generator(experiment.seed, "participation", number)
        drawn = set(generator.permutation(len(sites))[:count].tolist())
        return [site for index, site in enumerate(sites) if index in drawn]
