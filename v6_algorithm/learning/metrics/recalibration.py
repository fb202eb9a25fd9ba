"""Logistic recalibration of a tested model: intercept and slope, from the two histograms that the AUROC comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STEPS = 50


def recalibrate(
    positives: Sequence[int] | np.ndarray, negatives: Sequence[int] | np.ndarray, logits: np.ndarray
) -> dict[str, float] | None:
    """Fit logit P(y = 1) = intercept + slope * logit p by maximum likelihood over the bins' middles.

    Slope 1 and intercept 0 is a calibrated model; with a slope below 1 its risks are too extreme, as by overfitting.
    `in_the_large` is the intercept at slope 1: the difference between the mean outcome and the mean risk, in logits.

    Parameters
    ----------
    positives, negatives : sequence of int, shape (bins,)
        Rows of each class by score.
    logits : ndarray of float64, shape (bins,)
        Logit of the middle of each bin.

    Returns
    -------
    dict or None
        `intercept`, `slope`, `intercept_se`, `slope_se`, `in_the_large`, `in_the_large_se`; None where there is no
        maximum: a class is missing, all scores are in one bin, or the classes are apart.

    References
    ----------
    Cox (1958), Two further applications of a model for binary regression, Biometrika 45; Van Calster et al. (2016), A
    calibration hierarchy for risk models was defined, Journal of Clinical Epidemiology 74.
    """
    ones, zeros = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    rows = ones + zeros
    there = rows > 0
    x, ones, rows = np.asarray(logits, dtype=np.float64)[there], ones[there], rows[there]
    if len(x) < 2 or not ones.sum() or ones.sum() == rows.sum() or _apart(x, ones, rows):
        return None
    both = _fit(np.column_stack([np.ones_like(x), x]), np.zeros_like(x), ones, rows)
    large = _fit(np.ones((len(x), 1)), x, ones, rows)
    if both is None or large is None:
        return None
    (beta, errors), (shift, error) = both, large
    return {
        "intercept": float(beta[0]),
        "slope": float(beta[1]),
        "intercept_se": float(errors[0]),
        "slope_se": float(errors[1]),
        "in_the_large": float(shift[0]),
        "in_the_large_se": float(error[0]),
    }


def _apart(x: np.ndarray, ones: np.ndarray, rows: np.ndarray) -> bool:
    """Say whether a score parts the classes, so that the likelihood has no maximum."""
    of_one, of_zero = x[ones > 0], x[rows - ones > 0]
    return bool(of_one.min() >= of_zero.max() or of_zero.min() >= of_one.max())


def _fit(
    design: np.ndarray, offset: np.ndarray, ones: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return coefficients and standard errors by Newton's method, halving steps that make it worse."""
    beta = np.zeros(design.shape[1])

    def likelihood(values: np.ndarray) -> float:
        linear = design @ values + offset
        return float(ones @ linear - rows @ np.logaddexp(0, linear))

    best = likelihood(beta)
    for _ in range(_STEPS):
        risk = np.exp(-np.logaddexp(0, -(design @ beta + offset)))
        information = (design * (rows * risk * (1 - risk))[:, None]).T @ design
        try:
            step = np.linalg.solve(information, design.T @ (ones - rows * risk))
        except np.linalg.LinAlgError:
            return None
        while (value := likelihood(beta + step)) < best - 1e-12 and np.abs(step).max() > 1e-12:
            step /= 2
        beta, best = beta + step, value
        if np.abs(step).max() < 1e-10:
            return beta, np.sqrt(np.diag(np.linalg.inv(information)))
    return None
