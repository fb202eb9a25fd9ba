"""Merged states are the state of the pooled rows, and a wrong state never gets that far."""

import copy
import json
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.learning.metrics import (
    ClassificationMetrics,
    MeanMetrics,
    RegressionMetrics,
    check_state,
    compute,
    explain,
    merge_states,
)

FLOATS = {"loss", "brier", "squared_error", "absolute_error", "huber", "target_mean", "target_m2"}
SITES = 4


def random_columns(kind, rows, seed):
    """The three columns of `update`, with a few NaN and, for classes, long runs of one class."""
    rng = np.random.default_rng(seed)
    loss = np.where(rng.random(rows) < 0.05, np.nan, rng.exponential(1, rows))
    if kind == "regression":
        target = rng.normal(rng.choice([0, 1e4]), 3, rows)
        return target + rng.normal(0, 1, rows), target, loss
    n_classes = 2 if kind == "two classes" else 4
    logits = rng.normal(0, rng.choice([0.1, 3, 30]), (rows, n_classes))
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    return probability, np.sort(rng.integers(0, n_classes, rows)), loss


def empty_collector(kind):
    return {
        "two classes": lambda: ClassificationMetrics(2, bins=32),
        "four classes": lambda: ClassificationMetrics(4, bins=32),
        "regression": lambda: RegressionMetrics(huber_delta=0.7),
    }[kind]()


def state_of(kind, columns, chosen=slice(None)):
    collector = empty_collector(kind)
    collector.update(*(column[chosen] for column in columns))
    return collector.state()


@st.composite
def partitioned(draw):
    """A kind, the pooled state and the states of the sites; a site may be empty or hold one class."""
    kind = draw(st.sampled_from(["two classes", "four classes", "regression"]))
    site_of_row = np.array(draw(st.lists(st.integers(0, SITES - 1), max_size=60)), dtype=int)
    if draw(st.booleans()):
        site_of_row = np.sort(site_of_row)
    columns = random_columns(kind, len(site_of_row), draw(st.integers(0, 2**32 - 1)))
    return state_of(kind, columns), [state_of(kind, columns, site_of_row == site) for site in range(SITES)]


def assert_same_up_to_rounding(state, expected):
    assert state.keys() == expected.keys()
    for name in state:
        if name in FLOATS:
            # A mean near 1e4 is rounded at 1e-12, which the deviations from it inherit.
            tolerance = 1e-9 if name == "target_m2" else 1e-12
            assert state[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
        else:
            assert state[name] == expected[name], name


@given(partitioned())
def test_merged_state_equals_pooled_state(case):
    pooled, sites = case
    assert_same_up_to_rounding(merge_states(sites), pooled)


@given(partitioned())
def test_federated_metrics_equal_pooled_metrics(case):
    pooled, sites = case
    merged = merge_states(sites)
    values, expected = compute(merged), compute(pooled)
    assert values.keys() == expected.keys()
    for name in values:
        if expected[name] is None:
            assert values[name] is None, name
        else:
            assert values[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-6), name
    assert explain(merged) == explain(pooled)


@given(partitioned())
def test_federated_auroc_and_ece_equal_the_pooled_ones_exactly(case):
    pooled, sites = case
    merged = merge_states(sites)
    for name in (
        "auroc",
        "auprc",
        "auroc_resolution",
        "ece",
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
        "sensitivity_at_90",
        "threshold_at_90",
    ):
        assert compute(merged).get(name) == compute(pooled).get(name), name


@given(partitioned(), st.permutations(range(SITES)))
def test_merge_order_does_not_matter(case, order):
    _, sites = case
    assert merge_states([sites[site] for site in order]) == merge_states(sites)


@given(partitioned())
def test_merging_in_two_steps_equals_merging_at_once(case):
    _, sites = case
    stepwise = merge_states([merge_states(sites[:2]), merge_states(sites[2:])])
    assert_same_up_to_rounding(stepwise, merge_states(sites))


@given(partitioned())
def test_states_survive_json(case):
    for state in (*case[1], merge_states(case[1])):
        assert json.loads(json.dumps(state, allow_nan=False)) == state
        json.dumps(compute(state), allow_nan=False)


@given(partitioned())
def test_merging_leaves_the_states_alone(case):
    before = copy.deepcopy(case[1])
    merge_states(case[1])
    assert case[1] == before


def test_nothing_to_merge_is_refused():
    with pytest.raises(ValueError, match="no metric states"):
        merge_states([])


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (ClassificationMetrics(2), RegressionMetrics(), "kind: classification and regression"),
        (ClassificationMetrics(2), ClassificationMetrics(3), "n_classes: 2 and 3"),
        (ClassificationMetrics(2, bins=512), ClassificationMetrics(2, bins=64), "bins: 512 and 64"),
        (RegressionMetrics(1.0), RegressionMetrics(2.0), "huber_delta: 1.0 and 2.0"),
    ],
)
def test_states_of_different_shape_are_refused(one, other, difference):
    with pytest.raises(ValueError, match=difference):
        merge_states([one.state(), other.state()])


def good_state(kind):
    return state_of(kind, random_columns(kind, 40, 0))


def test_good_states_pass():
    for kind in ("two classes", "four classes", "regression"):
        check_state(good_state(kind))


BAD_NUMBERS = [float("nan"), float("inf"), 1e200, 10**400, "1", None, True, [1.0]]
BAD_COUNTS = [-1, 1.0, float("nan"), 2**53 + 1, "1", None, True, [1]]


@pytest.mark.parametrize("kind", ["two classes", "regression"])
@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
def test_a_field_that_is_no_finite_number_is_refused(kind, value):
    for name in FLOATS & good_state(kind).keys():
        with pytest.raises(ValueError, match=f"{name} of the metric state must be a finite number"):
            merge_states([good_state(kind) | {name: value}])


@pytest.mark.parametrize("kind", ["two classes", "regression"])
@pytest.mark.parametrize("value", BAD_COUNTS, ids=repr)
def test_a_field_that_is_no_count_is_refused(kind, value):
    for name in {"n", "non_finite", "n_classes", "bins"} & good_state(kind).keys():
        with pytest.raises(ValueError, match=f"{name} of the metric state must be an integer"):
            merge_states([good_state(kind) | {name: value}])


@pytest.mark.parametrize("name", ["confusion", "calibration"])
@pytest.mark.parametrize("value", BAD_COUNTS, ids=repr)
def test_a_table_entry_that_is_no_count_is_refused(name, value):
    state = good_state("four classes")
    state[name][1][1] = value
    with pytest.raises(ValueError, match=f"each entry of {name}"):
        merge_states([state])


@pytest.mark.parametrize("name", ["positives", "negatives"])
@pytest.mark.parametrize("what", ["bins", "rows"])
@pytest.mark.parametrize("value", BAD_COUNTS, ids=repr)
def test_a_histogram_entry_that_is_no_count_is_refused(name, what, value):
    state = good_state("four classes")
    state[name][1][what][0] = value
    with pytest.raises(ValueError, match=f"{name} of the metric state must"):
        merge_states([state])


@pytest.mark.parametrize("name", ["positives", "negatives"])
def test_a_histogram_of_another_form_is_refused(name):
    histograms = good_state("four classes")[name]
    first, *others = histograms
    of_first = [
        {"bins": first["bins"]},
        {"bins": first["bins"], "rows": first["rows"][:-1]},
        {"bins": first["bins"][::-1], "rows": first["rows"]},
        {"bins": [*first["bins"][:-1], 512], "rows": first["rows"]},
        {"bins": first["bins"], "rows": [*first["rows"][:-1], 0]},
        {"bins": [first["bins"][0]] * len(first["bins"]), "rows": first["rows"]},
        [0] * 512,
        None,
    ]
    for value in (None, {}, others, *([wrong, *others] for wrong in of_first)):
        with pytest.raises(ValueError, match=f"{name} of the metric state must"):
            merge_states([good_state("four classes") | {name: value}])


def test_a_histogram_tells_of_no_empty_bin():
    for histogram in good_state("four classes")["positives"]:
        assert len(histogram["bins"]) == len(histogram["rows"])
        assert all(histogram["rows"])
        assert histogram["bins"] == sorted(set(histogram["bins"]))


@pytest.mark.parametrize("name", ["confusion", "calibration"])
def test_a_table_of_the_wrong_size_is_refused(name):
    table = good_state("four classes")[name]
    for value in (None, {}, table[:-1], [row[:-1] for row in table], [None] * len(table)):
        with pytest.raises(ValueError, match=f"{name} of the metric state must"):
            merge_states([good_state("four classes") | {name: value}])


def test_tables_that_disagree_with_n_are_refused():
    state = good_state("two classes")
    with pytest.raises(ValueError, match="add up to n"):
        merge_states([state | {"n": state["n"] + 1}])
    state["positives"][0]["rows"][0] += 1
    with pytest.raises(ValueError, match="count the same rows"):
        merge_states([state])


@pytest.mark.parametrize("kind", ["two classes", "four classes"])
def test_calibration_that_disagrees_with_the_confusion_is_refused(kind):
    rows, _, hits = range(3)
    for row in (rows, hits):
        state = good_state(kind)
        state["calibration"][row][-1] += 1
        with pytest.raises(ValueError, match="count the same rows"):
            merge_states([state])


def test_calibration_that_no_probabilities_can_give_is_refused():
    rows, confidence, hits = range(3)
    # More hits in the first bin than rows, and confidences that are not in their bin.
    moved = good_state("two classes")
    moved["calibration"][hits] = [sum(moved["calibration"][hits]), *[0] * 14]
    outside = good_state("two classes")
    outside["calibration"][confidence][3] += 1024 * (outside["calibration"][rows][3] + 1)
    for state in (moved, outside):
        with pytest.raises(ValueError, match="contradicts itself"):
            merge_states([state])


@pytest.mark.parametrize("name", ["brier", "squared_error", "absolute_error", "huber", "target_m2"])
def test_a_negative_sum_of_squares_is_refused(name):
    kind = "two classes" if name == "brier" else "regression"
    with pytest.raises(ValueError, match=name):
        merge_states([good_state(kind) | {name: -1.0}])


@pytest.mark.parametrize("kind", ["two classes", "regression"])
def test_sums_without_rows_are_refused(kind):
    with pytest.raises(ValueError, match="since n is 0"):
        merge_states([empty_collector(kind).state() | {"loss": 5.0}])


@pytest.mark.parametrize("kind", ["two classes", "regression"])
def test_missing_and_unexpected_keys_are_refused(kind):
    state = good_state(kind)
    lacking = {name: value for name, value in state.items() if name != "loss"}
    with pytest.raises(ValueError, match="lacks loss"):
        merge_states([lacking])
    with pytest.raises(ValueError, match="1 unexpected key"):
        merge_states([state | {"rows": [1, 2]}])


@pytest.mark.parametrize("state", [None, [], "state", {}, {"kind": "other"}, {"kind": ["classification"]}], ids=repr)
def test_what_is_no_state_is_refused_everywhere(state):
    for use in (check_state, compute, explain, lambda wrong: merge_states([wrong])):
        with pytest.raises(ValueError, match="metric state"):
            use(state)


def test_a_refusal_does_not_repeat_what_was_sent():
    with pytest.raises(ValueError) as refused:
        check_state(good_state("regression") | {"loss": "patient 4711", "n": 3})
    assert "4711" not in str(refused.value)
    with pytest.raises(ValueError) as refused:
        check_state(good_state("regression") | {"patient 4711": 1})
    assert "4711" not in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from(["two classes", "four classes", "regression"]), st.data())
def test_any_reply_is_either_refused_or_gives_finite_metrics(kind, data):
    state = good_state(kind)
    state[data.draw(st.sampled_from(sorted(state)))] = data.draw(json_values)
    try:
        merged = merge_states([state, copy.deepcopy(state)])
    except ValueError:
        return
    json.dumps([compute(merged), explain(merged)], allow_nan=False)


@pytest.mark.parametrize("rows", [{}, {"other": np.zeros(3)}, {"error": np.zeros(2)}, {"error": 0.0}])
def test_a_plug_ins_metric_gives_one_number_for_each_row_and_name(rows):
    class Errors(MeanMetrics):
        higher_is_better: ClassVar[dict[str, bool]] = {"error": False}

        def rows(self, prediction, target):
            return rows

    metrics = Errors("plug-in")
    with pytest.raises(ValueError, match=r"\(3,\) numbers for each of error"):
        metrics.update(np.zeros(3), np.zeros(3), np.zeros(3))
    rows.clear()
    rows["error"] = np.arange(3.0)
    metrics.update(np.zeros(3), np.zeros(3), np.zeros(3))
    state = metrics.state()
    assert (state["sums"]["error"], state["n"]) == (3, 3)
