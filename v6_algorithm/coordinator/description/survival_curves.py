"""Kaplan-Meier curves and log-rank tests from counts by time, which add up over sites; `describe` calls it.

References
----------
Kaplan and Meier (1958), JASA 53(282), 457-481; Greenwood (1926), the variance; Kalbfleisch and Prentice (2002), The
Statistical Analysis of Failure Time Data, 2nd ed., section 1.4 (intervals on the log(-log) scale) and 1.5 (log-rank);
Brookmeyer and Crowley (1982), Biometrics 38(1) (the interval of the median); Karrison (1987), Biometrics 43(4) (the
restricted mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.distributions import chi_square_p

Array = np.ndarray
_Z = 1.959963984540054


@dataclass(frozen=True)
class Leaving:
    """Rows that leave by time: (times,) increasing times, rows with the event then, and all rows that leave then."""

    time: Array
    events: Array
    leaving: Array

    @property
    def at_risk(self) -> Array:
        """(times,) rows still observed just before each time."""
        reached: Array = self.leaving[::-1].cumsum()[::-1]
        return reached

    def at(self, times: Array) -> tuple[Array, Array]:
        """Return events and rows at risk at other times, which hold all of its own events."""
        place = np.searchsorted(times, self.time)
        events = np.zeros(len(times))
        with_event = self.events > 0
        np.add.at(events, place[with_event], self.events[with_event])
        # Rows that leave before a time are not at risk then.
        before = np.searchsorted(self.time, times, side="left")
        left = np.concatenate([[0.0], np.cumsum(self.leaving)])
        return events, left[-1] - left[before]

    @classmethod
    def together(cls, parts: Sequence[Leaving]) -> Leaving:
        """Add up the counts of several sites or groups."""
        times, place = np.unique(np.concatenate([part.time for part in parts]), return_inverse=True)
        return cls(
            times,
            np.bincount(place, np.concatenate([part.events for part in parts]), len(times)),
            np.bincount(place, np.concatenate([part.leaving for part in parts]), len(times)),
        )


def kaplan_meier(rows: Leaving, horizon: float) -> dict[str, Any]:
    """Return a curve with its interval, the median, and the mean time up to a horizon.

    Returns
    -------
    dict
        `rows`, `events`; `time`, `at_risk`, `died`, `censored`, `survival`, `standard_error` (Greenwood), `low`, `high`
        (95 %, log(-log)) by time; `median` with its interval, None where the curve stays above one half; `horizon`,
        `restricted_mean` and its `restricted_mean_se`.
    """
    at_risk, died = rows.at_risk, rows.events
    survival = np.cumprod(1 - died / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(np.where(died > 0, died / (at_risk * (at_risk - died)), 0.0))
        error = np.where(survival > 0, survival * np.sqrt(greenwood), 0.0)
        log = np.log(survival)
        width = _Z * np.sqrt(greenwood) / log
        low, high = np.exp(log * np.exp(-width)), np.exp(log * np.exp(width))
    open_ended = (survival <= 0) | (survival >= 1)
    low, high = np.where(open_ended, survival, low), np.where(open_ended, survival, high)
    mean, spread = _restricted_mean(rows.time, survival, at_risk, died, horizon)
    return {
        "rows": round(float(rows.leaving.sum())),
        "events": round(float(died.sum())),
        "time": rows.time.tolist(),
        "at_risk": _whole(at_risk),
        "died": _whole(died),
        "censored": _whole(rows.leaving - died),
        "survival": survival.tolist(),
        "standard_error": error.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "median": _first_below(rows.time, survival),
        "median_low": _first_below(rows.time, low),
        "median_high": _first_below(rows.time, high),
        "horizon": horizon,
        "restricted_mean": mean,
        "restricted_mean_se": spread,
    }


def _whole(counts: Array) -> list[int]:
    return [round(count) for count in counts.tolist()]


def _first_below(times: Array, curve: Array) -> float | None:
    below = np.flatnonzero(curve <= 0.5 + 1e-12)
    return float(times[below[0]]) if len(below) else None


def _restricted_mean(
    times: Array, survival: Array, at_risk: Array, died: Array, horizon: float
) -> tuple[float, float | None]:
    """Return the area under the curve up to the horizon, and its standard error."""
    inside = times < horizon
    steps = np.concatenate([[0.0], times[inside], [horizon]])
    areas = np.diff(steps) * np.concatenate([[1.0], survival[inside]])
    # The area that lies after each time.
    after = areas[::-1].cumsum()[::-1][1:]
    deaths, rows = died[inside], at_risk[inside]
    counted = (deaths > 0) & (rows > deaths)
    variance = (after[counted] ** 2 * deaths[counted] / (rows[counted] * (rows[counted] - deaths[counted]))).sum()
    return float(areas.sum()), float(np.sqrt(variance))


def log_rank(strata: Sequence[Mapping[str, Leaving]]) -> dict[str, Any] | None:
    """Test whether groups have one hazard, within each stratum; None of fewer than two groups or no event.

    Returns
    -------
    dict
        `chi2`, `freedom`, `p`, and by group `observed` and `expected` events.
    """
    names = sorted({name for stratum in strata for name in stratum})
    difference, variance = np.zeros(len(names)), np.zeros((len(names), len(names)))
    observed, expected = np.zeros(len(names)), np.zeros(len(names))
    for stratum in strata:
        all_rows = Leaving.together(list(stratum.values()))
        times = all_rows.time[all_rows.events > 0]
        events, at_risk = np.zeros((len(names), len(times))), np.zeros((len(names), len(times)))
        for name, rows in stratum.items():
            events[names.index(name)], at_risk[names.index(name)] = rows.at(times)
        d, n = events.sum(axis=0), at_risk.sum(axis=0)
        share = at_risk / n
        observed += events.sum(axis=1)
        expected += (share * d).sum(axis=1)
        weight = np.divide(d * (n - d), n - 1, out=np.zeros_like(d), where=n > 1)
        variance += np.diag((share * weight).sum(axis=1)) - (share * weight) @ share.T
    difference = observed - expected
    freedom = int(np.linalg.matrix_rank(variance)) if len(names) > 1 else 0
    if not freedom:
        return None
    chi2 = float(difference @ np.linalg.pinv(variance) @ difference)
    return {
        "chi2": chi2,
        "freedom": freedom,
        "p": chi_square_p(chi2, freedom),
        "observed": dict(zip(names, observed.tolist(), strict=True)),
        "expected": dict(zip(names, expected.tolist(), strict=True)),
    }
