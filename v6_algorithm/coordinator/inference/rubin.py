"""Coefficients of several imputed tables as one: Rubin's rules. The result calls it where `data.missing` is impute.

References
----------
Rubin, Multiple Imputation for Nonresponse in Surveys, 1987.
Barnard and Rubin (1999), Small-sample degrees of freedom with multiple imputation, Biometrika 86(4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.coefficients import RATIOS, coefficient_line, inference
from v6_algorithm.coordinator.inference.terms import joint_tests, spline_effects
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.experiment import Cox, Experiment

# Of a fit that are means over the imputations.
_MEANS = ("deviance", "null_deviance", "pseudo_r2", "dispersion", "alpha", "log_likelihood")


def pooled_inference(
    folds: Sequence[FoldProgress], plan: Plan, experiment: Experiment
) -> tuple[dict[str, Any], list[str]]:
    """Return what `coefficients.inference` does, of all imputations together, and sentences.

    Each line also has `freedom`, of Student's t, and `missing_information`, the share of what is known of a coefficient
    that the empty cells took away. `wald` tests take the pooled covariance as it is, which of many terms is rough.
    """
    fits = [inference(fold, plan, experiment) for fold in folds]
    if not all(told for told, _ in fits):
        return {}, []
    notes = list(dict.fromkeys(note for _, said in fits for note in said))
    first = fits[0][0]
    lines = [told["coefficients"] for told, _ in fits]
    if any(
        [line.get("left_out") for line in of_fit] != [line.get("left_out") for line in lines[0]] for of_fit in lines
    ):
        notes.append(
            f"{experiment.model.kind}: the imputations leave out different terms, so they cannot be pooled; see the "
            "notes on these"
        )
        return {}, notes
    model = experiment.model
    cox = isinstance(model, Cox)
    ratio = "hazard_ratio" if cox else RATIOS.get((str(getattr(model, "family", "")), str(getattr(model, "link", ""))))
    rank = first["fit"]["rank"]
    # Of a Cox model what is known is its events, as mice has it.
    rows = max(first["fit"]["events"] - rank, 1) if cox else first["fit"]["residual_df"]
    estimates = np.array([[line.get("estimate", 0.0) for line in of_fit] for of_fit in lines])
    within = np.mean([told["covariance"] for told, _ in fits], axis=0)
    total, freedom, lost = rubin(estimates, within, float(rows))
    mean = estimates.mean(axis=0)
    pooled = [
        line
        if "left_out" in line
        else coefficient_line(line["term"], float(value), float(error), ratio, float(df))
        | {"freedom": float(df), "missing_information": float(share)}
        | ({"separated": True} if any(of_fit[place].get("separated") for of_fit in lines) else {})
        for place, (line, value, error, df, share) in enumerate(
            zip(lines[0], mean, np.sqrt(np.clip(np.diag(total), 0, None)), freedom, lost, strict=True)
        )
    ]
    terms = [line["term"] for line in lines[0]]
    free = np.array(["left_out" not in line for line in lines[0]])
    names = ("family", "link", "ties", "strata", "rows", "events", "residual_df", "weights", "sum_of_weights")
    fit = {name: first["fit"][name] for name in names if name in first["fit"]}
    for name in _MEANS:
        values = [told["fit"].get(name) for told, _ in fits]
        if None not in values:
            fit[name] = float(np.mean(values))
    fit |= {
        "rank": rank,
        "imputations": len(fits),
        "iterations": experiment.data.missing.iterations,
        "rounds": max(told["fit"]["rounds"] for told, _ in fits),
        "converged": all(told["fit"]["converged"] for told, _ in fits),
    }
    told: dict[str, Any] = {
        "coefficients": pooled,
        "fit": fit,
        "covariance": total.tolist(),
        "wald": joint_tests(plan.setup, terms, mean, total, free),
    }
    if effects := spline_effects(plan.setup, folds[0].number, terms, mean, total):
        told["spline_effects"] = effects
    hazards = [fit["baseline_hazard"] for fit, _ in fits if "baseline_hazard" in fit]
    if hazards and all(hazard["time"] == hazards[0]["time"] for hazard in hazards):
        hazard = np.mean([hazard["cumulative_hazard"] for hazard in hazards], axis=0)
        told["baseline_hazard"] = hazards[0] | {
            "cumulative_hazard": hazard.tolist(),
            "survival": np.exp(-hazard).tolist(),
        }
    if cox:
        told["proportional_hazards"] = []
    name_of = experiment.model.kind
    means = (
        "there is no test of proportional hazards, and the log-likelihood and the baseline hazard are"
        if cox
        else "deviance and pseudo-R² are"
    )
    worst = max((line["missing_information"] for line in pooled if "missing_information" in line), default=0.0)
    notes.append(
        f"{name_of}: pooled over {len(fits)} imputations by Rubin's rules; {means} their means; of "
        f"the information on a coefficient up to {worst:.0%} is missing"
    )
    if worst * 100 > len(fits):
        notes.append(
            f"{name_of}: {len(fits)} imputations are few where {worst:.0%} of the information is missing; take "
            f"data.missing.imputations {min(100, int(np.ceil(worst * 100)))}"
        )
    return told, notes


def rubin(estimates: np.ndarray, within: np.ndarray, rows: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pool.

    Parameters
    ----------
    estimates
        (imputations, terms).
    within
        (terms, terms) mean of their covariances.
    rows
        Degrees of freedom that the table without empty cells would have.

    Returns
    -------
    tuple
        (terms, terms) covariance, (terms,) degrees of freedom after Barnard and Rubin, and the fraction of missing
        information.
    """
    number = len(estimates)
    between = np.atleast_2d(np.cov(estimates, rowvar=False, ddof=1))
    total = within + (1 + 1 / number) * between
    diagonal = np.diag(total)
    share = np.divide((1 + 1 / number) * np.diag(between), diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    old = (number - 1) / np.maximum(share, 1e-12) ** 2
    observed = (rows + 1) / (rows + 3) * rows * (1 - share)
    freedom = old * observed / (old + observed)
    increase = share / np.maximum(1 - share, 1e-12)
    lost = np.where(share > 0, (increase + 2 / (freedom + 3)) / (increase + 1), 0.0)
    return total, freedom, lost
