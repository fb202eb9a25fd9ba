"""A network, a loss and metrics that a notebook gives: named in the experiment, known to this process only.

What runs on a network is an installed package; a notebook's code travels nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import plugins

# What the registered network and problem are called in the experiment.
NAME = "own"


def own_parts(content: dict[str, Any], model: Any, loss: Any, metrics: Any) -> dict[str, Any]:
    """Return an experiment's content with the given parts named in it, and register these.

    Parameters
    ----------
    content
        The experiment as a mapping.
    model
        None; a torch module; or what makes one, see `learning.models.own`.
    loss
        None; or a function of (output, target) that returns the (rows,) losses, as torch's with ``reduction="none"``.
    metrics
        None; or a name to a function of (prediction, target), numpy arrays, that returns (rows,) numbers, whose mean is
        the metric; or to such a function and whether higher is better, which is assumed.

    Raises
    ------
    ExperimentError
        When one of these is something else.
    """
    content = dict(content)
    if model is not None:
        plugins.register(plugins.MODELS, NAME, model)
        content["model"] = {"kind": "module", "name": NAME}
    if loss is None and metrics is None:
        return content
    if loss is not None and not callable(loss):
        raise ExperimentError(f"loss: a {type(loss).__name__} is not taken; allowed: a function of (output, target)")
    from v6_algorithm.learning.problems.derived import derived_problem

    given = content.get("problem", "classification")
    kind = given if isinstance(given, str) else given.get("kind", "classification")
    plugins.register(plugins.GROUP, NAME, derived_problem(kind, loss, directions_of(metrics)))
    content["problem"] = {"kind": NAME}
    if metrics is not None:
        content.setdefault("stopping", {"monitor": "loss"})
    return content


def directions_of(metrics: Mapping[str, Any] | None) -> dict[str, tuple[Callable[..., Any], bool]] | None:
    """Return each metric's function with whether higher is better; raises ExperimentError for anything else."""
    if metrics is None:
        return None
    if not isinstance(metrics, Mapping):
        raise ExperimentError(
            f"metrics: a {type(metrics).__name__} is not taken; allowed: a mapping of names to functions"
        )
    directions = {}
    for name, value in metrics.items():
        function, higher = value if isinstance(value, tuple) and len(value) == 2 else (value, True)
        if not callable(function):
            raise ExperimentError(f"metrics: '{name}' is a {type(function).__name__}; allowed: a function")
        directions[str(name)] = (function, bool(higher))
    return directions
