"""No count of few rows leaves a site, nor follows from what does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.summary.cells import tell_cumulative, tell_labels
from v6_algorithm.data.summary.quantiles import LEAVES, Lattice, check_cumulative, quantile
from v6_algorithm.errors import WireError

COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), max_size=8)
SMALLEST = st.integers(1, 12)
VALUES = st.lists(st.floats(-1e6, 1e6) | st.integers(0, 3).map(float), min_size=1, max_size=60).map(np.array)


@given(COUNTS, SMALLEST)
def test_no_label_of_few_rows_is_told_and_no_row_is_lost(counts, smallest):
    told, hidden = tell_labels(counts, smallest)
    assert all(rows >= smallest and rows == counts[label] for label, rows in told.items())
    assert sum(told.values()) + hidden == sum(counts.values())


@given(COUNTS, SMALLEST)
def test_what_is_hidden_does_not_follow_from_the_total(counts, smallest):
    """Complementary disclosure: with one label hidden, its rows are the total less those told."""
    told, hidden = tell_labels(counts, smallest)
    concealed = set(counts) - set(told)
    assert len(concealed) != 1 or len(counts) == 1
    assert hidden == 0 or hidden >= smallest or not told


def test_a_rare_label_takes_the_next_rarest_with_it():
    assert tell_labels({"no": 90, "maybe": 20, "yes": 2}, 5) == ({"no": 90}, 22)
    assert tell_labels({"no": 98, "yes": 2}, 5) == ({}, 100)


def test_labels_of_enough_rows_are_all_told():
    assert tell_labels({0: 90, 1: 5}, 5) == ({0: 90, 1: 5}, 0)


@given(st.lists(st.integers(0, 9), min_size=32, max_size=32), SMALLEST)
def test_between_two_told_edges_are_no_rows_or_enough(counts, smallest):
    told = tell_cumulative(np.array(counts), smallest)
    below = np.concatenate([[0], np.cumsum(counts)])
    assert (told[told >= 0] == below[told >= 0]).all()
    assert (told[0], told[-1]) == (0, sum(counts))
    steps = np.diff(told[told >= 0])
    assert ((steps == 0) | (steps >= smallest) | (len(steps) == 1)).all()


@given(st.lists(st.integers(0, 9), min_size=32, max_size=32), SMALLEST)
def test_the_outermost_cells_hold_rows_so_no_smallest_or_largest_value_is_told(counts, smallest):
    steps = np.diff(told := (told := tell_cumulative(np.array(counts), smallest))[told >= 0])
    assert len(told) == 2 or min(steps[0], steps[-1]) >= smallest


def test_with_no_rule_every_edge_within_the_values_is_told():
    assert list(tell_cumulative(np.array([0, 2, 1, 3]), 1)) == [0, -1, 2, 3, 6]


def lattice_of(values):
    return Lattice.around(np.array([values.mean()]), np.array([values.std()]))


@given(st.lists(VALUES, min_size=1, max_size=3), SMALLEST, st.sampled_from([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
def test_the_true_quantile_is_within_its_bounds(sites, smallest, q):
    pooled = np.concatenate(sites)
    lattice = lattice_of(pooled)
    told = np.stack([lattice.cumulative(own, 0, smallest) for own in sites])
    found = quantile(
        told, lattice.edges()[0], q, np.array([s.mean() for s in sites]), np.array([s.std() for s in sites])
    )
    true, slack = np.quantile(pooled, q), 1e-9 * (1 + np.abs(pooled).max())
    assert found["low"] is None or found["low"] <= true + slack
    assert found["high"] is None or true <= found["high"] + slack
    assert np.isfinite(found["value"])


def test_quantiles_of_a_few_hundred_rows_are_right_within_a_tenth_of_a_standard_deviation():
    generator = np.random.default_rng(0)
    sites = [generator.normal(10, 2, 300), generator.normal(12, 3, 200), generator.normal(9, 1, 60)]
    pooled = np.concatenate(sites)
    lattice = lattice_of(pooled)
    told = np.stack([lattice.cumulative(own, 0, 5) for own in sites])
    moments = np.array([s.mean() for s in sites]), np.array([s.std() for s in sites])
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        value = quantile(told, lattice.edges()[0], q, *moments)["value"]
        assert abs(value - np.quantile(pooled, q)) < 0.1 * pooled.std()


@given(VALUES, st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_all_lattices_have_their_edges_in_common(values, mean, sd):
    """Or a request could shift its edges until a count changes, and so find a value."""
    lattice = Lattice.around(np.array([mean]), np.array([sd]))
    Lattice.check(lattice.low, lattice.width, 1)
    leaf = lattice.width[0] / 32
    assert np.frexp(leaf)[0] == 0.5
    assert (lattice.edges()[0] / leaf == np.round(lattice.edges()[0] / leaf)).all()


@pytest.mark.parametrize(("low", "width"), [(0.0, 3.0), (0.5, 1.0), (0.0, 0.0), (np.nan, 1.0), (0.0, -2.0)])
def test_another_lattice_is_refused(low, width):
    with pytest.raises(WireError, match="lattice"):
        Lattice.check(np.array([low]), np.array([width]), 1)


def test_a_lattice_finer_than_a_sixteenth_of_the_sites_standard_deviation_tells_nothing():
    values = np.random.default_rng(0).normal(0, 1, 200)
    for width, tells in ((2.0**-3, True), (2.0**-5, False)):
        told = Lattice(np.array([0.0]), np.array([width])).cumulative(values, 0, 5)
        assert ((told >= 0).sum() > 2) == tells


@pytest.mark.parametrize("change", [{0: 1}, {5: 9}, {-1: -1}, {3: -2}])
def test_cumulative_counts_that_cannot_be_are_refused(change):
    told = np.arange(LEAVES + 1)[None].astype(np.int64)
    check_cumulative(told, 1)
    for place, value in change.items():
        told[0, place] = value
    with pytest.raises(WireError, match="cumulative counts"):
        check_cumulative(told, 1)
