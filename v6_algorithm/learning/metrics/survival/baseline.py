"""The baseline hazard of a Cox model, from sums over the training rows of all sites: what turns its scores into
survival curves.

A site collects `BaselineSums` once training is over; the master checks them and adds them up (`cumulative`), and the
next request brings the hazard back, so that survival can be measured at every site.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics.checks import require_counts, require_keys, require_number

# Scores beyond count as at the edge: their exponentials, summed over rows and times, stay far from overflow.
_LARGEST_SCORE = 100.0


class BaselineSums:
    """Collect events, and the time that rows were watched weighted with their hazards, by interval of time.

    Within an interval the baseline hazard is taken to be constant: then its most likely value is the events in it over
    the sum of exp(score) x time watched in it [1]_. Breslow's estimate [2]_ is the same with an interval for each event
    time, which would tell each of those times and the scores behind them.

    Parameters
    ----------
    times : sequence of float
        Ends of the intervals, increasing; the first begins at 0.
    least : int
        An interval that fewer rows than this reach is left out, its events too: its sums would be about those rows.

    References
    ----------
    .. [1] Holford (1980), The analysis of rates and of survivorship using log-linear models, Biometrics 36(2), 299-305.
    .. [2] Breslow (1974), Covariance analysis of censored survival data, Biometrics 30(1), 89-99.
    """

    def __init__(self, times: Sequence[float], least: int = 1) -> None:
        self._times = np.asarray(times, dtype=np.float64)
        self._least = max(least, 1)
        self._reached = np.zeros(len(times), dtype=np.int64)
        self._events = np.zeros(len(times), dtype=np.int64)
        self._risk = np.zeros(len(times))

    def update(self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike) -> None:
        """Add a batch of rows, those with a finite score.

        Parameters
        ----------
        prediction : array of float, shape (n, 1 or more)
            Log-risk in the first column.
        target : array of float, shape (n, 2)
            Time, and 1 if the event was seen or 0 if not; a third column has the time from which a row was watched.
        loss : array of float, shape (n,)
            Not used.
        """
        score = np.asarray(prediction, dtype=np.float64)[:, 0]
        targets = np.asarray(target, dtype=np.float64)[np.isfinite(score)].T
        time, event = targets[:2]
        entry = targets[2] if len(targets) > 2 else np.zeros(len(time))
        weight = np.exp(np.clip(score[np.isfinite(score)], -_LARGEST_SCORE, _LARGEST_SCORE))
        starts = np.concatenate([[0.0], self._times])[: len(self._times)]
        watched = np.clip(time[:, None] - starts, 0.0, self._times - starts)
        watched -= np.clip(entry[:, None] - starts, 0.0, self._times - starts)
        self._reached += ((time[:, None] > starts) & (entry[:, None] < self._times)).sum(axis=0)
        self._risk += weight @ watched
        interval = np.searchsorted(self._times, time[event == 1], side="left")
        self._events += np.bincount(interval, minlength=len(self._times) + 1)[: len(self._times)]

    def state(self) -> dict[str, Any]:
        """Return `events` and `risk` by interval, as plain JSON; 0 where too few rows reach it."""
        enough = self._reached >= self._least
        return {
            "events": np.where(enough, self._events, 0).tolist(),
            "risk": np.where(enough, self._risk, 0.0).tolist(),
        }


def check_baseline(state: Any, times: int) -> None:
    """Refuse sums that no `BaselineSums` of so many times can have produced; raises ValueError."""
    if not isinstance(state, dict):
        raise ValueError("the sums of the baseline hazard must be a dict")
    require_keys(state, frozenset(("events", "risk")))
    require_counts([state["events"]], 1, times, "events")
    if not isinstance(state["risk"], list) or len(state["risk"]) != times:
        raise ValueError(f"risk of the metric state must be a list of {times} numbers")
    for events, risk in zip(state["events"], state["risk"], strict=True):
        require_number(risk, "each entry of risk", least=0.0)
        if events and not risk:
            raise ValueError("risk of the metric state must be above 0 where there are events")


def cumulative(states: Iterable[dict[str, Any]], times: Sequence[float]) -> NDArray[np.float64]:
    """Return the cumulative baseline hazard at `times`, from the checked sums of all sites; 0 where nobody was watched.

    Survival at such a time is ``exp(-hazard * exp(score))``.
    """
    given = list(states)
    events = np.sum([np.zeros(len(times)), *(state["events"] for state in given)], axis=0)
    risk = np.sum([np.zeros(len(times)), *(state["risk"] for state in given)], axis=0)
    rate = np.divide(events, risk, out=np.zeros(len(times)), where=risk > 0)
    hazard: NDArray[np.float64] = np.cumsum(rate * np.diff(np.asarray(times), prepend=0.0))
    return hazard


def survival(hazard: ArrayLike, score: ArrayLike) -> NDArray[np.float64]:
    """Return (rows, times) chances to be without the event, from (times,) cumulative hazards and (rows,) log-risks."""
    weight = np.exp(np.clip(np.asarray(score, dtype=np.float64), -_LARGEST_SCORE, _LARGEST_SCORE))
    return np.exp(-np.outer(weight, np.asarray(hazard)))
