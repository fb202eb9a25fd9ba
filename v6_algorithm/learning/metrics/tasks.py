"""Metrics of several targets at once: those of each task, over the rows whose target of it is known. Problems fill it;
the functions below it are what `states` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics import classification_state, regression
from v6_algorithm.learning.metrics.checks import LARGEST_ROW_VALUE, require_count, require_keys, require_number
from v6_algorithm.learning.metrics.classification import SPECIFICITIES, ClassificationMetrics
from v6_algorithm.learning.metrics.regression import RegressionMetrics

# What the tasks' states have in common, so that states of other tasks or classes are told apart.
SHAPE: tuple[str, ...] = ("shape",)
_KEYS = frozenset(("kind", *SHAPE, "n", "non_finite", "loss", "tasks"))
_KINDS: dict[str, Any] = {"classification": classification_state, "regression": regression}
# Which rows have a target of a task, and of these prediction, target and a loss of nothing.
_Rows = tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any], NDArray[Any]]
# One loss trains all tasks; a task has none of its own.
_NOT_OF_TASKS = ("n", "loss")


class TaskMetrics:
    """Collect the metrics of several tasks of one part at one site.

    Parameters
    ----------
    tasks : mapping of str to int or None
        Name of each task, in the order of the targets: its number of classes, or None for a number.
    specificities : sequence of float
        As for `ClassificationMetrics`, of the tasks with two classes.
    """

    def __init__(self, tasks: Mapping[str, int | None], specificities: Sequence[float] = SPECIFICITIES) -> None:
        self._tasks: dict[str, ClassificationMetrics | RegressionMetrics] = {
            name: RegressionMetrics()
            if classes is None
            else ClassificationMetrics(classes, specificities=specificities)
            for name, classes in tasks.items()
        }
        self._widths = [1 if classes is None else classes for classes in tasks.values()]
        self._n = self._non_finite = 0
        self._loss = 0.0

    def update(self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike) -> None:
        """Add a batch of rows.

        Parameters
        ----------
        prediction : array of float, shape (n, widths)
            Beside each other the tasks' predictions: probabilities of all classes, or one number.
        target : array of float, shape (n, tasks)
            Class numbers or numbers; NaN where a row has none.
        loss : array of float, shape (n,)
            Loss of each row, as trained. Rows whose loss is not finite are counted, not added up.
        """
        losses = np.asarray(loss, dtype=np.float64)
        usable = np.abs(losses) <= LARGEST_ROW_VALUE
        self._non_finite += int((~usable).sum())
        self._n += int(usable.sum())
        self._loss += float(losses[usable].sum())
        for name, (_, *rows) in self._by_task(prediction, target, usable).items():
            self._tasks[name].update(*rows)

    def _by_task(self, prediction: ArrayLike, target: ArrayLike, usable: NDArray[np.bool_]) -> dict[str, _Rows]:
        """Return of each task which of the usable rows have a target, and of these what its collector takes."""
        parts = np.split(np.asarray(prediction, dtype=np.float64)[usable], np.cumsum(self._widths)[:-1], axis=1)
        by_task = {}
        for (name, metrics), part, labels in zip(
            self._tasks.items(), parts, np.asarray(target, dtype=np.float64)[usable].T, strict=True
        ):
            known = ~np.isnan(labels)
            nothing = np.zeros(int(known.sum()))
            if isinstance(metrics, ClassificationMetrics):
                by_task[name] = known, part[known], labels[known].astype(np.int64), nothing
            else:
                by_task[name] = known, part[known, 0], labels[known], nothing
        return by_task

    def states_of(
        self,
        prediction: ArrayLike,
        target: ArrayLike,
        loss: ArrayLike,
        lengths: Sequence[int],
        of_task: Callable[..., Sequence[dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Return what collectors at several sites would tell; rows as for `update`, one site's after the other's.

        Equal to theirs, with no more bins than a site may list, but for the order in which floats are added up.
        `lengths` are the sites' numbers of rows; `of_task` makes the states from a task's collector and such arguments.
        """
        losses, sites = np.asarray(loss, dtype=np.float64), len(lengths)
        usable = np.abs(losses) <= LARGEST_ROW_VALUE
        every = np.repeat(np.arange(sites), lengths)
        site = every[usable]
        tasks: dict[str, Sequence[dict[str, Any]]] = {}
        for name, (known, *rows) in self._by_task(prediction, target, usable).items():
            of_sites = np.bincount(site[known], minlength=sites).tolist()
            tasks[name] = of_task(self._tasks[name], *rows, of_sites)
        numbers = (
            np.bincount(site, minlength=sites), np.bincount(every[~usable], minlength=sites),
            np.bincount(site, losses[usable], sites),
        )  # fmt: skip
        shape = shape_of_tasks({name: states[0] for name, states in tasks.items()})
        return [
            {
                "kind": "multitask",
                "shape": shape,
                "n": n,
                "non_finite": non_finite,
                "loss": total,
                "tasks": {name: states[number] for name, states in tasks.items()},
            }
            for number, (n, non_finite, total) in enumerate(zip(*(of.tolist() for of in numbers), strict=True))
        ]

    def state(self) -> dict[str, Any]:
        """Return what the rows add up to, as plain JSON: the state of each task by its name."""
        tasks = {name: metrics.state() for name, metrics in self._tasks.items()}
        return {
            "kind": "multitask",
            "shape": shape_of_tasks(tasks),
            "n": self._n,
            "non_finite": self._non_finite,
            "loss": self._loss,
            "tasks": tasks,
        }


def check(state: dict[str, Any]) -> None:
    """Refuse a state no `TaskMetrics` can have produced."""
    require_keys(state, _KEYS)
    require_count(state["n"], "n")
    require_count(state["non_finite"], "non_finite")
    require_number(state["loss"], "loss")
    if not isinstance(state["tasks"], dict) or not state["tasks"]:
        raise ValueError("tasks of the metric state must be a dict of states")
    for task in state["tasks"].values():
        if not isinstance(task, dict) or task.get("kind") not in _KINDS:
            raise ValueError(f"each task of the metric state must be of kind {' or '.join(_KINDS)}")
        _KINDS[task["kind"]].check(task)
        if task["n"] + task["non_finite"] > state["n"]:
            raise ValueError("no task of the metric state can have more rows than n")
    if state["shape"] != shape_of_tasks(state["tasks"]):
        raise ValueError("shape of the metric state must be that of its tasks")


def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up checked states of one shape, task by task."""
    return {
        "kind": "multitask",
        "shape": states[0]["shape"],
        "n": sum(state["n"] for state in states),
        "non_finite": sum(state["non_finite"] for state in states),
        "loss": fsum(state["loss"] for state in states),
        "tasks": {
            name: _KINDS[task["kind"]].merge([state["tasks"][name] for state in states])
            for name, task in states[0]["tasks"].items()
        },
    }


def compute(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Metrics of a checked state, as ``task.metric``; see `states.compute`."""
    values: dict[str, float | int | None] = {
        "n": state["n"],
        "loss": state["loss"] / state["n"] if state["n"] else None,
    }
    for name, task in state["tasks"].items():
        task_values = _KINDS[task["kind"]].compute(task)
        values |= {f"{name}.{metric}": value for metric, value in task_values.items() if metric not in _NOT_OF_TASKS}
    return values


def explain(state: dict[str, Any]) -> list[str]:
    """Sentences about what a checked state could not give; see `states.explain`."""
    notes = []
    if state["non_finite"]:
        notes.append(f"{state['non_finite']} rows had a non-finite loss and are left out")
    if state["n"] == 0:
        return [*notes, "no rows"]
    for name, task in state["tasks"].items():
        notes += [f"{name}: {sentence}" for sentence in _KINDS[task["kind"]].explain(task)]
    return notes


def shape_of_tasks(tasks: Mapping[str, Any]) -> list[list[Any]]:
    """Return name, kind and what else its states must have in common of each task, one after the other."""
    shape = []
    for name, task in tasks.items():
        shared = [task[key] for key in _KINDS[task["kind"]].SHAPE]
        flat = [number for value in shared for number in (value if isinstance(value, list) else [value])]
        shape.append([name, task["kind"], *flat])
    return shape
