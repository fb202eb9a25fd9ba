"""The values of the regression metrics, held against scikit-learn and the formulas."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from v6_algorithm.learning.metrics import METRIC_NAMES, RegressionMetrics, compute, explain, merge_states

ROWS = 300


def noisy_rows(*, offset=0.0, rows=ROWS):
    rng = np.random.default_rng(0)
    target = offset + rng.normal(0, 3, rows)
    return target + rng.normal(0, 1, rows), target, rng.exponential(1, rows)


def measured(prediction, target, loss=None, **options):
    collector = RegressionMetrics(**options)
    collector.update(prediction, target, np.zeros(len(prediction)) if loss is None else loss)
    return collector.state()


def test_values_equal_sklearn():
    prediction, target, loss = noisy_rows()
    values = compute(measured(prediction, target, loss))
    assert values["n"] == ROWS
    assert values["loss"] == pytest.approx(loss.mean())
    assert values["mse"] == pytest.approx(sk.mean_squared_error(target, prediction))
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(target, prediction))
    assert values["r2"] == pytest.approx(sk.r2_score(target, prediction))


@pytest.mark.parametrize("delta", [0.5, 1.0, 4.0])
def test_huber_follows_its_definition(delta):
    prediction, target, _ = noisy_rows()
    error = np.abs(prediction - target)
    expected = np.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean()
    assert compute(measured(prediction, target, huber_delta=delta))["huber"] == pytest.approx(expected)


def test_federated_r2_is_right_far_from_zero():
    prediction, target, loss = noisy_rows(offset=1e8)
    centred = sk.r2_score(target - 1e8, prediction - 1e8)
    parts = [slice(0, 7), slice(7, 150), slice(150, ROWS)]
    merged = merge_states(measured(prediction[part], target[part], loss[part]) for part in parts)
    assert compute(merged)["r2"] == pytest.approx(centred, rel=1e-9)


def test_batches_add_up_to_the_whole():
    columns = noisy_rows(offset=50)
    batched = RegressionMetrics()
    for start in range(0, ROWS, 33):
        batched.update(*(column[start : start + 33] for column in columns))
    assert compute(batched.state()) == pytest.approx(compute(measured(*columns)))


def test_a_constant_target_has_no_r2_even_across_sites():
    # 0.1 has no exact double, so a mean taken as sum / n is off by a rounding and its spread is not 0.
    states = [measured(np.zeros(rows), np.full(rows, 0.1)) for rows in (3, 7, 10)]
    merged = merge_states(states)
    assert compute(merged)["r2"] is None
    assert explain(merged) == ["r2: the target does not vary"]


def test_a_vanishing_spread_does_not_overflow_r2():
    state = measured(np.full(2, 1e50), [0.0, 1e-155])
    assert compute(state)["r2"] is None


def test_non_finite_rows_are_counted_and_left_out():
    state = measured([1.0, np.nan, 2.0, 3.0, 1e200], [1.0, 1.0, np.inf, 2.0, 0.0], [0.5, 0, 0, 0.5, 0])
    assert compute(state)["n"] == 2
    assert compute(state)["mse"] == 0.5
    assert explain(state) == ["3 rows had a non-finite prediction, target or loss and are left out"]
    json.dumps(state, allow_nan=False)


@pytest.mark.parametrize("rows", [0, 3])
def test_a_part_without_usable_rows_has_no_metrics(rows):
    state = measured(np.full(rows, np.nan), np.zeros(rows))
    values = compute(state)
    assert values.pop("n") == 0
    assert set(values.values()) == {None}
    assert explain(state)[-1] == "no rows"


def test_every_value_has_a_known_direction():
    assert compute(measured(*noisy_rows())).keys() - METRIC_NAMES.keys() == {
        "n", "mae_low", "mae_high", "r2_low", "r2_high"
    }  # fmt: skip


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="shape"):
        RegressionMetrics().update(np.zeros(3), np.zeros(2), np.zeros(3))


def test_a_column_vector_is_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match="shape"):
        RegressionMetrics().update(np.zeros((3, 1)), np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_delta_that_is_not_positive_is_refused(delta):
    with pytest.raises(ValueError, match="huber_delta"):
        RegressionMetrics(delta)
