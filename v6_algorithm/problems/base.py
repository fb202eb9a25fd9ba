"""What a problem is: data set, network(s), loss and metrics in one class.

`site` builds one for each request and knows no kind of problem by name. Networks are a dict, so that a pair of
networks is no special case anywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from v6_algorithm.experiment import Experiment
from v6_algorithm.preparation import Setup

if TYPE_CHECKING:
    import numpy as np

    from v6_algorithm.data.table import TableData

Networks = dict[str, nn.Module]


class Accumulator(Protocol):
    """A metric that adds up; see `v6_algorithm.metrics`."""

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
    """

    classification = False

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        self.experiment = experiment
        self.setup = setup

    @abstractmethod
    def build_networks(self) -> Networks:
        """Return fresh networks by name, initialised from torch's global generator."""

    @abstractmethod
    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return the (rows,) loss of each row; training minimises its mean."""

    @abstractmethod
    def prediction(self, output: Tensor) -> Tensor:
        """Turn the network's output into what the metrics expect: (rows, classes) probabilities or (rows,) values."""

    @abstractmethod
    def accumulator(self) -> Accumulator:
        """Return empty metrics."""

    def forward(self, networks: Mapping[str, nn.Module], inputs: Tensor) -> Tensor:
        """Return the output for a batch; one network named ``model`` unless overridden."""
        output: Tensor = networks["model"](inputs)
        return output

    def class_counts(self, data: TableData) -> list[list[int]] | None:
        """Return training rows of each class for each fold, or None where there are no classes."""
        return None
