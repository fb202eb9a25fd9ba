"""The learning rate of each round, as `training.scheduler` has it.

A scheduler by round is wound forward at each site by itself. Where the rate follows from validation, which only
`master` sees, it is worked out here and sent with the request: a function of the history and of nothing else, so that
a repeated or resumed round has the rate that it had.
"""

from __future__ import annotations

from collections.abc import Sequence

from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.optimisers import PLATEAU, group_in_round, rate_after


class LearningRate:
    """The learning rate of an experiment's rounds.

    Attributes
    ----------
    told
        Whether sites have to be told it.
    monitor
        The validation metric that the rate follows; None where it follows none.
    """

    def __init__(self, experiment: Experiment) -> None:
        training = experiment.training
        self._optimiser = training.optimizer.kind, training.optimizer.options()
        self._scheduler = training.scheduler
        self.on_plateau = self._scheduler is not None and self._scheduler.on_plateau
        self.monitor = self._scheduler.monitor if self._scheduler is not None and self.on_plateau else None

    def in_round(self, number: int, scores: Sequence[float | None]) -> float | None:
        """Return the rate of a round, before which the metric was this; None where it is the optimiser's throughout.

        The sites validate a model in the call that trains it on. So ReduceLROnPlateau has not seen the model that a
        round begins with, only those before it; a round whose metric is not defined is passed over.
        """
        if self._scheduler is None:
            return None
        scheduler = self._scheduler.kind, self._scheduler.options()
        if not self.on_plateau:
            return float(group_in_round(*self._optimiser, scheduler, number)["lr"])
        return rate_after(*self._optimiser, scheduler, [score for score in scores if score is not None])

    def check(self, plan: Plan) -> None:
        """Refuse a rate that follows validation where no site measures models in rounds; raises ExperimentError."""
        if self.on_plateau and not plan.validated:
            lacking = "measures models in the rounds" if plan.has("validation") else "has validation rows"
            raise ExperimentError(f"training.scheduler: {PLATEAU} follows a validation metric, and no site {lacking}")
