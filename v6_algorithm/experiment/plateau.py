"""ReduceLROnPlateau over the rounds of a federation: the metric that it looks at, and which way that is better.

`running.rates` drives torch's class with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from v6_algorithm.experiment.base import refuse
from v6_algorithm.experiment.problems import check_metric

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections


def complete_plateau(experiment: AllSections) -> None:
    """Fill in what is monitored and its direction, so that the resolved experiment says both; refuse what cannot be."""
    from v6_algorithm.experiment.metric_names import higher_is_better

    scheduler = experiment.training.scheduler
    if scheduler is None or not scheduler.on_plateau:
        return
    if getattr(experiment.split, "validation", None) == 0:
        raise refuse(
            f"training.scheduler {scheduler.kind} follows a validation metric, and split.validation is 0: there are no "
            "rows to measure it on"
        )
    scheduler.monitor = scheduler.monitor or experiment.stopping.monitor
    check_metric("training.scheduler.monitor", scheduler.monitor, experiment)
    mode = "max" if higher_is_better(scheduler.monitor, experiment.problem.kind) else "min"
    extra = scheduler.__pydantic_extra__
    if extra is not None and extra.setdefault("mode", mode) != mode:
        raise refuse(
            f"training.scheduler.mode is {extra['mode']}, and of {scheduler.monitor} a "
            f"{'higher' if mode == 'max' else 'lower'} value is better; leave it out, or give {mode}"
        )
