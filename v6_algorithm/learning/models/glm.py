"""Generalised linear models: the network, and the sums over rows by which they are fitted.

A round of such a model moves nothing at a site. The site adds up score, information and deviance over its training
rows at the coefficients it receives, and leaves them in the network's buffers, divided by its rows; so they travel and
are averaged as any model's tensors are. `coordinator.strategies.newton` solves for the next coefficients.

References
----------
McCullagh and Nelder, Generalized Linear Models, 2nd ed., 1989, chapter 2 (Fisher scoring).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn

# What `totals` holds, all sums over rows: their number, sums of the target, and how well it is fitted.
TOTALS = ("rows", "y", "y2", "y_log_y", "log_factorial", "log_y", "deviance", "pearson", "log_likelihood")
_LEAST = 1e-12
_MOST = 30.0  # of a linear predictor, beyond which exponentials are no use


class GeneralisedLinear(nn.Module):
    """``g(mean) = bias + inputs @ weight``, with the sums of the last round as buffers.

    Parameters
    ----------
    inputs
        Number of columns.
    family, link
        As `experiment.inference` names them.
    """

    score: Tensor
    information: Tensor
    totals: Tensor

    def __init__(self, inputs: int, family: str, link: str) -> None:
        super().__init__()
        self.family, self.link = family, link
        # The same start at every site without drawing a number.
        self.weight = nn.Parameter(torch.zeros(inputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("score", torch.zeros(inputs + 1, dtype=torch.float64))
        self.register_buffer("information", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.register_buffer("totals", torch.zeros(len(TOTALS), dtype=torch.float64))

    def predictor(self, inputs: Tensor) -> Tensor:
        """Return the (rows,) linear predictor."""
        return inputs @ self.weight + self.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (rows, 1): a logit for binomial, the logarithm of the mean for poisson, else the mean."""
        eta = self.predictor(inputs)
        if (self.family, self.link) in (("binomial", "logit"), ("poisson", "log")):
            return eta[:, None]
        mean = mean_of(self.family, self.link, eta)
        if self.family == "binomial":
            return torch.logit(mean)[:, None]
        return torch.log(mean)[:, None] if self.family == "poisson" else mean[:, None]


class ScoringSums:
    """The learner of a GLM (see `training.learner.Learner`): sums over the rows, and no step."""

    def __init__(self, model: GeneralisedLinear, row_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        size = len(model.score)
        self._model, self._row_loss = model, row_loss
        self._first = not bool(model.totals[0])
        self._score = torch.zeros(size, dtype=torch.float64)
        self._information = torch.zeros(size, size, dtype=torch.float64)
        self._totals = torch.zeros(len(TOTALS), dtype=torch.float64)

    @torch.no_grad()
    def step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Add rows, (rows, columns) and (rows,); return their summed loss."""
        model, y = self._model, target.double()
        design = torch.cat([inputs.new_ones(len(inputs), 1), inputs], dim=1).double()
        if self._first:
            # Coefficients that fit nothing yet are no place to start from: the targets themselves, drawn to their
            # middle, are what the first means are taken to be.
            mean = _first_means(model.family, y)
            eta = _LINKS[model.link][0](mean)
            slope = _LINKS[model.link][2](eta)
            weights = slope * slope / _variance(model.family, mean)
            score = design.T @ (weights * (eta + (y - mean) / slope))
        else:
            eta = model.predictor(inputs.double())
            mean = mean_of(model.family, model.link, eta)
            slope = _LINKS[model.link][2](eta.clamp(-_MOST, _MOST) if model.link != "identity" else eta)
            variance = _variance(model.family, mean)
            weights = slope * slope / variance
            score = design.T @ ((y - mean) * slope / variance)
        self._score += score
        self._information += design.T @ (weights[:, None] * design)
        self._totals += _totals(model.family, y, mean)
        return self._row_loss(model(inputs), target).double().sum()

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the means over rows in the network."""
        rows = max(float(self._totals[0]), 1.0)
        self._model.score.copy_(self._score / rows)
        self._model.information.copy_(self._information / rows)
        self._model.totals.copy_(self._totals / rows)


def mean_of(family: str, link: str, eta: Tensor) -> Tensor:
    """Return the (rows,) means for linear predictors, within what the family allows."""
    mean = _LINKS[link][1](eta if link == "identity" else eta.clamp(-_MOST, _MOST))
    if family == "binomial":
        return mean.clamp(_LEAST, 1 - _LEAST)
    return mean if family == "gaussian" else mean.clamp_min(_LEAST)


@torch.no_grad()
def row_weights(model: GeneralisedLinear, inputs: Tensor) -> Tensor:
    """Return each row's weight in the information, (rows,), at the model's coefficients; ones in the first round."""
    if not bool(model.totals[0]):
        return torch.ones(len(inputs), dtype=torch.float64)
    eta = model.predictor(inputs.double())
    slope = _LINKS[model.link][2](eta.clamp(-_MOST, _MOST) if model.link != "identity" else eta)
    return slope * slope / _variance(model.family, mean_of(model.family, model.link, eta))


def _first_means(family: str, y: Tensor) -> Tensor:
    if family == "gaussian":
        return y
    if family == "binomial":
        return (y + 0.5) / 2
    return ((y + y.mean()) / 2).clamp_min(1e-3)


def _variance(family: str, mean: Tensor) -> Tensor:
    if family == "gaussian":
        return torch.ones_like(mean)
    return {"binomial": mean * (1 - mean), "poisson": mean, "gamma": mean * mean}[family].clamp_min(_LEAST)


def _totals(family: str, y: Tensor, mean: Tensor) -> Tensor:
    """Return the sums that `TOTALS` names, over some rows."""
    positive = y.clamp_min(_LEAST)
    y_log_y = torch.where(y > 0, y * torch.log(positive), torch.zeros_like(y))
    factorial = torch.lgamma(y.clamp_min(0) + 1)
    log_y = torch.log(positive) if family == "gamma" else torch.zeros_like(y)
    fit = torch.zeros_like(y)
    if family == "gaussian":
        deviance = (y - mean) ** 2
    elif family == "binomial":
        fit = y * torch.log(mean) + (1 - y) * torch.log1p(-mean)
        deviance = -2 * fit
    elif family == "poisson":
        fit = y * torch.log(mean) - mean - factorial
        deviance = 2 * (y_log_y - y * torch.log(mean) - (y - mean))
    else:
        deviance = 2 * ((y - mean) / mean - torch.log(positive / mean))
    pearson = (y - mean) ** 2 / _variance(family, mean)
    columns = (torch.ones_like(y), y, y * y, y_log_y, factorial, log_y, deviance, pearson, fit)
    return torch.stack([column.sum() for column in columns])


def _normal_density(eta: Tensor) -> Tensor:
    return torch.exp(-eta * eta / 2) / sqrt(2 * torch.pi)


# Link to its function of the mean, its inverse, and the inverse's slope, the last two of the linear predictor.
_LINKS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "identity": (lambda mean: mean, lambda eta: eta, torch.ones_like),
    "log": (torch.log, torch.exp, torch.exp),
    "logit": (torch.logit, torch.sigmoid, lambda eta: torch.sigmoid(eta) * torch.sigmoid(-eta)),
    "probit": (torch.special.ndtri, torch.special.ndtr, _normal_density),
    "cloglog": (
        lambda mean: torch.log(-torch.log1p(-mean)),
        lambda eta: -torch.expm1(-torch.exp(eta)),
        lambda eta: torch.exp(eta - torch.exp(eta)),
    ),
    "inverse": (lambda mean: 1 / mean, lambda eta: 1 / eta, lambda eta: -1 / (eta * eta)),
}
