"""Small formulas of the metrics, row by row or number by number, and where they begin and end to hold."""

from __future__ import annotations

from fractions import Fraction
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from v6_algorithm.learning.metrics.additive import from_sums
from v6_algorithm.learning.metrics.intervals.proportions import Z, mean_of_shares, wilson
from v6_algorithm.learning.metrics.intervals.ranking import _LEAST_SURVIVAL_EVENTS, c_index_interval
from v6_algorithm.learning.metrics.intervals.repeats import corrected_over_folds, on_scale, over_repeats
from v6_algorithm.learning.metrics.intervals.sums import brier_interval, mae_interval, r2_interval
from v6_algorithm.learning.metrics.regression import RegressionMetrics
from v6_algorithm.learning.metrics.survival import BaselineSums
from v6_algorithm.site.guard.coarse_survival import _coarse_squares

# -- intervals -----------------------------------------------------------------------------------------------------


def logit_interval(value, error):
    middle, half = log(value / (1 - value)), Z * error / (value * (1 - value))
    return 1 / (1 + exp(half - middle)), 1 / (1 + exp(-half - middle))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=20, max_size=30),
    st.sampled_from([0.0, 0.3, 0.8, 1.0]),
)
@settings(max_examples=30)
def test_the_variance_of_a_c_index_is_that_of_each_rows_part(drawn, c_index):
    events, censored = np.zeros((2, 4, 4), dtype=np.int64)
    for time, score, dead in drawn:
        (events if dead else censored)[time, score] += 1
    interval = c_index_interval(c_index, events, censored, 0.0)
    comparable, squares = 0, 0.0
    for time, score, dead in drawn:
        part = 0.0
        for when, where, died in drawn:
            if dead and when > time:
                part += (score > where) + (score == where) / 2 - c_index
                comparable += 1
            if died and when < time:
                part += (where > score) + (score == where) / 2 - c_index
        squares += part**2
    if int(events.sum()) < _LEAST_SURVIVAL_EVENTS or not comparable:
        assert interval is None
        return
    number = int(events.sum())
    inside = min(max(c_index, 0.5 / number), 1 - 0.5 / number)
    error = sqrt(squares) / comparable
    if c_index in (0, 1):
        error = max(error, sqrt(inside * (1 - inside) / number))
    low, high = logit_interval(inside, error)
    assert interval == pytest.approx((min(low, c_index), max(high, c_index)), abs=1e-9)


def test_a_c_index_has_an_interval_from_so_many_events_on():
    counts = np.zeros((2, 2), dtype=np.int64)
    counts[0, 1], counts[1, 0] = _LEAST_SURVIVAL_EVENTS - 2, 2
    assert c_index_interval(0.9, counts, counts, 0.0) is not None
    counts[1, 0] = 1
    assert c_index_interval(0.9, counts, counts, 0.0) is None


@pytest.mark.parametrize("c_index", [0.0, 1.0])
def test_a_perfect_c_index_is_no_surer_than_a_share_of_its_events(c_index):
    events, censored = np.zeros((2, 2, 2), dtype=np.int64)
    events[0, int(c_index)], censored[1, 1 - int(c_index)] = 20, 10
    low, high = c_index_interval(c_index, events, censored, 0.0)
    inside = 0.025 if c_index == 0 else 0.975
    wanted = logit_interval(inside, sqrt(inside * (1 - inside) / 20))
    assert (low, high) == pytest.approx((0.0, wanted[1]) if c_index == 0 else (wanted[0], 1.0))


@pytest.mark.parametrize(("r2", "rows", "there"), [(0.4, 30, 1), (0.4, 29, 0), (0.0, 99, 0), (1.0, 99, 0), (-1, 99, 0)])
def test_r2_has_an_interval_of_thirty_rows_and_inside_its_scale(r2, rows, there):
    interval = r2_interval(r2, rows)
    assert (interval is not None) == there
    if interval:
        half = Z * 2 * sqrt(r2 / rows)
        assert interval == pytest.approx((1 - 0.6 * exp(half), 1 - 0.6 * exp(-half)))


def test_a_mean_absolute_error_has_an_interval_of_twelve_rows():
    half = Z * sqrt((5 - 4) / 12) / 2
    assert mae_interval(2.0, 5.0, 12) == pytest.approx((2 * exp(-half), 2 * exp(half)))
    assert mae_interval(2.0, 5.0, 11) is None
    assert mae_interval(0.0, 0.0, 12) is None
    # Rounding leaves a square below the mean's.
    assert mae_interval(2.0, 3.9, 12) == pytest.approx((2.0, 2.0))


def test_a_brier_score_has_the_spread_of_its_rows_at_the_middle_of_their_bins():
    positives, negatives, middle = np.array([2, 9]), np.array([8, 4]), np.array([0.25, 0.75])
    squares = np.array([0.75**2] * 2 + [0.25**2] * 9 + [0.25**2] * 8 + [0.75**2] * 4)
    half = Z * sqrt(squares.var() / 23) / 0.2
    wanted = 0.2 * exp(-half), 0.2 * exp(half)
    assert brier_interval(0.2, positives, negatives, middle) == pytest.approx(wanted)
    assert brier_interval(0.99, positives, negatives, middle)[1] <= 1


def test_an_interval_over_repeats_adds_the_chance_of_the_splits():
    rows = [
        {"n": 10, "r2": 0.5, "r2_low": 0.3, "r2_high": 0.6, "loss": 2.0},
        {"n": 12, "r2": 0.7, "r2_low": 0.6, "r2_high": 0.75, "loss": None},
    ]
    found = over_repeats(rows)
    assert (found["n"], found["r2"], found["loss"]) == (12, pytest.approx(0.6), 2.0)
    splits = Z**2 * 0.02 / 2
    assert found["r2_low"] == pytest.approx(0.6 - sqrt((0.2**2 + 0.1**2) / 2 + splits))
    assert found["r2_high"] == pytest.approx(0.6 + sqrt((0.1**2 + 0.05**2) / 2 + splits))
    assert over_repeats(rows[:1]) == rows[0]
    for name in ("r2", "r2_low"):
        lacking = over_repeats([rows[0], rows[1] | {name: None}])
        assert (lacking["r2_low"], lacking["r2_high"]) == (None, None)
    assert over_repeats([{"n": None, "auroc": None}, {"auroc": 0.5}]) == {"n": 0, "auroc": 0.5}


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        ("r2", (-0.5, 1.0)),
        ("task.auroc", (0.0, 1.0)),
        ("sensitivity_at_90", (0.0, 1.0)),
        *((name, (0.0, 1.5)) for name in ("mse", "task.mae", "huber", "fid")),
        ("loss", (-0.5, 1.5)),
        ("kid", (-0.5, 1.5)),
    ],
)
def test_an_interval_is_cut_to_the_scale_of_its_metric(metric, wanted):
    assert on_scale(metric, (-0.5, 1.5)) == wanted


def test_folds_that_share_rows_have_nadeau_and_bengios_variance():
    values = [0.5, 0.7, 0.9]
    reach = 4.302652729911275 * sqrt((1 / 3 + 20 / 40) * 0.04)
    assert corrected_over_folds(values, 20, 40) == pytest.approx((0.7 - reach, 0.7 + reach))
    assert corrected_over_folds(values[:2], 20, 40) is None
    assert corrected_over_folds(values, 20, 0) is None
    assert corrected_over_folds(values, 20, 1) is not None


# -- states --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [3, -3, 0])
def test_what_rounding_leaves_of_a_constant_target_is_no_spread(mean):
    limit = Fraction(1 + abs(mean), 2**80)

    def spread(left):
        sums = {"kind": "regression", "n": 4, "target_sum": Fraction(4 * mean), "target_squares": 4 * mean**2 + left}
        found = from_sums(sums)
        assert found["target_mean"] == mean
        return found["target_m2"]

    assert spread(limit) == 0
    assert spread(-limit) == 0
    assert spread(limit * 2) == limit * 2
    assert from_sums({"kind": "regression", "n": 0, "target_sum": 0, "target_squares": 0})["target_mean"] == 0


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9), st.booleans(), st.sampled_from([-1.0, 0.0, 2.0, 300.0, np.nan]), st.integers(0, 8)
        ),
        min_size=1, max_size=15,
    ),
    st.integers(0, 4), st.booleans(),
)  # fmt: skip
@settings(max_examples=50)
def test_events_and_weighted_time_of_a_baseline_are_those_of_each_row(drawn, least, late):
    times, found = [2.0, 5.0, 7.0], BaselineSums([2.0, 5.0, 7.0], least)
    rows = [(t, dead, score, min(entry, t - 0.5) if late else 0.0) for t, dead, score, entry in drawn]
    target = np.array([(t, dead, entry) for t, dead, _, entry in rows])[:, : 3 if late else 2]
    found.update(np.array([[score] for *_, score, _ in rows]), target, np.zeros(len(rows)))
    events, risk = [], []
    for start, end in zip([0.0, *times[:-1]], times, strict=True):
        known = [row for row in rows if np.isfinite(row[2])]
        reached = [row for row in known if row[0] > start and row[3] < end]
        enough = len(reached) >= max(least, 1)
        events.append(sum(start < t <= end and dead for t, dead, *_ in known) if enough else 0)
        weighted = sum(
            exp(min(score, 100.0)) * max(min(t, end) - max(entry, start), 0.0) for t, _, score, entry in reached
        )
        risk.append(weighted if enough else 0.0)
    assert found.state()["events"] == events
    assert found.state()["risk"] == pytest.approx(risk)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 1024)), min_size=1, max_size=20),
    st.integers(1, 6),
)
@example([(3, False, 1000)] * 3, 3)
@example([(3, False, 1000)] * 3 + [(1, True, 10)] * 4, 3)
@settings(max_examples=60)
def test_squares_of_few_rows_are_the_mean_of_more_or_a_quarter(drawn, smallest):
    """Three horizons: of rows that leave in each interval with an event, and of those that are there at its end."""
    leaving, early, late = np.zeros((2, 4), dtype=int), np.zeros((3, 3), dtype=int), np.zeros(3, dtype=int)
    for interval, dead, square in drawn:
        leaving[0 if dead else 1, interval] += 1
        late[:interval] += square
        if dead and interval < 3:
            early[interval, interval:] += square
    told = {"leaving": leaving.tolist(), "early": early.tolist(), "late": late.tolist()}
    found = _coarse_squares(told, smallest)
    ratio = 256.0
    for horizon in range(3):
        before = leaving[0, : horizon + 1]
        mean = early[: horizon + 1, horizon].sum() / before.sum() if before.sum() >= smallest else 256.0
        for interval in range(3):
            wanted = early[interval, horizon]
            if interval <= horizon and before[interval] < smallest:
                wanted = np.rint(before[interval] * mean)
            assert found["early"][interval][horizon] == wanted
        there = sum(interval > horizon for interval, *_ in drawn)
        if there >= smallest:
            ratio, wanted = late[horizon] / there, late[horizon]
        else:
            wanted = round(there * ratio)
        assert found["late"][horizon] == wanted


def test_a_mean_of_shares_has_the_squares_of_its_parts():
    parts = [wilson(8, 10), wilson(3, 12)]
    below = sqrt((0.8 - parts[0][0]) ** 2 + (0.25 - parts[1][0]) ** 2) / 2
    above = sqrt((parts[0][1] - 0.8) ** 2 + (parts[1][1] - 0.25) ** 2) / 2
    assert mean_of_shares([8, 3], [10, 12]) == pytest.approx((0.525 - below, 0.525 + above))
    assert mean_of_shares([10, 12], [10, 12])[1] == 1.0
    assert mean_of_shares([0, 0], [10, 12])[0] == 0.0


@pytest.mark.parametrize("shapes", [((2,), (3,), (2,)), ((2, 1), (2, 1), (2, 1)), ((2,), (2,), (3,)), ((), (), ())])
def test_predictions_targets_and_losses_have_one_shape(shapes):
    with pytest.raises(ValueError, match="must have one shape"):
        RegressionMetrics().update(*map(np.zeros, shapes))
