"""The way of an experiment: prepare, rounds, final evaluation, result.

`run` is handed a Federation and an Experiment and gives the Result as plain JSON. It knows nothing of vantage6 and
does no tensor maths: replies go to a strategy as they come in, and out comes the next model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from v6_algorithm.coordinator.call_log import Caller, Event
from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.evaluation.final_evaluation import FinalEvaluation
from v6_algorithm.coordinator.evaluation.model_test import run_test
from v6_algorithm.coordinator.preparation.negotiate import agree_on_columns, plan, share_sums, tell_silent
from v6_algorithm.coordinator.result.assemble import assemble
from v6_algorithm.coordinator.rounds.initial_model import InitialModel, initial_model_from
from v6_algorithm.coordinator.rounds.training import Rounds
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.coordinator.secure_aggregation import ALL_SITES, SummingFederation, threshold_of
from v6_algorithm.data.preparation import Agreement
from v6_algorithm.errors import ExperimentError, FederationError, Terminated
from v6_algorithm.exchange.protocol import Federation
from v6_algorithm.exchange.wire import spec_bytes
from v6_algorithm.experiment import Experiment

INTERRUPTED = "interrupted from the keyboard"
TERMINATED = "asked to end (SIGTERM or SIGHUP); what a checkpoint holds can be gone on from"


def run(
    federation: Federation,
    experiment: Experiment,
    on_event: Callable[[Event], None] | None = None,
    *,
    weights: str | None = None,
    parts: Sequence[str] = ("validation", "test"),
    checkpoints: Checkpoints | None = None,
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
    checkpoints
        Where the state is saved after the preparation and each round. If there is one of this experiment already, the
        run goes on from it, to the same bits as one that was never interrupted.

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
    CheckpointError
        When there is a checkpoint that cannot be gone on from.
    """
    if experiment.split.kind == "tested":
        return run_test(federation, experiment, on_event or (lambda event: None), weights)
    shared = _Run(federation, experiment, on_event or (lambda event: None), parts, checkpoints)
    if not shared.restore():
        shared.prepare(weights)
    for context in shared.contexts:
        if not context.evaluated and not shared.terminated:
            _train_and_evaluate(context, shared.save)
    return shared.result()


def _train_and_evaluate(context: RunContext, save: Callable[[], None]) -> None:
    """Do the rounds, then measure the kept models; what was done before a failure is kept."""
    context.caller.on_event(
        {
            "event": "prepared",
            "sites": context.caller.taking_part or context.plan.sites,
            "rounds": context.experiment.rounds,
            "model_bytes": spec_bytes(context.plan.spec) * len(context.folds),
            "done": context.rounds_over,
        }
    )
    try:
        Rounds(context).run(save)
    except (FederationError, KeyboardInterrupt) as error:
        if not context.trained:
            raise
        context.stopped_because = _reason(error)
        if isinstance(error, Terminated):
            return
    try:
        FinalEvaluation(context).run()
    except (FederationError, KeyboardInterrupt) as error:
        context.stopped_because = context.stopped_because or _reason(error)
    if context.stopped_because is None:
        context.evaluated = True
        save()


def _reason(error: BaseException) -> str:
    return TERMINATED if isinstance(error, Terminated) else str(error) or INTERRUPTED


class _Run:
    """All groups of one run, and what is saved of them."""

    def __init__(
        self,
        federation: Federation,
        experiment: Experiment,
        on_event: Callable[[Event], None],
        parts: Sequence[str],
        checkpoints: Checkpoints | None,
    ) -> None:
        self.contexts: list[RunContext] = []
        self._experiment, self._parts, self._checkpoints = experiment, parts, checkpoints
        self._names = [site.name for site in federation.sites()]
        # What an engine tells of itself, where it has something to tell.
        self._how: Callable[[], dict[str, Any]] = getattr(federation, "how", dict)
        self._caller = Caller(federation, experiment, on_event)
        self._notes: list[str] = []
        self._summing: SummingFederation | None = None
        self._started = time.perf_counter()

    def prepare(self, weights: str | None) -> None:
        """Agree with the sites on columns, statistics and the models that each group begins with."""
        experiment, ask = self._experiment, self._caller.prepare
        if weights is None and experiment.start.weights and not experiment.start.at_sites:
            raise ExperimentError(
                "start.weights: names a file of the researcher; give its content too, base64 safetensors, as `weights`"
            )
        quorum = quorum_of(experiment, self._names)
        sites, agreement = agree_on_columns(ask, experiment, self._names, quorum)
        if experiment.privacy.secure_aggregation is not None:
            self._summing = self._caller.sum_over(sites, quorum)
            self._summing.report.policies = agreement.policies
            # From here on all sites are one, and it sees to it that enough of them are behind every sum.
            sites, quorum = [ALL_SITES], 1
            # One site that measures nothing in the rounds leaves no sum over all of them.
            agreement.notes.extend(tell_silent(agreement.silent, others=False))
            silent = [ALL_SITES] if agreement.silent else []
            agreement = replace(agreement, synthetic={ALL_SITES: 0}, policies={}, silent=silent)
        groups = [[site] for site in sites] if experiment.mode == "local" else [sites]
        plans = share_sums([plan(ask, experiment, agreement, group, quorum) for group in groups])
        begun = [
            InitialModel(of_group, {}, []) if weights is None else initial_model_from(weights, experiment, of_group)
            for of_group in plans
        ]
        self._notes = list(agreement.notes)
        self.contexts = [RunContext(experiment, self._caller, model, quorum, self._parts) for model in begun]
        self.save()

    def restore(self) -> bool:
        """Go on from the checkpoint; returns whether there was one."""
        saved = self._checkpoints.load(self._experiment) if self._checkpoints else None
        if saved is None:
            return False
        state, quorum = saved["state"], quorum_of(self._experiment, self._names)
        self._notes = list(state["notes"])
        self._started -= state["seconds"]
        self._caller.load_state_dict(state["calls"])
        if (summed := state.get("secure_aggregation")) is not None:
            self._summing = self._caller.sum_over(summed["sites"], quorum)
            self._summing.load_state_dict(summed)
            quorum = 1
        self.contexts = [
            RunContext.restored(self._experiment, self._caller, group, quorum, self._parts) for group in state["groups"]
        ]
        return True

    def save(self) -> None:
        """Write the checkpoint, where one is wanted and due."""
        if self._checkpoints is None or not self._checkpoints.due():
            return
        before = self._checkpoints.trouble
        self._checkpoints.save(
            self._experiment,
            {
                "notes": self._notes,
                "seconds": time.perf_counter() - self._started,
                "calls": self._caller.state_dict(),
                "secure_aggregation": self._summing.state_dict() if self._summing else None,
                "groups": [context.state_dict() for context in self.contexts],
            },
        )
        if (trouble := self._checkpoints.trouble) and trouble != before:
            self._notes.append(trouble)
            self._caller.on_event({"event": "note", "text": trouble})

    @property
    def terminated(self) -> bool:
        """Whether the process was asked to end."""
        return any(context.stopped_because == TERMINATED for context in self.contexts)

    def result(self) -> dict[str, Any]:
        """Put the result together, of the groups whose turn has come."""
        self._caller.close_books()
        contexts = [context for context in self.contexts if context.trained]
        seconds = time.perf_counter() - self._started
        summing = self._summing
        notes = [*self._notes, *(summing.closing_notes() if summing else [])]
        result = assemble(self._experiment, contexts, self._caller, notes=notes, seconds=seconds)
        if how := self._how():
            result["engine"] = how
        return summing.in_result(result) if summing else result


def check(federation: Federation, experiment: Experiment) -> Agreement:
    """Ask all sites what is asked before training; raises as `run` does when something does not fit."""
    names = [site.name for site in federation.sites()]
    ask, quorum = Caller(federation, experiment, lambda event: None).prepare, quorum_of(experiment, names)
    sites, agreement = agree_on_columns(ask, experiment, names, quorum)
    if experiment.privacy.secure_aggregation is not None:
        threshold_of(experiment, len(sites))
        return agreement
    groups = [[site] for site in sites] if experiment.mode == "local" else [sites]
    notes = dict.fromkeys(note for group in groups for note in plan(ask, experiment, agreement, group, quorum).notes)
    return replace(agreement, notes=[*agreement.notes, *notes])


def quorum_of(experiment: Experiment, names: Sequence[str]) -> int:
    """Return how many of these sites have to answer; raises ExperimentError when there are not so many."""
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
