"""A problem that is one of ours but for its loss or its metrics, given as functions.

The Python API makes one for a notebook; the package that `v6_algorithm.api.package` writes makes the same one again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import NoOptions
from v6_algorithm.learning.metrics import MeanMetrics
from v6_algorithm.learning.problems import problem_class
from v6_algorithm.learning.problems.base import Problem


def derived_problem(
    kind: str,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, tuple[Callable[..., Any], bool]] | None = None,
) -> type[Problem]:
    """Return a problem's class.

    Parameters
    ----------
    kind
        The problem that it is otherwise, such as ``classification``.
    loss
        ``loss(output, target) -> (rows,)``; None for that of `kind`.
    metrics
        Name to ``metric(prediction, target) -> (rows,)``, whose mean is the metric, and whether higher is better; None
        for those of `kind`.
    """
    base = problem_class(kind)
    body: dict[str, Any] = {"Options": NoOptions}
    if loss is not None:

        def row_loss(self: Any, output: Any, target: Any, fold: int) -> Any:
            value = _called("loss", loss, output, target)
            if getattr(value, "shape", None) is None or tuple(value.shape) != (len(output),):
                shape = tuple(getattr(value, "shape", ()))
                raise ExperimentError(f"loss: gives {shape}, one loss a row is needed: ({len(output)},)")
            return value

        body["row_loss"] = row_loss
    if metrics is not None:
        functions = {name: function for name, (function, _) in metrics.items()}

        def rows(self: Any, prediction: Any, target: Any) -> dict[str, Any]:
            return {
                name: _called(f"metric '{name}'", function, prediction, target) for name, function in functions.items()
            }

        directions = {name: higher for name, (_, higher) in metrics.items()}
        body["Metrics"] = type("OwnMetrics", (MeanMetrics,), {"higher_is_better": directions, "rows": rows})
    return type("OwnProblem", (base,), body)


def _called(what: str, function: Callable[..., Any], given: Any, target: Any) -> Any:
    """Call a loss or metric; what it does not take is told by shapes, for its own message may hold values."""
    from v6_algorithm.learning.training.fitting import is_out_of_memory

    try:
        return function(given, target)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ExperimentError(
            f"{what}: raises {type(error).__name__} for {'an output' if what == 'loss' else 'a prediction'} of shape "
            f"{tuple(given.shape)} ({given.dtype}) and a target of {tuple(target.shape)} ({target.dtype}); "
            "of two classes a network made with outputs=1 gives a logit, (rows, 1), and predictions are (rows, 2)"
        ) from error
