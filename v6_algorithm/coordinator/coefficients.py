"""What a fitted GLM tells: coefficients in units of the columns, their errors, tests and intervals, and the fit.

`results` puts it into the Result. All of it comes from sums that the rounds have already brought.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from v6_algorithm.coordinator.folds import FoldProgress
from v6_algorithm.coordinator.preparation.negotiate import Plan
from v6_algorithm.coordinator.strategies.newton import independent
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment, Glm
from v6_algorithm.learning.models.glm import TOTALS

_Z = 1.959963984540054
# The links whose coefficients are logarithms of a ratio, and how that is called.
_RATIOS = {("binomial", "logit"): "odds_ratio", ("poisson", "log"): "rate_ratio", ("gamma", "log"): "mean_ratio"}
# Of a scaled input; a larger one says that no finite one fits best.
_UNBOUNDED = 12.0


def inference(fold: FoldProgress, plan: Plan, experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
    """Return what is told of one fold's fit, and sentences for the researcher.

    Returns
    -------
    tuple of dict and list of str
        ``coefficients``: a mapping for each term with `term`, `estimate`, `standard_error`, `z`, `p`, `low`, `high`
        (95 %, normal) and, where it has a name, the ratio `exp(estimate)` with its interval; a term that is left out
        has none of these but `term` and `left_out`. ``fit``: rows, rank, log-likelihood, deviance, null deviance,
        dispersion, AIC, BIC, McFadden's pseudo-R² (of gaussian R²), the rounds and whether they converged.
    """
    model = experiment.model
    if not isinstance(model, Glm) or fold.kept is None or plan.setup.preparation is None:
        return {}, []
    state = {name: tensor.double().numpy() for name, tensor in wire.unpack(wire.Packed(fold.kept)).items()}
    import torch

    terms = ["(intercept)", *plan.setup.inputs]
    scaled = np.concatenate([state["model.bias"].reshape(1), state["model.weight"]])
    information = state["model.information"]
    penalty = np.diag([0.0, *[model.ridge] * (len(scaled) - 1)])
    free = independent(torch.from_numpy(information + penalty)).numpy()
    totals = dict(zip(TOTALS, state["model.totals"].tolist(), strict=True))
    rows = round(totals["rows"])
    rank = int(free.sum())
    dispersion = _dispersion(model, totals, rows, rank)
    covariance = np.zeros_like(information)
    inverse = np.linalg.inv((information + penalty)[np.ix_(free, free)])
    covariance[np.ix_(free, free)] = dispersion * (
        inverse @ information[np.ix_(free, free)] @ inverse if model.ridge else inverse
    )
    raw = _units(plan, fold.number, len(scaled))
    estimates, errors = raw @ scaled, np.sqrt(np.clip(np.diag(raw @ covariance @ raw.T), 0, None))
    references = {f"{name}={values[0]}" for name, values in plan.setup.categories.items() if values}
    lines = []
    for term, estimate, error, there in zip(terms, estimates.tolist(), errors.tolist(), free.tolist(), strict=True):
        if there:
            lines.append(_line(term, estimate, error, _RATIOS.get((str(model.family), str(model.link)))))
        else:
            lines.append({"term": term, "left_out": "reference" if term in references else "aliased"})
    notes = _notes(lines, terms, scaled, fold, experiment)
    known = sum(plan.rows[site][fold.number]["train"] for site in plan.trainers(fold.number))
    if rows != known:
        notes.append(
            f"glm: the coefficients are of {rows} of {known} training rows, for not every site "
            "answered in the last round; see participation"
        )
    fit = _fit(model, totals, rows, rank, dispersion)
    return {"coefficients": lines, "fit": fit | {"rounds": fold.rounds_done, "converged": fold.finished}}, notes


def _units(plan: Plan, fold: int, size: int) -> np.ndarray:
    """Return the matrix that turns coefficients of scaled inputs into those of the columns as they are."""
    preparation = plan.setup.preparation
    assert preparation is not None  # noqa: S101
    matrix = np.eye(size)
    scale, shift = preparation.scale[fold], preparation.shift[fold]
    numbers = np.arange(1, len(scale) + 1)
    matrix[numbers, numbers] = 1 / scale
    matrix[0, numbers] = -shift / scale
    return matrix


def _line(term: str, estimate: float, error: float, ratio: str | None) -> dict[str, Any]:
    z = estimate / error if error > 0 else None
    low, high = estimate - _Z * error, estimate + _Z * error
    line = {
        "term": term,
        "estimate": estimate,
        "standard_error": error,
        "z": z,
        "p": None if z is None else math.erfc(abs(z) / math.sqrt(2)),
        "low": low,
        "high": high,
    }
    if ratio and term != "(intercept)":
        line |= {ratio: _exp(estimate), f"{ratio}_low": _exp(low), f"{ratio}_high": _exp(high)}
    return line


def _exp(value: float) -> float | None:
    return math.exp(value) if value < 700 else None


def _dispersion(model: Glm, totals: dict[str, float], rows: int, rank: int) -> float:
    """Return 1 for binomial and poisson, else Pearson's estimate (of gaussian the residual variance)."""
    if model.family in ("binomial", "poisson"):
        return 1.0
    return totals["pearson"] / max(rows - rank, 1)


def _fit(model: Glm, totals: dict[str, float], rows: int, rank: int, dispersion: float) -> dict[str, Any]:
    mean, deviance = totals["y"] / rows, totals["deviance"]
    likelihood: float | None
    null_likelihood: float | None
    if model.family == "gaussian":
        null = totals["y2"] - rows * mean * mean
        likelihood = -rows / 2 * (math.log(2 * math.pi * max(deviance, 1e-300) / rows) + 1)
        null_likelihood = -rows / 2 * (math.log(2 * math.pi * max(null, 1e-300) / rows) + 1)
        extra = 1  # the variance
    elif model.family == "binomial":
        null = -2 * rows * (_x_log_x(mean) + _x_log_x(1 - mean))
        likelihood, null_likelihood, extra = totals["log_likelihood"], -null / 2, 0
    elif model.family == "poisson":
        null = 2 * (totals["y_log_y"] - totals["y"] * math.log(max(mean, 1e-300)))
        likelihood, extra = totals["log_likelihood"], 0
        null_likelihood = totals["y"] * math.log(max(mean, 1e-300)) - totals["y"] - totals["log_factorial"]
    else:
        null = 2 * (rows * math.log(max(mean, 1e-300)) - totals["log_y"])
        likelihood = null_likelihood = None
        extra = 1
    fit: dict[str, Any] = {
        "family": model.family,
        "link": model.link,
        "rows": rows,
        "rank": rank,
        "deviance": deviance,
        "null_deviance": null,
        "dispersion": dispersion,
    }
    if likelihood is not None and null_likelihood is not None:
        r2 = 1 - deviance / null if model.family == "gaussian" and null > 0 else None
        mcfadden = 1 - likelihood / null_likelihood if null_likelihood else None
        fit |= {
            "log_likelihood": likelihood,
            "aic": 2 * (rank + extra) - 2 * likelihood,
            "bic": math.log(rows) * (rank + extra) - 2 * likelihood,
            "pseudo_r2": r2 if model.family == "gaussian" else mcfadden,
        }
    return fit


def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0


def _notes(
    lines: list[dict[str, Any]],
    terms: list[str],
    scaled: np.ndarray,
    fold: FoldProgress,
    experiment: Experiment,
) -> list[str]:
    model, notes = experiment.model, []
    assert isinstance(model, Glm)  # noqa: S101
    aliased = [line["term"] for line in lines if line.get("left_out") == "aliased"]
    if aliased:
        notes.append(f"glm: {', '.join(aliased)}: left out, since the other columns tell it exactly, or no row has it")
    unbounded = [term for term, value in zip(terms, scaled, strict=True) if abs(value) > _UNBOUNDED]
    if model.family == "binomial" and unbounded and not model.ridge:
        notes.append(
            f"glm: {', '.join(unbounded)}: grows without end (separation: these columns tell the classes apart), so "
            "the estimate and its error mean nothing; take model.ridge, or leave the column out"
        )
    if not fold.finished:
        notes.append(f"glm: not converged after {fold.rounds_done} rounds; the coefficients are of the last step")
    if model.ridge:
        notes.append("glm: with model.ridge estimates are drawn to 0, and intervals do not count that")
    if (filled := experiment.data.missing.kind) in ("mean", "median", "constant"):
        notes.append(
            f"glm: cells that are empty were filled (data.missing {filled}) and count as observed in errors and "
            "intervals; data.missing drop leaves such rows out"
        )
    parts = getattr(experiment.split, "train", None)
    if parts == 1:
        notes.append("glm: all rows were fitted; for metrics on rows that were not, give split")
    return notes
