"""What each kind of partition is for: its sizes, its skew, its plan, and the traps of the systems before this one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cutting import counts, cut, cut_frame, frame_of
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.errors import ExperimentError

SEEDS = st.integers(0, 2**32 - 1)


def lengths(content, labels, seed=0):
    return [len(part) for part in cut(content, labels, seed)]


# -- sizes ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), SEEDS)
def test_sites_drawn_at_random_are_of_one_size(sites, seed):
    found = lengths({"kind": "iid", "sites": sites}, np.zeros(61), seed)
    assert max(found) - min(found) <= 1


def test_hrc_trap_no_row_is_left_over():
    # HRC gave every client len // n rows and dropped the rest.
    assert sum(lengths({"kind": "iid", "sites": 4}, np.zeros(4003))) == 4003


def test_pyfed_trap_sites_at_random_are_not_blocks_of_a_sorted_table():
    # PyFed cut the rows as they came: of a table sorted by class, every client gets one class.
    labels = np.repeat([0, 1], 500)
    for part in cut({"kind": "iid", "sites": 2}, labels):
        assert labels[part].mean() == pytest.approx(0.5, abs=0.1)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), SEEDS)
def test_sizes_are_the_shares_to_within_the_row_that_every_site_is_owed(shares, seed):
    for length, share in zip(lengths({"kind": "sizes", "sizes": shares}, np.zeros(500), seed), shares, strict=True):
        assert abs(length - 500 * share / sum(shares)) <= len(shares)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), SEEDS)
def test_sizes_that_add_up_to_the_table_are_taken_as_they_are(sizes, seed):
    assert lengths({"kind": "sizes", "sizes": sizes}, np.zeros(sum(sizes)), seed) == sizes


def test_a_share_too_small_for_a_row_still_is_a_site():
    assert lengths({"kind": "sizes", "sizes": [1000, 1, 1]}, np.zeros(10)) == [8, 1, 1]


@pytest.mark.parametrize(("growth", "share"), [("linear", [1, 2, 3, 4]), ("square", [1, 4, 9, 16])])
def test_sizes_grow_as_asked(growth, share):
    found = lengths({"kind": "size_skew", "sites": 4, "growth": growth}, np.zeros(3000))
    np.testing.assert_allclose(found, np.array(share) / sum(share) * 3000, atol=4)


def test_sizes_grow_by_e_from_site_to_site():
    found = np.array(lengths({"kind": "size_skew", "sites": 4, "growth": "exponential"}, np.zeros(30_000)))
    np.testing.assert_allclose(found[1:] / found[:-1], np.e, rtol=0.02)


def test_very_many_sites_of_exponential_size_have_a_row_each():
    assert min(lengths({"kind": "size_skew", "sites": 900, "growth": "exponential"}, np.zeros(1000))) == 1


# -- the same classes everywhere -----------------------------------------------------------------------------------


@given(st.integers(1, 6), SEEDS)
def test_balanced_sites_have_equally_many_rows_of_each_class(sites, seed):
    labels = np.repeat([0, 1, 2], [20, 50, 90])
    found = counts(cut({"kind": "balanced", "sites": sites}, labels, seed), labels)
    assert found.sum(axis=0).tolist() == [20, 20, 20]
    assert found.max() - found.min() <= 1
    assert np.ptp(found.sum(axis=1)) <= 1


def test_hrc_trap_balanced_sites_hold_no_row_twice():
    # HRC drew with replacement whatever the classes had: copies of one sample trained and, had it tested, would test.
    labels = np.repeat(np.arange(6), [1320, 1323, 2702, 5615, 5821, 601])
    with pytest.raises(ExperimentError, match="666 rows of each class are asked for, the rarest of 6 has 601"):
        cut({"kind": "balanced", "sites": 4, "rows": 4000}, labels)
    parts = cut({"kind": "balanced", "sites": 4, "rows": 3600}, labels)
    assert [len(part) for part in parts] == [900] * 4
    assert len(np.unique(np.concatenate(parts))) == 3600


def test_hrc_sizes_with_replacement_are_999_rows_for_4000_and_4_clients():
    labels = np.repeat(np.arange(6), [1320, 1323, 2702, 5615, 5821, 601])
    frame = frame_of(labels, Name=np.arange(len(labels)))
    content = {"kind": "balanced", "sites": 4, "rows": 4000, "replacement": True}
    parts = cut_frame(frame, content, group="Name").rows
    assert [len(part) for part in parts] == [999] * 4
    assert counts(parts, labels).sum(axis=0).tolist() == [666] * 6


def test_copies_of_a_row_are_at_one_site_only():
    frame = frame_of([0] * 50 + [1] * 8, Name=np.arange(58))
    parts = cut_frame(frame, {"kind": "balanced", "sites": 3, "rows": 90, "replacement": True}, group="Name").rows
    assert sum(len(part) for part in parts) == 90
    assert not set(parts[0]) & set(parts[1]) | set(parts[1]) & set(parts[2]) | set(parts[0]) & set(parts[2])


def test_copies_of_a_row_are_refused_where_nothing_keeps_them_in_one_part():
    with pytest.raises(ExperimentError, match="copies of one row would train and test"):
        cut({"kind": "balanced", "sites": 2, "rows": 90, "replacement": True}, [0] * 50 + [1] * 8)


@given(st.integers(1, 5), st.integers(40, 160), SEEDS)
def test_unbalanced_sites_have_the_shares_of_the_table(sites, rows, seed):
    labels = np.repeat([0, 1, 2], [20, 50, 90])
    found = counts(cut({"kind": "unbalanced", "sites": sites, "rows": rows}, labels, seed), labels)
    assert found.sum() == rows
    np.testing.assert_allclose(found.sum(axis=0), np.bincount(labels) * rows / 160, atol=1)
    assert np.ptp(found, axis=0).max() <= 1


@given(SEEDS)
def test_torch_vantage6_trap_percentages_are_of_every_class_and_none_is_skipped(seed):
    # EqualPartitionEachClass read pcts[1] for the first worker, cut fractions off and gave the last one what was left.
    labels = np.repeat([0, 1, 2], [33, 66, 101])
    found = counts(cut({"kind": "per_class", "percentages": [50, 30, 20]}, labels, seed), labels)
    expected = np.outer([0.5, 0.3, 0.2], [33, 66, 101])
    assert np.abs(found - expected).max() <= 1


# -- skewed classes ------------------------------------------------------------------------------------------------


def skew(kind, alpha, seeds=20, **options):
    """Mean distance of the sites' class shares from the pooled ones: 0 none, near 1 for a class to each site."""
    labels = np.arange(3000) % 3
    found = [counts(cut({"kind": kind, "sites": 3, "alpha": alpha, **options}, labels, seed), labels)
             for seed in range(seeds)]  # fmt: skip
    return np.mean([np.abs(table / table.sum(axis=1, keepdims=True) - 1 / 3).sum(axis=1) * 3 / 4 for table in found])


@pytest.mark.parametrize("kind", ["dirichlet", "inner_dirichlet"])
def test_a_small_alpha_skews_the_labels_and_a_large_one_does_not(kind):
    values = [skew(kind, alpha) for alpha in (0.01, 0.5, 10, 10_000)]
    assert values == sorted(values, reverse=True)
    # With every row used and every site full, the last site of an inner mix takes what is left.
    assert values[0] > (0.6 if kind == "dirichlet" else 0.45)
    assert values[-1] < 0.03


def test_class_counts_follow_the_dirichlet_distribution():
    # The share of a class at one of k sites has mean 1 / k and variance (k - 1) / (k^2 (k alpha + 1)).
    content = {"kind": "dirichlet", "sites": 2, "alpha": 2.0}
    shares = np.array([len(cut(content, np.zeros(1000), seed)[0]) / 1000 for seed in range(400)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * 5), rel=0.15)


@given(st.integers(1, 20), st.sampled_from([0.05, 0.5]), SEEDS)
def test_a_skewed_site_has_the_rows_that_it_must_have(minimum, alpha, seed):
    content = {"kind": "dirichlet", "sites": 4, "alpha": alpha, "minimum_rows": minimum}
    assert min(lengths(content, np.arange(100) % 3, seed)) >= minimum


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.sampled_from([0.01, 0.5, 10.0]), SEEDS)
def test_inner_dirichlet_keeps_the_sizes_whatever_the_skew(sizes, alpha, seed):
    content = {"kind": "inner_dirichlet", "sizes": sizes, "alpha": alpha}
    assert lengths(content, np.arange(sum(sizes)) % 4, seed) == sizes


@given(st.integers(1, 4), st.integers(4, 8), SEEDS)
def test_pathological_sites_hold_exactly_k_classes_and_together_all(k, sites, seed):
    labels = np.random.default_rng(seed).permutation(np.arange(160) % 4)
    found = counts(cut({"kind": "pathological", "sites": sites, "classes_per_site": k}, labels, seed), labels) > 0
    assert found.sum(axis=1).tolist() == [k] * sites
    assert np.ptp(found.sum(axis=0)) <= 1


def test_hrc_trap_clients_of_one_class_work():
    # HRC's non_iid_x called a method that was not there.
    labels = np.repeat(np.arange(6), 30)
    found = counts(cut({"kind": "pathological", "sites": 12, "classes_per_site": 1}, labels), labels)
    assert sorted(found.argmax(axis=1).tolist()) == sorted([*range(6)] * 2)
    assert (found.sum(axis=1) == 15).all()


def test_too_few_sites_for_all_classes_are_refused_with_the_number_that_would_do():
    with pytest.raises(ExperimentError, match=r"2 sites of 2 classes cannot hold all 6 classes; take 3 or more"):
        cut({"kind": "pathological", "sites": 2, "classes_per_site": 2}, np.arange(60) % 6)


@given(st.integers(1, 3), SEEDS)
def test_shards_give_a_site_few_classes_and_one_size(shards, seed):
    labels = np.random.default_rng(seed).permutation(np.arange(1000) % 10)
    found = counts(cut({"kind": "shards", "sites": 10, "shards_per_site": shards}, labels, seed), labels)
    assert np.ptp(found.sum(axis=1)) <= shards
    assert ((found > 0).sum(axis=1) <= 2 * shards).all()


def test_given_counts_are_given():
    labels = ["no"] * 30 + ["yes"] * 20
    parts = cut({"kind": "counts", "counts": {"yes": [5, 0, 15], "no": [1, 9, 0]}}, labels)
    sick = np.array(labels) == "yes"
    assert [int(sick[part].sum()) for part in parts] == [5, 0, 15]
    assert [int((~sick)[part].sum()) for part in parts] == [1, 9, 0]


def test_counts_beyond_the_table_are_refused():
    with pytest.raises(ExperimentError, match="counts asks for 6 rows of a label that has 5"):
        cut({"kind": "counts", "counts": {0: [3, 3]}}, [0] * 5)
    with pytest.raises(ExperimentError, match="counts names label '7'"):
        cut({"kind": "counts", "counts": {7: [3, 3]}}, [0] * 5)


def test_labels_may_be_another_columns():
    frame = frame_of(np.zeros(100), scanner=["a", "b"] * 50)
    parts = cut_frame(frame, {"kind": "pathological", "sites": 2, "classes_per_site": 1, "by": "scanner"}).rows
    assert [set(frame["scanner"].iloc[part]) for part in parts] in ([{"a"}, {"b"}], [{"b"}, {"a"}])


def test_a_target_made_0_or_1_is_dealt_as_such():
    frame = frame_of(np.arange(100) % 5)
    parts = cut_frame(frame, {"kind": "pathological", "sites": 2, "classes_per_site": 1}, positive="> 0").rows
    assert {frozenset(frame["y"].iloc[part]) for part in parts} == {frozenset({0}), frozenset({1, 2, 3, 4})}


def test_a_target_of_numbers_is_dealt_in_ten_bins():
    frame = frame_of(np.random.default_rng(0).normal(size=500))
    parts = cut_frame(frame, {"kind": "shards", "sites": 5, "shards_per_site": 1}, classes=False)
    assert len(parts.labels) == 10
    assert np.bincount(parts.label).tolist() == [50] * 10


def test_rows_without_a_label_are_left_out_of_a_deal_by_label():
    parts = cut({"kind": "unbalanced", "sites": 2}, [0.0, 1.0, None, 0.0, 1.0])
    assert sorted(np.concatenate(parts).tolist()) == [0, 1, 3, 4]


# -- columns -------------------------------------------------------------------------------------------------------


def test_natural_ids_name_the_sites():
    frame = frame_of([0, 1, 0, 1, 1], hospital=["va", "cleveland", "va", "va", "cleveland"])
    parts = cut_frame(frame, {"kind": "natural", "by": "hospital"})
    assert parts.names == ["cleveland", "va"]
    assert [part.tolist() for part in parts.rows] == [[1, 4], [0, 2, 3]]


def test_a_row_without_a_natural_id_has_no_site_and_is_refused():
    with pytest.raises(ExperimentError, match="column 'hospital' has empty cells"):
        cut_frame(frame_of([0, 1], hospital=["va", None]), {"kind": "natural", "by": "hospital"})


@given(SEEDS)
def test_grouped_ids_are_dealt_whole_to_sites_of_about_one_size(seed):
    patient = np.repeat(np.arange(60), np.random.default_rng(seed).integers(1, 6, 60))
    parts = cut_frame(
        frame_of(patient * 0, patient=patient), {"kind": "grouped", "by": "patient", "sites": 3}, seed
    ).rows
    homes = [set(patient[part]) for part in parts]
    assert sum(map(len, homes)) == 60
    assert np.ptp([len(part) for part in parts]) <= 5


def ages(strictness, seed=0):
    frame = frame_of(np.zeros(600), age=np.random.default_rng(seed).integers(20, 80, 600))
    parts = cut_frame(frame, {"kind": "continuous", "by": "age", "sites": 3, "strictness": strictness}, seed).rows
    assert [len(part) for part in parts] == [200] * 3
    return [frame["age"].to_numpy()[part] for part in parts]


def test_a_strict_order_gives_sites_that_do_not_overlap():
    young, middle, old = ages(1.0)
    assert young.max() <= middle.min()
    assert middle.max() <= old.min()


def test_the_noise_in_the_order_takes_the_skew_away():
    spread = [np.ptp([site.mean() for site in ages(strictness)]) for strictness in (1.0, 0.6, 0.3, 0.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 35
    assert spread[-1] < 5


# -- dermatology's slice plans ------------------------------------------------------------------------------------

LISTS = {
    "benign": {"where": {"y": "== 0"}, "match": "any"},  # patients with any benign image
    "melanoma": {"where": {"y": "== 1"}, "match": "all"},  # patients with nothing else
}
# Appendix A, experiment 5: five active clients and the server; places in the two shuffled lists of patients.
EXPERIMENT_5 = {
    "part0": [(0, 270), (0, 350)],
    "part1": [(270, 440), (350, 539)],
    "part2": [(440, 490), (539, 615)],
    "part3": [(490, 511), (615, 640)],
    "part4": [(515, 520), (640, 656)],
    "server": [(520, 720), (700, 1100)],
}


def plan(sites):
    return {
        "kind": "slices",
        "lists": LISTS,
        "sites": {
            site: [
                {"list": name, "start": start, "stop": stop}
                for name, (start, stop) in zip(LISTS, places, strict=True)
                if stop != 0
            ]
            for site, places in sites.items()
        },
    }


@pytest.fixture(scope="module")
def images():
    """About 2,000 patients with a benign image, some of whom have melanomas too, and 1,200 with melanomas only."""
    generator = np.random.default_rng(2022)
    patient = np.sort(generator.integers(0, 3200, 12_000))
    return frame_of((patient >= 2000) | (generator.random(12_000) < 0.05), patient=patient).astype(int)


def test_dermatologys_experiment_5_gives_each_site_its_numbers_of_patients(images):
    parts = cut_frame(images, plan(EXPERIMENT_5), group="patient")
    assert parts.names == list(EXPERIMENT_5)
    expected = [sum(stop - start for start, stop in places) for places in EXPERIMENT_5.values()]
    assert [images["patient"].iloc[rows].nunique() for rows in parts.rows] == expected


def test_dermatology_trap_no_patient_is_at_two_sites_or_at_a_site_and_the_server(images):
    # There the lists were shuffled anew by every call, so the server's patients were the clients' too.
    parts = cut_frame(images, plan(EXPERIMENT_5), group="patient").rows
    homes = [set(images["patient"].iloc[rows]) for rows in parts]
    assert sum(map(len, homes)) == len(set.union(*homes))


def test_dermatology_trap_a_patient_with_both_kinds_of_image_is_on_one_list(images):
    content = plan({"benign": [(0, None), (0, 0)], "melanoma": [(0, 0), (0, None)]})
    content["sites"] = {"b": [{"list": "benign"}], "m": [{"list": "melanoma"}]}
    parts = cut_frame(images, content, group="patient").rows
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(images)))
    assert images["y"].iloc[parts[1]].min() == 1


def test_a_slice_that_meets_another_is_refused(images):
    content = plan({"a": [(0, 10), (0, 5)], "b": [(9, 20), (5, 9)]})
    with pytest.raises(ExperimentError, match="puts a group at site 'a' and at site 'b'"):
        cut_frame(images, content, group="patient")


def test_a_slice_beyond_its_list_is_refused(images):
    with pytest.raises(ExperimentError, match="slice 0 to 99999 is beyond list 'benign', which has"):
        cut_frame(images, plan({"a": [(0, 99999), (0, 5)]}), group="patient")


def test_a_plan_may_say_which_rows_train_and_which_test(images):
    # Experiment 2's first client: patients 30 to 130 train, 0 to 30 test.
    cuts = [
        {"list": "benign", "start": 30, "stop": 130, "part": "train"},
        {"list": "benign", "stop": 30, "part": "test"},
    ]
    parts = cut_frame(images, {"kind": "slices", "lists": LISTS, "sites": {"a": cuts}}, group="patient")
    own = parts.frame_of(images, 0)
    assert own.groupby("part")["patient"].nunique().to_dict() == {"train": 100, "test": 30}
    assert own.groupby("patient")["part"].nunique().max() == 1


def test_lists_of_rows_need_no_groups():
    # Experiment 6 cuts rows by what is seen in the image: frames, rulers, neither.
    frame = pd.DataFrame({"y": [0, 1] * 50, "frame": [1, 1, 0, 0] * 25, "ruler": [0, 0, 0, 0, 1] * 20})
    lists = {
        "frames": {"where": {"frame": "== 1", "ruler": "== 0"}},
        "rulers": {"where": {"frame": "== 0", "ruler": "== 1"}},
    }
    sites = {"frames": [{"list": "frames", "stop": 20}], "rulers": [{"list": "rulers"}]}
    first, second = cut_frame(frame, {"kind": "slices", "lists": lists, "sites": sites}).rows
    assert len(first) == 20
    assert frame.iloc[first][["frame", "ruler"]].drop_duplicates().to_numpy().tolist() == [[1, 0]]
    assert frame.iloc[second][["frame", "ruler"]].drop_duplicates().to_numpy().tolist() == [[0, 1]]
