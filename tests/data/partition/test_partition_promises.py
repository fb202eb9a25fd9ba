"""What every kind of partition promises: disjoint, complete, no empty site, whole groups, one seed one result."""

from __future__ import annotations

import numpy as np
import pytest
from cutting import counts, cut, cut_frame, frame_of
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.errors import ExperimentError

SITES = st.integers(1, 5)
SEEDS = st.integers(0, 2**32 - 1)
# Three classes with 20 rows or more each, in any order: enough for each kind below.
LABELS = st.builds(
    lambda rest, seed: np.random.default_rng(seed).permutation([*([0, 1, 2] * 20), *rest]),
    st.lists(st.integers(0, 2), max_size=60),
    SEEDS,
)


def kind(name, **options):
    return st.fixed_dictionaries({"kind": st.just(name), "sites": SITES, **options})


SIZES = st.lists(st.floats(0.01, 100), min_size=1, max_size=5)
COMPLETE = st.one_of(
    kind("iid"),
    st.builds(lambda sizes: {"kind": "sizes", "sizes": sizes}, SIZES),
    kind("size_skew", growth=st.sampled_from(["linear", "square", "exponential"])),
    kind("unbalanced"),
    kind("dirichlet", alpha=st.sampled_from([1e-12, 0.1, 1.0, 100.0])),
    kind("inner_dirichlet", alpha=st.sampled_from([1e-12, 0.1, 1.0, 100.0])),
    st.builds(lambda sizes: {"kind": "inner_dirichlet", "sizes": sizes}, SIZES),
    kind("shards", shards_per_site=st.integers(1, 3)),
    st.builds(
        lambda sites, k: {"kind": "pathological", "sites": sites + 2, "classes_per_site": k}, SITES, st.integers(1, 3)
    ),
    st.sampled_from([[100], [50, 30, 20], [1 / 3 * 100, 200 / 3]]).map(
        lambda percentages: {"kind": "per_class", "percentages": percentages}
    ),
    kind("continuous", by=st.just("age"), strictness=st.sampled_from([0.0, 0.5, 1.0])),
    kind("grouped", by=st.just("patient")),
)
PARTIAL = st.one_of(
    kind("balanced"),
    kind("balanced", rows=st.integers(15, 60)),
    kind("unbalanced", rows=st.integers(15, 60)),
    st.just({"kind": "counts", "counts": {"0": [3, 4], "1": [0, 5]}}),
    st.just(
        {
            "kind": "slices",
            "lists": {"sick": {"where": {"y": "> 0"}}, "all": {"where": {"y": "== 0"}}},
            "sites": {"a": [{"list": "sick", "stop": 3}], "b": [{"list": "all"}, {"list": "sick", "start": 3}]},
        }
    ),
)


def table(labels, seed=0):
    generator = np.random.default_rng(seed)
    return frame_of(labels, age=generator.normal(50, 20, len(labels)), patient=generator.integers(0, 30, len(labels)))


@given(st.one_of(COMPLETE, PARTIAL), LABELS, SEEDS)
def test_no_row_is_at_two_sites_and_no_site_is_empty(content, labels, seed):
    parts = cut_frame(table(labels), content, seed).rows
    together = np.concatenate(parts)
    assert all(len(part) for part in parts)
    assert len(np.unique(together)) == len(together)
    assert together.min() >= 0
    assert together.max() < len(labels)


@given(COMPLETE, LABELS, SEEDS)
def test_kinds_that_promise_it_give_every_row_to_a_site(content, labels, seed):
    parts = cut_frame(table(labels), content, seed).rows
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@given(st.one_of(COMPLETE, PARTIAL), LABELS, SEEDS)
def test_rows_of_a_site_are_in_order(content, labels, seed):
    assert all((np.diff(part) > 0).all() for part in cut_frame(table(labels), content, seed).rows)


@given(st.one_of(COMPLETE, PARTIAL), LABELS, SEEDS)
def test_the_same_seed_gives_the_same_sites(content, labels, seed):
    one, other = (cut_frame(table(labels), content, seed) for _ in range(2))
    assert one.names == other.names
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["iid", "unbalanced", "dirichlet", "inner_dirichlet", "shards", "balanced"])
def test_another_seed_gives_other_sites(name):
    labels = np.arange(90) % 3
    firsts = {tuple(cut({"kind": name, "sites": 3}, labels, seed)[0]) for seed in range(5)}
    assert len(firsts) == 5


# -- groups --------------------------------------------------------------------------------------------------------

KEEPS_GROUPS = st.one_of(
    kind("iid"),
    st.builds(lambda sizes: {"kind": "sizes", "sizes": sizes}, st.lists(st.floats(1, 10), min_size=1, max_size=4)),
    kind("size_skew", growth=st.sampled_from(["linear", "square"])),
    kind("unbalanced"),
    kind("unbalanced", rows=st.integers(30, 60)),
    kind("dirichlet", alpha=st.sampled_from([0.1, 1.0, 100.0])),
    kind("inner_dirichlet", alpha=st.sampled_from([0.1, 1.0, 100.0])),
    st.just({"kind": "per_class", "percentages": [50, 30, 20]}),
    kind("continuous", by=st.just("age"), strictness=st.sampled_from([0.0, 0.5, 1.0])),
    kind("grouped", by=st.just("patient")),
)


def is_whole(parts, group):
    homes = [set(group[part].tolist()) for part in parts]
    return sum(map(len, homes)) == len(set.union(*homes))


@pytest.mark.slow
@given(KEEPS_GROUPS, LABELS, SEEDS)
@settings(max_examples=200)
def test_groups_stay_whole_under_every_kind_that_can_keep_them(content, labels, seed):
    frame = table(labels, seed)
    parts = cut_frame(frame, content, seed, group="patient").rows
    group = frame["patient"].to_numpy()
    assert all(len(part) for part in parts)
    assert is_whole(parts, group)
    # A group that is taken is taken whole, from a table that is not used up as well.
    taken = np.concatenate(parts)
    assert sorted(taken.tolist()) == np.flatnonzero(np.isin(group, group[taken])).tolist()


NATURAL = st.just({"kind": "natural", "by": "ward"})


@pytest.mark.slow
@given(st.one_of(COMPLETE, PARTIAL, NATURAL), LABELS, SEEDS)
@settings(max_examples=200)
def test_no_kind_puts_a_patient_at_two_sites_what_it_cannot_keep_whole_it_refuses(content, labels, seed):
    frame = table(labels, seed).assign(ward=np.random.default_rng(seed).integers(0, 3, len(labels)))
    try:
        parts = cut_frame(frame, content, seed, group="patient").rows
    except ExperimentError:
        return
    assert is_whole(parts, frame["patient"].to_numpy())


@given(st.one_of(kind("shards"), st.builds(lambda s: {"kind": "pathological", "sites": s + 1}, SITES)), SEEDS)
def test_kinds_that_say_which_labels_a_site_holds_keep_groups_of_one_label_whole(content, seed):
    patient = np.random.default_rng(seed).integers(0, 40, 200)
    frame = frame_of(patient % 3, patient=patient)
    assert is_whole(cut_frame(frame, content, seed, group="patient").rows, patient)


@pytest.mark.parametrize("name", ["shards", "pathological"])
def test_kinds_that_say_which_labels_a_site_holds_refuse_groups_of_two_labels(name):
    frame = frame_of([0, 1] * 30, patient=np.arange(60) // 2)
    with pytest.raises(ExperimentError, match=f"kind {name} says which labels .* groups with rows of two labels"):
        cut_frame(frame, {"kind": name, "sites": 2}, group="patient")


@pytest.mark.parametrize("content", [{"kind": "balanced", "sites": 2}, {"kind": "counts", "counts": {0: [2, 2]}}])
def test_kinds_of_exact_numbers_refuse_groups_of_several_rows(content):
    frame = frame_of([0, 1] * 30, patient=np.arange(60) // 2)
    with pytest.raises(ExperimentError, match="groups of several rows cannot stay whole"):
        cut_frame(frame, content, group="patient")


def test_natural_sites_refuse_a_group_at_two_of_them():
    frame = frame_of([0, 1, 0, 1], hospital=["a", "a", "b", "b"], patient=[1, 2, 2, 3])
    with pytest.raises(ExperimentError, match="groups with rows at two sites"):
        cut_frame(frame, {"kind": "natural", "by": "hospital"}, group="patient")


def test_grouped_ids_refuse_a_group_with_two_ids():
    frame = frame_of([0, 1, 0, 1], ward=["a", "a", "b", "b"], patient=[1, 2, 2, 3])
    with pytest.raises(ExperimentError, match="groups with rows at two sites"):
        cut_frame(frame, {"kind": "grouped", "by": "ward", "sites": 2}, group="patient")


def test_a_row_without_a_group_is_a_group_of_its_own():
    frame = frame_of(np.zeros(40), patient=[None] * 40)
    assert [len(part) for part in cut_frame(frame, {"kind": "iid", "sites": 4}, group="patient").rows] == [10] * 4


@given(SITES, SEEDS)
def test_with_groups_sizes_are_reached_to_about_one_group(sites, seed):
    patient = np.random.default_rng(seed).integers(0, 60, 300)
    largest = np.bincount(patient).max()
    frame = frame_of(np.zeros(300), patient=patient)
    parts = cut_frame(frame, {"kind": "iid", "sites": sites}, seed, group="patient").rows
    assert all(abs(len(part) - 300 / sites) <= largest for part in parts)


def test_with_groups_a_label_skew_stays_a_skew():
    patient = np.arange(600) // 3
    labels = np.random.default_rng(0).integers(0, 2, 200)[patient]
    frame = frame_of(labels, patient=patient)
    content = {"kind": "per_class", "percentages": [60, 40]}
    shares = counts(cut_frame(frame, content, group="patient").rows, labels) / np.bincount(labels)
    np.testing.assert_allclose(shares, [[0.6, 0.6], [0.4, 0.4]], atol=0.02)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "iid", "sites": 4},
        {"kind": "sizes", "sizes": [1, 1, 1, 1]},
        {"kind": "size_skew", "sites": 4},
        {"kind": "dirichlet", "sites": 4},
        {"kind": "inner_dirichlet", "sites": 4},
        {"kind": "continuous", "sites": 4, "by": "y"},
        {"kind": "balanced", "sites": 4},
    ],
    ids=lambda content: content["kind"],
)
def test_more_sites_than_rows_are_refused(content):
    with pytest.raises(ExperimentError, match="4 sites need at least as many rows"):
        cut(content, [0, 1, 0])


def test_more_sites_than_groups_are_refused():
    frame = frame_of([0, 1] * 10, patient=[1, 1, 2, 2] * 5)
    with pytest.raises(ExperimentError, match="3 sites need at least as many groups, the table has 2"):
        cut_frame(frame, {"kind": "iid", "sites": 3}, group="patient")


def test_a_percentage_too_small_for_a_row_is_an_error_that_names_the_site():
    with pytest.raises(ExperimentError, match="site 2 of 2 gets no row"):
        cut({"kind": "per_class", "percentages": [99.9, 0.1]}, [0, 1] * 10)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ExperimentError, match="column 'age' is not in the table"):
        cut({"kind": "continuous", "sites": 2, "by": "age"}, [0, 1, 0])


def test_label_kinds_ask_for_labels():
    with pytest.raises(ExperimentError, match="name their column as `by`, or the target"):
        cut({"kind": "dirichlet", "sites": 2}, [0, 1, 0], target=None)


def test_no_message_holds_a_value_of_the_table():
    frame = frame_of([0, 1] * 4, age=["p4711"] * 8)
    with pytest.raises(ExperimentError) as refused:
        cut_frame(frame, {"kind": "continuous", "sites": 2, "by": "age"})
    assert "p4711" not in str(refused.value)
