"""The intervals' formulas against other ways to the same number, and where an interval begins to exist."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import optimize, special, stats

from v6_algorithm.learning.metrics import SurvivalMetrics, compute
from v6_algorithm.learning.metrics.histogram import auroc_error, bin_edges, logits, middles
from v6_algorithm.learning.metrics.intervals.proportions import Z
from v6_algorithm.learning.metrics.intervals.ranking import _expit, auprc_interval, auroc_interval, c_index_interval
from v6_algorithm.learning.metrics.intervals.repeats import _student
from v6_algorithm.learning.metrics.intervals.sums import brier_interval, difference


@pytest.mark.parametrize("degrees", [2, 3, 4, 5, 7, 9, 14, 24, 99])
def test_students_quantiles_are_scipys(degrees):
    assert _student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=0.005 if degrees < 7 else 6e-5)


def test_a_difference_has_the_squares_of_its_halves():
    low, high = difference(0.9, (0.8, 0.93), 0.5, (0.4, 0.7))
    assert low == pytest.approx(0.4 - np.sqrt(0.1**2 + 0.2**2))
    assert high == pytest.approx(0.4 + np.sqrt(0.03**2 + 0.1**2))


@pytest.mark.parametrize(("area", "positives", "negatives"), [(0.8, 10, 40), (1.0, 6, 6), (0.0, 7, 30), (0.6, 200, 9)])
def test_without_an_error_the_interval_of_an_auroc_is_newcombes(area, positives, negatives):
    """Its ends are where the area is Z of the end's Hanley-McNeil errors away, with n for both in the exponents."""

    def away(end):
        extra = (positives + negatives) / 2 - 1
        spread = end * (1 - end) * (1 + extra * (1 - end) / (2 - end) + extra * end / (1 + end))
        return (area - end) ** 2 - Z**2 * spread / (positives * negatives)

    low, high = auroc_interval(area, None, positives, negatives, 0.0)
    assert low == pytest.approx(0 if area == 0 else optimize.brentq(away, 0, area - 1e-9 * area), abs=1e-6)
    assert high == pytest.approx(1 if area == 1 else optimize.brentq(away, area + 1e-9, 1), abs=1e-6)
    wider = auroc_interval(area, None, positives, negatives, 0.05)
    assert wider == pytest.approx((max(low - 0.05, 0), min(high + 0.05, 1)))


def test_two_rows_of_each_class_have_an_error_and_one_has_none():
    error = auroc_error([0, 1, 1], [1, 0, 1])
    # By hand: positives are above 1/2 and 3/4 of the negatives, negatives below 1 and 1/4 of the positives.
    assert error == pytest.approx(np.sqrt(np.var([0.5, 0.75], ddof=1) / 2 + np.var([1, 0.25], ddof=1) / 2))
    assert auroc_error([0, 1, 0], [1, 0, 1]) is None


def test_an_interval_of_a_brier_score_begins_with_ten_rows_of_either_class():
    middle = np.array([0.2, 0.7])
    assert brier_interval(0.1, np.array([3, 7]), np.array([20, 5]), middle) is not None
    assert brier_interval(0.1, np.array([3, 6]), np.array([20, 5]), middle) is None


@pytest.mark.parametrize("bins", [2, 3, 8])
def test_the_middle_of_a_bin_is_between_its_edges(bins):
    edges = [0.0, *bin_edges(bins).tolist(), 1.0]
    wanted = [(low + high) / 2 for low, high in pairwise(edges)]
    assert middles(np.arange(bins), bins).tolist() == pytest.approx(wanted)


def test_the_interval_of_a_c_index_has_the_bootstraps_width_and_its_resolution_on_both_sides():
    generator = np.random.default_rng(0)
    risk = generator.normal(size=300)
    time, leaves = generator.exponential(np.exp(-risk)), generator.exponential(2.0, 300)
    target = np.column_stack([np.minimum(time, leaves), time <= leaves]).astype(float)

    def state(rows):
        metrics = SurvivalMetrics([0.1, 0.2, 0.4, 0.7, 1.1])
        metrics.update(risk[rows, None], target[rows], np.zeros(len(rows)))
        return metrics.state()

    values = compute(state(np.arange(300)))
    drawn = [compute(state(generator.integers(0, 300, 300)))["c_index"] for _ in range(100)]
    width = values["c_index_high"] - values["c_index_low"]
    assert width == pytest.approx(2 * Z * np.std(drawn), rel=0.3)
    events, censored = generator.integers(0, 9, (2, 4, 6))
    plain, wider = (c_index_interval(0.6, events, censored, resolution) for resolution in (0.0, 0.03))
    assert wider == pytest.approx((plain[0] - 0.03, plain[1] + 0.03))


@pytest.mark.parametrize("times", [[1.0, np.nan], [2.0, 1.0], [1.0, 1.0], [np.inf]])
def test_times_that_do_not_rise_or_are_not_finite_are_no_edges_and_no_horizons(times):
    with pytest.raises(ValueError, match="edges must be increasing finite times"):
        SurvivalMetrics(times)
    with pytest.raises(ValueError, match="horizons must be increasing finite times"):
        SurvivalMetrics([1.0], times)


@pytest.mark.parametrize("logit", [-800.0, -2.0, 0.0, 3.0, 800.0])
def test_the_inverse_of_the_logit_neither_overflows_nor_turns(logit):
    assert _expit(logit) == pytest.approx(float(special.expit(logit)), abs=1e-300)


@pytest.mark.parametrize(("precision", "side"), [(1.0, 1), (0.0, 0)])
def test_an_average_precision_at_the_edge_has_an_interval_that_reaches_it(precision, side):
    ends = auprc_interval(precision, 10, 30, 0.0)
    assert ends[side] == precision
    # That of a share half a row away from the edge.
    inside = 0.05
    half = Z * np.sqrt(inside * (1 - inside) / 10) / (inside * (1 - inside))
    other = float(special.expit(special.logit(inside) + half))
    assert ends[1 - side] == pytest.approx(other if side == 0 else 1 - other)


@pytest.mark.parametrize("bins", [3, 8, 512])
def test_the_logits_of_bins_are_their_middles_the_outermost_too(bins):
    width = 24 / bins
    assert logits(np.arange(bins), bins).tolist() == pytest.approx((-12 + width * (np.arange(bins) + 0.5)).tolist())


def test_an_interval_of_an_auroc_with_an_error_is_the_wider_of_two():
    plain = auroc_interval(0.8, None, 20, 30, 0.0)
    assert auroc_interval(0.8, 1e-9, 20, 30, 0.0) == plain
    middle, half = special.logit(0.8), Z * 0.2 / 0.16
    assert auroc_interval(0.8, 0.2, 20, 30, 0.0) == pytest.approx(special.expit([middle - half, middle + half]))
    for area in (0.0, 1.0):
        assert auroc_interval(area, 0.2, 20, 30, 0.0) == auroc_interval(area, None, 20, 30, 0.0)
