"""States of metrics that just can be, and those beside them that cannot; lists at their caps, edges between bins."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.learning.metrics import (
    ClassificationMetrics,
    GenerationMetrics,
    SurvivalMetrics,
    check_state,
    compute,
    explain,
    generation_state,
    histogram,
    intervals,
    means,
    merge_states,
    tasks,
)
from v6_algorithm.learning.metrics.additive import from_sums, to_sums
from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS, CONFIDENCE_UNITS
from v6_algorithm.learning.metrics.intervals.repeats import _student
from v6_algorithm.learning.metrics.joined import MOST_LISTED, capped, joins
from v6_algorithm.learning.metrics.regression import RegressionMetrics
from v6_algorithm.learning.metrics.survival import calibration
from v6_algorithm.learning.metrics.survival import state as survival_state
from v6_algorithm.site.guard.coarse import coarse_state


def classes_of(rows, seed=0):
    generator = np.random.default_rng(seed)
    score = generator.random(rows)
    collector = ClassificationMetrics(2)
    collector.update(np.column_stack([1 - score, score]), generator.integers(0, 2, rows), np.zeros(rows))
    return collector.state()


def survival_of(rows=40, edges=(1.0, 2.0), horizons=(0.5, 1.5), seed=0):
    generator = np.random.default_rng(seed)
    collector = SurvivalMetrics(edges, horizons)
    prediction = np.column_stack([generator.normal(size=rows), np.full((rows, len(horizons)), 0.5)])
    target = np.column_stack([generator.exponential(1.5, rows), generator.integers(0, 2, rows)])
    collector.update(prediction, target, np.zeros(rows))
    return collector.state()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(edges=[1.0, 1.0]), "must increase"),
        (lambda state: state.update(horizons=[1.5, 1.5]), "must increase"),
        (lambda state: state.update(edges=[1.0, 2e60]), "each entry of edges"),
        (lambda state: state.update(edges=(1.0, 2.0)), "list of at most 200"),
        (lambda state: state.update(edges=[*range(201)]), "list of at most 200"),
        (lambda state: state.update(joined=-1), "joined"),
        (lambda state: state["cells"].insert(1, state["cells"][0]), "in order, each once"),
        (lambda state: state["cells"][-1].__setitem__(0, 3), "bins that there are"),
        (lambda state: state.update(cells={}), "must be a list"),
        (lambda state: state["exact"].__setitem__(0, 2 * state["exact"][1] + 1), "contradict"),
        (lambda state: state["exact"].__setitem__(1, state["exact"][1] + 1), "the same pairs"),
        (lambda state: state["exact"].__setitem__(2, state["binned"][3] + 1), "the same pairs"),
        (lambda state: state["early"][1].__setitem__(0, 1), "early"),
        (lambda state: state["early"][0].__setitem__(0, 1024 * state["leaving"][0][0] + 1), "early"),
        (lambda state: state["late"].__setitem__(1, 1024 * sum(row[2] for row in state["leaving"]) + 1), "late"),
        (lambda state: state["expected"].__setitem__(0, 1024 * 40 + 1), "sums of risks"),
        (lambda state: state["leaving"].reverse(), "the same rows"),
    ],
)  # fmt: skip
def test_a_survival_state_that_cannot_be_is_refused(change, message):
    state = survival_of()
    check_state(state)
    change(state)
    with pytest.raises(ValueError, match=message):
        check_state(copy.deepcopy(state))


def test_a_survival_state_may_have_all_that_its_rows_allow():
    state = survival_of()
    leaving = np.array(state["leaving"])
    there = 40 - np.cumsum(leaving.sum(axis=0))[:2]
    state["early"] = [[1024 * int(leaving[0][0])] * 2, [0, 1024 * int(leaving[0][1])]]
    state["late"], state["expected"] = (1024 * there).tolist(), [1024 * 40] * 2
    check_state(state)


def test_rows_up_to_the_largest_value_count_and_shapes_must_fit():
    collector = SurvivalMetrics([1.0])
    collector.update(np.array([[1e60], [2e60], [0.0]]), np.array([[1.0, 1], [1.0, 1], [np.inf, 0]]), np.zeros(3))
    assert (collector.state()["n"], collector.state()["non_finite"]) == (1, 2)
    for prediction, target, loss in (
        (np.zeros(2), np.zeros((2, 2)), np.zeros(2)), (np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2)),
        (np.zeros((2, 1)), np.zeros((2, 3)), np.zeros(2)), (np.zeros((2, 1)), np.zeros((2, 2)), np.zeros(3)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="shape"):
            collector.update(prediction, target, loss)


def test_sites_that_joined_cells_before_a_sum_are_told_of():
    state = coarse_state(survival_of(), 5)
    for number in (1, 2):
        told = explain(merge_states([from_sums(to_sums(state) | {"joined": number})]))
        assert any(f"{number} sites joined cells of time and risk before secure aggregation" in text for text in told)
    assert not any("joined cells" in text for text in explain(merge_states([state, state])))
    assert not any("joined cells" in text for text in explain(from_sums(to_sums(survival_of()))))


@pytest.mark.parametrize("place", [0, 1, 7, CALIBRATION_BINS - 1])
def test_a_rows_confidence_is_in_its_bin_but_for_half_a_unit(place):
    state = ClassificationMetrics(2)
    state.update(np.array([[0.4, 0.6]]), np.array([1]), np.zeros(1))
    state = state.state()
    width = CONFIDENCE_UNITS / CALIBRATION_BINS
    for units in (*range(CONFIDENCE_UNITS + 2),):
        if not (place - 0.2) * width < units < (place + 1.2) * width:
            continue
        told = [[0] * CALIBRATION_BINS for _ in range(3)]
        told[0][place], told[1][place], told[2][place] = 1, units, 1
        inside = place * width - 0.5 <= units <= (place + 1) * width + 0.5
        try:
            check_state(state | {"calibration": told})
        except ValueError:
            assert not inside, units
        else:
            assert inside, units


def test_states_of_many_rows_are_capped_wherever_they_are():
    large = classes_of(MOST_LISTED + 900)
    assert capped(large)["joined"] == 1
    assert capped({"site": large})["site"]["joined"] == 1
    assert capped([large, large])[1]["joined"] == 1
    assert capped([]) == []
    assert capped(["text"]) == ["text"]
    assert capped({"kind": "multitask", "n": 5000, "tasks": {"a": large}})["tasks"]["a"]["joined"] == 1
    other = {"kind": "regression", "n": 5000, "list": [1.0] * 9}
    assert capped(other) is other
    assert capped(None) is None


def test_the_states_of_several_targets_are_states_of_their_kinds():
    number = RegressionMetrics()
    number.update(np.zeros(3), np.arange(3.0), np.zeros(3))
    made = tasks.TaskMetrics({"a": 2, "b": None}).state()
    check_state(made)
    inner = made["tasks"]
    for wrong, message in (
        ({"tasks": {}}, "a dict of states"), ({"tasks": [1]}, "a dict of states"),
        ({"tasks": inner | {"b": 3}}, "must be of kind"), ({"tasks": inner | {"b": {}}}, "must be of kind"),
        ({"tasks": inner | {"b": {"kind": "survival"}}}, "must be of kind"),
        ({"tasks": inner | {"b": number.state()}}, "more rows than n"),
        ({"tasks": {"a": inner["a"]}}, "shape"), ({"n": -1}, "n of"), ({"non_finite": 0.5}, "non_finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_state(made | wrong)


def test_the_state_of_a_plug_ins_metrics_is_of_an_installed_plug_in(monkeypatch):
    of = {"mine": SimpleNamespace(Metrics=SimpleNamespace(higher_is_better={"error": False})),
          "bare": SimpleNamespace(Metrics=None)}  # fmt: skip
    monkeypatch.setattr(means.plugins, "problem", of.__getitem__)
    state = {"kind": "plugin", "problem": "mine", "n": 4, "non_finite": 0, "loss": 2.0, "sums": {"error": 6.0}}
    means.check(state)
    assert means.compute(state) == {"n": 4, "loss": 0.5, "error": 1.5}
    assert means.compute(state | {"n": 0}) == {"n": 0, "loss": None, "error": None}
    twice = means.merge([state, state | {"non_finite": 1}])
    assert twice == state | {"n": 8, "non_finite": 1, "loss": 4.0, "sums": {"error": 12.0}}
    for wrong, message in (
        ({"problem": "bare"}, "installed"), ({"problem": "nobody"}, "installed"), ({"problem": 3}, "installed"),
        ({"sums": ["error"]}, "must be error"), ({"sums": {}}, "must be error"),
        ({"sums": {"other": 1.0}}, "must be error"),
        ({"sums": {"error": np.nan}}, "error"), ({"n": 0}, "since n is 0"), ({"n": 0, "loss": 0.0}, "since n is 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            means.check(state | wrong)
    means.check(state | {"n": 0, "loss": 0.0, "sums": {"error": 0.0}})


@pytest.mark.parametrize("bins", [4, 9, 2**13])
def test_the_nearest_edge_is_the_nearest_at_both_ends_too(bins):
    edges = histogram.bin_edges(bins)
    near = np.concatenate([edges - 1e-9, edges + 1e-9, [0.0, 1.0]])
    sought = np.clip(near, 0, 1)
    places, found = histogram.nearest_edges(sought, bins)
    step = max(1, bins // 50)
    for value, place, edge in zip(sought[::step], places[::step], found[::step], strict=True):
        assert abs(edge - value) == np.abs(edges - value).min()
        assert edge == edges[place]


def test_a_group_of_risks_is_told_from_so_many_rows_on():
    least, groups = calibration._LEAST_ROWS, calibration.RISK_GROUPS
    rows = np.array([least] * groups)
    cells = np.array([[1, least - 2, 2]] * groups)
    risk = np.linspace(0.1, 0.9, groups)
    told = calibration._groups(cells, risk, rows, 0)
    assert told["rows"] == [least] * groups
    assert told["predicted"] == pytest.approx(risk.tolist())
    assert told["observed"] == [0.0] * groups
    assert calibration._groups(cells, risk, rows - 1, 0)["rows"] == []


def test_what_was_observed_by_a_time_is_a_life_table():
    """Three intervals; who leaves in one without an event does so halfway."""
    cells = np.array([[0, 2, 1], [1, 1, 3], [2, 0, 4], [0, 1, 0]])
    first, second = 3 / (12 - 0.5), 1 / (8 - 1.5)
    for place, died in ((0, [first]), (1, [first, second])):
        watched, error = calibration._observed(cells, place)
        survival = np.prod(1 - np.array(died))
        assert watched == pytest.approx(1 - survival)
        exposed = np.array([11.5, 6.5])[: place + 1]
        deaths = np.array([3, 1])[: place + 1]
        assert error == pytest.approx(survival * np.sqrt((deaths / (exposed * (exposed - deaths))).sum()))
    assert calibration._observed(cells, 2) is None
    assert calibration._observed(cells[:0], 0) is None


@pytest.mark.parametrize(("degrees", "quantile"), [(3, 3.178616995054), (9, 2.262143575446), (29, 2.045229605342)])
def test_students_quantile_is_abramowitz_and_steguns_expansion_and_stays_it(degrees, quantile):
    assert _student(degrees) == pytest.approx(quantile, rel=1e-11)


def test_no_rows_have_no_metrics():
    assert compute(merge_states([ClassificationMetrics(2).state()]))["n"] == 0


def test_a_class_that_nobody_has_is_no_trouble_to_sites_that_join_bins():
    generator = np.random.default_rng(0)
    collector = ClassificationMetrics(3)
    target = np.arange(60) % 2
    collector.update(generator.dirichlet(np.ones(3), 60), target, np.zeros(60))
    whole = compute(merge_states([collector.state(), collector.state()]))
    joined = compute(merge_states([coarse_state(collector.state(), 5)] * 2))
    assert joined["auroc"] == pytest.approx(whole["auroc"], abs=joined["auroc_resolution"])
    assert joined["auroc_resolution"] > whole["auroc_resolution"]


@pytest.mark.parametrize("seed", range(4))
def test_many_bins_give_what_few_give(seed):
    """Of fewer than forty bins sums are made one by one; empty bins beside them change nothing."""
    generator = np.random.default_rng(seed)
    above, below = generator.integers(0, 3, (2, 30))
    above[3], below[4] = 1, 1
    places = np.sort(generator.choice(90, 30, replace=False))
    wide = [np.zeros(90, dtype=np.int64), np.zeros(90, dtype=np.int64)]
    wide[0][places], wide[1][places] = above, below
    few = [above.tolist(), below.tolist()]
    for measure in (
        histogram.auroc, histogram.auroc_resolution, histogram.average_precision, histogram.average_precision_bounds,
        histogram.average_precision_resolution, histogram.auroc_error,
    ):  # fmt: skip
        assert measure(*few) == pytest.approx(measure(*wide), abs=1e-12), measure.__name__
    # Far more rows than int64 has room for their products: the same shares.
    many = [counts.astype(object) * 10**12 for counts in wide]
    assert histogram.auroc(*many) == pytest.approx(histogram.auroc(*few))
    assert histogram.auroc_resolution(*many) == pytest.approx(histogram.auroc_resolution(*few))
    assert histogram.average_precision(*many) == pytest.approx(histogram.average_precision(*few))
    large = [counts * 2**26 for counts in wide]
    assert histogram.auroc(*large) == pytest.approx(histogram.auroc(*few))
    assert histogram.rankings([tuple(wide), tuple(large)])[0] == pytest.approx([histogram.auroc(*few)] * 2)


@pytest.mark.parametrize(("parts", "few"), [(3, True), (8, False)])
def test_of_a_handful_of_joined_cells_the_interval_has_the_worst_case_in_it(parts, few):
    edges = np.linspace(0.2, 3, parts).tolist()
    states = [coarse_state(survival_of(60, edges, (), seed), 20 if few else 5) for seed in range(2)]
    merged = merge_states(states)
    found = compute(merged)
    cells = sum(len(listed) for listed, joined in merged["parts"] if joined)
    assert (cells < survival_state._FEWEST_JOINED) == few
    worst = survival_state._joined_resolution(merged, found["c_index"])
    assert found["c_index_resolution"] == worst
    allowed = worst if few else survival_state._resolution(merged, found["c_index"])
    ends = survival_state._interval(merged, found["c_index"], allowed)
    assert (found["c_index_low"], found["c_index_high"]) == ends
    assert found["c_index"] == pytest.approx(np.divide(*survival_state._all_pairs(merged)))


def generation_of(rows=6, dimensions=2):
    generator = np.random.default_rng(0)
    collector = GenerationMetrics(dimensions)
    collector.update(generator.normal(size=(rows, dimensions)), generator.normal(size=(rows, dimensions)))
    return collector.state()


def numbers_of(*numbers):
    return generation_state.pack_numbers(np.array(numbers, dtype=np.float64))


def test_sums_of_made_rows_that_cannot_be_are_refused():
    state = generation_of()
    check_state(state)
    total, products, quartic = np.array([2.0, 0.0]), [4.0, 0.0, 2.0], 100.0
    sums = numbers_of(*total, *products, quartic)
    check_state(state | {"n": 2, "real": sums, "made": sums})
    for wrong, message in (
        ({"real": 3}, "base64 of 6 float64"), ({"real": state["real"][:-4]}, "base64 of 6"),
        ({"real": "!" * len(state["real"])}, "base64 of 6"), ({"real": state["real"][:-2] + "A="}, "base64 of 6|sum"),
        ({"real": numbers_of(np.nan, 0, 1, 0, 1, 9)}, "finite"), ({"n": 1}, "dimensions or more"),
        ({"n": 0}, "must be 0, since n is 0"), ({"dimensions": 0}, "dimensions"), ({"dimensions": 4097}, "at most"),
        ({"real": numbers_of(12, 0, 4, 0, 2, 900)}, "no spread can be negative"),
        ({"real": numbers_of(0, 0, -4, 0, -2, 900)}, "no spread can be negative"),
        ({"real": numbers_of(0, 0, 6, 0, 6, 23)}, "contradicts itself"),
        ({"withheld": -1}, "withheld"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_state(state | wrong)
    check_state(state | {"real": numbers_of(0, 0, 6, 0, 6, 24)})
    nothing = numbers_of(*[0.0] * 6)
    check_state(state | {"n": 0, "real": nothing, "made": nothing})
    assert compute(state | {"n": 0, "real": nothing, "made": nothing})["fid"] is None


def test_what_is_computed_of_a_state_is_per_row_and_its_intervals_are_of_its_rows():
    generator = np.random.default_rng(0)
    target = (np.arange(90) % 3 == 0).astype(int)
    score = np.clip(generator.normal(0.4 + 0.2 * target, 0.2), 0.01, 0.99)
    collector = ClassificationMetrics(2)
    collector.update(np.column_stack([1 - score, score]), target, np.full(90, 0.5))
    found = compute(collector.state())
    assert (found["n"], found["loss"]) == (90, 0.5)
    assert found["brier"] == pytest.approx(np.mean((score - target) ** 2))
    ends = intervals.auroc_interval(found["auroc"], found["auroc_se"], 30, 60, found["auroc_resolution"])
    assert (found["auroc_low"], found["auroc_high"]) == ends
    ends = intervals.auprc_interval(found["auprc"], 30, 60, found["auprc_resolution"])
    assert (found["auprc_low"], found["auprc_high"]) == ends
    hits = (score > 0.5) == (target == 1)
    for name, right, of in (
        ("accuracy", hits, hits), ("recall", hits & (target == 1), target == 1),
        ("specificity", hits & (target == 0), target == 0), ("precision", hits & (score > 0.5), score > 0.5),
        ("npv", hits & (score <= 0.5), score <= 0.5),
    ):  # fmt: skip
        number = len(of) if name == "accuracy" else int(of.sum())
        assert found[name] == pytest.approx(right.sum() / number)
        assert (found[f"{name}_low"], found[f"{name}_high"]) == intervals.wilson(int(right.sum()), number), name
    state = survival_of()
    assert compute(state | {"loss": 20.0})["loss"] == 0.5


def test_two_rows_are_enough_for_distances_of_one_feature():
    collector = GenerationMetrics(1)
    collector.update(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]]))
    found = compute(collector.state())
    assert found["fid"] == pytest.approx(1.0)
    # (x y + 1)^2: of real 1, of made 16, across 1, 1, 9 and 49.
    assert found["kid"] == pytest.approx(1 + 16 - 2 * (1 + 1 + 9 + 49) / 4)


def test_sums_of_made_rows_are_added_up_number_by_number():
    states = [generation_of(), generation_of(9)]
    sums = [to_sums(state) for state in states]
    assert all(isinstance(number, float) for number in sums[0]["real"])
    whole = {name: np.add(*(each[name] for each in sums)).tolist() for name in ("real", "made")}
    added = from_sums(sums[0] | whole | {"n": 15})
    assert compute(added)["fid"] == pytest.approx(compute(merge_states(states))["fid"])
    with pytest.raises(ValueError, match="are not sums of numbers"):
        to_sums({"kind": "something"})


def test_where_every_threshold_has_the_specificity_all_positives_are_found():
    above, below, edges = np.array([2, 3]), np.array([1, 1]), np.array([0.0, 0.5])
    assert histogram.sensitivity_at(0.0, above, below, edges) == (1.0, 0.0, 0.0)
    assert histogram.sensitivity_at(0.5, above, below, edges) == (0.6, 0.5, 0.4)
    assert histogram.sensitivity_at(0.9, above, below, edges) == (0.0, None, 0.6)
    assert histogram.average_precision(np.zeros(50, dtype=int), np.ones(50, dtype=int)) == 0.0


def test_a_state_of_several_targets_joins_bins_where_one_of_them_does():
    made = tasks.TaskMetrics({"a": 2, "b": None}).state()
    assert not joins(made)
    assert joins(made | {"tasks": made["tasks"] | {"a": made["tasks"]["a"] | {"joined": 1}}})
    assert joins({"joined": 2})
    assert not joins({"joined": 0})
