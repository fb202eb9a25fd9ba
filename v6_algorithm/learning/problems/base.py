"""What a problem is: data set, network(s), loss and metrics in one class.

`site` builds one for each request and knows no kind of problem by name. Networks are a dict, so that a pair of
networks is no special case anywhere else.

This module is the surface that plug-ins build on, and stays as it is between versions of one major number: `Problem`,
`Networks`, `Section`, `NoOptions`, `TargetColumn`, `MeanMetrics` and
`build_model`. How a plug-in is made is in docs/extend.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.targets import TargetColumn
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Experiment, NoOptions, Section
from v6_algorithm.learning.metrics import MeanMetrics
from v6_algorithm.learning.models.tabular import build_model

if TYPE_CHECKING:
    import numpy as np
    import torch

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.training.learner import Learner, TrainingContext

__all__ = ["Accumulator", "MeanMetrics", "Networks", "NoOptions", "Problem", "Section", "TargetColumn", "build_model"]

Networks = dict[str, nn.Module]


class Accumulator(Protocol):
    """A metric that adds up; see `v6_algorithm.learning.metrics`."""

    def update(self, prediction: np.ndarray, target: np.ndarray, loss: np.ndarray) -> None:
        """Add rows."""

    def state(self) -> dict[str, Any]:
        """Return the sums as JSON."""


class Problem(ABC):
    """One kind of learning task.

    Parameters
    ----------
    experiment
        The validated experiment.
    setup
        What the sites agreed on: inputs, classes and how to prepare them.

    Attributes
    ----------
    Options
        The keys beside `kind` in the experiment's `problem`, as a pydantic model; read them with
        ``self.experiment.problem.options()``. None are allowed unless it is overridden.
    Metrics
        Metrics of its own, as means over rows; None for those of `default_metrics`.
    metrics
        Names of the default metrics, which an experiment may monitor; empty: any.
    classification
        Whether `data.target` holds labels, not a number; see `targets`.
    generative
        Whether the problem makes rows rather than predicts: evaluated by `generate`, not by `row_loss`.
    joint
        Whether a row's loss depends on the rows beside it, as Cox's does: a part is then evaluated in one piece.
    folder
        The folder of the site's files, where `start.weights: site:NAME` is looked for; set by the site.
    expansion
        About how many numbers the networks hold at once for each of their input, which bounds the rows that are
        evaluated together.
    """

    Options: ClassVar[type[Section]] = NoOptions
    Metrics: ClassVar[type[MeanMetrics] | None] = None
    metrics: ClassVar[tuple[str, ...]] = ()
    classification: ClassVar[bool] = False
    generative: ClassVar[bool] = False
    joint: bool = False
    folder: Path | None = None
    expansion: int = 1

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        self.experiment = experiment
        self.setup = setup

    @classmethod
    def targets(cls, experiment: Experiment) -> list[TargetColumn]:
        """Return the columns that are learned: `data.target`, as labels or as a number, unless overridden."""
        data = experiment.data
        (column,) = data.target_columns.values()
        return [TargetColumn(column, "target", "class" if cls.classification else "number", data.positive)]

    @abstractmethod
    def build_networks(self) -> Networks:
        """Return fresh networks by name, initialised from torch's global generator."""

    @abstractmethod
    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return the (rows,) loss of each row; training minimises its mean."""

    def losses_of_sites(self, output: Tensor, target: Tensor, filled: Tensor, fold: int) -> Tensor:
        """Return `row_loss` of batches of several sites, (sites, rows).

        A problem whose `joint` is true trains the sites of a simulation one by one unless it overrides this.

        Parameters
        ----------
        output, target
            (sites, rows, …); sites with fewer rows are filled up.
        filled
            (sites, rows) whether it is a row; of the others the loss may be any finite number.
        fold
            As for `row_loss`.
        """
        return self.row_loss(output.flatten(0, 1), target.flatten(0, 1), fold).view(filled.shape)

    @abstractmethod
    def prediction(self, output: Tensor) -> Tensor:
        """Turn the network's output into what the metrics expect: (rows, classes) probabilities or (rows,) values."""

    def prediction_of(self, output: Tensor, fold: int) -> Tensor:
        """Turn the output of a fold's model into what the metrics expect: `prediction`, unless a fold has its own."""
        return self.prediction(output)

    @property
    def stratified(self) -> bool:
        """Whether hospitals are strata: each has its risk sets and, once it is known, its baseline hazard."""
        return False

    def prediction_at(self, output: Tensor, fold: int, hospital: str) -> Tensor:
        """Turn the output for rows of one hospital into what the metrics expect; called where `stratified`."""
        return self.prediction_of(output, fold)

    def accumulator(self) -> Accumulator:
        """Return empty metrics: `Metrics` where a plug-in has its own."""
        return self.default_metrics() if self.Metrics is None else self.Metrics(self.experiment.problem.kind)

    def default_metrics(self) -> Accumulator:
        """Return the empty metrics of a built-in problem."""
        raise NotImplementedError(f"{type(self).__name__} has no Metrics")

    def baseline(self, least: int) -> Accumulator:
        """Return empty sums over the training rows that a trained model is measured with, if the problem has such.

        `least` is the fewest rows that any of these sums may be over.
        """
        raise WireError(f"problem {self.experiment.problem.kind} has no baseline hazard")

    def forward(self, networks: Mapping[str, nn.Module], inputs: Tensor) -> Tensor:
        """Return the output for a batch; one network named ``model`` unless overridden."""
        output: Tensor = networks["model"](inputs)
        return output

    def generate(self, networks: Mapping[str, nn.Module], labels: Tensor, generator: torch.Generator) -> Tensor:
        """Make rows of a generative problem.

        Parameters
        ----------
        networks
            The networks.
        labels
            (rows,) int64 class numbers.
        generator
            What latents are drawn from, on the CPU.

        Returns
        -------
        Tensor
            (rows, channels, height, width) float32 in 0..1, from the EMA network in eval mode.
        """
        raise NotImplementedError(f"problem {self.experiment.problem.kind} makes no rows")

    def learner(self, networks: Networks, context: TrainingContext) -> Learner | None:
        """Return what learns from each batch of a round by steps of its own; None: steps down the mean of `row_loss`.

        Parameters
        ----------
        networks
            What is trained, in place.
        context
            Which round at which site, and where the networks are.
        """
        return None

    @property
    def sums_of_squares(self) -> int:
        """Columns whose products are summed over the training rows for the coordinator, as a GLM's are; 0: none."""
        return 0

    def head(self, networks: Mapping[str, nn.Module]) -> nn.Module | None:
        """Return the layer that makes the output of a row's features, its input; None where that is not known.

        It must be called once in `forward`, and its first argument be the features, (rows, …).
        """
        return None

    def check_rows(self, data: TableData) -> None:
        """Raise DataError where the problem cannot learn from this site's rows; asked once, before training."""
        return

    def class_counts(self, data: TableData) -> list[list[int]] | None:
        """Return training rows of each class for each fold, or None where there are no classes."""
        return None

    def sums(self, data: TableData) -> dict[str, np.ndarray]:
        """Return float64 arrays over this site's training rows, to be added up over the sites into `setup.sums`."""
        return {}
