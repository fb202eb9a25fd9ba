"""Regressions of outcomes on predicted risks, and observed over expected, against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from v6_algorithm.learning.metrics import SurvivalMetrics
from v6_algorithm.learning.metrics.recalibration import recalibrate
from v6_algorithm.learning.metrics.survival import calibration


def test_recalibration_of_scores_far_out_is_found_by_halved_steps():
    """At logits of 12 a first step of Newton's goes a thousand times too far."""
    sm = pytest.importorskip("statsmodels.api")
    positives, negatives, logits = np.array([3, 0, 1, 2]), np.array([1, 1, 2, 5]), np.array([-12.0, -11.0, -10.0, 11.0])
    found = recalibrate(positives, negatives, logits)
    rows = positives + negatives
    shift = brentq(lambda at: (rows * expit(logits + at)).sum() - positives.sum(), -30, 30, xtol=1e-13)
    risk = expit(logits + shift)
    assert found["in_the_large"] == pytest.approx(shift, abs=1e-8)
    assert found["in_the_large_se"] == pytest.approx(1 / np.sqrt((rows * risk * (1 - risk)).sum()), rel=1e-6)
    fit = sm.GLM(np.column_stack([positives, negatives]), sm.add_constant(logits), family=sm.families.Binomial()).fit()
    assert [found["intercept"], found["slope"]] == pytest.approx(fit.params.tolist(), abs=1e-7)
    assert [found["intercept_se"], found["slope_se"]] == pytest.approx(fit.bse.tolist(), rel=1e-6)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_slope_and_intercept_over_time_are_those_of_a_poisson_regression_of_the_cells(place):
    """Rows leave in the middle of their bin's hazard; of a bin without hazard nothing is learned."""
    sm = pytest.importorskip("statsmodels.api")
    generator = np.random.default_rng(place)
    cells = np.column_stack([np.repeat(np.arange(4), 6), generator.integers(0, 5, 24), generator.integers(1, 6, 24)])
    score = generator.normal(size=24)
    hazard = np.array([[0.0, 0.3, 0.7], [0.2, 0.5, 0.9]])[np.arange(24) % 2]
    reached = np.column_stack([np.zeros(24), hazard])
    until, events = [], []
    for number, (time, died, _) in enumerate(cells):
        inside = time <= place
        ends = reached[number, time : time + 2] if inside else reached[number, [place + 1]]
        until.append(ends.mean())
        events.append(died if inside else 0)
    until, events = np.array(until) * (cells[:, 1] + cells[:, 2]), np.array(events, dtype=float)
    seen = until > 0
    found = calibration._regressions(cells, score, hazard, place)

    def fit(design, offset):
        family = sm.families.Poisson()
        return sm.GLM(events[seen], design[seen], family=family, offset=offset[seen]).fit(tol=1e-12, maxiter=200)

    with np.errstate(divide="ignore"):
        both = fit(sm.add_constant(score), np.log(until))
        alone = fit(np.ones((24, 1)), np.log(until) + score)
    assert [found["intercept"], found["slope"]] == pytest.approx(both.params.tolist(), abs=1e-7)
    assert [found["intercept_se"], found["slope_se"]] == pytest.approx(both.bse.tolist(), rel=1e-6)
    assert [found["in_the_large"], found["in_the_large_se"]] == pytest.approx([alone.params[0], alone.bse[0]], abs=1e-7)


def test_a_horizon_after_which_nobody_is_watched_is_not_calibrated():
    metrics = SurvivalMetrics([1.0], [1.0, 2.0, 3.0])
    target = np.array([[0.5, 1], [1.5, 0], [1.5, 1], [1.7, 0]])
    metrics.update(np.column_stack([np.zeros(4), np.full((4, 3), 0.5)]), target, np.zeros(4))
    assert [told["time"] for told in calibration.calibration_at_horizons(metrics.state())] == [1.0]


def test_observed_over_expected_has_greenwoods_error_on_the_log_scale():
    metrics = SurvivalMetrics([1.0], [1.0, 2.0])
    target = np.array([[0.5, 1]] * 3 + [[2.5, 0]] * 7)
    metrics.update(np.column_stack([np.zeros(10), np.full((10, 2), 0.75)]), target, np.zeros(10))
    error = 0.7 * np.sqrt(3 / (10 * 7))
    ends = 1.2 * np.exp(np.array([-1, 1]) * stats.norm.ppf(0.975) * error / 0.3)
    curve = calibration.calibration_at_horizons(metrics.state())
    assert len(curve) == 2
    # In the second interval nothing happens.
    for told in curve:
        assert (told["observed"], told["expected"]) == pytest.approx((0.3, 0.25))
        assert [told["o_e_low"], told["o_e_high"]] == pytest.approx(ends.tolist())
