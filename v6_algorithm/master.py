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
from typing import Any

from v6_algorithm import seeding, wire
from v6_algorithm.errors import ExperimentError, FederationError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.federation.protocol import Federation, Replies
from v6_algorithm.folds import FoldProgress
from v6_algorithm.lateness import Lateness
from v6_algorithm.metrics import check_state
from v6_algorithm.preparation import Agreement
from v6_algorithm.preparation.negotiate import Plan, agree_on_columns, plan
from v6_algorithm.results import assemble, mean_of, site_scores
from v6_algorithm.strategies import create_strategy

# Shown after every round where a problem has them, beside the loss and the monitored metric.
HEADLINES = ("auroc", "accuracy", "r2")
Event = dict[str, Any]
States = dict[str, dict[str, Any]]


def run(
    federation: Federation, experiment: Experiment, on_event: Callable[[Event], None] | None = None
) -> dict[str, Any]:
    """Run an experiment to its end.

    Parameters
    ----------
    federation
        The sites and the way to them.
    experiment
        What to do.
    on_event
        Called with a small dictionary after preparation, every round and the test, for progress displays.

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
    names = [site.name for site in federation.sites()]
    quorum = _quorum(experiment, names)
    caller = _Caller(federation, experiment, on_event or (lambda event: None))
    sites, agreement = agree_on_columns(caller.prepare, experiment, names, quorum)
    runs = []
    for group in [[site] for site in sites] if experiment.mode == "local" else [sites]:
        training = _Training(caller, experiment, plan(caller.prepare, experiment, agreement, group, quorum), quorum)
        training.run()
        runs.append(training)
    caller.settle()
    return assemble(
        experiment,
        notes=agreement.notes,
        runs=[(training.plan, training.folds, training.stopped_because) for training in runs],
        participation=caller.participation,
        rounds=caller.timing,
        seconds=time.perf_counter() - start,
    )


def check(federation: Federation, experiment: Experiment) -> Agreement:
    """Ask all sites for their columns and nothing else; raises as `run` does when something does not fit."""
    names = [site.name for site in federation.sites()]
    caller = _Caller(federation, experiment, lambda event: None)
    return agree_on_columns(caller.prepare, experiment, names, _quorum(experiment, names))[1]


def _quorum(experiment: Experiment, names: Sequence[str]) -> int:
    quorum = experiment.participation.minimum if experiment.mode == "federated" else 1
    if len(names) < quorum:
        raise ExperimentError(
            f"participation.minimum: {quorum} sites are needed, the federation has {len(names)}: {', '.join(names)}"
        )
    return quorum


class _Caller:
    """Sends calls, and keeps the book on who answered and what it cost."""

    def __init__(self, federation: Federation, experiment: Experiment, on_event: Callable[[Event], None]) -> None:
        self._federation = federation
        self._experiment = experiment
        self.on_event = on_event
        self.participation: list[dict[str, Any]] = []
        self.timing: list[dict[str, Any]] = []
        self._calls: list[tuple[str, int, Replies]] = []

    def prepare(self, sites: Sequence[str], body: dict[str, Any]) -> Replies:
        """Send one RPC_prepare message to each site."""
        return self.call("RPC_prepare", 0, dict.fromkeys(sites, body))

    def call(self, method: str, number: int, bodies: dict[str, dict[str, Any]]) -> Replies:
        """Send one message to each site; the experiment and the round go with it."""
        self.settle()
        common = {"experiment": self._experiment.for_sites(), "sites": len(bodies)}
        requests = {
            site: wire.message(site=site, round=number, attempt=1, **common, **body) for site, body in bodies.items()
        }
        replies = self._federation.call(method, requests, deadline_s=self._experiment.participation.deadline_s)
        self._calls.append((method.removeprefix("RPC_"), number, replies))
        return replies

    def settle(self) -> None:
        """Book the calls that are over."""
        for call, number, replies in self._calls:
            missing = {site: str(reason) for site, reason in sorted(replies.missing.items())}
            self.participation.append(
                {"round": number, "call": call, "answered": sorted(replies.answered), "missing": missing}
            )
            self.timing.append(
                {
                    "round": number,
                    "call": call,
                    "seconds": round(replies.seconds, 4),
                    "waiting_s": round(replies.seconds - replies.busy_s, 4),
                    "site_s": replies.site_s,
                    "phases": replies.phases,
                    "bytes_sent": replies.bytes_sent,
                    "bytes_received": replies.bytes_received,
                }
            )
        self._calls.clear()


class _Training:
    """Training of one group of sites: all of them, or in mode local one after another."""

    def __init__(self, caller: _Caller, experiment: Experiment, plan: Plan, quorum: int) -> None:
        self.plan = plan
        self.stopped_because: str | None = None
        self._caller = caller
        self._experiment = experiment
        self._quorum = quorum
        self._setup = plan.setup.to_json()
        self._validates = plan.has("validation")
        self._lateness = Lateness()
        self._strategy = create_strategy(experiment.strategy)
        self.folds = [FoldProgress(number, experiment) for number in range(len(plan.counts))]

    def run(self) -> None:
        """Train round by round, then measure the kept models; what was done before a failure is kept."""
        self._caller.on_event({"event": "prepared", "sites": self.plan.sites, "rounds": self._experiment.rounds})
        try:
            for number in range(1, self._experiment.rounds + 1):
                self._round(number)
                if not self._active:
                    break
        except (FederationError, KeyboardInterrupt) as error:
            if not any(fold.rounds_done for fold in self.folds):
                raise
            self.stopped_because = str(error) or "interrupted from the keyboard"
        try:
            self._finish()
        except (FederationError, KeyboardInterrupt) as error:
            self.stopped_because = self.stopped_because or str(error) or "interrupted from the keyboard"

    @property
    def _active(self) -> list[FoldProgress]:
        return [fold for fold in self.folds if not fold.finished]

    def _round(self, number: int) -> None:
        evaluate = ["validation"] if self._validates and number > 1 else []
        awake = [site for site in self.plan.sites if not self._lateness.rests(site, number)]
        if len(awake) < self._quorum:
            awake = self.plan.sites
        trainers = self._sample(number, awake)
        active = self._active
        bodies = {
            site: self._body([fold.item(evaluate, train=site in trainers) for fold in active])
            for site in awake
            if site in trainers or evaluate
        }
        replies = self._caller.call("RPC_train", number, bodies)
        for site in set(self.plan.sites) - set(awake):
            replies.missing[site] = self._lateness.reason(site)
        means = {fold.number: self._strategy.begin(self.plan.spec) for fold in active}
        losses = {fold.number: [0.0, 0] for fold in active}
        states: dict[int, States] = {fold.number: {} for fold in active}
        for site, reply in replies:
            items = self._checked(replies, site, reply, active, evaluate, trained=site in trainers)
            for item in items:
                states[item["fold"]] |= item["metrics"].get("validation", {})
                if "state" in item:
                    means[item["fold"]].add(item.pop("state"), self._strategy.weight(item["rows"]))
                    self.folds[item["fold"]].trained(site, number, item["loss"]["sum"] / item["loss"]["rows"])
                    losses[item["fold"]][0] += item["loss"]["sum"]
                    losses[item["fold"]][1] += item["loss"]["rows"]
        self._lateness.book(replies, number)
        replies.require(min(self._quorum, len(trainers)), f"round {number}")
        for fold in active:
            if evaluate:
                fold.score(states[fold.number])
            if not fold.finished:
                total, rows = losses[fold.number]
                fold.advance(number, self._next(means[fold.number], number), total / rows)
        self._tell(number, replies)

    def _next(self, mean: Any, number: int) -> str:
        try:
            return wire.pack(mean.result())
        except ValueError as error:
            raise FederationError(f"round {number}: {error}") from None

    def _body(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {"setup": self._setup, "folds": items}

    def _sample(self, number: int, sites: Sequence[str]) -> set[str]:
        """Draw the sites that train in this round."""
        participation = self._experiment.participation
        count = min(len(sites), max(self._quorum, math.ceil(participation.fraction * len(sites))))
        generator = seeding.numpy_generator(self._experiment.seed, "participation", number)
        return {sites[index] for index in generator.permutation(len(sites))[:count]}

    def _check(
        self, reply: dict[str, Any], asked: list[FoldProgress], parts: list[str], *, trained: bool
    ) -> list[dict[str, Any]]:
        """Check a whole reply before any of it is used."""
        items: list[dict[str, Any]] = reply["folds"]
        if [item["fold"] for item in items] != [fold.number for fold in asked]:
            raise WireError("it answers for other folds than it was asked for")
        for item in items:
            if set(item["metrics"]) != set(parts):
                raise WireError("it measured other parts than it was asked for")
            for states in item["metrics"].values():
                for name, state in states.items():
                    if name not in self.plan.counts[item["fold"]]:
                        raise WireError(f"it measured a hospital '{name[:40]}' that is not known")
                    check_state(state)
                    if self.plan.setup.classes and state.get("n_classes", 0) != len(self.plan.setup.classes):
                        raise WireError("its metrics are of another number of classes")
            if not trained:
                continue
            rows, loss = item["rows"], item["loss"]
            if not isinstance(rows, int) or rows < 0 or not isinstance(loss["rows"], int) or loss["rows"] < 1:
                raise WireError("its row counts must be whole numbers")
            if not isinstance(loss["sum"], (int, float)) or not math.isfinite(loss["sum"]):
                raise WireError("its training loss is not a finite number")
            item["state"] = wire.unpack(item.pop("parameters"), self.plan.spec)
        return items

    def _finish(self) -> None:
        """Score the last round's models and measure the kept ones on validation and test, in one call.

        Which model is kept may hang on the last one's score, so both candidates are measured; the choice looks at
        validation only.
        """
        parts = [part for part in ("validation", "test") if self.plan.has(part)]
        candidates = [(fold, model) for fold in self.folds for model in fold.candidates]
        if not parts or not candidates:
            return
        items = [fold.item(parts, model=model) for fold, model in candidates]
        number = max(fold.rounds_done for fold in self.folds)
        replies = self._caller.call("RPC_evaluate", number, {site: self._body(items) for site in self.plan.sites})
        found: list[dict[str, States]] = [{part: {} for part in parts} for _ in items]
        for site, reply in replies:
            answered = self._checked(replies, site, reply, [fold for fold, _ in candidates], parts, trained=False)
            for states, item in zip(found, answered, strict=False):
                for part, members in item["metrics"].items():
                    states[part] |= members
        replies.require(self._quorum, "evaluation")
        for (fold, model), states in zip(candidates, found, strict=True):
            if fold.unscored and model == fold.model:
                fold.score(states.get("validation", {}))
        for (fold, model), states in zip(candidates, found, strict=True):
            if model == fold.kept:
                fold.measured = states
        self._tell(number, replies)
        self._caller.on_event({"event": "tested"})

    def _checked(
        self,
        replies: Replies,
        site: str,
        reply: dict[str, Any],
        asked: list[FoldProgress],
        parts: list[str],
        *,
        trained: bool,
    ) -> list[dict[str, Any]]:
        """Check a reply; one that fails is dropped, counted and named, and nothing of it is used."""
        try:
            return self._check(reply, asked, parts, trained=trained)
        except (WireError, ValueError) as error:
            replies.reject(site, str(error))
        except (KeyError, TypeError, AttributeError):
            replies.reject(site, "malformed reply")
        return []

    def _tell(self, number: int, replies: Replies | None) -> None:
        """Report the round: its training loss, and the newest validation, which is of the round before or of this."""
        newest = mean_of([fold.newest() for fold in self.folds])
        shown = ["train_loss", "validation_loss", f"validation_{self._experiment.stopping.monitor}"]
        shown += [f"validation_{name}" for name in HEADLINES]
        validated = max((fold.rounds_scored for fold in self.folds), default=0)
        self._caller.on_event(
            {
                "event": "round",
                "round": number,
                "rounds": self._experiment.rounds,
                "validated_round": validated,
                # Every number there is, for trackers: those of training are of this round, the others of the validated.
                "scores": {
                    "pooled": {name: value for name, value in newest.items() if value is not None},
                    "sites": {
                        site: site_scores(self.folds, site, number, "train")
                        | site_scores(self.folds, site, validated, "validation")
                        for site in sorted({site for fold in self.folds for site in fold.at_sites})
                    },
                },
                "metrics": {name: newest[name] for name in dict.fromkeys(shown) if newest.get(name) is not None},
                "missing": {} if replies is None else {site: str(reason) for site, reason in replies.missing.items()},
            }
        )
