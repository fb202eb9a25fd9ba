"""The experiment loop: rounds, folds, stopping, and which model is kept.

`run` is handed a Federation and an Experiment and gives the Result as plain JSON. It knows nothing of vantage6 and
does no tensor maths: replies go to a strategy as they come in, and out comes the next model.

One call a round: the sites validate the model they receive, which is the one the round before has just produced,
and then train it on. So a round costs one trip over the network, and the history still tells for every round how
good the model was that this very round made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from v6_algorithm import seeding
from v6_algorithm.coordinator.call_log import Caller, Event
from v6_algorithm.coordinator.final_evaluation import FinalEvaluation
from v6_algorithm.coordinator.folds import FoldProgress
from v6_algorithm.coordinator.initial_model import InitialModel, initial_model_from
from v6_algorithm.coordinator.learning_rate import LearningRate
from v6_algorithm.coordinator.preparation.negotiate import Plan, agree_on_columns, plan, share_sums
from v6_algorithm.coordinator.pretraining import pretrain
from v6_algorithm.coordinator.progress import ProgressEvents
from v6_algorithm.coordinator.reply_checks import ReplyCheck
from v6_algorithm.coordinator.results import assemble
from v6_algorithm.coordinator.rounds import FoldRound
from v6_algorithm.coordinator.sample_grid import SampleGrids
from v6_algorithm.coordinator.secure_aggregation import ALL_SITES
from v6_algorithm.coordinator.stragglers import Stragglers
from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.coordinator.subgroups import GroupSums
from v6_algorithm.data.preparation import Agreement
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange.protocol import Federation, Replies
from v6_algorithm.experiment import Experiment

INTERRUPTED = "interrupted from the keyboard"


def run(
    federation: Federation,
    experiment: Experiment,
    on_event: Callable[[Event], None] | None = None,
    *,
    weights: str | None = None,
    parts: Sequence[str] = ("validation", "test"),
) -> dict[str, Any]:
    """Run an experiment to its end.

    Parameters
    ----------
    federation
        The sites and the way to them.
    experiment
        What to do.
    on_event
        Called with a small dictionary after preparation, every site's reply, every round and the test, for progress
        displays.
    weights
        The content of the file that `start.weights` names, as base64 safetensors.
    parts
        On which rows the kept model is measured at the end.

    Returns
    -------
    dict
        The result, as DESIGN's contract has it. When the federation could not go on after training had begun, its
        status is ``stopped`` and it holds what was done.

    Raises
    ------
    ExperimentError
        When the experiment does not fit the sites' data; nothing was trained.
    FederationError
        When too few sites answered before the first round was done.
    """
    start = time.perf_counter()
    if weights is None and experiment.start.weights and not experiment.start.at_sites:
        raise ExperimentError(
            "start.weights: names a file of the researcher; give its content too, base64 safetensors, as `weights`"
        )
    names = [site.name for site in federation.sites()]
    quorum = _quorum(experiment, names)
    caller = Caller(federation, experiment, on_event or (lambda event: None))
    sites, agreement = agree_on_columns(caller.prepare, experiment, names, quorum)
    summing = None
    if experiment.privacy.secure_aggregation is not None:
        summing = caller.sum_over(sites, quorum)
        # From here on all sites are one, and it sees to it that enough of them are behind every sum.
        sites, quorum, agreement = [ALL_SITES], 1, replace(agreement, synthetic={ALL_SITES: 0})
    groups = [[site] for site in sites] if experiment.mode == "local" else [sites]
    plans = share_sums([plan(caller.prepare, experiment, agreement, group, quorum) for group in groups])
    runs = []
    for group_plan in plans:
        begun = (
            InitialModel(group_plan, {}, []) if weights is None else initial_model_from(weights, experiment, group_plan)
        )
        training = _Training(caller, experiment, begun, quorum, parts)
        training.run()
        runs.append(training)
    caller.settle()
    result = assemble(
        experiment,
        notes=[
            *agreement.notes,
            *(summing.closing_notes() if summing else []),
            *dict.fromkeys(note for training in runs for note in training.told),
        ],
        runs=[(training.plan, training.folds, training.stopped_because) for training in runs],
        groups=[training.groups for training in runs],
        participation=caller.participation,
        rounds=caller.timing,
        devices={site: device for training in runs for site, device in sorted(training.devices.items())},
        seconds=time.perf_counter() - start,
    )
    return result if summing is None else result | {"secure_aggregation": summing.to_json(agreement.policies)}


def check(federation: Federation, experiment: Experiment) -> Agreement:
    """Ask all sites for their columns and nothing else; raises as `run` does when something does not fit."""
    names = [site.name for site in federation.sites()]
    caller = Caller(federation, experiment, lambda event: None)
    return agree_on_columns(caller.prepare, experiment, names, _quorum(experiment, names))[1]


def _quorum(experiment: Experiment, names: Sequence[str]) -> int:
    quorum = experiment.participation.minimum if experiment.mode == "federated" else 1
    combine = experiment.strategy.combine
    if experiment.mode == "federated" and combine.sites_needed > quorum:
        quorum = combine.sites_needed
        if len(names) < quorum:
            raise ExperimentError(
                f"strategy.combine: {combine.kind} needs {quorum} sites to bear {combine.malicious} malicious, the "
                f"federation has {len(names)}: {', '.join(names)}"
            )
    if len(names) < quorum:
        raise ExperimentError(
            f"participation.minimum: {quorum} sites are needed, the federation has {len(names)}: {', '.join(names)}"
        )
    return quorum


class _Training:
    """Training of one group of sites: all of them, or in mode local one after another."""

    def __init__(
        self, caller: Caller, experiment: Experiment, begun: InitialModel, quorum: int, parts: Sequence[str]
    ) -> None:
        plan = begun.plan
        self.notes = [*plan.notes, *begun.notes]
        self.stopped_because: str | None = None
        self._caller = caller
        self._experiment = experiment
        self._quorum = quorum
        self._setup = plan.setup.to_json()
        self._validates = plan.has("validation")
        LearningRate(experiment).check(plan)
        self._stragglers = Stragglers(caller.overdue)
        self.folds = [FoldProgress(number, experiment, begun.models.get(number)) for number in plan.folds]
        self._progress = ProgressEvents(experiment, self.folds, caller.on_event)
        self._pictures = SampleGrids(experiment, self.folds[0])
        self._strategies = {
            fold: create_strategy(
                experiment, plan.spec, {site: plan.rows[site][fold]["train"] for site in plan.trainers(fold)}
            )
            for fold in plan.folds
        }
        self._check = ReplyCheck(plan, {fold: strategy.read for fold, strategy in self._strategies.items()})
        self._closing = FinalEvaluation(
            experiment,
            plan,
            self.folds,
            caller=caller,
            check=self._check,
            stragglers=self._stragglers,
            pictures=self._pictures,
            progress=self._progress,
            parts=parts,
            quorum=quorum,
        )

    def run(self) -> None:
        """Train round by round, then measure the kept models; what was done before a failure is kept."""
        self._caller.on_event(
            {
                "event": "prepared",
                "sites": self._caller.taking_part or self.plan.sites,
                "rounds": self._experiment.rounds,
            }
        )
        if self._experiment.start.pretrain_epochs:
            self.notes += pretrain(
                self._experiment.start.pretrain_epochs, self.plan, self.folds, self._caller, self._check
            )
        try:
            for number in range(1, self._experiment.rounds + 1):
                self._round(number)
                if not self._active:
                    break
            if not any(fold.rounds_done for fold in self.folds):
                raise FederationError(f"no round had {self._quorum} sites that trained the same fold")
        except (FederationError, KeyboardInterrupt) as error:
            if not any(fold.rounds_done for fold in self.folds):
                raise
            self.stopped_because = str(error) or INTERRUPTED
        try:
            self._closing.run(self._reachable())
        except (FederationError, KeyboardInterrupt) as error:
            self.stopped_because = self.stopped_because or str(error) or INTERRUPTED

    @property
    def plan(self) -> Plan:
        """What the sites agreed on; at the end of a Cox model's run with its baseline hazard."""
        return self._closing.plan

    @property
    def groups(self) -> GroupSums:
        """What the sites told of groups of rows."""
        return self._closing.groups

    @property
    def devices(self) -> dict[str, dict[str, str]]:
        """What each site last said it computes on."""
        return self._check.devices

    @property
    def told(self) -> list[str]:
        """Sentences for the researcher, on the beginning and on what the sites lost."""
        return [*self.notes, *self._check.notes]

    @property
    def _active(self) -> list[FoldProgress]:
        return [fold for fold in self.folds if not fold.finished]

    def _round(self, number: int) -> None:
        active = self._active
        awake = self._awake(number, active)
        spec, strategies = self.plan.spec, self._strategies
        rounds = [
            FoldRound(fold, strategies[fold.number], number, self._sample(number, self._trainers(fold, awake)), spec)
            for fold in active
        ]
        calls: list[Replies] = []
        for turn in range(max(len(one.turns) for one in rounds)):
            # Who is lost in one turn would only cost the others another deadline in the next.
            lost = {site for call in calls for site in call.missing}
            calls.append(self._turn(number, turn, rounds, [site for site in awake if site not in lost]))
        replies = Replies.of(calls)
        replies.require(min(self._quorum, len(replies.requests)), f"round {number}")
        for one in rounds:
            fold = one.fold
            if fold.unscored and self._validates:
                fold.score(one.states)
            if fold.finished:
                continue
            if one.gave < self._quorum:
                # As when a small federation loses a site while another one is left out: the fold goes on next round.
                fold.waited.append(number)
                continue
            one.finish()
        self._progress.round(number, replies)

    def _turn(self, number: int, turn: int, rounds: list[FoldRound], awake: list[str]) -> Replies:
        """Ask the sites of one turn; with the first, those that only validate are asked as well."""
        for one in rounds:
            one.begin(turn)
        asked: dict[str, list[dict[str, Any]]] = {}
        for site in awake:
            for one in rounds:
                validates = turn == 0 and one.fold.unscored
                item = one.item(site, self._with_rows(site, one.fold, ["validation"] if validates else []))
                if item["train"] or item["evaluate"]:
                    asked.setdefault(site, []).append(item)
        if not asked:
            return Replies({}, iter(()), {})
        if turn == 0:
            self._pictures.ask(own for items in asked.values() for own in items)
        mixed = self._experiment.strategy.combine.sites_in_result
        replies = self._caller.call(
            "RPC_train",
            number,
            {site: self._body(items) for site, items in asked.items()},
            together=min((mixed(len(sites)) for one in rounds if (sites := one.trainers(turn))), default=0),
        )
        if turn == 0:
            self._stragglers.name_resting(replies, set(self.plan.sites) - set(awake))
        by_fold = {one.fold.number: one for one in rounds}
        for site, reply in replies:
            items = self._check.items(replies, site, reply, asked[site])
            if items:
                self._progress.reply(number, site, items, replies.site_s.get(site))
            for item in items:
                by_fold[item["fold"]].take(item)
        self._stragglers.book(replies, number)
        if turn == 0 and self._experiment.participation.late == "stale":
            self._take_belated(number, by_fold, replies)
        return replies

    def _take_belated(self, number: int, by_fold: dict[int, FoldRound], replies: Replies) -> None:
        """Take in what sites have made of an earlier round's model, when they were late for that round."""
        for site, request, reply in self._caller.belated("RPC_train"):
            checked = Replies({site: request}, iter(()), {})
            items = self._check.items(checked, site, reply, request["folds"])
            for asked, item in zip(request["folds"], items, strict=False):
                if item["fold"] in by_fold and "reply" in item:
                    by_fold[item["fold"]].take_belated(item["reply"], asked, number - request["round"])
            dropped = checked.missing.get(site)
            replies.belated[site] = f"round {request['round']}" + (f" (dropped, {dropped})" if dropped else "")

    def _awake(self, number: int, active: list[FoldProgress]) -> list[str]:
        """Return the sites that do not rest; nobody rests where a fold's quorum needs them."""
        awake = [site for site in self.plan.sites if not self._stragglers.rests(site, number)]
        enough = all(len(self._trainers(fold, awake)) >= self._quorum for fold in active)
        return awake if enough else self.plan.sites

    def _trainers(self, fold: FoldProgress, sites: Sequence[str]) -> list[str]:
        return [site for site in self.plan.trainers(fold.number) if site in sites]

    def _with_rows(self, site: str, fold: FoldProgress, parts: list[str]) -> list[str]:
        return [part for part in parts if self._rows(site, fold, part)]

    def _rows(self, site: str, fold: FoldProgress, part: str) -> int:
        return self.plan.rows[site][fold.number][part]

    def _body(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {"setup": self._setup, "folds": items}

    def _sample(self, number: int, sites: Sequence[str]) -> list[str]:
        """Draw those of `sites` that train in this round."""
        participation = self._experiment.participation
        count = min(len(sites), max(self._quorum, math.ceil(participation.fraction * len(sites))))
        generator = seeding.numpy_generator(self._experiment.seed, "participation", number)
        drawn = set(generator.permutation(len(sites))[:count].tolist())
        return [site for index, site in enumerate(sites) if index in drawn]

    def _reachable(self) -> list[str]:
        """Return the sites to ask at the end; none where too few are there and a deadline was waited for them."""
        reachable = [site for site in self.plan.sites if not self._stragglers.away(site)]
        if len(reachable) >= self._quorum:
            return reachable
        return [] if self.stopped_because else self.plan.sites
