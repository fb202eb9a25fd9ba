"""Several targets of one network at once, classes and numbers mixed: sex, tissue and age from gene expression."""

from __future__ import annotations

import torch
from torch import Tensor

from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.targets import TargetColumn
from v6_algorithm.experiment import Experiment, Task
from v6_algorithm.learning.metrics import TaskMetrics
from v6_algorithm.learning.problems.tabular import (
    TableProblem,
    check_monitor,
    class_loss,
    class_outputs,
    class_probabilities,
    expected_number,
    number_loss,
)


class MultiTask(TableProblem):
    """One network whose last layer gives the outputs of all tasks; its loss is the weighted sum of theirs.

    A row counts for the tasks whose target it has. Losses are on the scales of their targets: the squared error of an
    age in years outweighs a cross-entropy some hundred times, unless `weight` says otherwise, or `data.target_scaling`
    has numbers learned in standard deviations; see `Regression`.
    """

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        self._tasks: dict[str, Task] = experiment.data.targets or {}
        # Number of classes, or None of a number.
        self._classes = {
            name: len(setup.task_classes[name]) if task.kind == "classification" else None
            for name, task in self._tasks.items()
        }
        task, _, _ = experiment.stopping.monitor.rpartition(".")
        if classes := self._classes.get(task):
            check_monitor(experiment.stopping.monitor, classes)
        self._widths = [1 if classes is None else class_outputs(classes) for classes in self._classes.values()]

    @classmethod
    def targets(cls, experiment: Experiment) -> list[TargetColumn]:
        """Return a target for each task."""
        kinds = {"cross_entropy": "class", "poisson": "count"}
        return [
            TargetColumn(name, f"targets.{name}", kinds.get(str(task.loss), "number"), task.positive)  # type: ignore[arg-type]
            for name, task in (experiment.data.targets or {}).items()
        ]

    @property
    def outputs(self) -> int:
        """Outputs of all tasks together."""
        return sum(self._widths)

    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return the weighted sum of the tasks' losses of each row, (rows,)."""
        total = output.new_zeros(len(output))
        for (name, task), task_output, wanted in zip(
            self._tasks.items(), output.split(self._widths, dim=1), target.unbind(dim=1), strict=True
        ):
            known = ~torch.isnan(wanted)
            wanted = torch.where(known, wanted, torch.zeros_like(wanted))
            classes = self._classes[name]
            if classes is None:
                loss = number_loss(str(task.loss), task_output[:, 0], wanted, scale=self.target_scale(name, fold))
            else:
                loss = class_loss(task_output, wanted.long(), classes)
            total = total + task.weight * torch.where(known, loss, torch.zeros_like(loss))
        return total

    def prediction(self, output: Tensor) -> Tensor:
        """Return the tasks' predictions beside each other, in float64: probabilities of all classes, or a number."""
        parts = []
        for (name, task), task_output in zip(self._tasks.items(), output.split(self._widths, dim=1), strict=True):
            classes = self._classes[name]
            if classes is None:
                parts.append(expected_number(str(task.loss), task_output))
            else:
                parts.append(class_probabilities(task_output, classes))
        return torch.cat(parts, dim=1)

    def prediction_of(self, output: Tensor, fold: int) -> Tensor:
        """Return the tasks' predictions, numbers in units of their targets."""
        parts, widths = [], [1 if classes is None else classes for classes in self._classes.values()]
        for name, task_prediction in zip(self._tasks, self.prediction(output).split(widths, dim=1), strict=True):
            mean, sd = self.target_scale(name, fold)
            parts.append(task_prediction * sd + mean)
        return torch.cat(parts, dim=1)

    def default_metrics(self) -> TaskMetrics:
        """Return the empty metrics of all tasks."""
        return TaskMetrics(self._classes, self.experiment.evaluation.specificity)
