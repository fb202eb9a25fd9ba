"""Calibration of predicted risks at a time: how many were to have had the event by then, and how many did.

From the counts in bins of time and score that the C-index comes from, and a Cox model's baseline hazard, by which a
score is a risk at each time; `result.diagnostics` calls it, and no site is asked for anything more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.intervals.proportions import Z
from v6_algorithm.learning.metrics.survival.collector import SQUARE_UNITS, scores_at

# Groups of rising risk, each of about as many rows.
RISK_GROUPS = 5
# Fewest rows of a group.
_LEAST_ROWS = 5
# Of the regressions behind slope and intercept.
_MOST_STEPS, _CLOSE, _SINGULAR = 50, 1e-10, 1e12


def calibration_over_time(
    states: Mapping[str, dict[str, Any]], hazards: Mapping[str, NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Return predicted against observed risk at the edges of the states' bins of time.

    Observed is 1 - Kaplan-Meier over the bins of time, those who are censored leaving halfway through theirs, with
    Greenwood's error; the interval of observed / expected is on the log scale [1]_. A row's score is taken as the
    middle of its bin, 1/16 of a log-risk wide.

    Parameters
    ----------
    states
        Hospital to its checked state of `SurvivalMetrics`.
    hazards
        Hospital to the cumulative baseline hazard, (times,), by which its risks are predicted.

    Returns
    -------
    list of dict
        Of each time at which rows are still watched: `time`, `observed`, `expected` (shares of the rows), `o_e` with
        `o_e_low` and `o_e_high` (None where there was no event), and `groups`: lists of `rows`, `predicted` and
        `observed`, by rising predicted risk. Then `slope` and `slope_se` with `intercept` and `intercept_se`, and
        `in_the_large` with its error: a Poisson regression of the events by then on the log-risk, the logarithm of the
        cumulative baseline hazard up to each row's time its offset [1]_; in the large with slope 1. 1 and 0 are good.
        A row's time is the middle of its bin's hazard. None where the regression has no finite estimates.

    References
    ----------
    .. [1] Crowson, Atkinson and Therneau (2016), Assessing calibration of prognostic risk scores, Stat Methods Med Res
       25(4), 1692-1706.
    """
    edges = next(iter(states.values()))["edges"]
    parts = []
    for name, state in states.items():
        cells = np.asarray(state["cells"], dtype=np.int64).reshape(-1, 4)
        hazard = np.asarray(hazards[name], dtype=np.float64)
        if hazard.shape != (len(edges),):
            return []
        score = scores_at(cells[:, 1] + 0.5)
        risk = -np.expm1(-np.exp(score)[:, None] * hazard)
        parts.append((cells[:, [0, 2, 3]], risk, score, np.tile(hazard, (len(cells), 1))))
    cells, risks, scores, baselines = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    rows = cells[:, 1] + cells[:, 2]
    curve = []
    for place, time in enumerate(edges):
        if not rows.sum() or (watched := _observed(cells, place)) is None:
            continue
        observed, error = watched
        expected = float(rows @ risks[:, place] / rows.sum())
        told = {"time": float(time)} | _ratio(observed, error, expected)
        told["groups"] = _groups(cells, risks[:, place], rows, place)
        curve.append(told | _regressions(cells, scores, baselines, place))
    return curve


def calibration_at_horizons(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return predicted against observed risk at the horizons of a merged state, whatever the model.

    For models whose score is no function of the risk at a time, such as those of method discrete_time. Observed is
    1 - Kaplan-Meier over the intervals between horizons, as in `calibration_over_time`; there are no groups and no
    slope, for which rows would have to be told by their risk at each horizon.

    Returns
    -------
    list of dict
        Of each horizon after which rows are still watched: `time`, `observed`, `expected`, `o_e`, `o_e_low` and
        `o_e_high`.
    """
    events, censored = state["leaving"]
    intervals = np.arange(len(events))
    cells = np.column_stack([intervals, events, censored]).astype(np.int64)
    curve = []
    for place, time in enumerate(state["horizons"]):
        if state["n"] and (watched := _observed(cells, place)) is not None:
            expected = state["expected"][place] / (SQUARE_UNITS * state["n"])
            curve.append({"time": float(time)} | _ratio(*watched, expected))
    return curve


def _ratio(observed: float, error: float, expected: float) -> dict[str, Any]:
    told: dict[str, Any] = {"observed": observed, "expected": expected, "o_e": None, "o_e_low": None, "o_e_high": None}
    if observed > 0 and expected > 0:
        ratio, spread = observed / expected, math.exp(Z * error / observed)
        told |= {"o_e": ratio, "o_e_low": ratio / spread, "o_e_high": ratio * spread}
    return told


def _regressions(
    cells: NDArray[np.int64], score: NDArray[np.float64], baselines: NDArray[np.float64], place: int
) -> dict[str, float | None]:
    """Return slope, intercept and calibration in the large of the events by the end of a bin, with their errors."""
    steps = np.concatenate([np.zeros((len(cells), 1)), baselines], axis=1)
    time = np.minimum(cells[:, 0], place)
    each = np.arange(len(cells))
    until = np.where(cells[:, 0] > place, steps[:, place + 1], (steps[each, time] + steps[each, time + 1]) / 2)
    events = np.where(cells[:, 0] <= place, cells[:, 1], 0).astype(np.float64)
    exposed = (cells[:, 1] + cells[:, 2]).astype(np.float64) * until
    told: dict[str, float | None] = {}
    both = _poisson(np.column_stack([np.ones(len(score)), score]), events, exposed, np.array([0.0, 1.0]))
    alone = _poisson(np.ones((len(score), 1)), events, exposed * np.exp(score), np.zeros(1))
    for name, fit, number in (("intercept", both, 0), ("slope", both, 1), ("in_the_large", alone, 0)):
        told[name] = None if fit is None else float(fit[0][number])
        told[f"{name}_se"] = None if fit is None else float(fit[1][number])
    return told


def _poisson(
    design: NDArray[np.float64], events: NDArray[np.float64], exposed: NDArray[np.float64], start: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Fit log(events / exposed) by Newton's steps; return coefficients and errors, None where they are not finite."""
    seen = exposed > 0
    design, events, exposed = design[seen], events[seen], exposed[seen]
    if not events.sum():
        return None
    estimate = start
    for _ in range(_MOST_STEPS):
        with np.errstate(over="ignore", invalid="ignore"):
            mean = exposed * np.exp(design @ estimate)
        information = design.T @ (mean[:, None] * design)
        # A matrix nearly singular: all scores are alike, or all events at one end.
        if not np.isfinite(information).all() or np.linalg.cond(information) > _SINGULAR:
            return None
        step = np.linalg.solve(information, design.T @ (events - mean))
        estimate = estimate + np.clip(step, -2, 2)
        if np.abs(step).max() < _CLOSE:
            return estimate, np.sqrt(np.diag(np.linalg.inv(information)))
    return None


def _observed(cells: NDArray[np.int64], place: int) -> tuple[float, float] | None:
    """Return the share with the event by the end of a bin of time, and its standard error; None: nobody is left."""
    last = max(int(cells[:, 0].max(initial=0)), place) + 1
    died = np.bincount(cells[:, 0], cells[:, 1], last)
    left = np.bincount(cells[:, 0], cells[:, 2], last)
    there = (died + left)[::-1].cumsum()[::-1]
    if place + 1 >= last or there[place + 1] < 1:
        return None
    died, exposed = died[: place + 1], there[: place + 1] - left[: place + 1] / 2
    survival = float(np.prod(1 - died / exposed))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(died > 0, died / (exposed * (exposed - died)), 0.0)
    greenwood = float(np.sqrt(terms.sum()))
    return 1 - survival, survival * greenwood if math.isfinite(greenwood) else math.nan


def _groups(
    cells: NDArray[np.int64], risk: NDArray[np.float64], rows: NDArray[np.int64], place: int
) -> dict[str, list[Any]]:
    """Return rows, mean predicted and observed risk of groups of rising risk."""
    order = np.argsort(risk, kind="stable")
    middle = np.cumsum(rows[order]) - rows[order] / 2
    number = np.minimum((middle / rows.sum() * RISK_GROUPS).astype(np.int64), RISK_GROUPS - 1)
    told: dict[str, list[Any]] = {"rows": [], "predicted": [], "observed": []}
    for group in range(RISK_GROUPS):
        chosen = order[number == group]
        size = int(rows[chosen].sum())
        if size < _LEAST_ROWS:
            continue
        watched = _observed(cells[chosen], place)
        told["rows"].append(size)
        told["predicted"].append(float(rows[chosen] @ risk[chosen] / size))
        told["observed"].append(None if watched is None else watched[0])
    return told
