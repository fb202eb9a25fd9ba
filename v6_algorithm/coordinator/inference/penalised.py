"""What a ridge, LASSO or elastic net fit tells: coefficients without intervals, and how its strength was found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.goodness_of_fit import goodness_of_fit
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.experiment import Glm


def penalised(
    model: Glm, fold: FoldProgress, terms: list[str], estimates: np.ndarray, totals: dict[str, float], ratio: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return `coefficients` and `fit` as `coefficients.inference` does, and sentences.

    Parameters
    ----------
    model, fold
        The section, and the fit.
    terms, estimates
        Names, the intercept first, and (terms,) coefficients in units of the columns.
    totals
        Sums over all rows by the names of `learning.models.glm.TOTALS`.
    ratio
        What exp of a coefficient is called, where it has a name.
    """
    penalty = model.penalty
    assert penalty is not None  # noqa: S101
    lines = [
        {"term": term, "estimate": value}
        | ({ratio: math.exp(value) if value < 700 else None} if ratio and term != "(intercept)" else {})
        for term, value in zip(terms, estimates.tolist(), strict=True)
    ]
    kept = int((estimates[1:] != 0).sum())
    told = goodness_of_fit(model, totals, kept + 1, 1.0, None)
    # Of fits that are not the likelihood's largest these say nothing.
    names = ("family", "link", "rows", "deviance", "null_deviance", "weights", "sum_of_weights", "residuals")
    fit = {name: told[name] for name in names if name in told}
    fit |= {"terms": kept, "rounds": fold.rounds_done, "converged": fold.finished}
    if told["null_deviance"]:
        fit["deviance_explained"] = 1 - told["deviance"] / told["null_deviance"]
    fit["penalty"] = {"kind": penalty.kind, "mixing": penalty.share, **fold.fitted}
    strength = fold.fitted.get("strength")
    notes = [
        f"glm: coefficients of a penalised fit ({penalty.kind}) are drawn to 0 and have no standard errors, intervals "
        "or p values: these would not be valid after the data chose the terms"
    ]
    if strength is not None:
        how = "as given" if penalty.strength is not None else f"by cross-validation in {penalty.folds} parts of rows"
        notes.append(f"glm: penalty's strength {strength:.4g}, {how}; {kept} of {len(terms) - 1} terms are not 0")
    if "strengths" in fold.fitted and strength in (fold.fitted["strengths"][-1], fold.fitted["strengths"][0]):
        end = "weakest" if strength == fold.fitted["strengths"][-1] else "strongest"
        notes.append(f"glm: the {end} strength that was tried predicts best; the best may be beyond it")
    if not fold.finished:
        notes.append(f"glm: not converged after {fold.rounds_done} rounds; more `rounds` are needed")
    if model.weights is not None:
        notes.append(f"glm: rows weigh by '{model.weights.column}' (kind {model.weights.kind})")
    return {"coefficients": lines, "fit": fit}, notes
