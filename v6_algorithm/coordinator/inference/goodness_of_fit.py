"""How well a GLM fits, from sums over all sites' rows: likelihoods, deviance, AIC, BIC, pseudo-R², residuals.

`coefficients` calls it.

References
----------
McFadden (1974); Cox and Snell, Analysis of Binary Data, 1989; Nagelkerke (1991), Biometrika 78(3) (pseudo-R²).
Venables and Ripley, Modern Applied Statistics with S, 2002, section 7.4 (negative binomial).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from v6_algorithm.experiment import Glm

_LEAST = 1e-300


def effective_rows(model: Glm, totals: Mapping[str, float]) -> float:
    """Return the rows that errors, AIC and BIC count: what weights of kind frequency add up to, else the rows."""
    if model.weights is not None and model.weights.kind == "frequency":
        return totals["weight"]
    return round(totals["rows"])


def residual_dispersion(model: Glm, totals: Mapping[str, float], rows: float, rank: int) -> float:
    """Return 1 for binomial and counts, else Pearson's estimate (of gaussian the residual variance)."""
    if model.family in ("binomial", "poisson", "negative_binomial"):
        return 1.0
    return totals["pearson"] / max(rows - rank, 1)


def goodness_of_fit(
    model: Glm, totals: Mapping[str, float], rank: int, dispersion: float, null_sums: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return what a paper says of a fit.

    Parameters
    ----------
    model
        Its section.
    totals
        Sums over all rows by the names of `learning.models.glm.TOTALS`.
    rank
        Coefficients that were estimated.
    dispersion
        As `residual_dispersion` has it.
    null_sums
        Sums of the model with an intercept only, where it was fitted in rounds: with an offset, and negative binomial.

    Returns
    -------
    dict
        ``pseudo_r2`` is McFadden's, of gaussian R², of gamma the share of the deviance; `cox_snell` and `nagelkerke`
        beside it where there is a likelihood of counts or classes. ``residuals`` has mean, standard deviation, skewness
        and excess kurtosis of the deviance residuals, and ``pearson_over_df``, above 1 where rows vary more than the
        family says.
    """
    rows = effective_rows(model, totals)
    likelihood, null_likelihood, null, extra = _likelihoods(model, totals, rows, null_sums)
    deviance = totals["deviance"]
    fit: dict[str, Any] = {
        "family": model.family,
        "link": model.link,
        "rows": round(totals["rows"]),
        "rank": rank,
        "deviance": deviance,
        "null_deviance": null,
        "dispersion": dispersion,
        "pearson": totals["pearson"],
        "residual_df": rows - rank,
        "pearson_over_df": totals["pearson"] / (rows - rank) if rows > rank else None,
        "residuals": _residuals(totals),
    }
    if model.weights is not None:
        fit |= {"weights": model.weights.kind, "sum_of_weights": totals["weight"]}
    if likelihood is not None:
        fit |= {
            "log_likelihood": likelihood,
            "aic": 2 * (rank + extra) - 2 * likelihood,
            "bic": math.log(rows) * (rank + extra) - 2 * likelihood,
        }
    if model.family in ("gaussian", "gamma"):
        fit["pseudo_r2"] = 1 - deviance / null if null is not None and null > 0 else None
    elif likelihood is not None and null_likelihood is not None:
        fit |= _pseudo_r2(likelihood, null_likelihood, rows) | {"null_log_likelihood": null_likelihood}
    return fit


def _likelihoods(
    model: Glm, totals: Mapping[str, float], rows: float, null_sums: Mapping[str, float] | None
) -> tuple[float | None, float | None, float | None, int]:
    """Return log-likelihood, that of the null model, its deviance, and parameters beside the coefficients."""
    weight, deviance = totals["weight"], totals["deviance"]
    mean = totals["y"] / weight
    likelihood: float | None = totals["log_likelihood"]
    null_likelihood: float | None
    extra = 0
    if model.family == "gaussian":
        null = totals["y2"] - weight * mean * mean
        # Of weights of kind frequency a row's variance is the others'.
        more = totals["log_weight"] / 2 if model.weights is not None and model.weights.kind == "analytic" else 0.0
        likelihood, null_likelihood = (
            more - rows / 2 * (math.log(2 * math.pi * max(squares, _LEAST) / rows) + 1) for squares in (deviance, null)
        )
        extra = 1  # the variance
    elif model.family == "binomial":
        null = -2 * weight * (_x_log_x(mean) + _x_log_x(1 - mean))
        null_likelihood = -null / 2
    elif model.family == "poisson":
        null = 2 * (totals["y_log_y"] - totals["y"] * math.log(max(mean, _LEAST)))
        null_likelihood = totals["y"] * math.log(max(mean, _LEAST)) - totals["y"] - totals["log_factorial"]
    elif model.family == "gamma":
        null = 2 * (weight * math.log(max(mean, _LEAST)) - totals["log_y"])
        likelihood, null_likelihood, extra = None, None, 1
        if model.weights is None or model.weights.kind == "frequency":
            likelihood, null_likelihood = (_gamma_likelihood(totals, fitted) for fitted in (deviance, null))
    else:
        null, null_likelihood, extra = 0.0, None, 1  # alpha
    if null_sums is not None:
        null, null_likelihood = null_sums["deviance"], null_sums["log_likelihood"]
        if model.family == "gaussian":
            null_likelihood = None
    return likelihood, null_likelihood, null, extra


def _gamma_likelihood(totals: Mapping[str, float], deviance: float) -> float:
    """Return the log-likelihood of gamma at the dispersion deviance / rows, which R's AIC has."""
    rows = totals["weight"]
    scale = max(deviance, _LEAST) / rows
    # Of each row y / mean + log(mean), which the deviance holds.
    fitted = deviance / 2 + rows + totals["log_y"]
    shape = 1 / scale
    return -shape * fitted + (shape - 1) * totals["log_y"] + rows * (shape * math.log(shape) - math.lgamma(shape))


def _pseudo_r2(likelihood: float, null: float, rows: float) -> dict[str, float | None]:
    mcfadden = 1 - likelihood / null if null else None
    snell = -math.expm1(2 / rows * (null - likelihood))
    most = -math.expm1(2 / rows * null)
    return {"pseudo_r2": mcfadden, "cox_snell": snell, "nagelkerke": snell / most if most > 0 else None}


def _residuals(totals: Mapping[str, float]) -> dict[str, float | None]:
    """Return mean, standard deviation, skewness and excess kurtosis of the deviance residuals."""
    rows = totals["weight"]
    mean, square = totals["residual"] / rows, totals["deviance"] / rows
    third, fourth = totals["residual3"] / rows, totals["residual4"] / rows
    variance = square - mean * mean
    if variance <= 1e-12 * max(square, _LEAST):
        return {"mean": mean, "sd": 0.0, "skewness": None, "kurtosis": None}
    skewness = (third - 3 * mean * square + 2 * mean**3) / variance**1.5
    kurtosis = (fourth - 4 * mean * third + 6 * mean * mean * square - 3 * mean**4) / variance**2 - 3
    return {"mean": mean, "sd": math.sqrt(variance), "skewness": skewness, "kurtosis": kurtosis}


def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0
