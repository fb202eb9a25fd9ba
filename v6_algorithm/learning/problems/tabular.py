"""Classification and regression on tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm import seeding
from v6_algorithm.data.description.unknown import unknown_labels
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.targets import TargetColumn
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import CLASSIFICATION_METRICS, REGRESSION_METRICS, Experiment, Glm, Loss, OwnModel
from v6_algorithm.learning.metrics import ClassificationMetrics, RegressionMetrics, is_sensitivity
from v6_algorithm.learning.models.glm import NEGATIVE_BINOMIAL, GeneralisedLinear, ScoringSums
from v6_algorithm.learning.models.own import build_own
from v6_algorithm.learning.models.tabular import build_model
from v6_algorithm.learning.problems.base import Networks, Problem

if TYPE_CHECKING:
    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.training.learner import Learner, TrainingContext


_LEAST = 1e-12
_SHOWN = 12


class TableProblem(Problem):
    """One network from prepared columns to `outputs` numbers."""

    @property
    def outputs(self) -> int:
        """Width of the network's output."""
        return 1

    def build_networks(self) -> Networks:
        """Return ``{"model": network}`` in the training dtype."""
        return {"model": self.build([len(self.setup.inputs)]).to(getattr(torch, self.experiment.training.dtype))}

    def build(self, shape: list[int]) -> nn.Module:
        """Return the experiment's network for rows of a shape."""
        model = self.experiment.model
        if isinstance(model, OwnModel):
            return build_own(model.name, model.options, shape, self.outputs, classes=self.classes)
        if isinstance(model, Glm):
            if self.classification and self.classes != 2:
                unknown = unknown_labels(self.setup.classes or [])
                means = f"; {unknown[0]} may mean that nothing is known: data.missing_values" if unknown else ""
                shown = ", ".join(map(str, (self.setup.classes or [])[:_SHOWN]))
                more = ", …" if self.classes > _SHOWN else ""
                raise ExperimentError(
                    f"model glm: column '{self.experiment.data.target}' (data.target) has {self.classes} classes, of "
                    f"all sites together: {shown}{more}; binomial needs two, see data.positive{means}"
                )
            offset = None
            if model.offset is not None:
                if model.offset not in self.setup.features:
                    raise ExperimentError(f"model.offset: '{model.offset}' is no numeric column that all sites have")
                offset = self.setup.features.index(model.offset)
            return GeneralisedLinear(
                shape[0],
                str(model.family),
                str(model.link),
                firth=model.firth,
                # Where no formula gives the model with an intercept only.
                null=offset is not None or model.family == NEGATIVE_BINOMIAL,
                offset=offset,
                fits=model.penalty.fits if model.penalty is not None else 0,
            )
        network: nn.Module = build_model(model, shape[0], self.outputs)
        return network

    @property
    def classes(self) -> int:
        """Number of classes; 0 where the target is no label."""
        return 0

    @property
    def sums_of_squares(self) -> int:
        """Columns of a GLM, the intercept among them; of several fits whose weights differ, of all of them."""
        model = self.experiment.model
        if not isinstance(model, Glm):
            return 0
        fits = 1
        if model.penalty is not None and model.penalty.fits:
            # Gaussian rows weigh the same whatever the coefficients are: there the parts alone make a difference.
            fits = model.penalty.folds + 1 if model.family == "gaussian" else model.penalty.fits
        return (len(self.setup.inputs) + 1) * fits

    def learner(self, networks: Networks, context: TrainingContext) -> Learner | None:
        """Return what adds up a GLM's sums; other networks are trained by gradients."""
        model = networks.get("model")
        if not isinstance(model, GeneralisedLinear):
            return None
        section = self.experiment.model

        def parts(rows: int) -> Tensor:
            """Deal rows into the parts that a penalty's fits leave out, alike in every round."""
            folds = section.penalty.folds if isinstance(section, Glm) and section.penalty is not None else 1
            return torch.from_numpy(parts_of(context.seed, context.site, context.fold, rows, folds))

        return ScoringSums(model, lambda output, target: self.row_loss(output, target, context.fold), parts)

    def head(self, networks: Mapping[str, nn.Module]) -> nn.Module | None:
        """Return the last layer of several; one layer by itself has no features."""
        network = networks.get("model")
        if not isinstance(network, nn.Sequential) or len(network) == 1:
            return None
        return network[-1] if isinstance(network[-1], nn.Linear) else None

    def target_scale(self, column: str, fold: int) -> tuple[float, float]:
        """Return the mean and standard deviation by which a target is learned: 0 and 1 where it is learned as it is."""
        scales = self.setup.target_scales
        return tuple(scales[column][fold].tolist()) if column in scales else (0.0, 1.0)


class Classification(TableProblem):
    """Cross-entropy on classes: one logit for two classes, one for each otherwise.

    ``focal``: times (1 - p)^gamma, p the probability of the row's class [1]_, so that rows told well count for less.

    With class weights w the loss of a row of class c is w_c times its cross-entropy, and a batch averages over rows,
    not over weights: only so is the average of the sites' losses the loss of the pooled rows.

    References
    ----------
    .. [1] Lin et al. (2017), Focal loss for dense object detection, ICCV.
    """

    classification = True
    metrics = CLASSIFICATION_METRICS

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        check_monitor(experiment.stopping.monitor, self.classes)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.setup.classes or [])

    @property
    def outputs(self) -> int:
        """One logit for two classes, one a class otherwise."""
        return class_outputs(self.classes)

    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return cross-entropy times the weight of each row's class, (rows,)."""
        loss = class_loss(output, target, self.classes)
        wanted = self.experiment.training.loss
        if wanted is not None and wanted.kind == "focal":
            # Where p is 1, the slope of a power below 1 has no end.
            loss = (-torch.expm1(-loss)).clamp_min(_LEAST).pow(wanted.gamma) * loss
        if self.setup.class_weights is not None:
            loss = loss * torch.tensor(self.setup.class_weights[fold], dtype=loss.dtype, device=loss.device)[target]
        return loss

    def prediction(self, output: Tensor) -> Tensor:
        """Return (rows, classes) probabilities in float64."""
        return class_probabilities(output, self.classes)

    def default_metrics(self) -> ClassificationMetrics:
        """Return empty classification metrics."""
        return ClassificationMetrics(self.classes, specificities=self.experiment.evaluation.specificity)

    def class_counts(self, data: TableData) -> list[list[int]]:
        """Count training rows by class for each fold."""
        return [np.bincount(data.target[fold.train], minlength=self.classes).tolist() for fold in data.folds]


class Regression(TableProblem):
    """Squared, absolute or Huber loss on one number, or Poisson's on a count.

    With ``poisson`` the network's output is the logarithm of the expected count, and the prediction that count. With
    `data.target_scaling` the output is the distance from the federation's mean in standard deviations, and so is the
    loss: the squared error in them, or for Huber's that in units of the target divided by the variance. Predictions,
    and the metrics beside the loss, are in units of the target.
    """

    metrics = REGRESSION_METRICS

    @classmethod
    def targets(cls, experiment: Experiment) -> list[TargetColumn]:
        """Return the target: a count where the loss is Poisson's, above 0 where the model is a gamma distribution's."""
        loss, (column,) = experiment.training.loss, experiment.data.target_columns.values()
        if loss and loss.kind == "poisson":
            return [TargetColumn(column, "target", "count")]
        return [TargetColumn(column, above_zero=getattr(experiment.model, "family", None) == "gamma")]

    @property
    def _loss(self) -> Loss:
        return self.experiment.training.loss or Loss(kind="mse")

    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return the loss of each row, (rows,)."""
        return number_loss(self._loss.kind, output[:, 0], target, self._loss.delta, self._scale(fold))

    def prediction(self, output: Tensor) -> Tensor:
        """Return (rows,) values in float64."""
        return expected_number(self._loss.kind, output[:, 0])

    def prediction_of(self, output: Tensor, fold: int) -> Tensor:
        """Return (rows,) values in float64, in units of the target."""
        mean, sd = self._scale(fold)
        return self.prediction(output) * sd + mean

    def _scale(self, fold: int) -> tuple[float, float]:
        (column,) = self.experiment.data.target_columns.values()
        return self.target_scale(column, fold)

    def default_metrics(self) -> RegressionMetrics:
        """Return empty regression metrics."""
        return RegressionMetrics(self._loss.delta)


class Count(Regression):
    """Poisson's loss on a count; the network's output is the logarithm of what is expected."""

    @classmethod
    def targets(cls, experiment: Experiment) -> list[TargetColumn]:
        """Return the target, a count."""
        (column,) = experiment.data.target_columns.values()
        return [TargetColumn(column, "target", "count")]

    @property
    def _loss(self) -> Loss:
        return self.experiment.training.loss or Loss(kind="poisson")


def parts_of(seed: int, site: str, fold: int, rows: int, parts: int) -> np.ndarray:
    """Deal a site's training rows into parts of equal size, (rows,) int64, at random."""
    dealt = np.arange(rows) % parts
    return seeding.numpy_generator(seed, "penalty", site, fold).permutation(dealt)


def check_monitor(monitor: str, classes: int) -> None:
    """Refuse to watch what only two classes have; how many there are is known once the sites have been asked."""
    metric = monitor.rpartition(".")[2]
    if classes != 2 and (metric in ("specificity", "npv") or is_sensitivity(metric)):
        raise ExperimentError(f"stopping.monitor is '{monitor}', which is of two classes; the target has {classes}")


def class_outputs(classes: int) -> int:
    """Return the outputs for so many classes: one logit for two, one a class otherwise."""
    return 1 if classes == 2 else classes


def class_loss(output: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return the cross-entropy of each row, (rows,)."""
    if classes == 2:
        return functional.binary_cross_entropy_with_logits(output[:, 0], target.to(output.dtype), reduction="none")
    return functional.cross_entropy(output, target, reduction="none")


def class_probabilities(output: Tensor, classes: int) -> Tensor:
    """Return (rows, classes) probabilities in float64."""
    output = output.double()
    if classes == 2:
        return torch.cat([torch.sigmoid(-output), torch.sigmoid(output)], dim=1)
    return torch.softmax(output, dim=1)


def number_loss(
    kind: str, output: Tensor, target: Tensor, delta: float = 1.0, scale: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Return the loss of each row by its name, (rows,); of ``poisson`` up to a constant of the target.

    `scale` is the mean and standard deviation in which `output` is meant; `target` and `delta` are in units of the
    target.
    """
    mean, sd = scale
    target, delta = (target - mean) / sd, delta / sd
    if kind == "mse":
        return functional.mse_loss(output, target, reduction="none")
    if kind == "mae":
        return functional.l1_loss(output, target, reduction="none")
    if kind == "huber":
        return functional.huber_loss(output, target, reduction="none", delta=delta)
    return functional.poisson_nll_loss(output, target, log_input=True, reduction="none")


def expected_number(kind: str, output: Tensor) -> Tensor:
    """Return the prediction in float64, of the output's shape."""
    return torch.exp(output.double()) if kind == "poisson" else output.double()
