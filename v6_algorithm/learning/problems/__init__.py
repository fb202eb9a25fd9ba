"""Problems by name: the built-in ones, and plug-ins from the entry-point group ``v6_algorithm.learning.problems``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from v6_algorithm.experiment import plugins

if TYPE_CHECKING:
    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.learning.problems.base import Problem


def problem_class(kind: str) -> type[Problem]:
    """Find a problem's class; `experiment` has checked that there is one."""
    from v6_algorithm.learning.problems.gan import Gan
    from v6_algorithm.learning.problems.images import ImageClassification
    from v6_algorithm.learning.problems.multitask import MultiTask
    from v6_algorithm.learning.problems.sequences import SequenceClassification
    from v6_algorithm.learning.problems.survival import Survival
    from v6_algorithm.learning.problems.tabular import Classification, Count, Regression

    built_in: dict[str, type[Problem]] = {
        "classification": Classification,
        "regression": Regression,
        "count": Count,
        "image_classification": ImageClassification,
        "volume_classification": ImageClassification,
        "sequence_classification": SequenceClassification,
        "gan": Gan,
        "survival": Survival,
        "multitask": MultiTask,
    }
    return built_in[kind] if kind in built_in else plugins.problem(kind)


def create_problem(experiment: Experiment, setup: Setup) -> Problem:
    """Build the experiment's problem."""
    return problem_class(experiment.problem.kind)(experiment, setup)
