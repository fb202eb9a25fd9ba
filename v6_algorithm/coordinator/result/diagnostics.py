"""Confusion matrices, calibration and ROC curves of a finished run, from the same sums as its metrics.

`result.assemble` and `central` put them into the result for each part, by target: `data.target`, or each of several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.data.preparation import Setup
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import merge_states
from v6_algorithm.learning.metrics.calibration import CONFIDENCE_UNITS
from v6_algorithm.learning.metrics.classification_state import histograms
from v6_algorithm.learning.metrics.histogram import logits, lower_edges, nearest_edges
from v6_algorithm.learning.metrics.intervals.proportions import Z
from v6_algorithm.learning.metrics.recalibration import recalibrate
from v6_algorithm.learning.metrics.states import CheckedState
from v6_algorithm.learning.metrics.survival import auroc_over_time, calibration_at_horizons, calibration_over_time

# Fewest rows between two points of a ROC curve: one of single steps would be the list of all scores.
_STEP_ROWS = 5


def diagnostics(states: Mapping[str, dict[str, Any]], experiment: Experiment, setup: Setup) -> dict[str, Any]:
    """Return what the states of one part show beyond numbers.

    Parameters
    ----------
    states
        Hospital to metric state.
    experiment, setup
        For the names of targets and classes.

    Returns
    -------
    dict
        `confusion`, `calibration`, `roc`, `decision` and `risk`, each by target; of problems without classes nothing.
        In a confusion matrix, `pooled` and by hospital, a row is a true class and a column a predicted one, in the
        order of `classes`. `calibration` has for each of 15 bins of the predicted probability its `rows`, their mean
        probability (`predicted`) and the share that is of the class (`observed`), None where it is empty; of class 1
        of two, of the predicted class of more. `roc`, of two classes, has `threshold`, `sensitivity` and
        `specificity` of points at least 5 rows apart. Of survival `auroc_over_time`, and of one Cox model
        `calibration_over_time`, `pooled` and by hospital.
        Of two classes too: `decision`, see `decision_curve`, and `risk`,
        pooled and by hospital, see `risk_summary`.
    """
    tables: dict[str, Any] = {"confusion": {}, "calibration": {}, "roc": {}, "decision": {}, "risk": {}}
    labels = setup.labels_of(str(experiment.data.target))
    for target, by_site in by_target(states, str(experiment.data.target)).items():
        pooled = merge_states(by_site.values())
        tables["confusion"][target] = {
            "classes": labels[target],
            "pooled": pooled["confusion"],
            "sites": {name: state["confusion"] for name, state in by_site.items()},
        }
        tables["calibration"][target] = _calibration(*pooled["calibration"])
        places, positives, negatives = histograms(pooled)[0]
        if pooled["n_classes"] == 2 and positives.any() and negatives.any():
            edges = lower_edges(places, pooled["bins"]).tolist()
            tables["roc"][target] = _roc(positives.tolist(), negatives.tolist(), edges)
            tables["decision"][target] = decision_curve(places, positives, negatives, pooled["bins"])
            tables["risk"][target] = {
                "pooled": risk_summary(pooled),
                "sites": {name: risk_summary(state) for name, state in by_site.items()},
            }
    if curves := _over_time(states):
        tables["auroc_over_time"] = {experiment.data.target_columns.get("target.duration", "time"): curves}
    if calibrated := _calibrated(states, setup):
        tables["calibration_over_time"] = {experiment.data.target_columns.get("target.duration", "time"): calibrated}
    return {name: content for name, content in tables.items() if content}


def _calibrated(states: Mapping[str, dict[str, Any]], setup: Setup) -> dict[str, Any]:
    """Return `pooled` and by hospital in `sites` predicted against observed risks over time, of one Cox model."""
    known = {name: state for name, state in states.items() if state["kind"] == "survival" and state["n"]}
    if not known:
        return {}
    if setup.baseline is None:
        at = {name: calibration_at_horizons(state) for name, state in known.items()}
        return (
            {"pooled": whole, "sites": at} if (whole := calibration_at_horizons(merge_states(known.values()))) else {}
        )
    if len(setup.baseline) != 1:
        # Of several folds each has a baseline hazard of its own, and their rows are together in a state.
        return {}
    hazards = {}
    for name in known:
        of_hospital = setup.baselines.get(name)
        taken = of_hospital is not None and of_hospital[0].min(initial=0.0) >= 0
        hazards[name] = of_hospital[0] if of_hospital is not None and taken else setup.baseline[0]
    pooled = calibration_over_time(known, hazards)
    if not pooled:
        return {}
    sites = {name: calibration_over_time({name: state}, hazards) for name, state in known.items()}
    return {"pooled": pooled, "sites": sites}


def _over_time(states: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return `pooled` and by hospital in `sites` the AUROC over time of survival's states; empty of others."""
    known = {name: state for name, state in states.items() if state["kind"] == "survival"}
    pooled = auroc_over_time(merge_states(known.values())) if known else []
    if not pooled:
        return {}
    return {"pooled": pooled, "sites": {name: auroc_over_time(state) for name, state in known.items()}}


def by_target(states: Mapping[str, dict[str, Any]], target: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the states of classifications by target and hospital."""
    by_target: dict[str, dict[str, dict[str, Any]]] = {}
    for name, state in states.items():
        tasks = state["tasks"] if state["kind"] == "multitask" else {target: state}
        for task, task_state in tasks.items():
            if task_state["kind"] == "classification":
                # A task's state was checked with all of it; merged over folds it has more keys than a site may send.
                whole = isinstance(state, CheckedState)
                by_target.setdefault(task, {})[name] = CheckedState(task_state) if whole else task_state
    return by_target


def _calibration(rows: list[int], confidence: list[int], hits: list[int]) -> dict[str, list[Any]]:
    return {
        "rows": rows,
        "predicted": [
            units / CONFIDENCE_UNITS / count if count else None for units, count in zip(confidence, rows, strict=True)
        ],
        "observed": [hit / count if count else None for hit, count in zip(hits, rows, strict=True)],
    }


def decision_curve(
    places: NDArray[np.int64], positives: NDArray[Any], negatives: NDArray[Any], bins: int
) -> dict[str, list[float]]:
    """Return the net benefit of treating those whose risk is at a threshold or above.

    With true and false positives TP and FP of n rows it is ``TP / n - FP / n * t / (1 - t)`` at threshold t [1]_.
    Thresholds are the bins' edges nearest to 0.01, 0.02, … 0.99, so that counts are exact.

    Parameters
    ----------
    places, positives, negatives
        (filled bins,) which bins of the predicted probability hold rows, and the rows of class 1 and 0 in each.
    bins
        How many there are.

    Returns
    -------
    dict
        `threshold`, and the net benefit of the `model` and of treating `all`; treating none has 0.

    References
    ----------
    .. [1] Vickers and Elkin (2006), Decision curve analysis, Medical Decision Making 26(6), 565-574.
    """
    edges = dict(zip(*(each.tolist() for each in nearest_edges(np.arange(1, 100) / 100, bins)), strict=True))
    cases, others = int(positives.sum()), int(negatives.sum())
    rows = cases + others
    curve: dict[str, list[float]] = {"threshold": [], "model": [], "all": []}
    for step, threshold in sorted(edges.items()):
        odds = threshold / (1 - threshold)
        # Bins above the edge.
        above = np.searchsorted(places, step, side="right")
        true, wrong = int(positives[above:].sum()), int(negatives[above:].sum())
        curve["threshold"].append(threshold)
        curve["model"].append((true - wrong * odds) / rows)
        curve["all"].append((cases - others * odds) / rows)
    return curve


def risk_summary(state: dict[str, Any]) -> dict[str, Any]:
    """Return how predicted risks compare with what happened, of two classes.

    Returns
    -------
    dict
        `observed` and `expected` rows of class 1, their ratio `o_e` with its 95 % interval (`o_e_low`, `o_e_high`, None
        where nothing was observed) [1]_, and what `recalibrate` returns: `intercept`, `slope`, `in_the_large`, each
        with its standard error, where the classes allow a fit.

    References
    ----------
    .. [1] Debray et al. (2017), A guide to systematic review and meta-analysis of prediction model performance, BMJ
       356:i6460 (the error of the logarithm of O/E).
    """
    rows, confidence, _ = state["calibration"]
    places, positives, negatives = histograms(state)[0]
    observed, n = int(positives.sum()), sum(rows)
    expected = sum(confidence) / CONFIDENCE_UNITS
    summary: dict[str, Any] = {"observed": observed, "expected": expected, "o_e": None, "o_e_low": None}
    summary["o_e_high"] = None
    if observed and expected:
        error = math.sqrt((1 - observed / n) / observed)
        ratio = observed / expected
        low, high = ratio * math.exp(-Z * error), ratio * math.exp(Z * error)
        summary |= {"o_e": ratio, "o_e_low": low, "o_e_high": high}
    return summary | (recalibrate(positives, negatives, logits(places, state["bins"])) or {})


def _roc(positives: list[int], negatives: list[int], edges: list[float]) -> dict[str, list[Any]]:
    """Walk down the thresholds, where bins begin, from one that no row reaches to one that all do."""
    steps = zip(reversed(edges), accumulate(reversed(positives)), accumulate(reversed(negatives)), strict=True)
    points: list[tuple[float | None, int, int]] = [(None, 0, 0)]
    end = (0.0, sum(positives), sum(negatives))
    for threshold, true_positives, wrong in steps:
        if true_positives + wrong - points[-1][1] - points[-1][2] >= _STEP_ROWS:
            points.append((threshold, true_positives, wrong))
    if sum(points[-1][1:]) < sum(end[1:]):
        # The last rows alone would be a step that is too small.
        points = [*points[: -1 if len(points) > 1 else None], end]
    return {
        "threshold": [threshold for threshold, _, _ in points],
        "sensitivity": [true_positives / end[1] for _, true_positives, _ in points],
        "specificity": [1 - wrong / end[2] for _, _, wrong in points],
    }
