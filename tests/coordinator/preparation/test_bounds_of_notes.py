"""From where on something is told or refused in preparation: each limit from just below and from just above."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation.event_times import (
    agree_on_times,
    check_times,
    needs_times,
    tell_units,
    tell_units_by_bins,
)
from v6_algorithm.coordinator.preparation.harmonise import _tell_loose
from v6_algorithm.coordinator.preparation.imputation import agree_on_imputation
from v6_algorithm.coordinator.preparation.joining import Joining
from v6_algorithm.coordinator.preparation.knots import _rounded
from v6_algorithm.coordinator.preparation.negotiate import _require_values, _tell_dropped, _without_ledger, tell_silent
from v6_algorithm.coordinator.preparation.notes.far_from_zero import tell_far
from v6_algorithm.coordinator.preparation.notes.images import tell_copies, tell_values
from v6_algorithm.coordinator.preparation.notes.patients import tell_shared_patients
from v6_algorithm.coordinator.preparation.schema_checks import (
    check_class_counts,
    check_copies,
    check_counts,
    check_schema,
    check_sums,
    check_trained_on,
)
from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.data.preparation.setup import Setup, pack_arrays
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.preparation.times import count_times
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Experiment

COX = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival"}


def of_spread(mean, deviation):
    """Return moments of one column with this mean and standard deviation."""
    return Moments.of([np.array([[mean - deviation], [mean + deviation]])], with_range=False)


# -- event times -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "fits"), [(33, True), (34, False)])
def test_sums_at_event_times_may_be_33_million_numbers(times, fits):
    """Of 999 columns 1,001,000 numbers a time: a count, sums and products, at risk and of events."""
    setup = Setup([f"c{number}" for number in range(999)], {}, None)
    answers = {"a": (np.arange(float(times)), [2, 2])}
    if fits:
        assert len(agree_on_times(answers, setup)[0].event_times) == times
    else:
        with pytest.raises(ExperimentError, match=f"{times * 1_001_000} numbers a round, more than {2**25}"):
            agree_on_times(answers, setup)


@pytest.mark.parametrize(
    ("model", "needs"),
    [({"kind": "cox", "strata": "none"}, True), ({"kind": "cox", "strata": "site"}, False), ({"kind": "mlp"}, False)],
)
def test_event_times_are_asked_for_where_all_sites_have_one_baseline(model, needs):
    assert needs_times(Experiment.parse(COX | {"model": model})) is needs


@pytest.mark.parametrize("times", [[-1.0, 2.0], [2.0, 2.0], [3.0, 2.0], [0.0, math.inf], [math.nan], [[0.0, 1.0]]])
def test_event_times_rise_from_0_on(times):
    good = {"event_times": pack_arrays({"times": np.array([0.0, 2.0])}), "cell": [1, 1]}
    assert check_times(good)[0].tolist() == [0, 2]
    with pytest.raises(WireError, match="increasing finite times from 0 on"):
        check_times(good | {"event_times": pack_arrays({"times": np.array(times)})})


@pytest.mark.parametrize(("factor", "told"), [(4.9, False), (5.1, True), (12.0, True)])
def test_times_that_differ_fivefold_are_told(factor, told):
    schemas = {"p": {"log_times": (9, 3.0)}, "q": {"log_times": (1, 3.0 + math.log2(factor))}}
    notes = tell_units(schemas)
    assert bool(notes) is told
    assert not told or f"differ {factor:.0f}-fold" in notes[0]
    assert tell_units({"q": schemas["q"], "p": {"log_times": (0, 3.0)}}) == []


# -- images, columns, patients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("apart", "told"), [(1.74, False), (1.76, True)])
def test_images_whose_means_are_so_many_deviations_apart_are_told(apart, told):
    """Deviations of 2 and 1: what counts is the larger. Neither site lies around 0."""
    assert bool(tell_values({"a": of_spread(5, 2), "b": of_spread(5 + 2 * apart, 1)})) is told
    assert bool(tell_values({"a": of_spread(5, 1), "b": of_spread(5 + 2 * apart, 2)})) is told


@pytest.mark.parametrize(
    ("around", "other", "told"),
    [(0.09, 0.76, True), (-0.09, 0.76, True), (0.11, 0.76, False), (0.09, 0.74, False), (0.0, -0.9, False)],
)
def test_images_around_0_beside_such_as_begin_there_are_told(around, other, told):
    assert bool(tell_values({"a": of_spread(around, 1), "b": of_spread(other, 1)})) is told


def test_images_of_one_value_and_of_no_value_are_compared_too():
    (note,) = tell_values({"a": of_spread(3, 0), "b": of_spread(5, 0)})
    assert "a 3 ± 0, b 5 ± 0" in note
    assert tell_values({"a": of_spread(3, 0), "b": of_spread(3, 0)}) == []
    empty = Moments.of([np.full((2, 1), np.nan)], with_range=False)
    assert tell_values({"a": empty, "b": of_spread(5, 1)}) == []


@pytest.mark.parametrize(("rows", "apart", "said"), [(None, 0, "some images are exact"), (9, None, "some images have")])
def test_copies_too_few_to_be_counted_are_some(rows, apart, said):
    (note,) = tell_copies({"a": {"rows": rows, "apart": apart}})
    assert said in note


@pytest.mark.parametrize(("mean", "told"), [(6.6e4, False), (6.8e4, True), (-6.8e4, True)])
def test_columns_are_far_from_0_where_rounding_is_a_thousandth_of_what_they_span(mean, told):
    """Float32 rounds by 2⁻²⁴ of the mean; four deviations of 1 are spanned: from 0.004 · 2²⁴ = 67,109 on."""
    none = {"data": {"target": "y", "scaling": "none"}, "model": "mlp", "problem": "regression"}
    moments = of_spread(mean, 1)
    for unit in (0.125, 1.0, 16.0):
        assert bool(tell_far(Experiment.parse(none), ["x"], of_spread(mean * unit, unit))) is told
    for changes in (
        {"data": {"target": "y"}}, {"training": {"dtype": "float64"}}, {"model": {"kind": "glm"}},
        {"data": {"target": "y", "scaling": "none", "harmonisation": "combat"}},
    ):  # fmt: skip
        assert tell_far(Experiment.parse(none | changes), ["x"], moments) == []
    assert tell_far(Experiment.parse(none), ["x"], of_spread(mean, 0)) == []


def shared(**hashes):
    """Return what is told of sites with these hashes, the key of those in capitals being another."""
    experiment = Experiment.parse({"data": {"target": "y", "group": "patient"}})
    schemas = {
        site: {"groups": {"keyed": site.islower(), "hashes": told}} if told is not None else {}
        for site, told in hashes.items()
    }
    return tell_shared_patients(experiment, schemas)


def test_five_patients_at_two_sites_are_counted_and_four_are_a_few():
    five = list("abcde")
    (note,) = shared(p=five, q=[*five, "z"], r=["y"])
    assert "at p and q (5):" in note
    (note,) = shared(p=five, q=five[:4])
    assert "at p and q (a few):" in note
    assert shared(p=five, q=["z"]) == []
    assert shared(p=five) == []


def test_ten_pairs_of_sites_are_listed_and_more_are_counted():
    (note,) = shared(**{site: ["x"] for site in "abcde"})
    assert note.count("(a few)") == 10
    assert "more pairs" not in note
    (note,) = shared(**{site: ["x"] for site in "abcdef"})
    assert note.count("(a few)") == 10
    assert ", and 5 more pairs:" in note


def test_sites_that_cannot_be_compared_are_the_fewer_of_two_keys_and_those_without_any():
    (note,) = shared(p=["x"], q=["z"], R=["x"], s=None)
    assert "could not be compared for R, s:" in note
    (note,) = shared(P=["x"], Q=["z"], r=["x"])
    assert "could not be compared for r:" in note


@pytest.mark.parametrize(("spread", "digits"), [(0.0, None), (-1.0, None), (0.099, 3), (0.1, 2), (5000.0, -2)])
def test_knots_of_a_column_without_spread_stay_where_they_are(spread, digits):
    places = [1234.5678, 2.71828]
    assert _rounded(places, spread) == (places if digits is None else [round(place, digits) for place in places])


@pytest.mark.parametrize(("scaling", "what"), [("robust", "median and quartiles of"), ("standard", "the median of")])
def test_quantiles_known_to_more_than_a_tenth_of_their_spread_only_are_named(monkeypatch, scaling, what):
    from v6_algorithm.coordinator.preparation import harmonise

    monkeypatch.setattr(harmonise, "loose_quantiles", lambda *_: np.array([0.09, 0.11, 0.1]))
    data = Experiment.parse({"data": {"target": "y", "scaling": scaling, "missing": "median"}}).data
    setup = SimpleNamespace(features=["x", "z", "v"])
    (note,) = _tell_loose(data, setup, None, [object()])
    assert note.startswith(f"{what} z: known to more than 10% of their spread only")
    assert _tell_loose(data, setup, None, []) == []
    monkeypatch.setattr(harmonise, "loose_quantiles", lambda *_: np.array([0.09, 0.1, 0.0]))
    assert _tell_loose(data, setup, None, [object()]) == []


def test_silent_nodes_are_named_with_what_follows():
    assert tell_silent([], others=True) == []
    (note,) = tell_silent(["a", "b"], others=True)
    assert note.startswith("a, b: this node measures models at the end")
    assert "look at the other sites" in note
    assert "all rounds are trained" in tell_silent(["a"], others=False)[0]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"refuse_differences": True}, True), ({"refuse_differences": True, "differences_over_tasks": False}, True),
        ({"refuse_differences": True, "differences_over_tasks": True}, False), ({"refuse_differences": False}, False),
        ({}, False), ({"refuse_differences": 1}, False),
    ],
)  # fmt: skip
def test_nodes_that_forget_at_the_end_of_a_task_are_named(rules, told):
    notes = _without_ledger({"a": rules, "b": {}})
    assert bool(notes) is told
    assert not told or notes[0].startswith("a: this node's rule")


def test_rows_that_drop_leaves_out_are_counted_where_all_rows_are_in_a_part():
    data = {"target": "y", "missing": "drop"}
    content = {"data": data, "model": "linear", "problem": "regression"}
    fold = {"a": {"train": 6, "validation": 1, "test": 2}, "b": {"train": 5, "validation": 0, "test": 0}}

    def told(known, by_fold=(fold,), **changes):
        return _tell_dropped(Experiment.parse(content | changes), known, list(by_fold))

    known = {"a": 10, "b": 5}
    assert told(known) == ["data.missing drop: 1 of 15 rows have an empty cell and are left out"]
    assert told({"a": 9, "b": 5}) == []
    assert told({"a": 11}, [{"a": fold["a"]}]) == [
        "site 'a': data.missing drop: 2 of 11 rows have an empty cell and are left out"
    ]
    assert told(known, split={"kind": "kfold", "folds": 3}) != []
    for known_there, by_fold, changes in (
        (known, [fold], {"data": data | {"missing": "mean"}}), (known, [fold], {"data": data | {"load_limit": 9}}),
        (known, [fold], {"split": "leave_one_site_out"}), (known, [], {}), ({"a": 10}, [fold], {}),
        (known, [fold], {"privacy": {"secure_aggregation": {"threshold": 2}}}),
    ):  # fmt: skip
        assert told(known_there, by_fold, **changes) == []


# -- what sites say --------------------------------------------------------------------------------------------------

KIND = SimpleNamespace(check=lambda schema: None)
SCHEMA = {
    "labels": [0, 1], "task_labels": {}, "categories": {}, "rows": 40, "rows_without_target": 2, "columns": {},
    "synthetic": 0, "hints": {},
}  # fmt: skip


@pytest.mark.parametrize("told", [[0, 1100.0], [10**9, -1100.0], [3, 0]])
def test_the_mean_logarithm_of_event_times_is_one_that_float64_has(told):
    assert check_schema(SCHEMA | {"log_times": told}, KIND)["log_times"] == told


@pytest.mark.parametrize("told", [[-1, 1.0], [1.0, 1.0], [3, 1101.0], [3, -1101.0], [3, "1"], [3, math.nan]])
def test_another_mean_logarithm_is_refused(told):
    with pytest.raises(WireError, match="mean logarithm"):
        check_schema(SCHEMA | {"log_times": told}, KIND)


@pytest.mark.parametrize("number", [9_999, 10_000, 10_001])
def test_there_are_ten_thousand_labels_at_most(number):
    schema = SCHEMA | {"task_labels": {"grade": list(range(number))}}
    if number <= 10_000:
        assert len(check_schema(schema, KIND)["task_labels"]["grade"]) == number
    else:
        with pytest.raises(WireError, match="at most 10000"):
            check_schema(schema, KIND)


def test_counts_of_folds_parts_classes_and_categories_have_their_shape():
    part = {"train": 3, "validation": 0, "test": 10**9}
    assert check_counts([{"a": part}, {}]) == [{"a": part}, {}]
    for wrong in ([], [{"a": part | {"test": -1}}], [{"a": part}, {"a": part | {"train": True}}]):
        with pytest.raises(WireError, match="row counts are malformed"):
            check_counts(wrong)
    agreement = SimpleNamespace(classes=["no", "yes"])
    assert check_class_counts(None, 2, agreement) is None
    assert check_class_counts([[1, 2], [0, 3]], 2, agreement) == [[1, 2], [0, 3]]
    for wrong in ([[1, 2]], [[1, 2], [3]], [[1, 2], [3, -1]], [[1, 2, 3], [1, 2, 3]]):
        with pytest.raises(WireError, match="class counts are malformed"):
            check_class_counts(wrong, 2, agreement)
    assert check_class_counts([[], []], 2, SimpleNamespace(classes=None)) == [[], []]
    assert check_trained_on([[1, 0, 2]], 1, 3) == [[1, 0, 2]]
    for wrong in ([], [[1, 0]], [[1, 0, -2]], [[1, 0, 2], [1, 0, 2]]):
        with pytest.raises(WireError, match="categories of its training rows is malformed"):
            check_trained_on(wrong, 1, 3)


def test_counts_of_copies_may_be_none_where_they_are_few():
    assert check_copies(None) == {"rows": 0, "apart": 0}
    assert check_copies({"rows": 7, "apart": None}) == {"rows": 7, "apart": None}
    for wrong in ({"rows": -1, "apart": 0}, {"rows": 0, "apart": 0.5}, {"rows": "1", "apart": 0}):
        with pytest.raises(WireError, match="counts of copies are malformed"):
            check_copies(wrong)


def test_sums_of_a_problem_are_finite_and_of_one_shape():
    edge = {"s": np.array([LARGEST_NUMBER, -LARGEST_NUMBER])}
    assert check_sums(pack_arrays(edge), None)["s"].tolist() == edge["s"].tolist()
    assert check_sums(None, None) == {}
    assert check_sums(pack_arrays(edge), {"s": np.zeros(2)})["s"].shape == (2,)
    for wrong in (math.inf, math.nan, LARGEST_NUMBER * 1.01):
        with pytest.raises(WireError, match="not finite"):
            check_sums(pack_arrays({"s": np.array([wrong])}), None)
    for others in ({"s": np.zeros(3)}, {"t": np.zeros(2)}, {}):
        with pytest.raises(WireError, match="other names or shapes"):
            check_sums(pack_arrays(edge), others)


def test_a_hint_of_every_kind_may_be_told():
    columns = {f"c{number}": "number" for number in range(len(HINTS))}
    hints = dict(zip(columns, HINTS, strict=True))
    assert check_schema(SCHEMA | {"columns": columns, "hints": hints}, KIND)["hints"] == hints


def test_a_column_is_lost_where_some_site_hides_it_and_none_has_values():
    values = Moments.of([np.array([[1.0, np.nan, np.nan], [2.0, np.nan, np.nan]])], with_range=False)
    columns = ["full", "empty", "hidden"]
    _require_values({"a": [], "b": ["full"]}, columns, values)
    _require_values({"a": ["hidden"]}, columns, None)
    with pytest.raises(ExperimentError, match=r"statistics of column 'hidden'|statistics of column hidden"):
        _require_values({"a": ["full"], "b": ["hidden"]}, columns, values)


# -- who joins -------------------------------------------------------------------------------------------------------


def joining(schema, *, problem="classification", agreed=None):
    """Let a site join that tells of this table; what was agreed on is a feature, a category and classes."""
    site = object.__new__(Joining)
    site._experiment = Experiment.parse({"data": {"target": "y", "categorical": ["sex"]}, "problem": problem})
    told = SCHEMA | {"labels": [], "columns": {"age": "numeric", "sex": "text"}, "categories": {"sex": ["f", "m"]}}
    setup = Setup(["age"], {"sex": ["f", "m"]}, ["no", "yes"] if problem == "classification" else None)
    reply = {"members": {"new": told | schema}, "policy": {"round_metrics": False}}
    return site._check_schema(reply, setup)


@pytest.mark.parametrize("labels", [["no", "yes"], ["yes"]])
def test_a_site_with_columns_and_classes_that_were_agreed_on_joins(labels):
    assert joining({"labels": labels, "synthetic": 3}) == ({"new": 3}, {"round_metrics": False})
    assert joining({"categories": {"sex": ["m"]}, "labels": labels})[0] == {"new": 0}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"labels": ["no", "maybe"]}, "the target has values that no site had"),
        ({"labels": ["no"], "categories": {"sex": ["f", "x"]}}, "sex has values that no site had"),
        ({"labels": ["no"], "columns": {"sex": "text"}}, "age is not there, or of another kind"),
        ({"labels": ["no"], "columns": {"age": "numeric"}, "categories": {}}, "'sex' .data.categorical. is not there"),
    ],
)
def test_a_site_with_others_does_not(schema, reason):
    with pytest.raises(ExperimentError, match=reason):
        joining(schema)


def test_a_regressions_site_joins_without_classes():
    assert joining({}, problem="regression")[0] == {"new": 0}


@pytest.mark.parametrize(("known", "told"), [(20, "no feature has an empty cell"), (19, "empty are c 5.0%.")])
def test_one_empty_cell_of_all_sites_is_drawn(known, told):
    """Two sites of ten rows; a column of numbers is whole, and of the category's 20 cells `known` are."""
    missing = {"kind": "impute", "imputations": 2, "iterations": 1}
    content = {"data": {"target": "y", "missing": missing}, "problem": "regression", "model": {"kind": "glm"}}
    setup = Setup(["x"], {"c": ["a", "b"]}, None)
    design = np.random.default_rng(0).normal(size=(known, setup.imputed_width(1)))
    design[:, 0] = 1

    def gather(sites, body, check):
        parts = {"a": design[:10], "b": design[10:]}
        products = {site: np.tile(part.T @ part, (2, 1, 1, 1)) for site, part in parts.items()}
        return {site: check({"products": pack_arrays({"products": products[site]})}) for site in sites}

    moments = Moments.of([np.arange(20.0)[:, None]], with_range=False)
    _, notes = agree_on_imputation(gather, Experiment.parse(content), setup, moments, ["a", "b"])
    assert told in notes[0]


def test_other_units_of_time_are_told_by_bins_where_no_node_tells_a_mean():
    """Under policy standard days beside years were trained on without a word."""
    days = np.array([2.0, 90.0, 400.0, 1500.0])
    sums = {"a": {"event_times": count_times(days)}, "b": {"event_times": count_times(days / 365.25)}, "c": {}}
    (note,) = tell_units_by_bins(sums, 0.0)
    assert note.startswith("the sites' event times differ 362-fold (by bins of time; shortest at b, longest at a)")
    assert tell_units_by_bins(sums, 3.0) == []
    assert tell_units_by_bins({"a": sums["a"], "b": {"event_times": count_times(days * 3)}}, 0.0) == []
    assert tell_units_by_bins({"a": sums["a"], "b": {"event_times": np.zeros_like(count_times(days))}}, 0.0) == []
