"""Recalibration's coefficients against a fit of the rows, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from v6_algorithm.learning.metrics.recalibration import _apart, recalibrate


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("touch", [0, 3])
def test_classes_that_are_apart_have_no_fit(flip, touch):
    """Also where they share one score: no slope is the best."""
    positives = np.array([0, 0, touch, 4, 9])
    negatives = np.array([5, 7, 2, 0, 0])
    pair = (negatives, positives) if flip else (positives, negatives)
    assert recalibrate(*pair, np.array([-2.0, -1.0, 0.0, 1.0, 2.0])) is None


def test_a_fit_is_that_of_the_rows():
    logits = np.linspace(-3, 3, 7)
    positives, negatives = np.array([1, 2, 4, 7, 9, 9, 12]), np.array([12, 9, 9, 6, 4, 3, 1])
    found = recalibrate(positives, negatives, logits)
    x = np.repeat(np.concatenate([logits, logits]), np.concatenate([positives, negatives]))
    y = np.repeat([1, 0], [positives.sum(), negatives.sum()])
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], y)
    assert (found["intercept"], found["slope"]) == pytest.approx((fit.intercept_[0], fit.coef_[0, 0]), abs=1e-5)
    # In the large: the mean predicted probability, shifted, is the share of the positives.
    shifted = 1 / (1 + np.exp(-(x + found["in_the_large"])))
    assert shifted.mean() == pytest.approx(y.mean(), abs=1e-9)


def test_two_scores_are_enough_for_a_line():
    found = recalibrate(np.array([1, 3]), np.array([3, 1]), np.array([-1.0, 1.0]))
    assert (found["intercept"], found["slope"]) == pytest.approx((0, np.log(3)), abs=1e-9)
    assert recalibrate(np.array([2, 0]), np.array([3, 0]), np.array([-1.0, 1.0])) is None
    assert recalibrate(np.array([2, 1]), np.array([0, 0]), np.array([-1.0, 1.0])) is None


@pytest.mark.parametrize(
    ("positives", "negatives", "apart"),
    [
        ([0, 1, 2], [3, 0, 0], True), ([3, 0, 0], [0, 1, 2], True), ([0, 1, 2], [3, 1, 0], True),
        ([1, 1, 0], [0, 2, 3], True), ([1, 0, 2], [0, 3, 0], False), ([0, 3, 0], [1, 0, 2], False),
        ([1, 1, 1], [1, 1, 1], False), ([0, 5, 0], [0, 2, 0], True),
    ],
)  # fmt: skip
def test_classes_are_apart_where_a_score_parts_them(positives, negatives, apart):
    ones = np.array(positives, dtype=float)
    assert _apart(np.array([-1.0, 0.0, 1.0]), ones, ones + negatives) is apart
