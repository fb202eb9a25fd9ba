"""A problem of one's own: several quantiles of a number at once, such as the 10 %, 50 % and 90 % of a length of stay.

All that a problem is stands in this file: options, network, loss and metrics. Its data are a table and a column to
learn, as most problems' are, so nothing needs to be said about them. `pyproject.toml` gives it the name by which an
experiment asks for it.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from v6_algorithm.problems.base import MeanMetrics, Networks, Problem, Section, build_model


class Options(Section):
    """What may stand beside `kind` in the experiment's `problem`; anything else is refused before a site is asked."""

    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = Field([0.1, 0.5, 0.9], min_length=2, max_length=20)


class Increasing(nn.Module):
    """A network whose outputs increase: the lowest quantile, then steps up from it. So quantiles never cross."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (rows, inputs) to (rows, quantiles)."""
        output = self.network(inputs)
        steps = torch.cumsum(nn.functional.softplus(output[:, 1:]), dim=1)
        return torch.cat([output[:, :1], output[:, :1] + steps], dim=1)


class Intervals(MeanMetrics):
    """Means over rows: how often the target is between the outermost quantiles, and how far those are apart."""

    higher_is_better: ClassVar = {"coverage": True, "width": False}

    def rows(self, prediction: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """Return one number a row for each metric."""
        low, high = prediction[:, 0], prediction[:, -1]
        return {"coverage": (low <= target) & (target <= high), "width": high - low}


class QuantileRegression(Problem):
    """Pinball loss on each quantile: q (y - p) where the prediction p is below y, (1 - q) (p - y) where it is above."""

    Options = Options
    Metrics = Intervals

    @property
    def quantiles(self) -> list[float]:
        """In increasing order."""
        return sorted(self.experiment.problem.options().quantiles)

    def build_networks(self) -> Networks:
        """Return the experiment's own model, with as many outputs as there are quantiles."""
        network = build_model(self.experiment.model, len(self.setup.inputs), len(self.quantiles))
        return {"model": Increasing(network)}

    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return the (rows,) loss, its mean over the quantiles."""
        quantiles = torch.tensor(self.quantiles, dtype=output.dtype)
        error = target[:, None] - output
        return torch.maximum(quantiles * error, (quantiles - 1) * error).mean(dim=1)

    def prediction(self, output: Tensor) -> Tensor:
        """Return the (rows, quantiles) that the metrics are given."""
        return output.double()
