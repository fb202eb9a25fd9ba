"""Cutting one table into hospitals: every row to one site, every site a row, skewed as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Partition
from v6_algorithm.partition.indices import partition_rows


def iid(sites):
    return Partition(kind="iid", sites=sites)


def dirichlet(sites, alpha):
    return Partition(kind="dirichlet", sites=sites, alpha=alpha)


def sizes(*shares):
    return Partition(kind="sizes", sizes=list(shares))


def cut(partition, labels, seed=0):
    return partition_rows(partition, np.asarray(labels), np.random.default_rng(seed))


kinds = st.one_of(
    st.integers(1, 6).map(iid),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=6).map(lambda shares: sizes(*shares)),
    st.builds(dirichlet, st.integers(1, 6), st.sampled_from([1e-12, 1e-3, 0.1, 0.5, 1.0, 100.0])),
)
labelled = st.lists(st.integers(0, 4), min_size=6, max_size=80)
seeds = st.integers(0, 2**32 - 1)


@given(kinds, labelled, seeds)
def test_every_row_goes_to_exactly_one_site(partition, labels, seed):
    parts = cut(partition, labels, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@given(kinds, labelled, seeds)
def test_every_site_has_a_row(partition, labels, seed):
    parts = cut(partition, labels, seed)
    assert len(parts) == (partition.sites or len(partition.sizes))
    assert all(len(part) for part in parts)


@given(kinds, labelled, seeds)
def test_rows_of_a_site_are_in_order(partition, labels, seed):
    assert all((np.diff(part) > 0).all() for part in cut(partition, labels, seed))


@given(kinds, labelled, seeds)
def test_the_same_seed_gives_the_same_sites(partition, labels, seed):
    for one, other in zip(cut(partition, labels, seed), cut(partition, labels, seed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("partition", [iid(3), sizes(5, 3, 2), dirichlet(3, 0.5)], ids=lambda partition: partition.kind)
def test_another_seed_gives_other_sites(partition):
    firsts = {tuple(cut(partition, np.arange(90) % 3, seed)[0]) for seed in range(5)}
    assert len(firsts) == 5


@given(st.integers(1, 6), labelled, seeds)
def test_sites_drawn_at_random_are_of_one_size(sites, labels, seed):
    lengths = [len(part) for part in cut(iid(sites), labels, seed)]
    assert max(lengths) - min(lengths) <= 1


def test_hrc_trap_no_row_is_left_over():
    # HRC gave every client len // n rows and dropped the rest.
    assert sum(len(part) for part in cut(iid(4), np.zeros(4003))) == 4003


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), seeds)
def test_sizes_are_the_shares_to_within_the_row_that_every_site_is_owed(shares, seed):
    lengths = [len(part) for part in cut(sizes(*shares), np.zeros(500), seed)]
    for length, share in zip(lengths, shares, strict=True):
        assert abs(length - 500 * share / sum(shares)) <= len(shares)


def test_a_share_too_small_for_a_row_still_is_a_site():
    assert [len(part) for part in cut(sizes(1000, 1, 1), np.zeros(10))] == [8, 1, 1]


def test_rows_at_random_are_not_in_blocks():
    labels = np.repeat([0, 1], 500)
    for part in cut(iid(2), labels):
        assert labels[part].mean() == pytest.approx(0.5, abs=0.1)


# -- label skew ----------------------------------------------------------------------------------------------------


def skew(alpha, seeds=20):
    """Mean distance of the sites' class shares from the pooled ones: 0 none, near 1 for a class to each site."""
    labels = np.arange(3000) % 3
    distances = []
    for seed in range(seeds):
        for part in cut(dirichlet(3, alpha), labels, seed):
            shares = np.bincount(labels[part], minlength=3) / len(part)
            distances.append(np.abs(shares - 1 / 3).sum() * 3 / 4)
    return np.mean(distances)


def test_a_small_alpha_skews_the_labels_and_a_large_one_does_not():
    values = [skew(alpha) for alpha in (0.01, 0.5, 10, 10_000)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.6
    assert values[-1] < 0.02


def test_class_counts_follow_the_dirichlet_distribution():
    # The share of a class at one of k sites has mean 1 / k and variance (k - 1) / (k^2 (k alpha + 1)).
    shares = np.array([len(cut(dirichlet(2, 2.0), np.zeros(1000), seed)[0]) / 1000 for seed in range(400)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * 5), rel=0.15)


def test_the_pooled_classes_are_those_of_the_table():
    labels = np.arange(100) % 7
    parts = cut(dirichlet(4, 0.1), labels)
    np.testing.assert_array_equal(sum(np.bincount(labels[part], minlength=7) for part in parts), np.bincount(labels))


def test_a_target_of_numbers_can_be_cut_too():
    parts = cut(dirichlet(3, 0.5), np.arange(50))
    assert sum(map(len, parts)) == 50


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "partition", [iid(4), sizes(1, 1, 1, 1), dirichlet(4, 1.0)], ids=lambda partition: partition.kind
)
def test_more_sites_than_rows_are_refused(partition):
    with pytest.raises(ExperimentError, match=r"sites.partition: 4 sites need at least as many rows, the table has 3"):
        cut(partition, [0, 1, 0])


def test_as_many_sites_as_rows_get_one_each():
    for partition in (iid(4), sizes(1, 2, 3, 4), dirichlet(4, 0.01)):
        assert [len(part) for part in cut(partition, [0, 1, 0, 1])] == [1, 1, 1, 1]
