"""What a fitted GLM or Cox model tells: coefficients in units of the columns, their errors, tests, intervals, the fit.

`result.assemble` puts it into the Result. All of it comes from sums that the rounds have already brought.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.distributions import chi_square_p, normal_p, t_p, t_quantile
from v6_algorithm.coordinator.inference.goodness_of_fit import effective_rows, goodness_of_fit, residual_dispersion
from v6_algorithm.coordinator.inference.penalised import penalised
from v6_algorithm.coordinator.inference.separation import against_reference, with_references
from v6_algorithm.coordinator.inference.terms import growing, joint_tests, spline_effects, units, without_aliased
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.coordinator.strategies.newton import (
    LOWEST_DISPERSION,
    elimination,
    independent,
    independent_but,
    log_determinant,
)
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Cox, Experiment, Glm
from v6_algorithm.learning.metrics.intervals.proportions import Z
from v6_algorithm.learning.models.glm import NULL_SUMS, TOTALS

# The links whose coefficients are logarithms of a ratio, and how that is called.
RATIOS = {
    ("binomial", "logit"): "odds_ratio",
    ("poisson", "log"): "rate_ratio",
    ("negative_binomial", "log"): "rate_ratio",
    ("gamma", "log"): "mean_ratio",
}
# Of a scaled input, and of its standard error; a larger one says that no finite one fits best.
_UNBOUNDED = 12.0
_UNSURE = 30.0
# Of the target's squares, and of its variance, what is rounding.
_NO_VARIANCE, _EXACT = 1e-14, 1e-20
_REMEDIES = {"binomial": "model.firth, model.ridge"}


def inference(fold: FoldProgress, plan: Plan, experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
    """Return what is told of one fold's fit, and sentences for the researcher.

    Returns
    -------
    tuple of dict and list of str
        ``coefficients``: a mapping for each term with `term`, `estimate`, `standard_error`, `z`, `p`, `low`, `high`
        (95 %, normal) and, where it has a name, the ratio `exp(estimate)` with its interval; a term that is left out
        has none of these but `term` and `left_out`; one that grows without end is `separated`. ``fit``: rows, rank,
        log-likelihood, deviance, null deviance, dispersion, AIC, BIC, McFadden's pseudo-R² (of gaussian R²), the
        rounds and whether they converged. ``covariance`` of the terms; ``wald`` tests of each category, curve
        and product; ``spline_effects`` by column. Of a Cox model also ``proportional_hazards`` and ``baseline_hazard``.
    """
    model = experiment.model
    if isinstance(model, Cox) and fold.fitted:
        return _cox(model, fold, plan, experiment)
    if not isinstance(model, Glm) or fold.kept is None or plan.setup.preparation is None:
        return {}, []
    state = {name: tensor.double().numpy().copy() for name, tensor in wire.unpack(fold.kept).items()}
    import torch

    terms = ["(intercept)", *plan.setup.inputs]
    scaled = np.concatenate([state["model.bias"].reshape(1), state["model.weight"]])
    ratio = RATIOS.get((str(model.family), str(model.link)))
    totals = dict(zip(TOTALS, state["model.totals"].tolist(), strict=True))
    if model.penalty is not None:
        return penalised(model, fold, terms, units(plan, fold.number) @ scaled, totals, ratio)
    information = state["model.information"]
    penalty = np.diag([0.0, *[model.ridge] * (len(scaled) - 1)])
    offset = None
    if model.offset is not None:
        offset = plan.setup.features.index(model.offset) + 1, 1.0
        penalty[offset[0], offset[0]] = 0
    order = elimination(plan.setup)
    free = independent_but(torch.from_numpy(information + penalty), offset, order).numpy()
    rows = round(totals["rows"])
    rank = int(free.sum())
    size = effective_rows(model, totals)
    dispersion = residual_dispersion(model, totals, size, rank)
    covariance = np.zeros_like(information)
    inverse = np.linalg.inv((information + penalty)[np.ix_(free, free)])
    covariance[np.ix_(free, free)] = dispersion * (
        inverse @ information[np.ix_(free, free)] @ inverse if model.ridge else inverse
    )
    covariance, freedom, notes_of_errors = _errors_over_sites(model, fold, inverse, free, covariance, size)
    raw = without_aliased(units(plan, fold.number), information, free)
    estimates, errors = raw @ scaled, np.sqrt(np.clip(np.diag(raw @ covariance @ raw.T), 0, None))
    lines = _lines(plan, terms, estimates, errors, free, ratio, freedom)
    if offset is not None:
        lines[offset[0]] = {"term": terms[offset[0]], "left_out": "offset"}
    lost = growing(units(plan, fold.number), information, free, fold.fitted.get("separated", []))
    notes = _notes(lines, terms, scaled, np.sqrt(np.diag(covariance)), fold, experiment, rows, plan, lost)
    fit = goodness_of_fit(model, totals, rank, dispersion, _null_of(state))
    notes += _of_no_variance(model, fit, totals)
    if model.firth:
        fit["penalised_log_likelihood"] = (
            totals["log_likelihood"] + log_determinant(torch.from_numpy(information), torch.from_numpy(free)) / 2
        )
    if "model.dispersion" in state:
        fit["alpha"] = math.exp(float(state["model.dispersion"]))
        curvature = float(state["model.curvature"][1])
        # Of the logarithm, by the delta method.
        fit["alpha_standard_error"] = fit["alpha"] / math.sqrt(curvature) if curvature > 0 else None
        if fit["alpha"] <= 2 * LOWEST_DISPERSION:
            fit["alpha_standard_error"] = None
            notes.append("glm: the counts vary no more than Poisson's do (alpha at its least); take family poisson")
    told = {"coefficients": lines, "fit": fit | {"rounds": fold.rounds_done, "converged": fold.finished}}
    return told | _joint(plan, fold.number, terms, estimates, raw @ covariance @ raw.T, free), notes + notes_of_errors


def _null_of(state: dict[str, np.ndarray]) -> dict[str, float] | None:
    """Return the sums of the model with an intercept only, where it was fitted in rounds."""
    if "model.null_sums" not in state:
        return None
    return dict(zip(NULL_SUMS, state["model.null_sums"].tolist(), strict=True))


def _cox(model: Cox, fold: FoldProgress, plan: Plan, experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
    """Return log hazard ratios and hazard ratios, the fit, the test of proportional hazards and the baseline hazard."""
    import torch

    fitted, terms = fold.fitted, list(plan.setup.inputs)
    weight = wire.unpack(fold.kept or "")["model.weight"].double().numpy().copy()
    information = np.array(fitted["information"]).reshape(len(weight), len(weight))
    penalty = np.diag([model.ridge] * len(weight))
    order = elimination(plan.setup, intercept=False)
    free = independent(torch.from_numpy(information + penalty), intercept=False, order=order).numpy()
    covariance = np.zeros_like(information)
    inverse = np.linalg.inv((information + penalty)[np.ix_(free, free)])
    covariance[np.ix_(free, free)] = inverse @ information[np.ix_(free, free)] @ inverse if model.ridge else inverse
    covariance, freedom, notes_of_errors = _errors_over_sites(
        model, fold, inverse, free, covariance, int(fitted["training_rows"])
    )
    # A hazard ratio has no intercept: the units are those of the scales alone.
    of_columns = units(plan, fold.number)[1:, 1:]
    raw = without_aliased(of_columns, information, free)
    estimates, errors = raw @ weight, np.sqrt(np.clip(np.diag(raw @ covariance @ raw.T), 0, None))
    lines = _lines(plan, terms, estimates, errors, free, "hazard_ratio", freedom)
    rows, events, rank = int(fitted["training_rows"]), round(fitted["events"]), int(free.sum())
    chi2 = 2 * (fitted["value"] - fitted["null"])
    if model.firth:
        chi2 = 2 * (fitted["penalised"] - fitted["penalised_null"])
    fit: dict[str, Any] = {
        "family": "cox",
        "ties": model.ties,
        "strata": model.strata,
        "rows": rows,
        "events": events,
        "rank": rank,
        "log_likelihood": fitted["value"],
        "null_log_likelihood": fitted["null"],
        "likelihood_ratio": chi2,
        "likelihood_ratio_p": chi_square_p(chi2, rank) if rank and not model.ridge else None,
        "aic": 2 * rank - 2 * fitted["value"],
        "rounds": fold.rounds_done,
        "converged": fold.finished,
    }
    lost = growing(of_columns, information, free, fitted.get("separated", []))
    notes = _notes(lines, terms, weight, np.sqrt(np.diag(covariance)), fold, experiment, rows, plan, lost)
    if events < 10 * rank:
        notes.append(
            f"cox: {events} events for {rank} coefficients; with fewer than 10 for each, estimates and intervals are "
            f"unsure; take fewer columns{'' if model.firth else ', or model.firth or model.ridge'}"
        )
    told: dict[str, Any] = {"coefficients": lines, "fit": fit}
    told["proportional_hazards"] = _proportional(fitted, terms, covariance, free)
    if (broken := [test["term"] for test in told["proportional_hazards"] if test["p"] < 0.05]) and not model.ridge:
        notes.append(
            f"cox: {', '.join(broken)}: the hazard ratio changes with time (p below 0.05 in the test of proportional "
            "hazards), so one number is an average over the time watched"
        )
    if plan.setup.event_times is not None and "hazard" in fitted:
        told["baseline_hazard"] = _baseline(fitted, plan)
    return told | _joint(plan, fold.number, terms, estimates, raw @ covariance @ raw.T, free), notes + notes_of_errors


def _errors_over_sites(
    model: Glm | Cox, fold: FoldProgress, inverse: np.ndarray, free: np.ndarray, covariance: np.ndarray, rows: float
) -> tuple[np.ndarray, int | None, list[str]]:
    """Return a covariance that holds where a site's rows are alike: the sandwich, with the sites as clusters.

    Its factor for few clusters is G / (G - 1) (n - 1) / (n - k), and intervals are by Student's t of G - 1 degrees of
    freedom [1]_. As it was given, with None, where errors are the model's.

    References
    ----------
    .. [1] Cameron and Miller (2015), A practitioner's guide to cluster-robust inference, Journal of Human
       Resources 50(2).
    """
    scores = np.array(list(fold.fitted.get("site_scores", {}).values()))
    if model.errors != "site":
        return covariance, None, []
    if len(scores) < 2:
        return covariance, None, [f"{model.kind}: errors over sites need two sites or more; these are the model's"]
    sites, rank = len(scores), int(free.sum())
    meat = scores[:, free].T @ scores[:, free]
    factor = sites / (sites - 1) * (rows - 1) / max(rows - rank, 1)
    robust = np.zeros_like(covariance)
    robust[np.ix_(free, free)] = factor * inverse @ meat @ inverse
    notes = [
        f"{model.kind}: standard errors are robust over {sites} sites, with Student's t of {sites - 1} degrees of "
        "freedom; of fewer than some 20 sites they are rough, mostly too small"
    ]
    return robust, sites - 1, notes


def _joint(
    plan: Plan, fold: int, terms: list[str], estimates: np.ndarray, covariance: np.ndarray, free: np.ndarray
) -> dict[str, Any]:
    """Return the covariance of the terms in units of the columns, tests of several together, and curves."""
    told: dict[str, Any] = {
        "covariance": covariance.tolist(),
        "wald": joint_tests(plan.setup, terms, estimates, covariance, free),
    }
    effects = spline_effects(plan.setup, fold, terms, estimates, covariance)
    return told | ({"spline_effects": effects} if effects else {})


def _proportional(
    fitted: dict[str, Any], terms: list[str], covariance: np.ndarray, free: np.ndarray
) -> list[dict[str, Any]]:
    """Test each coefficient for a trend of its scaled Schoenfeld residuals over time; after Grambsch and Therneau.

    Time enters as 1 - Kaplan-Meier, or, where each site is a stratum, as its logarithm.
    """
    events, (total, squares) = fitted["events"], fitted["transformed"]
    spread = squares - total**2 / events
    # The residuals of all events add up to the score, which is 0 but for rounding.
    trend = np.array(fitted["residuals"]) - total / events * np.array(fitted["score"])
    scaled = events * covariance @ trend
    tests = []
    for place, term in enumerate(terms):
        if free[place] and spread > 0 and covariance[place, place] > 0:
            statistic = float(scaled[place] ** 2 / (events * covariance[place, place] * spread))
            tests.append({"term": term, "chi2": statistic, "p": chi_square_p(statistic, 1)})
    return tests


def _baseline(fitted: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the baseline hazard by event time, of a row whose inputs are all 0.

    Columns are then where the scaling has its 0 (standard: the mean, robust: the median, minmax: the minimum, none: 0),
    and categories at their reference.
    """
    assert plan.setup.event_times is not None  # noqa: S101
    hazard = np.array(fitted["hazard"])
    shown = np.array(fitted["deaths"]) > 0
    return {
        "time": plan.setup.event_times[shown].tolist(),
        "at_risk": [round(rows) for rows in np.array(fitted["rows"])[shown].tolist()],
        "events": [round(rows) for rows in np.array(fitted["deaths"])[shown].tolist()],
        "cumulative_hazard": hazard[shown].tolist(),
        "survival": np.exp(-hazard[shown]).tolist(),
    }


def _lines(
    plan: Plan,
    terms: list[str],
    estimates: np.ndarray,
    errors: np.ndarray,
    free: np.ndarray,
    ratio: str | None,
    freedom: int | None,
) -> list[dict[str, Any]]:
    references = {f"{name}={values[0]}" for name, values in plan.setup.categories.items() if values}
    return [
        coefficient_line(term, estimate, error, ratio, freedom)
        if there
        else {"term": term, "left_out": "reference" if references & set(term.split(" * ")) else "aliased"}
        for term, estimate, error, there in zip(terms, estimates.tolist(), errors.tolist(), free.tolist(), strict=True)
    ]


def coefficient_line(
    term: str, estimate: float, error: float, ratio: str | None, freedom: float | None
) -> dict[str, Any]:
    """Return a term's line; intervals and p are normal, or by Student's t of so many degrees of freedom."""
    z = estimate / error if error > 0 else None
    reach = (Z if freedom is None else t_quantile(0.975, freedom)) * error
    low, high = estimate - reach, estimate + reach
    line = {
        "term": term,
        "estimate": estimate,
        "standard_error": error,
        "z": z,
        "p": None if z is None else normal_p(z) if freedom is None else t_p(z, freedom),
        "low": low,
        "high": high,
    }
    if ratio and term != "(intercept)":
        line |= {ratio: _exp(estimate), f"{ratio}_low": _exp(low), f"{ratio}_high": _exp(high)}
    return line


def _exp(value: float) -> float | None:
    return math.exp(value) if value < 700 else None


def _notes(
    lines: list[dict[str, Any]],
    terms: list[str],
    scaled: np.ndarray,
    scaled_errors: np.ndarray,
    fold: FoldProgress,
    experiment: Experiment,
    rows: int,
    plan: Plan,
    growing_places: set[int],
) -> list[str]:
    model, notes = experiment.model, []
    assert isinstance(model, (Glm, Cox))  # noqa: S101
    name = model.kind
    lost = {terms[place] for place in growing_places}
    for place, line in enumerate(lines):
        if line["term"] in lost and line.get("left_out", "aliased") == "aliased":
            # Of two that grow together one may have an error, which is that of their sum.
            lines[place] = {"term": line["term"], "left_out": "separated"}
    aliased = [line["term"] for line in lines if line.get("left_out") == "aliased"]
    if aliased:
        notes.append(
            f"{name}: {', '.join(aliased)}: left out, since the other columns tell it exactly, or no row has it"
        )
    counts = getattr(model, "family", "") in ("poisson", "negative_binomial")
    odds = isinstance(model, Cox) or model.family == "binomial"
    # The logarithm of a large count is large itself.
    unbounded = [
        term
        for term, value, error, line in zip(terms, scaled, scaled_errors, lines, strict=True)
        if term in lost
        or ("left_out" not in line and ((odds and abs(value) > _UNBOUNDED) or ((odds or counts) and error > _UNSURE)))
    ]
    bounded = model.ridge or (isinstance(model, Glm) and model.firth)
    if unbounded and not bounded:
        fitted = dict(zip(terms, scaled.tolist(), strict=True))
        by_reference = against_reference(fitted, unbounded, plan.setup.categories)
        for place, line in enumerate(lines):
            if line["term"] in by_reference:
                lines[place] = {"term": line["term"], "left_out": "reference"}
            elif line["term"] in unbounded:
                line["separated"] = True
        why = "no row with it has an event, or all have" if name == "cox" else "these columns tell the classes apart"
        if isinstance(model, Glm) and model.family != "binomial":
            why = "no row with it has a count above 0"
        remedy = _REMEDIES.get(str(getattr(model, "family", "")), "model.ridge")
        notes.append(
            f"{name}: {with_references(unbounded, by_reference)}: grows without end (separation: {why}), so "
            f"the estimate and its error mean nothing; take {remedy}, or leave the column out"
        )
    if not fold.finished:
        notes.append(f"{name}: not converged after {fold.rounds_done} rounds; the coefficients are of the last step")
    if isinstance(model, Glm) and model.firth:
        notes.append(
            "glm: estimates are Firth's, and errors and intervals Wald's at them; those of its profile likelihood are "
            "wider to one side"
        )
    if isinstance(model, Glm) and model.weights is not None:
        notes.append(_about_weights(model.weights.column, model.weights.kind))
    if model.ridge:
        notes.append(f"{name}: with model.ridge estimates are drawn to 0, and intervals do not count that")
    if plan.filled and (filled := experiment.data.missing.kind) in ("mean", "median", "constant"):
        notes.append(
            f"{name}: empty cells are filled (data.missing {filled}) and count as observed in errors and "
            "intervals; data.missing drop leaves such rows out"
        )
    notes += _of_no_category(name, lines, plan)
    parts = getattr(experiment.split, "train", None)
    if parts == 1:
        notes.append(f"{name}: all rows were fitted; for metrics on rows that were not, give split")
    known = sum(plan.rows[site][fold.number]["train"] for site in plan.trainers(fold.number))
    if rows != known:
        notes.append(
            f"{name}: the coefficients are of {rows} of {known} training rows, for not every site "
            "answered in the last round; see participation"
        )
    return notes


def _of_no_variance(model: Glm, fit: Mapping[str, Any], totals: Mapping[str, float]) -> list[str]:
    """Say so where a gaussian target, or what is left of it, does not vary: errors and p values are of nothing then."""
    if model.family != "gaussian":
        return []
    if fit["null_deviance"] <= _NO_VARIANCE * totals["y2"]:
        return ["glm: the target has one value in all rows, so there is nothing to explain: errors and p mean nothing"]
    if fit["deviance"] <= _EXACT * fit["null_deviance"]:
        return ["glm: the columns tell the target exactly, but for rounding: errors, intervals and p mean nothing"]
    return []


def _of_no_category(name: str, lines: list[dict[str, Any]], plan: Plan) -> list[str]:
    """Name categories all of whose values have a coefficient, for then rows without any are their reference."""
    known = {line["term"]: line for line in lines}
    whole = [
        column
        for column, values in plan.setup.categories.items()
        if values and all("left_out" not in known[f"{column}={value}"] for value in values)
    ]
    if not whole:
        return []
    return [
        f"{name}: {', '.join(whole)}: rows of no category, whose cell is empty or holds a value that a node does not "
        "tell, are what its values are compared with; data.missing drop leaves rows with an empty cell out, impute "
        "draws it"
    ]


def _about_weights(column: str, kind: str) -> str:
    if kind == "frequency":
        return f"glm: each row counts as many times as '{column}' says, in errors too (weights of kind frequency)"
    return (
        f"glm: rows weigh by '{column}', as if their variance were 1 / weight (kind analytic); errors are the model's: "
        "for weights of a survey they are not the design's. Metrics count each row once"
    )
