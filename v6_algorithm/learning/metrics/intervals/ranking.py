"""Intervals of AUROC, AUPRC and the C-index, with what binning may have moved folded in."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.intervals.proportions import LEAST_EVENTS, Interval, Z

# Fewest comparable pairs' worth of events for the C-index, whose rows are watched for unequal times.
_LEAST_SURVIVAL_EVENTS = 10


def auroc_interval(
    area: float, error: float | None, positives: int, negatives: int, resolution: float
) -> Interval | None:
    """Interval of an AUROC: logit of DeLong's, or Newcombe's where that would collapse.

    On the logit scale the ends stay within 0 and 1 [1]_. DeLong's error goes to 0 with perfect separation, though few
    rows prove little; then, and wherever it is the wider one, the score-type interval on Hanley and McNeil's variance
    ("method 5", [2]_) is taken, whose variance is that of the end and not of the estimate.

    Parameters
    ----------
    area : float
        In [0, 1].
    error : float or None
        Its standard error; see `histogram.auroc_error`.
    positives, negatives : int
        Rows.
    resolution : float
        How far the exact value may be from `area`; see `histogram.auroc_resolution`.

    References
    ----------
    .. [1] Pepe (2003), The Statistical Evaluation of Medical Tests for Classification and Prediction, section 5.2.5.
    .. [2] Newcombe (2006), Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part
       2, Statistics in Medicine 25(4), 559-573.
    """
    if min(positives, negatives) < LEAST_EVENTS:
        return None
    low, high = _score_type(area, positives, negatives)
    if error and 0 < area < 1:
        by_logit = _logit(area, error)
        low, high = min(low, by_logit[0]), max(high, by_logit[1])
    return max(low - resolution, 0.0), min(high + resolution, 1.0)


def auprc_interval(precision: float, positives: int, negatives: int, resolution: float) -> Interval | None:
    """Logit interval of an average precision with the error of a share of the positives [1]_, which is conservative.

    References
    ----------
    .. [1] Boyd, Eng and Page (2013), Area under the precision-recall curve: point estimates and confidence intervals,
       ECML PKDD, 451-466.
    """
    if min(positives, negatives) < LEAST_EVENTS:
        return None
    # At 1 the error is 0: taken half a row away from the edge.
    inside = min(max(precision, 0.5 / positives), 1 - 0.5 / positives)
    low, high = _logit(inside, sqrt(inside * (1 - inside) / positives))
    return max(min(low, precision) - resolution, 0.0), min(max(high, precision) + resolution, 1.0)


def c_index_interval(
    c_index: float, events: NDArray[np.int64], censored: NDArray[np.int64], resolution: float
) -> Interval | None:
    """Logit interval of a C-index, by the variance of its pairs' projection on rows, from counts in bins.

    C is a ratio of two sums over pairs: to first order its error is the sum over pairs of (concordant - C comparable)
    over the comparable ones, a U-statistic whose variance is the sum over rows of the square of what a row has part in
    [1]_. Pairs within one bin of time are left out of the variance; rows of a cell count alike.

    Parameters
    ----------
    c_index : float
        In [0, 1].
    events, censored : ndarray of int64, shape (times, scores)
        Rows with and without the event by bin, earliest and lowest first.
    resolution : float
        How far the exact value may be from `c_index`.

    References
    ----------
    .. [1] Pencina and D'Agostino (2004), Overall C as a measure of discrimination in survival analysis, Statistics in
       Medicine 23(13), 2109-2123.
    """
    total_events = int(events.sum())
    if total_events < _LEAST_SURVIVAL_EVENTS:
        return None
    happened, rows = events.astype(np.float64), (events + censored).astype(np.float64)
    later = rows.sum(axis=0) - np.cumsum(rows, axis=0)
    earlier = np.cumsum(happened, axis=0) - happened
    # Of a row with the event: those later, with a lower score. Of every row: earlier events, with a higher score.
    as_first = np.cumsum(later, axis=1) - later / 2 - c_index * later.sum(axis=1, keepdims=True)
    above = earlier.sum(axis=1, keepdims=True) - np.cumsum(earlier, axis=1) + earlier / 2
    as_second = above - c_index * earlier.sum(axis=1, keepdims=True)
    comparable = float((happened.sum(axis=1) * later.sum(axis=1)).sum())
    if not comparable:
        return None
    squares = happened * (as_first + as_second) ** 2 + (rows - happened) * as_second**2
    error = sqrt(float(squares.sum())) / comparable
    # A perfect ranking has an error of 0: no less than that of a share of the events, half an event from the edge.
    inside = min(max(c_index, 0.5 / total_events), 1 - 0.5 / total_events)
    if not 0 < c_index < 1:
        error = max(error, sqrt(inside * (1 - inside) / total_events))
    low, high = _logit(inside, error)
    return max(min(low, c_index) - resolution, 0.0), min(max(high, c_index) + resolution, 1.0)


def _logit(value: float, error: float) -> Interval:
    """Normal interval on the logit scale, where the error is that of the value over value (1 - value)."""
    middle, half = log(value / (1 - value)), Z * error / (value * (1 - value))
    return _expit(middle - half), _expit(middle + half)


def _expit(logit: float) -> float:
    # Of a large negative number the exponential of its opposite overflows.
    return 1 / (1 + exp(-logit)) if logit > 0 else exp(logit) / (1 + exp(logit))


def _score_type(area: float, positives: int, negatives: int) -> Interval:
    extra = (positives + negatives) / 2 - 1

    def error(at: float) -> float:
        spread = at * (1 - at) * (1 + extra * ((1 - at) / (2 - at) + at / (1 + at)))
        return Z * sqrt(spread / (positives * negatives))

    low = 0.0 if area == 0 else _root(lambda at: at + error(at) - area, 0.0, area)
    high = 1.0 if area == 1 else _root(lambda at: at - error(at) - area, area, 1.0)
    return low, high


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that begins below 0 and ends above comes to 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
