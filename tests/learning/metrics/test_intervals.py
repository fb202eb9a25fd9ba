"""Intervals hold the truth about as often as they say, do not collapse at the edges, and allow for binning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.experiment.metric_names import is_score
from v6_algorithm.learning.metrics import (
    ClassificationMetrics,
    RegressionMetrics,
    SurvivalMetrics,
    compute,
    merge_states,
)
from v6_algorithm.learning.metrics.histogram import average_precision, average_precision_resolution
from v6_algorithm.learning.metrics.intervals import corrected_over_folds, difference, on_scale, over_repeats, wilson

sklearn_metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")


def classified(score, target, **options):
    metrics = ClassificationMetrics(2, **options)
    probability = np.asarray(score, dtype=float)
    metrics.update(np.column_stack([1 - probability, probability]), np.asarray(target), np.zeros(len(probability)))
    return metrics.state()


def holds(values, metric, truth):
    return values[f"{metric}_low"] <= truth <= values[f"{metric}_high"]


@given(st.integers(5, 400), st.data())
@settings(max_examples=60)
def test_wilson_is_scipys(rows, data):
    hits = data.draw(st.integers(0, rows))
    wanted = stats.binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits, rows) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("right", [True, False])
def test_no_interval_collapses_where_everything_or_nothing_is_right(right):
    """n = 12 gave 1.00-1.00, and an AUROC of 0 an interval of 0.00-0.00."""
    target = np.repeat([0, 1], 6)
    score = np.where(target == 1, 0.9, 0.1) if right else np.where(target == 1, 0.1, 0.9)
    values = compute(classified(score, target))
    for metric in ("accuracy", "balanced_accuracy", "recall", "specificity", "auroc", "f1"):
        assert values[metric] == (1.0 if right else 0.0)
        low, high = values[f"{metric}_low"], values[f"{metric}_high"]
        assert (high if right else low) == values[metric]
        assert high - low > 0.2


@given(st.integers(0, 10_000), st.integers(12, 80), st.sampled_from([0.0, 1.0, 4.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_every_interval_holds_its_own_estimate_on_the_metrics_scale(seed, rows, scale):
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 2, rows)
    score = 1 / (1 + np.exp(-np.clip(scale * (generator.normal(size=rows) + target - 0.5), -30, 30)))
    values = compute(classified(score, target))
    for name in [name.removesuffix("_low") for name in values if name.endswith("_low")]:
        if values[f"{name}_low"] is not None:
            assert 0 <= values[f"{name}_low"] <= values[name] <= values[f"{name}_high"] <= 1


def test_saturated_scores_do_not_exclude_the_true_auroc():
    """Scores beyond the bins' range: the binned value is off, and the interval has to allow for that."""
    generator = np.random.default_rng(3)
    target = generator.integers(0, 2, 2000)
    logit = 16 + 2.4 * target + generator.normal(size=2000)
    score = 1 / (1 + np.exp(-logit))
    exact, values = sklearn_metrics.roc_auc_score(target, score), compute(classified(score, target, bins=512))
    assert abs(values["auroc"] - exact) > 0.05, "the test needs scores that the bins cannot tell apart"
    assert holds(values, "auroc", exact)
    precision = sklearn_metrics.average_precision_score(target, score)
    assert holds(values, "auprc", precision)
    assert abs(values["auprc"] - precision) <= values["auprc_resolution"] + 1e-12


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12), st.integers(0, 999))
@settings(max_examples=80)
def test_the_bound_on_auprc_holds_for_every_order_within_the_bins(bins, seed):
    positives, negatives = ([one[side] for one in bins] for side in (0, 1))
    if not sum(positives):
        return
    generator = np.random.default_rng(seed)
    score, target = [], []
    for place, (positive, negative) in enumerate(bins):
        score += (place + generator.random(positive + negative)).tolist()
        target += [1] * positive + [0] * negative
    exact = sklearn_metrics.average_precision_score(target, score)
    bound = average_precision_resolution(positives, negatives)
    assert abs(average_precision(positives, negatives) - exact) <= bound + 1e-12


def test_few_rows_and_few_events_have_no_interval():
    values = compute(classified([0.1, 0.2, 0.3, 0.9], [0, 0, 0, 1]))
    assert {values[f"{name}_low"] for name in ("accuracy", "recall", "auroc", "auprc", "brier")} == {None}
    values = compute(classified([0.1] * 40 + [0.9] * 4, [0] * 40 + [1] * 4))
    assert values["auroc_low"] is None
    assert values["accuracy_low"] is not None


def test_the_interval_of_pooled_sites_is_that_of_pooled_rows():
    generator = np.random.default_rng(5)
    target, score = generator.integers(0, 2, 90), generator.random(90)
    parts = [classified(score[place], target[place]) for place in np.array_split(np.arange(90), 3)]
    whole, merged = compute(classified(score, target)), compute(merge_states(parts))
    for name in [name for name in whole if name.endswith(("_low", "_high"))]:
        assert merged[name] == pytest.approx(whole[name], abs=1e-12)


def test_ends_of_intervals_are_no_scores():
    assert not any(map(is_score, ["auroc_low", "auroc_high", "sex.auroc_low", "auprc_resolution"]))


def test_regression_intervals_cover_the_truth():
    generator, hits, studies = np.random.default_rng(8), {"mae": 0, "r2": 0}, 300
    for _ in range(studies):
        signal, noise = generator.normal(0, 1, 80), generator.normal(0, 1, 80)
        metrics = RegressionMetrics()
        metrics.update(signal, signal + noise, np.zeros(80))
        values = compute(metrics.state())
        hits["mae"] += holds(values, "mae", np.sqrt(2 / np.pi))
        hits["r2"] += holds(values, "r2", 0.5)
    assert all(0.91 <= count / studies <= 0.985 for count in hits.values()), hits


@pytest.mark.slow
def test_c_index_intervals_cover_the_truth():
    generator, hits, studies = np.random.default_rng(9), 0, 150

    def rows(count):
        risk = generator.normal(0, 1, count)
        happens, leaves = generator.exponential(np.exp(-risk)), generator.exponential(2, count)
        return np.minimum(happens, leaves), (happens <= leaves).astype(float), risk

    def values(time, event, risk):
        metrics = SurvivalMetrics([0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5])
        metrics.update(risk[:, None], np.column_stack([time, event]), np.zeros(len(time)))
        return compute(metrics.state())

    truth = values(*rows(20_000))["c_index"]
    for _ in range(studies):
        hits += holds(values(*rows(100)), "c_index", truth)
    assert 0.91 <= hits / studies <= 1


def test_repeats_are_no_new_patients():
    """Ten repeats shrank the AUROC's interval by the root of ten: coverage 0.36."""
    generator = np.random.default_rng(2)
    target, score = generator.integers(0, 2, 120), generator.random(120)
    one = compute(classified(score, target))
    ten = over_repeats([one] * 10)
    for name in one:
        assert ten[name] == pytest.approx(one[name], abs=1e-12)
    moved = [one | {"auroc": one["auroc"] + step} for step in (-0.05, 0.05) * 5]
    assert over_repeats(moved)["auroc_high"] - over_repeats(moved)["auroc_low"] > one["auroc_high"] - one["auroc_low"]


def test_corrected_interval_over_folds_is_by_hand_and_wider_than_the_naive():
    values = [0.7, 0.8, 0.75, 0.85, 0.9]
    low, high = corrected_over_folds(values, tested=20, trained=80)
    error = np.sqrt((1 / 5 + 20 / 80) * np.var(values, ddof=1))
    assert (low, high) == pytest.approx(
        (0.8 - stats.t.ppf(0.975, 4) * error, 0.8 + stats.t.ppf(0.975, 4) * error), abs=1e-3
    )
    assert corrected_over_folds(values[:2], 20, 80) is None


def test_a_difference_of_equal_groups_holds_zero_and_scales_are_kept():
    low, high = difference(0.8, (0.7, 0.9), 0.75, (0.65, 0.85))
    assert low < 0 < 0.05 < high
    assert on_scale("auroc", (-0.1, 1.2)) == (0.0, 1.0)
    assert on_scale("r2", (-0.1, 1.2)) == (-0.1, 1.0)
    assert on_scale("mae", (0.4, 3.0)) == (0.4, 3.0)
