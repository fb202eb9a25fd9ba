"""Problems by name: the built-in ones, and plug-ins from the entry-point group ``v6_algorithm.problems``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.preparation import Setup
    from v6_algorithm.problems.base import Problem


def problem_class(kind: str) -> type[Problem]:
    """Find a problem's class; `experiment` has checked that there is one."""
    from v6_algorithm.problems.tabular import Classification, Regression

    built_in: dict[str, type[Problem]] = {"classification": Classification, "regression": Regression}
    if kind in built_in:
        return built_in[kind]
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="v6_algorithm.problems", name=kind)
    loaded: type[Problem] = entry.load()
    return loaded


def create_problem(experiment: Experiment, setup: Setup) -> Problem:
    """Build the experiment's problem."""
    return problem_class(experiment.problem.kind)(experiment, setup)
