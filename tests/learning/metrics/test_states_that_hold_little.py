"""States of no rows, of one, of a target around 0, of as many bins as are listed: what is made and refused of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from v6_algorithm.learning.metrics import (
    ClassificationMetrics,
    GenerationMetrics,
    RegressionMetrics,
    SurvivalMetrics,
    check_state,
    compute,
    explain,
    generation_state,
    histogram,
    intervals,
    joined,
    means,
    merge_states,
    sparse,
    tasks,
)
from v6_algorithm.learning.metrics.additive import from_sums, to_sums
from v6_algorithm.learning.metrics.checks import LARGEST_ROW_VALUE, require_counts
from v6_algorithm.learning.metrics.classification import SUM_TOLERANCE
from v6_algorithm.learning.metrics.generation import _LARGEST_FEATURE as largest_feature
from v6_algorithm.learning.metrics.intervals import ranking
from v6_algorithm.learning.metrics.survival import BaselineSums
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS


def classified(score, target, classes=2, bins=None):
    collector = ClassificationMetrics(classes) if bins is None else ClassificationMetrics(classes, bins)
    probability = np.column_stack([1 - score, score]) if classes == 2 else score
    collector.update(probability, target, np.zeros(len(target)))
    return collector.state()


def regressed(actual, predicted=None):
    collector, actual = RegressionMetrics(), np.asarray(actual, dtype=float)
    collector.update(actual * 0 if predicted is None else predicted, actual, np.zeros(len(actual)))
    return collector.state()


@pytest.mark.parametrize("classes", [2, 3])
def test_no_rows_name_the_metrics_that_rows_have(classes):
    some = classified(np.full((6, 3), 1 / 3) if classes == 3 else np.linspace(0, 1, 6), np.arange(6) % classes, classes)
    nothing = compute(ClassificationMetrics(classes).state())
    assert set(nothing) == set(compute(some))
    assert {name for name, value in nothing.items() if value is not None} == {"n"}


def test_several_targets_count_their_rows_and_say_of_which_something_is_missing():
    """Three targets, of two classes, three classes and a number; one row's loss is none, and one target's."""
    collector = tasks.TaskMetrics({"c": None, "a": 2, "b": 3})
    assert any("no rows" in text for text in explain(collector.state()))
    prediction = np.array([[7.0, 0.2, 0.8, 0.5, 0.3, 0.2], [9.0, 0.6, 0.4, 0.1, 0.1, 0.8], [0, 0.5, 0.5, 1, 0, 0]])
    target = np.array([[6.0, 1.0, 0.0], [9.5, 1.0, np.nan], [0.0, 0.0, 0.0]])
    collector.update(prediction, target, np.array([0.25, 0.5, np.inf]))
    state = collector.state()
    assert (state["n"], state["non_finite"], state["loss"]) == (2, 1, 0.75)
    assert {name: task["n"] for name, task in state["tasks"].items()} == {"a": 2, "b": 1, "c": 2}
    assert state["tasks"]["a"]["confusion"] == [[0, 0], [1, 1]]
    assert state["tasks"]["b"]["confusion"][0] == [1, 0, 0]
    assert (compute(state)["c.mae"], compute(state)["loss"]) == (0.75, 0.375)
    assert merge_states([state]) == state
    more = {**state["tasks"]["b"], "non_finite": 2}
    with pytest.raises(ValueError, match="more rows than n"):
        check_state(state | {"tasks": state["tasks"] | {"b": more}})
    notes = explain(state)
    assert notes[0] == "1 rows had a non-finite loss and are left out"
    assert "no rows" not in notes
    assert "a: auroc and auprc: only one class present" in notes


def test_one_site_of_a_plug_ins_metrics_is_its_own_sum():
    state = {"kind": "plugin", "problem": "mine", "n": 4, "non_finite": 0, "loss": 2.0, "sums": {"error": 6.0}}
    assert means.merge([state]) == state


def test_a_target_around_0_is_added_up():
    states = [regressed([-1.0, 1.0]), regressed([-3.0, 3.0]), regressed([])]
    merged = merge_states(states)
    assert (merged["n"], merged["target_mean"], merged["target_m2"]) == (4, 0.0, 20.0)
    assert merge_states(states[2:] * 2) == states[2]
    assert merge_states(states[:1]) == states[0]


def test_regressions_are_the_same_summed_as_fractions():
    states = [regressed(np.arange(5.0) / 3, np.ones(5)), regressed([7.25, -2.5], np.zeros(2))]
    first, second = map(to_sums, states)
    assert (float(second["target_sum"]), float(second["target_squares"])) == (4.75, 7.25**2 + 2.5**2)
    added = {key: first[key] if key in ("kind", "huber_delta") else first[key] + second[key] for key in first}
    found = from_sums(added)
    wanted = merge_states(states)
    assert set(found) == set(wanted)
    for key in set(wanted) - {"kind"}:
        assert float(found[key]) == pytest.approx(wanted[key], rel=1e-12), key


def test_the_largest_value_of_a_row_counts_and_no_larger_one():
    largest = np.array([LARGEST_ROW_VALUE, np.nextafter(LARGEST_ROW_VALUE, np.inf)])
    state = regressed(largest)
    assert (state["n"], state["non_finite"]) == (1, 1)
    losses = ClassificationMetrics(2)
    losses.update(np.full((2, 2), 0.5), np.array([0, 1]), largest)
    assert (losses.state()["n"], losses.state()["non_finite"]) == (1, 1)
    beyond = np.array([[largest_feature], [np.nextafter(largest_feature, np.inf)]])
    assert (generation(beyond, 0 * beyond)["n"], generation(beyond, 0 * beyond)["non_finite"]) == (1, 1)


def test_a_probability_may_be_below_0_by_rounding_and_no_further():
    for below, right in ((SUM_TOLERANCE, True), (SUM_TOLERANCE * 1.001, False)):
        collector = ClassificationMetrics(3)
        given = np.array([[-below, 0.5, 0.5 + below]]), np.array([1]), np.zeros(1)
        if right:
            collector.update(*given)
        else:
            with pytest.raises(ValueError, match="no entry below 0"):
                collector.update(*given)


def test_tables_of_another_type_or_length_are_refused():
    require_counts([[1, 2], [3, 4]], 2, 2, "table")
    for wrong in (([1, 2], [3, 4]), [[1, 2]], [[1, 2]] * 3, {0: [1, 2], 1: [3, 4]}):
        with pytest.raises(ValueError, match="table of the metric state must be a list of 2 lists"):
            require_counts(wrong, 2, 2, "table")
    for wrong in ([[1, 2], (3, 4)], [[1, 2], [3]], [[1, 2], [3, 4, 5]]):
        with pytest.raises(ValueError, match="must hold lists of 2 integers"):
            require_counts(wrong, 2, 2, "table")


@pytest.mark.parametrize(("positives", "negatives"), [(0, 1), (1, 0), (-1, 1), (0, -1)])
def test_histograms_count_the_rows_of_each_class(positives, negatives):
    state = classified(np.array([0.1, 0.3, 0.4, 0.8]), np.array([0, 0, 1, 1]))
    check_state(state)
    for name, more in (("positives", positives), ("negatives", negatives)):
        rows = state[name][0]["rows"]
        state[name] = [{"bins": state[name][0]["bins"], "rows": [2 * rows[0] + more, *rows[1:]]}] if more > 0 else (
            [{"bins": state[name][0]["bins"][1:], "rows": rows[1:]}] if more < 0 else state[name])  # fmt: skip
    with pytest.raises(ValueError, match="histograms of the metric state must count the same rows"):
        check_state(state)


@pytest.mark.parametrize("bins", [6, 7, 8, 9])
def test_of_fewer_than_eight_joined_bins_the_interval_has_the_worst_case_in_it(bins):
    """Two hospitals whose bins lie between each other's."""
    score = np.repeat(np.linspace(0.1, 0.9, bins), 8)
    target = (np.random.default_rng(bins).random(8 * bins) < score).astype(int)
    first = np.arange(8 * bins) % 16 < 8
    states = [classified(score[rows], target[rows]) for rows in (first, ~first)]
    plain = compute(merge_states(states))
    found = compute(merge_states([state | {"joined": 1} for state in states]))
    assert found["auroc_resolution"] > plain["auroc_resolution"]
    rows = int(target.sum()), int((1 - target).sum())
    allowed = found if bins < 8 else plain
    wanted = intervals.auroc_interval(plain["auroc"], plain["auroc_se"], *rows, allowed["auroc_resolution"])
    assert (found["auroc_low"], found["auroc_high"]) == wanted


@pytest.mark.parametrize("more", [0, 1])
def test_a_state_lists_as_many_bins_as_it_may_and_joins_one_more(more):
    score = np.repeat(np.linspace(0.01, 0.99, joined.MOST_LISTED + more), 2)
    state = classified(score, np.tile([0, 1], len(score) // 2))
    assert len(state["positives"][0]["bins"]) == joined.MOST_LISTED + more
    assert joined.capped(state).get("joined") == more


def test_pairs_of_any_number_of_rows_are_counted_exactly():
    """Equal numbers of positives and negatives, whose products int64 has no room for."""
    bins, rows = [[3, 5], [4, 5]], [[2**33, 2**33 + 1], [2**33, 2**33 + 1]]
    positives, negatives = ([{"bins": b, "rows": r}] for b, r in zip(bins, rows, strict=True))
    least, most = joined.Extents([(positives, negatives, False)], 0, 9).auroc()
    (a, b), (c, d) = rows
    assert least == (b * c) / ((a + b) * (c + d))
    assert most == (b * (c + d)) / ((a + b) * (c + d))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 5)), min_size=1), st.integers(1, 6))
@example([(1, 0, 1)] * 9 + [(1, 1, 0)] + [(1, 0, 1)] * 9, 4)
@example([(1, 1, 0)] * 9 + [(1, 0, 1)] + [(1, 1, 0)] * 9, 4)
@settings(max_examples=50)
def test_bins_that_are_joined_hold_equal_shares_of_both_classes(drawn, most):
    """A bin is of the share that the middle of its rows is in; a cell stands at the mean place of its rows."""
    places = np.cumsum([gap for gap, above, below in drawn if above + below], dtype=np.int64)
    above, below = (np.array([counts[side] for counts in drawn if sum(counts[1:])], dtype=int) for side in (1, 2))
    # The same histogram stands beside it, twice as far up.
    bins = 2**20
    keys, counts = np.concatenate([places, places + bins]), np.tile(np.stack([above, below]), 2)
    moved = joined.joined_keys(keys, counts, bins, most)
    if len(places) <= most:
        assert moved is None
        return
    assert (moved[len(places) :] == moved[: len(places)] + bins).all()
    weight = [Fraction(int(a), max(int(above.sum()), 1)) + Fraction(int(b), max(int(below.sum()), 1))
              for a, b in zip(above, below, strict=True)]  # fmt: skip
    cells, before = {}, Fraction(0)
    for place, one, a, b in zip(places.tolist(), weight, above.tolist(), below.tolist(), strict=True):
        middle = (before + one / 2) / sum(weight) * most
        cells.setdefault(int(middle), []).append((place, a + b))
        before += one
    wanted = []
    for members in cells.values():
        first = members[0][0]
        mean = Fraction(sum((place - first) * rows for place, rows in members), sum(rows for _, rows in members))
        wanted += [first + round(mean)] * len(members)
    assert moved[: len(places)].tolist() == wanted


@pytest.mark.parametrize("sites", [1, 2, 3])
def test_any_number_of_sites_is_added_up(sites):
    generator = np.random.default_rng(sites)
    score, target = generator.random((sites, 9)), generator.integers(0, 2, (sites, 9))
    merged = merge_states([classified(*each) for each in zip(score, target, strict=True)])
    whole = classified(score.ravel(), target.ravel())
    assert {**merged, "brier": 0} == {**whole, "brier": 0}
    made = [generation(each[:, None], each[::-1, None]) for each in score]
    pooled = generation(score.reshape(-1, 1), score[:, ::-1].reshape(-1, 1))
    assert compute(merge_states(made)) == pytest.approx(compute(pooled), abs=1e-12)


def generation(real, made):
    collector = GenerationMetrics(1)
    collector.update(real, made)
    return collector.state()


def test_intervals_of_f1_are_those_of_the_share_that_it_is_of():
    for hits, errors in ((0, 12), (8, 5), (12, 0), (40, 3)):
        share = stats.binomtest(hits, hits + errors).proportion_ci(method="wilson")
        wanted = [2 * end / (1 + end) for end in (share.low, share.high)]
        assert intervals.f1_interval(hits, errors) == pytest.approx(wanted, abs=1e-12)
    assert intervals.f1_interval(2, 1) is None


def test_an_average_precision_has_an_interval_of_so_many_rows_of_each_class():
    least = ranking.LEAST_EVENTS
    for interval in (lambda *rows: intervals.auprc_interval(0.7, *rows, 0.0),
                     lambda *rows: intervals.auroc_interval(0.7, None, *rows, 0.0)):  # fmt: skip
        assert interval(least, least) is not None
        assert interval(least, least - 1) is None
        assert interval(least - 1, least) is None


def test_a_share_of_many_rows_is_rounded_to_a_whole_number_of_them():
    """1 - 0.9 is a little less than a tenth, also of ten million rows."""
    for rows in (10, 10**7, 10**9):
        counts = np.array([0, 10]), np.array([rows - rows // 10, rows // 10])
        assert histogram.sensitivity_at(0.9, *counts, np.array([0.0, 0.5]))[:2] == (1.0, 0.5)


def test_bins_of_all_classes_are_numbered_in_so_many_bits():
    collector = ClassificationMetrics(2, 2**39)
    check_state(collector.state())
    with pytest.raises(ValueError, match="of all classes together"):
        check_state(collector.state() | {"bins": 2**39 + 1})


@pytest.mark.parametrize(("place", "right"), [(0, True), (7, True), (8, False), (-1, False)])
def test_a_histogram_names_bins_that_there_are(place, right):
    given_ = [{"bins": [place], "rows": [3]}]
    if right:
        assert sparse.check(given_, 1, 8, "positives")
    else:
        with pytest.raises(ValueError, match="must name bins from 0 to 7"):
            sparse.check(given_, 1, 8, "positives")


@pytest.mark.parametrize(("classes", "given_"), [(2, (0.9,)), (2, 0.9), (3, [0.9])])
def test_specificities_are_a_list_and_of_two_classes(classes, given_):
    state = ClassificationMetrics(classes).state()
    check_state(state)
    with pytest.raises(ValueError, match="must be a list, empty with more than two classes"):
        check_state(state | {"specificities": given_})


def test_classes_that_are_never_predicted_are_counted():
    probability = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    notes = explain(classified(probability, np.array([0, 1, 2, 1]), 3))
    assert "precision: 1 of 3 classes were never predicted and count as 0" in notes
    # Also one of a single row, where the others are predicted twice.
    notes = explain(classified(probability[[0, 1, 2, 2]], np.array([0, 1, 2, 2]), 3))
    assert "precision: 1 of 3 classes were never predicted and count as 0" in notes
    # One that nobody has is left out, and not counted.
    assert not any("never predicted" in note for note in explain(classified(probability, np.array([0, 0, 2, 2]), 3)))


def test_as_many_times_as_may_be_are_taken():
    state = SurvivalMetrics([1.0], np.arange(1.0, 201)).state()
    check_state(state)
    with pytest.raises(ValueError, match="horizons of the metric state must be a list of at most 200"):
        check_state(SurvivalMetrics([1.0], np.arange(1.0, 202)).state())


def test_a_row_that_joins_at_the_end_of_an_interval_does_not_reach_it():
    sums = BaselineSums([2.0, 5.0], 2)
    sums.update(np.zeros((2, 1)), np.array([[4.0, 1, 2.0], [1.0, 1, 0.0]]), np.zeros(2))
    assert sums.state() == {"events": [0, 0], "risk": [0.0, 0.0]}
    sums.update(np.zeros((1, 1)), np.array([[4.0, 1, 1.5]]), np.zeros(1))
    assert sums.state() == {"events": [1, 2], "risk": [1.5, 4.0]}


def test_an_end_of_a_c_index_is_on_its_scale():
    counts = np.random.default_rng(0).integers(1, 9, (2, 4, 6))
    assert intervals.c_index_interval(0.6, *counts, 0.9) == (0.0, 1.0)


def test_c_indices_within_hospitals_need_pairs_of_their_own():
    """No pair of two events: the only event is before a censored row."""
    metrics = SurvivalMetrics([1.0, 2.0])
    metrics.update(np.array([[1.0], [0.0]]), np.array([[0.5, 1], [1.5, 0]]), np.zeros(2))
    assert compute(metrics.state())["c_index_within"] == 1.0
    alone = SurvivalMetrics([1.0, 2.0])
    alone.update(np.array([[1.0]]), np.array([[0.5, 1]]), np.zeros(1))
    assert compute(alone.state())["c_index_within"] is None


def test_scores_beyond_the_range_are_in_the_outermost_bins():
    metrics = SurvivalMetrics([1.0])
    metrics.update(np.array([[-1e9], [1e9]]), np.array([[0.5, 1], [0.5, 0]]), np.zeros(2))
    assert metrics.state()["cells"] == [[0, 0, 1, 0], [0, SCORE_BINS - 1, 0, 1]]


def test_the_largest_number_of_a_plug_ins_row_counts():
    class Metrics(means.MeanMetrics):
        higher_is_better = {"error": False}  # noqa: RUF012

        def rows(self, prediction, target):
            return {"error": prediction - target}

    collector = Metrics("mine")
    collector.update(np.array([LARGEST_ROW_VALUE, 2 * LARGEST_ROW_VALUE, 1.0]), np.zeros(3), np.array([0.5, 9, 0.25]))
    assert (collector.state()["n"], collector.state()["non_finite"], collector.state()["loss"]) == (2, 1, 0.75)


# -- sums of made rows -------------------------------------------------------------------------------------------------


def made_state(*numbers, n=2, dimensions=2):
    packed = generation_state.pack_numbers(np.array(numbers, dtype=np.float64))
    return GenerationMetrics(dimensions).state() | {"n": n, "real": packed, "made": packed}


def test_two_rows_have_a_spread_and_a_distance():
    """Variances of 2 and 18 about 1 and 4."""
    found = compute(generation(np.array([[0.0], [2.0]]), np.array([[1.0], [7.0]])))
    assert found["fid"] == pytest.approx((1 - 4) ** 2 + 2 + 18 - 2 * 6)


def test_rows_that_are_withheld_are_told_of_and_are_not_none():
    state = GenerationMetrics(2).state()
    assert explain(state) == ["no rows"]
    (told,) = explain(state | {"withheld": 3})
    assert told.startswith("fid and kid: 3 rows are withheld")
    assert explain(made_state(0, 0, 0, 0, 0, 0)) == []


def test_features_are_as_many_as_a_machine_has_room_for(monkeypatch):
    monkeypatch.setattr(generation_state, "_MOST_DIMENSIONS", 2)
    check_state(made_state(0, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="at most 2"):
        check_state(made_state(*[0] * 10, dimensions=3, n=3))


def test_rows_of_zeros_and_spreads_that_rounding_turned_negative_are_taken():
    check_state(made_state(0, 0, 0, 0, 0, 0))
    rounding = generation_state._ROUNDING
    for size in (1e-3, 1.0, 1e6):
        # One column, all of the second moment in the mean, and a little less.
        total = np.sqrt(size * 4)
        for share, right in ((0.9, True), (1.1, False)):
            square = size * 2 * (1 - share * rounding)
            state = made_state(total, square, square**2, n=2, dimensions=1)
            if right:
                check_state(state)
            else:
                with pytest.raises(ValueError, match="no spread can be negative"):
                    check_state(state)


def test_an_empty_table_has_no_rows_to_sum():
    assert sparse.from_keys(np.zeros(0, dtype=np.int64), 2, 8) == [{"bins": [], "rows": []}] * 2
