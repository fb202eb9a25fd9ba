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
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS, SCORE_RANGE

# Groups of rising risk, each of about as many rows.
RISK_GROUPS = 5
# Fewest rows of a group.
_LEAST_ROWS = 5


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
        `observed`, by rising predicted risk.

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
        score = (cells[:, 1] + 0.5) * (2 * SCORE_RANGE / SCORE_BINS) - SCORE_RANGE
        risk = -np.expm1(-np.exp(score)[:, None] * hazard)
        parts.append((cells[:, [0, 2, 3]], risk))
    cells = np.concatenate([part for part, _ in parts])
    risks = np.concatenate([risk for _, risk in parts])
    rows = cells[:, 1] + cells[:, 2]
    curve = []
    for place, time in enumerate(edges):
        if not rows.sum() or (watched := _observed(cells, place)) is None:
            continue
        observed, error = watched
        expected = float(rows @ risks[:, place] / rows.sum())
        told: dict[str, Any] = {"time": float(time), "observed": observed, "expected": expected, "o_e": None}
        told |= {"o_e_low": None, "o_e_high": None, "groups": _groups(cells, risks[:, place], rows, place)}
        if observed > 0 and expected > 0:
            ratio, spread = observed / expected, math.exp(Z * error / observed)
            told |= {"o_e": ratio, "o_e_low": ratio / spread, "o_e_high": ratio * spread}
        curve.append(told)
    return curve


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
