"""Kaplan-Meier and cumulative incidence curves and log-rank tests from counts by time, which add up over sites;
`describe` calls it.

References
----------
Kaplan and Meier (1958), JASA 53(282), 457-481; Greenwood (1926), the variance; Kalbfleisch and Prentice (2002), The
Statistical Analysis of Failure Time Data, 2nd ed., section 1.4 (intervals on the log(-log) scale) and 1.5 (log-rank);
Brookmeyer and Crowley (1982), Biometrics 38(1) (the interval of the median); Karrison (1987), Biometrics 43(4) (the
restricted mean); Aalen and Johansen (1978), Scandinavian Journal of Statistics 5(3), and Collett (2015), Modelling
Survival Data in Medical Research, 3rd ed., section 12.3 (cumulative incidence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.distributions import chi_square_p, normal_p
from v6_algorithm.learning.metrics.intervals.proportions import Z

Array = np.ndarray


def _none() -> Array:
    return np.empty(0)


@dataclass(frozen=True)
class Leaving:
    """Rows that leave and join by time.

    Attributes
    ----------
    time
        (times,) increasing times at which rows leave.
    events, leaving
        (times,) rows with the event then, and all rows that leave then.
    competing
        (times, causes) rows that leave with an event of another cause.
    entry_time, entering
        (entries,) increasing times after which rows join, and how many do; empty: all are there from the start.
    """

    time: Array
    events: Array
    leaving: Array
    competing: Array = field(default_factory=lambda: np.empty((0, 0)))
    entry_time: Array = field(default_factory=_none)
    entering: Array = field(default_factory=_none)

    @property
    def at_risk(self) -> Array:
        """(times,) rows observed just before each time."""
        return self._at_risk_at(self.time)

    def _at_risk_at(self, times: Array) -> Array:
        """Return the rows at risk at any times: those that leave then or later, less those that join then or later."""
        left = np.concatenate([[0.0], np.cumsum(self.leaving)])
        later = left[-1] - left[np.searchsorted(self.time, times, side="left")]
        if not len(self.entry_time):
            return np.asarray(later)
        joined = np.concatenate([[0.0], np.cumsum(self.entering)])
        return np.asarray(later - (joined[-1] - joined[np.searchsorted(self.entry_time, times, side="left")]))

    def at(self, times: Array) -> tuple[Array, Array]:
        """Return events and rows at risk at other times, which hold all of its own events."""
        place = np.searchsorted(times, self.time)
        events = np.zeros(len(times))
        with_event = self.events > 0
        np.add.at(events, place[with_event], self.events[with_event])
        return events, self._at_risk_at(times)

    @classmethod
    def together(cls, parts: Sequence[Leaving]) -> Leaving:
        """Add up the counts of several sites or groups."""
        times, place = np.unique(np.concatenate([part.time for part in parts]), return_inverse=True)
        causes = max(part.competing.shape[1] for part in parts)
        competing = np.zeros((len(times), causes))
        if causes:
            np.add.at(competing, place, np.concatenate([part.competing for part in parts]))
        joins, joined = np.unique(np.concatenate([part.entry_time for part in parts]), return_inverse=True)
        return cls(
            times,
            np.bincount(place, np.concatenate([part.events for part in parts]), len(times)),
            np.bincount(place, np.concatenate([part.leaving for part in parts]), len(times)),
            competing,
            joins,
            np.bincount(joined, np.concatenate([part.entering for part in parts]), len(joins)),
        )


def kaplan_meier(rows: Leaving, horizon: float) -> dict[str, Any]:
    """Return a curve with its interval, the median, and the mean time up to a horizon.

    Returns
    -------
    dict
        `rows`, `events`; `time`, `at_risk`, `died`, `censored`, `survival`, `standard_error` (Greenwood), `low`, `high`
        (95 %, log(-log)) by time; `median` with its interval, None where the curve stays above one half; `horizon`,
        `restricted_mean` and its `restricted_mean_se`; `entry_time` and `entering`, empty where none joins late.
    """
    at_risk, died = rows.at_risk, rows.events
    survival = np.cumprod(1 - died / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(np.where(died > 0, died / (at_risk * (at_risk - died)), 0.0))
        error = np.where(survival > 0, survival * np.sqrt(greenwood), 0.0)
        log = np.log(survival)
        width = Z * np.sqrt(greenwood) / log
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
        "entry_time": rows.entry_time.tolist(),
        "entering": _whole(rows.entering),
    }


def cumulative_incidence(rows: Leaving) -> list[dict[str, list[float]]]:
    """Return the chance to have had an event of each cause by time, where the others stop the watch for good.

    The estimate of Aalen and Johansen: of each time's events the share of those still without any event before it. Its
    variance is the delta method's (Collett, section 12.3), intervals are on the log(-log) scale, as lifelines has them.

    Returns
    -------
    list of dict
        Of the event, then of each competing cause: `incidence`, `standard_error`, `low`, `high` (95 %) by time, and
        `events`, how many there were.
    """
    at_risk = rows.at_risk
    by_cause = np.column_stack([rows.events, rows.competing])
    died = by_cause.sum(axis=1)
    before = np.concatenate([[1.0], np.cumprod(1 - died / at_risk)[:-1]])
    left = at_risk - died
    # Where all leave, the curve ends there and the term is 0 times infinity.
    hazard = np.divide(died, at_risk * left, out=np.zeros(len(died)), where=left > 0)
    curves = []
    for cause in by_cause.T:
        curve = np.cumsum(before * cause / at_risk)
        of_cause = before * cause / at_risk**2
        variance = (
            curve**2 * np.cumsum(hazard) - 2 * curve * np.cumsum(hazard * curve) + np.cumsum(hazard * curve**2)
            + np.cumsum(before**2 * cause * (at_risk - cause) / at_risk**3)
            - 2 * (curve * np.cumsum(of_cause) - np.cumsum(of_cause * curve))
        )  # fmt: skip
        error = np.sqrt(np.maximum(variance, 0.0))
        inside = (curve > 0) & (curve < 1)
        log = np.log(np.where(inside, curve, 0.5))
        width = Z * error / (np.where(inside, curve, 1.0) * log)
        curves.append(
            {
                "incidence": curve.tolist(),
                "standard_error": error.tolist(),
                "low": np.where(inside, np.exp(log * np.exp(-width)), curve).tolist(),
                "high": np.where(inside, np.exp(log * np.exp(width)), curve).tolist(),
                "events": round(float(cause.sum())),
            }
        )
    return curves


def mean_differences(groups: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare restricted means: of each group its `difference` to the first, `low`, `high`, `standard_error`, `p`."""
    names = list(groups)
    first, compared = groups[names[0]] if names else {}, []
    for name in names[1:]:
        error = float(np.hypot(first["restricted_mean_se"], groups[name]["restricted_mean_se"]))
        if error > 0:
            difference = groups[name]["restricted_mean"] - first["restricted_mean"]
            compared.append(
                {
                    "group": name,
                    "reference": names[0],
                    "difference": difference,
                    "standard_error": error,
                    "low": difference - Z * error,
                    "high": difference + Z * error,
                    "p": normal_p(difference / error),
                }
            )
    return compared


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
