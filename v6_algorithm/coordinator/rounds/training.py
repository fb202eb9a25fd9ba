"""The rounds of one group of sites; `master` runs them, then the final evaluation.

One call a round: the sites validate the model they receive, which is the one the round before has just produced,
and then train it on. So a round costs one trip over the network, and the history still tells for every round how
good the model was that this very round made.

With `pipeline: 1` the next round's requests go out before a round's answers are in, on the newest model that is
finished, so that the way over the network and the training of one round go on during another's. From round 3 on the
sites train the model of the round before the last, and what they make of it moves the newest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v6_algorithm import seeding
from v6_algorithm.coordinator.result.privacy_report import spent
from v6_algorithm.coordinator.rounds.fold_round import FoldRound
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.coordinator.rounds.pretraining import pretrain
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.errors import FederationError, WireError
from v6_algorithm.exchange.joint import Joint
from v6_algorithm.exchange.protocol import Replies


@dataclass
class _Asked:
    """What the sites were asked in one turn of a round: who was to be asked, each one's items, and the call."""

    number: int
    rounds: list[FoldRound]
    awake: list[str]
    items: dict[str, list[dict[str, Any]]]
    replies: Replies

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to ask again in the same words."""
        folds = [fold_round.state_dict() for fold_round in self.rounds]
        return {"number": self.number, "awake": self.awake, "items": self.items, "folds": folds}


class Rounds:
    """Training of one group of sites, round by round.

    Parameters
    ----------
    context
        What the rounds share; it is left with the models, the history and the books.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._validates = context.plan.validated
        self._pipelined = context.experiment.pipelined
        # The round whose answers are looked at, and the next one where it was asked for already.
        self._current: list[FoldRound] = []
        self._ahead: _Asked | None = None
        # What the sites agreed on, and how a request says it: the same from round to round.
        self._setup: tuple[Setup | None, dict[str, Any]] = None, {}
        for fold in context.folds:
            fold.scored_later = self._pipelined and self._validates

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
        if context.asked_ahead is not None:
            self._ask_again(context.asked_ahead)
        while context.rounds_over < context.experiment.rounds and context.active:
            # Who is let in trains in the next round that is asked for.
            context.let_in(context.rounds_over + (1 if self._ahead is None else 2))
            self._round(context.rounds_over + 1)
            context.rounds_over += 1
            context.asked_ahead = None if self._ahead is None else self._ahead.state_dict()
            save()
        if self._ahead is not None:
            context.notes.append(
                f"round {self._ahead.number}: was asked for before training was found to be over; its answers are not "
                "used (pipeline)"
            )
        if not context.trained:
            raise FederationError(f"no round had {context.quorum} sites that trained the same fold")

    def _round(self, number: int) -> None:
        context = self._context
        calls: list[Replies] = []
        if self._ahead is not None:
            asked, self._ahead = self._ahead, None
            self._current = rounds = asked.rounds
            self._ask_ahead(number + 1)
            for fold_round in rounds:
                fold_round.receive()
            calls.append(self._answers(asked, 0))
        else:
            awake = self._awake(number, context.active)
            self._current = rounds = self._fold_rounds(number, awake)
            for turn in range(max(len(fold_round.turns) for fold_round in rounds)):
                # Who is lost in one turn would only cost the others another deadline in the next.
                lost = {site for call in calls for site in call.missing}
                asked = self._ask(number, turn, rounds, [site for site in awake if site not in lost])
                calls.append(self._answers(asked, turn))
        replies = Replies.of(calls)
        replies.require(min(context.quorum, len(replies.requests)), f"round {number}")
        for fold_round in rounds:
            fold = fold_round.fold
            if fold_round.validates and self._validates and not fold.finished:
                fold.score(fold_round.states, fold_round.sent_round)
            if fold.finished:
                continue
            if fold_round.gave < context.quorum:
                # As when a small federation loses a site while another one is left out: the fold goes on next round.
                fold.waited.append(number)
                continue
            fold_round.finish(spent(context.check.epsilons))
            fold.finished = fold.finished or fold_round.strategy.converged
            fold.fitted = dict(fold_round.strategy.fitted)
        if self._ahead is None:
            # They hold the model that the round began with, which nobody needs while a checkpoint is written.
            self._current = []
        context.progress.round(number, replies, spent(context.check.epsilons))

    def _fold_rounds(self, number: int, awake: Sequence[str], *, ahead: bool = False) -> list[FoldRound]:
        context = self._context
        return [
            FoldRound(
                fold,
                context.strategies[fold.number],
                number,
                self._sample(number, self._trainers(fold, awake)),
                context.plan.spec,
                ahead=ahead,
            )
            for fold in context.active
        ]

    def _ask(self, number: int, turn: int, rounds: list[FoldRound], awake: list[str], *, ahead: bool = False) -> _Asked:
        """Ask the sites of one turn; with the first, those that only validate are asked as well."""
        context = self._context
        waiting = {(one.fold.number, one.sent_round) for one in self._current if ahead and one.validates}
        for fold_round in rounds:
            fold_round.begin(turn)
            fold = fold_round.fold
            fold_round.validates |= turn == 0 and fold.unscored and (fold.number, fold.rounds_done) not in waiting
        items: dict[str, list[dict[str, Any]]] = {}
        for site in awake:
            for fold_round in rounds:
                asked_for = self._validates and turn == 0 and fold_round.validates
                validates = asked_for and context.plan.validates(site, fold_round.fold.number)
                item = fold_round.item(site, ["validation"] if validates else [])
                if item["train"] or item["evaluate"]:
                    items.setdefault(site, []).append(item)
        if items and turn == 0:
            context.grids.ask(item for of_site in items.values() for item in of_site)
        asked = _Asked(number, rounds, awake, items, Replies({}, iter(()), {}))
        if items:
            self._call(asked, turn, ahead=ahead)
        return asked

    def _call(self, asked: _Asked, turn: int, *, ahead: bool) -> None:
        mixed = self._context.experiment.strategy.combine.sites_in_result
        setup = self._setup
        if setup[0] is not self._context.plan.setup:
            setup = self._setup = self._context.plan.setup, self._context.plan.setup.to_json()
        asked.replies = self._context.caller.call(
            "RPC_train",
            asked.number,
            {site: {"setup": setup[1], "folds": items} for site, items in asked.items.items()},
            together=min((mixed(len(sites)) for one in asked.rounds if (sites := one.trainers(turn))), default=0),
            ahead=ahead,
        )

    def _ask_ahead(self, number: int) -> None:
        """Ask for the round after the one whose answers are looked at, on the newest model; after the last is none."""
        active = self._context.active
        if number > self._context.experiment.rounds or not active:
            return
        awake = self._awake(number, active)
        self._ahead = self._ask(number, 0, self._fold_rounds(number, awake, ahead=True), awake, ahead=True)

    def _ask_again(self, state: Mapping[str, Any]) -> None:
        """Ask once more for the round that was asked for ahead when a checkpoint was written, in the same words."""
        context = self._context
        folds = {fold.number: fold for fold in context.folds}
        rounds = []
        for content in state["folds"]:
            fold, sites = folds[content["fold"]], list(content["sites"])
            strategy = context.strategies[fold.number]
            rounds.append(FoldRound(fold, strategy, state["number"], sites, context.plan.spec, ahead=True))
            rounds[-1].load_state_dict(content)
        self._ahead = _Asked(
            state["number"], rounds, list(state["awake"]), dict(state["items"]), Replies({}, iter(()), {})
        )
        self._call(self._ahead, 0, ahead=True)

    def _answers(self, asked: _Asked, turn: int) -> Replies:
        """Take in what the sites answer in one turn."""
        context, number, replies = self._context, asked.number, asked.replies
        if not asked.items:
            return replies
        if turn == 0:
            self._name_left_out(number, replies, set(context.plan.sites) - set(asked.awake))
        by_fold = {fold_round.fold.number: fold_round for fold_round in asked.rounds}
        for site, reply in replies.taken():
            if self._pipelined and number > 1 and self._ahead is None:
                # The first two that overlap are not asked for at once, for a node might begin with the second.
                self._ask_ahead(number + 1)
            if not isinstance(reply, Joint):
                self._take(asked, site, reply, by_fold)
            elif not self._take_joint(asked, reply, by_fold):
                for each, of_site in reply.split().items():
                    self._take(asked, each, of_site, by_fold)
        if turn == 0 and context.experiment.participation.late == "stale":
            self._take_belated(number, by_fold, replies)
        elif turn == 0:
            for site, of in context.stragglers.came_too_late():
                replies.belated[site] = f"round {of} (not used, participation.late: drop)"
        context.stragglers.book(replies, number)
        context.quarantine.book(replies, number)
        return replies

    def _take(self, asked: _Asked, site: str, reply: dict[str, Any], by_fold: Mapping[int, FoldRound]) -> None:
        """Take in one site's reply, where nothing is wrong with it."""
        items = self._context.check.items(asked.replies, site, reply, asked.items[site])
        if items:
            self._context.progress.reply(asked.number, site, items, asked.replies.site_s.get(site))
        for item in items:
            by_fold[item["fold"]].take(item)

    def _take_joint(self, asked: _Asked, joint: Joint, by_fold: Mapping[int, FoldRound]) -> bool:
        """Take in the replies of several sites at once; returns whether that could be done, and nothing was if not."""
        rounds = [by_fold[item.fold] for item in joint.items if item.fold in by_fold]
        # Two models of one fold are never asked for in one round.
        if len({id(one) for one in rounds}) != len(joint.items) or not all(one.takes_joint for one in rounds):
            return False
        items = {site: items for site, items in asked.items.items() if site in joint.heads}
        measured = self._context.check.joint(joint, items)
        if measured is None:
            return False
        try:
            for one, item in zip(rounds, joint.items, strict=True):
                if item.training is not None:
                    one.strategy.check_joint(item.training)
        except (WireError, KeyError, TypeError, AttributeError):
            return False
        states = [by_part.get("validation", {}) for by_part in measured]
        for one, item, of_item in zip(rounds, joint.items, states, strict=True):
            one.take_joint(item, of_item)
        self._context.progress.joint(asked.number, joint.items, states, asked.replies.site_s)
        return True

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
        awake = set(sites)
        return [site for site in self._context.plan.trainers(fold.number) if site in awake]

    def _sample(self, number: int, sites: Sequence[str]) -> list[str]:
        """Draw those of `sites` that train in this round."""
        experiment = self._context.experiment
        wanted = math.ceil(experiment.participation.fraction * len(sites))
        count = min(len(sites), max(self._context.quorum, wanted))
        if count == len(sites):
            return list(sites)
        generator = seeding.numpy_generator(experiment.seed, "participation", number)
        drawn = set(generator.permutation(len(sites))[:count].tolist())
        return [site for index, site in enumerate(sites) if index in drawn]
