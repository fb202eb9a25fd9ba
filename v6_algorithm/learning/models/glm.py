"""Generalised linear models: the network, and the sums over rows by which they are fitted.

A round of such a model moves nothing at a site. The site adds up score, information and deviance over its training
rows at the coefficients it receives, and leaves them in the network's buffers, divided by its rows; so they travel and
are averaged as any model's tensors are. `coordinator.strategies.newton` solves for the next coefficients.

References
----------
McCullagh and Nelder, Generalized Linear Models, 2nd ed., 1989, chapter 2 (Fisher scoring).
Lawless (1987), Negative binomial and mixed Poisson regression, Canadian Journal of Statistics 15(3).
Firth (1993), Bias reduction of maximum likelihood estimates, Biometrika 80(1).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn

# What `totals` holds, all sums over rows: their number, and, times the rows' weights where there are any, sums of the
# target, how well it is fitted, the weights, and powers of the deviance residuals.
TOTALS = (
    "rows",
    "y",
    "y2",
    "y_log_y",
    "log_factorial",
    "log_y",
    "deviance",
    "pearson",
    "log_likelihood",
    "weight",
    "log_weight",
    "residual",
    "residual3",
    "residual4",
)
# What `null_sums` holds of the model that has an intercept only: score and information of that, and of the logarithm
# of the dispersion, and how well it fits.
NULL_SUMS = ("score", "information", "dispersion_score", "dispersion_information", "deviance", "log_likelihood")
# What `path_fit` holds of each of several fits: the deviance of the rows that it is fitted to and of those that it is
# not, and their weights.
PATH_FIT = ("deviance", "weight", "held_deviance", "held_weight")
NEGATIVE_BINOMIAL = "negative_binomial"
_LEAST = 1e-12
_LEAST_INVERSE = 1e-9
_MOST = 30.0  # of a linear predictor, beyond which exponentials are no use


class GeneralisedLinear(nn.Module):
    """``g(mean) = bias + inputs @ weight``, with the sums of the last round as buffers.

    Parameters
    ----------
    inputs
        Number of columns.
    family, link
        As `experiment.inference` names them.
    firth
        Whether the score is Firth's; `inverse` is then that of the information over all sites' rows.
    null
        Whether the model with an intercept only is fitted beside it, where no formula gives it.
    offset
        Place of the column that is an offset, in the null model too.
    fits
        How many more coefficients there are sums for: of a penalty's strengths, each with every part of the rows left
        out in turn, and last with none; 0 where that is not looked for.

    Attributes
    ----------
    dispersion
        Logarithm of a negative binomial's dispersion alpha, whose variance is mean + alpha mean².
    curvature
        (2,) score and information of that logarithm.
    """

    score: Tensor
    information: Tensor
    totals: Tensor
    curvature: Tensor
    inverse: Tensor
    null_sums: Tensor
    path_on: Tensor

    def __init__(
        self,
        inputs: int,
        family: str,
        link: str,
        *,
        firth: bool = False,
        null: bool = False,
        offset: int | None = None,
        fits: int = 0,
    ) -> None:
        super().__init__()
        self.family, self.link, self.firth, self.offset = family, link, firth, offset
        # The same start at every site without drawing a number.
        self.weight = nn.Parameter(torch.zeros(inputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.dispersion = nn.Parameter(torch.zeros((), dtype=torch.float64)) if family == NEGATIVE_BINOMIAL else None
        self.null = nn.Parameter(torch.zeros(2, dtype=torch.float64)) if null else None
        self.register_buffer("score", torch.zeros(inputs + 1, dtype=torch.float64))
        self.register_buffer("information", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.register_buffer("totals", torch.zeros(len(TOTALS), dtype=torch.float64))
        if self.dispersion is not None:
            self.register_buffer("curvature", torch.zeros(2, dtype=torch.float64))
        if firth:
            self.register_buffer("inverse", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.path = nn.Parameter(torch.zeros(fits, inputs + 1, dtype=torch.float64)) if fits else None
        if fits:
            self.register_buffer("path_on", torch.zeros((), dtype=torch.float64))
            self.register_buffer("path_score", torch.zeros(fits, inputs + 1, dtype=torch.float64))
            self.register_buffer("path_information", torch.zeros(fits, inputs + 1, inputs + 1, dtype=torch.float64))
            self.register_buffer("path_fit", torch.zeros(fits, len(PATH_FIT), dtype=torch.float64))
        if null:
            self.register_buffer("null_sums", torch.zeros(len(NULL_SUMS), dtype=torch.float64))

    @property
    def alpha(self) -> Tensor | None:
        """A negative binomial's dispersion."""
        return None if self.dispersion is None else torch.exp(self.dispersion)

    def predictor(self, inputs: Tensor) -> Tensor:
        """Return the (rows,) linear predictor."""
        return inputs @ self.weight + self.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (rows, 1): a logit for binomial, the logarithm of the mean for counts, else the mean."""
        eta = self.predictor(inputs)
        if (self.family, self.link) in (("binomial", "logit"), ("poisson", "log"), (NEGATIVE_BINOMIAL, "log")):
            return eta[:, None]
        mean = mean_of(self.family, self.link, eta)
        if self.family == "binomial":
            return torch.logit(mean)[:, None]
        return torch.log(mean)[:, None] if self.family == "poisson" else mean[:, None]


class ScoringSums:
    """The learner of a GLM (see `training.learner.Learner`): sums over the rows, and no step."""

    def __init__(
        self,
        model: GeneralisedLinear,
        row_loss: Callable[[Tensor, Tensor], Tensor],
        parts: Callable[[int], Tensor] | None = None,
    ) -> None:
        self._model, self._row_loss, self._parts = model, row_loss, parts
        self._first = not bool(model.totals[0])
        names = [name for name, _ in model.named_buffers() if name not in ("inverse", "path_on")]
        self._sums = {name: torch.zeros_like(model.get_buffer(name)) for name in names}

    @torch.no_grad()
    def step(self, inputs: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Add rows, (rows, columns), (rows,) and, where there are any, (rows,) weights; return their summed loss."""
        model, y = self._model, target.double()
        design = torch.cat([inputs.new_ones(len(inputs), 1), inputs], dim=1).double()
        rows = torch.ones_like(y) if weights is None else weights.double()
        if self._first:
            # Coefficients that fit nothing yet are no place to start from: the targets themselves, drawn to their
            # middle, are what the first means are taken to be.
            mean = _first_means(model.family, y)
            eta = _LINKS[model.link][0](mean)
            slope = _LINKS[model.link][2](eta)
            information = slope * slope / _variance(model.family, mean, model.alpha)
            residual = information * (eta + (y - mean) / slope)
        else:
            eta = model.predictor(inputs.double())
            mean = mean_of(model.family, model.link, eta)
            slope = _slope(model.link, eta)
            variance = _variance(model.family, mean, model.alpha)
            information = slope * slope / variance
            residual = (y - mean) * slope / variance
            if model.firth:
                # Half of each row's leverage, times the slope of its weight in the information.
                leverage = information * ((design @ model.inverse) * design).sum(dim=1)
                residual = residual + leverage.clamp(0, 1) * (0.5 - mean)
        if weights is not None:
            information, residual = information * rows, residual * rows
        sums = self._sums
        sums["score"] += design.T @ residual
        sums["information"] += design.T @ (information[:, None] * design)
        sums["totals"] += _totals(model.family, y, mean, model.alpha, None if weights is None else rows)
        if model.alpha is not None:
            sums["curvature"] += _curvature(y, mean, model.alpha, rows)
        if model.null is not None and not self._first:
            sums["null_sums"] += self._null(inputs, y, rows)
        if model.path is not None and bool(model.path_on):
            self._add_path(design, y, rows)
        return self._row_loss(model(inputs), target).double().sum()

    def _add_path(self, design: Tensor, y: Tensor, rows: Tensor) -> None:
        """Add the sums of a penalty's fits, each over the rows that it does not leave out."""
        model, sums = self._model, self._sums
        assert model.path is not None  # noqa: S101
        assert self._parts is not None  # noqa: S101
        part = self._parts(len(y)).to(y.device)
        folds = int(part.max()) + 1
        strengths = len(model.path) // (folds + 1)
        deviance = TOTALS.index("deviance")
        for number, coefficients in enumerate(model.path):
            left_out = part == number // strengths
            eta = design @ coefficients
            mean, slope = mean_of(model.family, model.link, eta), _slope(model.link, eta)
            variance = _variance(model.family, mean)
            weight = torch.where(left_out, torch.zeros_like(rows), rows)
            sums["path_score"][number] += design.T @ (weight * (y - mean) * slope / variance)
            sums["path_information"][number] += design.T @ ((weight * slope * slope / variance)[:, None] * design)
            held = rows - weight
            sums["path_fit"][number] += torch.stack(
                [
                    _totals(model.family, y, mean, None, weight)[deviance],
                    weight.sum(),
                    _totals(model.family, y, mean, None, held)[deviance],
                    held.sum(),
                ]
            )

    def _null(self, inputs: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Return what `NULL_SUMS` names, over some rows."""
        model = self._model
        assert model.null is not None  # noqa: S101
        eta = model.null[0].expand(len(y))
        if model.offset is not None:
            eta = eta + inputs[:, model.offset].double() * model.weight[model.offset]
        mean, slope = mean_of(model.family, model.link, eta), _slope(model.link, eta)
        alpha = None if model.alpha is None else torch.exp(model.null[1])
        variance = _variance(model.family, mean, alpha)
        fit = dict(zip(TOTALS, _totals(model.family, y, mean, alpha, rows), strict=True))
        moved = mean.new_zeros(2) if alpha is None else _curvature(y, mean, alpha, rows)
        score, information = rows * (y - mean) * slope / variance, rows * slope * slope / variance
        return torch.stack([score.sum(), information.sum(), moved[0], moved[1], fit["deviance"], fit["log_likelihood"]])

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the means over rows in the network."""
        rows = max(float(self._sums["totals"][0]), 1.0)
        for name, sums in self._sums.items():
            self._model.get_buffer(name).copy_(sums / rows)


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
        return inputs.new_ones(len(inputs), dtype=torch.float64)
    eta = model.predictor(inputs.double())
    slope = _slope(model.link, eta)
    return slope * slope / _variance(model.family, mean_of(model.family, model.link, eta), model.alpha)


def link_of(link: str, mean: Tensor) -> Tensor:
    """Return the linear predictor of a mean."""
    return _LINKS[link][0](mean)


def _slope(link: str, eta: Tensor) -> Tensor:
    """Return the slope of the mean in the linear predictor."""
    return _LINKS[link][2](eta if link == "identity" else eta.clamp(-_MOST, _MOST))


def _first_means(family: str, y: Tensor) -> Tensor:
    if family == "gaussian":
        return y
    if family == "binomial":
        return (y + 0.5) / 2
    return ((y + y.mean()) / 2).clamp_min(1e-3)


def _variance(family: str, mean: Tensor, alpha: Tensor | None = None) -> Tensor:
    if family == "gaussian":
        return torch.ones_like(mean)
    if alpha is not None:
        return (mean + alpha * mean * mean).clamp_min(_LEAST)
    return {"binomial": mean * (1 - mean), "poisson": mean, "gamma": mean * mean}[family].clamp_min(_LEAST)


def _totals(family: str, y: Tensor, mean: Tensor, alpha: Tensor | None, weights: Tensor | None) -> Tensor:
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
    elif alpha is not None:
        size = 1 / alpha
        fit = torch.lgamma(y + size) - torch.lgamma(size) - factorial - (y + size) * torch.log1p(alpha * mean)
        fit = fit + torch.where(y > 0, y * torch.log(alpha * mean), torch.zeros_like(y))
        deviance = 2 * (y_log_y - y * torch.log(mean) - (y + size) * torch.log((y + size) / (mean + size)))
    else:
        deviance = 2 * ((y - mean) / mean - torch.log(positive / mean))
    pearson = (y - mean) ** 2 / _variance(family, mean, alpha)
    residual = torch.sign(y - mean) * torch.sqrt(deviance.clamp_min(0))
    ones = torch.ones_like(y)
    columns = [y, y * y, y_log_y, factorial, log_y, deviance, pearson, fit, ones]
    powers = [residual, residual**3, residual**4]
    if weights is None:
        return torch.stack([column.sum() for column in (ones, *columns, torch.zeros_like(y), *powers)])
    log_weight = torch.where(weights > 0, torch.log(weights.clamp_min(_LEAST)), torch.zeros_like(y))
    sums = [ones.sum(), *((weights * column).sum() for column in columns), log_weight.sum()]
    return torch.stack([*sums, *((weights * column).sum() for column in powers)])


def _curvature(y: Tensor, mean: Tensor, alpha: Tensor, weights: Tensor) -> Tensor:
    """Return score and information, the latter as observed, of log(alpha) over some rows: (2,)."""
    size = 1 / alpha
    both = size + mean
    slope = torch.digamma(y + size) - torch.digamma(size) - torch.log1p(alpha * mean) + 1 - (y + size) / both
    bend = torch.polygamma(1, y + size) - torch.polygamma(1, size) + alpha - 2 / both + (y + size) / (both * both)
    return torch.stack([-(weights * size * slope).sum(), -(weights * (size * slope + size * size * bend)).sum()])


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
    # A predictor of 0, as before the first round, has no mean, and one below it none that the family allows.
    "inverse": (
        lambda mean: 1 / mean,
        lambda eta: 1 / eta.clamp_min(_LEAST_INVERSE),
        lambda eta: -1 / eta.clamp_min(_LEAST_INVERSE) ** 2,
    ),
}
