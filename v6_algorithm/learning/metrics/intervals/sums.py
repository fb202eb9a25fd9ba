"""Intervals of means over rows, Brier score and MAE, of R2, and of the difference between two groups."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.intervals.proportions import Interval, Z

# Below these a mean of skewed values is not near normal, not even its logarithm: found by benchmarks/coverage.py.
_LEAST_MEAN_ROWS = 12
_LEAST_BRIER_EVENTS = 10
_LEAST_R2_ROWS = 30
# Of an exponent: exp(700) is still a number.
_MOST = 700.0


def brier_interval(
    brier: float, positives: NDArray[np.int64], negatives: NDArray[np.int64], middle: NDArray[np.float64]
) -> Interval | None:
    """Interval of a Brier score with two classes, on the log scale.

    The spread of the rows' squared errors is taken from the score histograms, each row at the middle of its bin: that
    moves the interval's width, by less than the width of a bin, and not its middle.

    Parameters
    ----------
    brier : float
        Mean of (p - y)^2.
    positives, negatives : ndarray of int64, shape (bins,)
        Rows by bin of p.
    middle : ndarray of float64, shape (bins,)
        Probability in the middle of each bin.
    """
    if min(positives.sum(), negatives.sum()) < _LEAST_BRIER_EVENTS:
        return None
    rows = float(positives.sum() + negatives.sum())
    squares, fourths = (float(positives @ (1 - middle) ** power + negatives @ middle**power) / rows for power in (2, 4))
    interval = _mean(brier, max(fourths - squares**2, 0.0), rows)
    return None if interval is None else (interval[0], min(interval[1], 1.0))


def mae_interval(mae: float, mse: float, rows: int) -> Interval | None:
    """Interval of a mean absolute error, on the log scale: the spread of absolute errors is mse - mae^2, exactly."""
    return _mean(mae, max(mse - mae**2, 0.0), rows)


def r2_interval(r2: float, rows: int) -> Interval | None:
    """Interval of R2 above 0, on the scale of log(1 - R2), where errors and predictions are normal and independent.

    There its error is 2 sqrt(R2 / n), which is Olkin and Finn's [1]_ on the untransformed scale.

    References
    ----------
    .. [1] Olkin and Finn (1995), Correlations redux, Psychological Bulletin 118(1), 155-164.
    """
    if rows < _LEAST_R2_ROWS or not 0 < r2 < 1:
        return None
    half = Z * 2 * sqrt(r2 / rows)
    return 1 - (1 - r2) * exp(half), 1 - (1 - r2) * exp(-half)


def difference(greater: float, its: tuple[float, float], smaller: float, other: tuple[float, float]) -> Interval:
    """Interval of the difference of two independent values from their own intervals (Zou and Donner, 2008)."""
    apart = greater - smaller
    low = apart - sqrt((greater - its[0]) ** 2 + (other[1] - smaller) ** 2)
    high = apart + sqrt((its[1] - greater) ** 2 + (smaller - other[0]) ** 2)
    return low, high


def _mean(mean: float, variance: float, rows: float) -> Interval | None:
    """Interval of a positive mean: normal on the log scale, so that it never reaches below 0."""
    if rows < _LEAST_MEAN_ROWS or mean <= 0:
        return None
    half = Z * sqrt(variance / rows) / mean
    # A node that joins bins tells of a variance that its mean knows nothing of, and the quotient overflows.
    return exp(max(log(mean) - half, -_MOST)), exp(min(log(mean) + half, _MOST))
