"""Metrics of a plug-in: means over rows of numbers that the plug-in computes for each row. The site sends their sums,
the master divides; so federated is pooled for whatever a researcher measures that way."""

from __future__ import annotations

from math import fsum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.experiment import plugins
from v6_algorithm.learning.metrics.checks import (
    LARGEST_ROW_VALUE,
    require_count,
    require_keys,
    require_nothing_without_rows,
    require_number,
)

SHAPE: tuple[str, ...] = ("problem",)
_KEYS = frozenset(("kind", *SHAPE, "n", "non_finite", "loss", "sums"))


class MeanMetrics:
    """Collect means over the rows of one part at one site; subclass it and give `rows`.

    Parameters
    ----------
    problem : str
        Name of the plug-in's entry point, by which the master finds this class again.

    Attributes
    ----------
    higher_is_better : dict of str to bool
        The metrics' names; early stopping asks which way is better.
    """

    higher_is_better: ClassVar[dict[str, bool]] = {}

    def __init__(self, problem: str) -> None:
        self._problem = problem
        self._n = self._non_finite = 0
        self._loss = 0.0
        self._sums = dict.fromkeys(self.higher_is_better, 0.0)

    def rows(self, prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return (n,) numbers for each name of `higher_is_better`, one for each row.

        Parameters
        ----------
        prediction : array, shape (n, ...)
            What the problem's `prediction` gave.
        target : array, shape (n,) or (n, targets)
            As in the data.
        """
        raise NotImplementedError

    def update(self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike) -> None:
        """Add a batch of rows; rows with a number that is not finite are counted and left out."""
        losses = np.asarray(loss, dtype=np.float64)
        by_row = self.rows(np.asarray(prediction), np.asarray(target))
        if set(by_row) != set(self._sums) or any(np.shape(values) != losses.shape for values in by_row.values()):
            raise ValueError(f"rows must give {losses.shape} numbers for each of {', '.join(self._sums)}")
        columns = {name: np.asarray(values, dtype=np.float64) for name, values in by_row.items()}
        usable = np.logical_and.reduce([np.abs(column) <= LARGEST_ROW_VALUE for column in (losses, *columns.values())])
        self._non_finite += int((~usable).sum())
        self._n += int(usable.sum())
        self._loss += float(losses[usable].sum())
        for name, column in columns.items():
            self._sums[name] += float(column[usable].sum())

    def state(self) -> dict[str, Any]:
        """Return what the rows add up to, as plain JSON."""
        return {
            "kind": "plugin",
            "problem": self._problem,
            "n": self._n,
            "non_finite": self._non_finite,
            "loss": self._loss,
            "sums": dict(self._sums),
        }


def check(state: dict[str, Any]) -> None:
    """Refuse a state that the plug-in's metrics cannot have produced."""
    require_keys(state, _KEYS)
    try:
        metrics = plugins.problem(state["problem"]).Metrics if isinstance(state["problem"], str) else None
    except LookupError:
        metrics = None
    if metrics is None:
        raise ValueError("problem of the metric state must be an installed plug-in with metrics of its own")
    require_count(state["n"], "n")
    require_count(state["non_finite"], "non_finite")
    require_number(state["loss"], "loss")
    if not isinstance(state["sums"], dict) or set(state["sums"]) != set(metrics.higher_is_better):
        raise ValueError(f"sums of the metric state must be {', '.join(metrics.higher_is_better)}")
    for name, value in state["sums"].items():
        require_number(value, name)
    require_nothing_without_rows({"n": state["n"], "loss": state["loss"], **state["sums"]}, ("loss", *state["sums"]))


def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up checked states of one shape; floats rounded once."""
    return {
        "kind": "plugin",
        "problem": states[0]["problem"],
        "n": sum(state["n"] for state in states),
        "non_finite": sum(state["non_finite"] for state in states),
        "loss": fsum(state["loss"] for state in states),
        "sums": {name: fsum(state["sums"][name] for state in states) for name in states[0]["sums"]},
    }


def compute(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Means of a checked state; see `states.compute`."""
    n = state["n"]
    return {"n": n} | {
        name: total / n if n else None for name, total in {"loss": state["loss"], **state["sums"]}.items()
    }


def explain(state: dict[str, Any]) -> list[str]:
    """Sentences about what a checked state could not give; see `states.explain`."""
    notes = []
    if state["non_finite"]:
        notes.append(f"{state['non_finite']} rows had a number that is not finite and are left out")
    return notes if state["n"] else [*notes, "no rows"]
