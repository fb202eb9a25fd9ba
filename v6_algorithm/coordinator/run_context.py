"""What the rounds and the final evaluation of one group of sites share: the plan, the folds, the books.

`master` makes one for each group that trains together: one for all sites, or in mode ``local`` one a site. Everything
in it that lasts from round to round is in its `state_dict`, which is what a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.evaluation.sample_grid import SampleGrids
from v6_algorithm.coordinator.evaluation.subgroups import GroupSums
from v6_algorithm.coordinator.preparation.joining import Joining
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.progress import ProgressEvents
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.coordinator.rounds.initial_model import InitialModel
from v6_algorithm.coordinator.rounds.learning_rate import LearningRate
from v6_algorithm.coordinator.rounds.quarantine import Quarantine
from v6_algorithm.coordinator.rounds.reply_checks import ReplyCheck
from v6_algorithm.coordinator.rounds.stragglers import Stragglers
from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.coordinator.strategies.newton import fix_offset
from v6_algorithm.experiment import Experiment


class RunContext:
    """One group's training, as everybody who works on it sees it.

    Parameters
    ----------
    experiment
        What to do.
    caller
        How sites are asked; all groups of a run have the same.
    begun
        The plan, and the models that the folds start from.
    quorum
        How many sites have to answer.
    parts
        On which rows the kept model is measured at the end.

    Attributes
    ----------
    plan
        What the sites agreed on; once a Cox model was measured, with its baseline hazard.
    folds, strategies
        The progress of each fold, and what makes its next model, by the fold's number.
    check, stragglers, quarantine, grids, progress
        The checks on replies, who was late, who failed again and again, who is asked for sample grids, and
        what a run tells as it goes.
    subgroups
        What was told of groups of rows.
    joining
        Who was away when the run was prepared.
    rounds_over
        The last round that is over; a fold may have had to wait in it.
    asked_ahead
        The round that was asked for before the last one was over, as `training` wants to find it again; or None.
    pretrained, evaluated
        Whether the pretraining, where there is one, and the final evaluation are over.
    stopped_because
        Why training or evaluation ended early; None where it did not.
    notes
        Sentences for the researcher, on the beginning.
    """

    def __init__(
        self, experiment: Experiment, caller: Caller, begun: InitialModel, quorum: int, parts: Sequence[str]
    ) -> None:
        self.experiment, self.caller, self.quorum = experiment, caller, quorum
        self.plan = plan = begun.plan
        self.notes = [*plan.notes, *begun.notes]
        self.parts = [part for part in parts if plan.has(part)]
        # A search for settings looks at validation rows only, and not closely.
        self.measures_subgroups = bool(experiment.evaluation.subgroups) and "test" in parts
        self.rounds_over = 0
        # With `pipeline`, the round that was asked for before the one before it was over: see `training`.
        self.asked_ahead: dict[str, Any] | None = None
        self.pretrained = self.evaluated = False
        self.stopped_because: str | None = None
        LearningRate(experiment).check(plan)
        self.folds = [
            FoldProgress(number, experiment, begun.models.get(number), holds=caller.takes_held) for number in plan.folds
        ]
        self.strategies = {fold: create_strategy(experiment, plan.spec, plan.weights(fold)) for fold in plan.folds}
        for fold, strategy in self.strategies.items():
            fix_offset(strategy, experiment, plan.setup, fold)
        self.check = ReplyCheck(
            plan,
            {fold: strategy.read for fold, strategy in self.strategies.items()},
            experiment.privacy.differential_privacy,
        )
        self.stragglers = Stragglers(caller.overdue)
        self.quarantine = Quarantine(experiment.participation.quarantine)
        self.grids = SampleGrids(experiment, self.folds[0])
        self.progress = ProgressEvents(experiment, self.folds, caller.on_event)
        self.subgroups = GroupSums(experiment.evaluation)
        self.joining = Joining(experiment, caller, plan)

    def let_in(self, round: int) -> None:
        """Let sites take part from this round on that were away when the run was prepared."""
        plan = self.joining.look(self.plan, round)
        if plan is self.plan:
            return
        self.plan = self.check.plan = plan
        for fold, strategy in self.strategies.items():
            strategy.admit(plan.weights(fold))

    @property
    def active(self) -> list[FoldProgress]:
        """The folds that train on."""
        return [fold for fold in self.folds if not fold.finished]

    @property
    def trained(self) -> bool:
        """Whether any round made a model."""
        return any(fold.rounds_done for fold in self.folds)

    @property
    def last_round(self) -> int:
        """The last round that made a model."""
        return max(fold.rounds_done for fold in self.folds)

    @property
    def all_notes(self) -> list[str]:
        """Sentences for the researcher, on the beginning and on what the sites lost."""
        return [*self.notes, *self.joining.notes, *self.check.notes]

    def state_dict(self) -> dict[str, Any]:
        """Return all that lasts from round to round, as a tree of JSON, tensors and packed models."""
        return {
            "plan": self.plan.to_json(),
            "notes": self.notes,
            "rounds_over": self.rounds_over,
            "asked_ahead": self.asked_ahead,
            "pretrained": self.pretrained,
            "evaluated": self.evaluated,
            "stopped_because": self.stopped_because,
            "folds": [fold.state_dict() for fold in self.folds],
            "strategies": [
                {"run": strategy.run, "tensors": strategy.state_dict()} for strategy in self.strategies.values()
            ],
            "check": self.check.state_dict(),
            "stragglers": self.stragglers.state_dict(),
            "quarantine": self.quarantine.state_dict(),
            "subgroups": self.subgroups.state_dict(),
            "joining": self.joining.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, of a context with the same plan."""
        self.notes = list(state["notes"])
        self.rounds_over, self.pretrained = state["rounds_over"], state["pretrained"]
        self.evaluated = state["evaluated"]
        self.asked_ahead = state.get("asked_ahead")
        # What stopped training is tried again; what was measured stays.
        self.stopped_because = state["stopped_because"] if self.evaluated else None
        for fold, content in zip(self.folds, state["folds"], strict=True):
            fold.load_state_dict(content)
        for strategy, content in zip(self.strategies.values(), state["strategies"], strict=True):
            strategy.run = content["run"]
            strategy.load_state_dict(content["tensors"])
        self.check.load_state_dict(state["check"])
        self.stragglers.load_state_dict(state["stragglers"])
        self.quarantine.load_state_dict(state.get("quarantine", {}))
        self.subgroups.load_state_dict(state["subgroups"])
        self.joining.load_state_dict(state["joining"])

    @classmethod
    def restored(
        cls, experiment: Experiment, caller: Caller, state: Mapping[str, Any], quorum: int, parts: Sequence[str]
    ) -> RunContext:
        """Make the context that a checkpoint holds."""
        context = cls(experiment, caller, InitialModel(Plan.from_json(state["plan"]), {}, []), quorum, parts)
        context.load_state_dict(state)
        return context
