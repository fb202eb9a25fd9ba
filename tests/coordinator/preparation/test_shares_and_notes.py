"""What sites count for and what is said of them: shares at their caps, means to four digits, knots at round numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.coordinator.preparation import negotiate
from v6_algorithm.coordinator.preparation.knots import _rounded
from v6_algorithm.coordinator.preparation.notes.images import tell_copies, tell_values
from v6_algorithm.coordinator.preparation.shares import capped_rows, scaled_moments, tell_shares
from v6_algorithm.coordinator.preparation.site_means import MOST_COLUMNS, site_means
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.sampled_from([0.2, 0.34, 0.5, 0.8, 1.0]))
@settings(max_examples=80)
def test_nobody_counts_for_more_than_the_share_and_no_one_loses_more_than_that_needs(counts, share):
    rows = {f"s{number}": count for number, count in enumerate(counts)}
    found = capped_rows(rows, share)
    total = sum(found.values())
    if share == 1 or len(rows) < 2:
        assert found == rows
        return
    assert all(0 < found[site] <= rows[site] for site in rows)
    if len(rows) * share < 1:
        assert len(set(found.values())) == 1
        return
    assert max(found.values()) <= share * total * (1 + 1e-9) or len(set(found.values())) == 1
    # Who is below the cap keeps all rows, and who is not has the cap.
    capped = {site for site in rows if found[site] < rows[site]}
    if capped and len(set(found.values())) > 1:
        assert [found[site] for site in capped] == pytest.approx([share * total] * len(capped))


def test_moments_of_a_capped_site_are_of_fewer_rows_alike():
    values = {"a": np.arange(8.0)[:, None], "b": np.arange(2.0)[:, None]}
    moments = {site: Moments.of([rows], with_range=True) for site, rows in values.items()}
    rows = {site: [{"train": len(part)}] for site, part in values.items()}
    a, b = scaled_moments(moments, rows, 0.5)
    assert (a.rows.tolist(), a.count.tolist(), a.mean.tolist()) == ([2.0], [[2.0]], [[3.5]])
    assert a.squares.tolist() == [[42.0 / 4]]
    assert (b.rows.tolist(), b.count.tolist(), b.squares.tolist()) == ([2.0], [[2.0]], [[0.5]])
    assert scaled_moments(moments, rows, 1.0) == list(moments.values())
    assert scaled_moments({"a": moments["a"]}, rows, 0.5) == [moments["a"]]
    # A fold without rows here stays as it is.
    none = {"a": [{"train": 0}], "b": [{"train": 2}]}
    assert scaled_moments(moments, none, 0.5)[0].rows.tolist() == [8.0]


def test_a_site_with_most_of_the_rows_is_named():
    def told(a, b, share=1.0):
        return tell_shares({"a": [{"train": a}, {"train": 0}], "b": [{"train": b}]}, share)

    assert told(80, 20) == []
    (note,) = told(81, 19)
    assert note.startswith("site 'a' tells of 81.0% of all training rows, so the model is mostly its own")
    assert told(50, 50, 0.5) == []
    (note,) = told(51, 49, 0.5)
    assert (
        note == "site 'a' tells of 51.0% of all training rows and counts as having 50.0% (participation.maximum_share)"
    )
    assert told(0, 0) == []
    assert tell_shares({"a": [{"train": 9}]}, 1.0) == []


def test_images_ten_times_as_bright_are_named_and_less_is_not():
    def of(size):
        return Moments.of([np.array([[size], [-size]])], with_range=False)

    assert tell_values({"a": of(1.0), "b": of(9.99)}) == []
    (note,) = tell_values({"a": of(1.0), "b": of(10.0)})
    assert "differ 10-fold" in note
    assert "a 1, b 10" in note
    assert tell_values({"a": of(0.0), "b": of(10.0)}) == []


def test_copies_are_told_where_they_are_apart_first():
    assert tell_copies({"a": {"rows": 0, "apart": 0}}) == []
    (note,) = tell_copies({"a": {"rows": 6, "apart": 2}})
    assert note.startswith("site 'a': 2 images have an exact copy in another part")
    (note,) = tell_copies({"a": {"rows": 6, "apart": 0}})
    assert note.startswith("site 'a': 6 images are exact copies of others")


def test_means_of_a_site_have_four_digits_and_hidden_columns_none():
    moments = Moments.of([np.array([[1.0, np.nan], [2.0, np.nan], [4.0, np.nan]])], with_range=False)
    (site,) = site_means({"a": moments}, ["x", "z"]).values()
    assert site == {
        "rows": 3,
        "columns": {"x": {"n": 3, "mean": 2.333, "sd": 1.247}, "z": {"n": 0, "mean": None, "sd": None}},
    }
    many = [f"c{number}" for number in range(MOST_COLUMNS + 1)]
    assert site_means({"a": moments}, many) == {}
    assert site_means({}, many[1:]) == {}


@pytest.mark.parametrize(("spread", "rounded"), [(1.0, [1.2, 3.5]), (9.0, [1.2, 3.5]), (10.0, [1, 3]), (123.0, [0, 0])])
def test_knots_are_rounded_to_a_tenth_of_the_order_of_the_spread(spread, rounded):
    assert _rounded([1.23, 3.46], spread) == pytest.approx(rounded)


@pytest.mark.parametrize(("train", "made", "told"), [(2, 0, True), (1, 0, False), (7, 5, True), (6, 5, False)])
def test_a_hospital_of_too_few_groups_is_named_where_it_has_two_rows_of_patients(train, made, told):
    split = {"kind": "ratio", "train": 0.6, "validation": 0.2, "test": 0.2}
    grouped = Experiment.parse({"data": {"target": "y", "group": "patient"}, "model": "linear", "split": split})
    alone = Experiment.parse({"data": {"target": "y"}, "model": "linear", "split": split})
    counts = [{"a": {"train": train, "validation": 0, "test": 3}}]
    notes = negotiate._tell_unsplit(grouped, counts, {"a": made})
    assert bool(notes) is told
    assert not told or "site 'a': no row is for validation: data.group 'patient' keeps groups whole" in notes[0]
    assert negotiate._tell_unsplit(alone, counts, {}) == []
    full = [{"a": {"train": 9, "validation": 1, "test": 3}}]
    assert negotiate._tell_unsplit(grouped, full, {}) == []
    without = grouped.model_copy(update={"split": grouped.split.model_copy(update={"validation": 0.0})})
    assert negotiate._tell_unsplit(without, counts, {}) == []


def test_class_weights_are_balanced_over_all_sites_rows():
    counts = [[[1, 3]], [[2, 0]]]
    agreement = SimpleNamespace(classes=[0, 1])

    def weights(given, counts=counts):
        training = {"loss": {"kind": "cross_entropy", "class_weights": given}}
        content = {"data": {"target": "y"}, "model": "mlp", "problem": "classification", "training": training}
        return negotiate._class_weights(Experiment.parse(content), agreement, counts)

    assert weights("balanced") == [[1.0, 1.0]]
    assert weights("balanced", [[[6, 2]], [[0, 0]]]) == [[8 / 12, 8 / 4]]
    assert weights("balanced", [[[6, 0]]]) == [[0.5, 3.0]]
    assert weights([1.0, 4.0], [[[6, 1], [2, 5]]]) == [[1.0, 4.0]] * 2
    assert weights(None) is None
    with pytest.raises(ExperimentError, match="3 weights are given, the sites have 2 classes"):
        weights([1.0, 4.0, 2.0])
