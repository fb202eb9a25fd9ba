"""The unit of time does not decide what a survival model is measured by: seconds, days and years give the same cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.data.preparation import times
from v6_algorithm.data.preparation.times import METRIC_BINS, count_times, cut

DAYS = np.ceil(np.random.default_rng(0).exponential(900, 500))


@pytest.mark.parametrize("unit", [1e-12, 1 / 365.25, 24, 86_400_000, 86_400e9, 2.0**40])
def test_days_in_another_unit_are_cut_at_the_same_times_to_the_width_of_a_bin(unit):
    plain, scaled = np.array(cut(count_times(DAYS), METRIC_BINS)), np.array(cut(count_times(DAYS * unit), METRIC_BINS))
    assert len(plain) == len(scaled)
    np.testing.assert_allclose(scaled / unit, plain, rtol=2 ** (1 / 16) - 1 + 1e-9)


@given(st.floats(1e-18, 1e15), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_part_between_cuts_has_events(unit, seed):
    given_times = np.random.default_rng(seed).gamma(2, 300, 200) * unit
    edges = cut(count_times(given_times), METRIC_BINS)
    assert len(edges) == METRIC_BINS - 1
    assert (np.histogram(given_times, [0, *edges, np.inf])[0] > 0).all()


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(2, 20))
@settings(deadline=None)
def test_there_are_as_many_cuts_as_bins_allow_and_parts_are_no_fuller_than_one_bin_makes_them(heaps, parts):
    counts = np.zeros_like(count_times(DAYS))
    np.add.at(counts, np.array(heaps) + 900, 1)
    edges, filled = cut(counts, parts), np.count_nonzero(counts)
    assert len(edges) == min(parts, filled) - 1
    assert edges == sorted(set(edges))
    rows = np.histogram(
        np.repeat(2.0 ** ((np.flatnonzero(counts) - 1024 - 0.5) / 16), counts[counts > 0].astype(int)),
        [0, *edges, np.inf],
    )[0]
    assert (rows > 0).all()
    assert rows.max() < len(heaps) / parts + counts.max()


def test_times_beyond_the_first_and_last_bin_are_in_these():
    usual = [1.0, 2.0, 3.0]
    assert count_times(np.array([2.0**64, 2.0**64.5, 2.0**80, *usual]))[-1] == 3
    assert count_times(np.array([2.0**-64, 2.0**-64.5, 2.0**-80, *usual]))[0] == 3
    assert count_times(np.array([2.0**63.9]))[-1] == count_times(np.array([2.0**-63.9]))[0] == 0


def test_the_fullest_part_of_several_bins_is_cut_nearest_to_its_middle():
    """Against looking at every filled bin of every part."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        counts = generator.integers(0, 9, 14)
        filled = np.flatnonzero(counts)
        chosen = sorted(generator.choice(filled[:-1], min(3, len(filled) - 2), replace=False).tolist())
        parts = np.split(filled, np.searchsorted(filled, chosen) + 1)
        several = [part for part in parts if len(part) > 1]
        part = max(several, key=lambda part: counts[part].sum())
        reached = np.cumsum(counts[part])
        wanted = part[:-1][np.abs(reached[:-1] - reached[-1] / 2).argmin()]
        assert times._halving(np.cumsum(counts), filled, chosen) == wanted


def test_counts_around_one_are_cut_as_if_no_middle_were_told():
    counts = count_times(DAYS)
    assert times.metric_edges({"event_times": counts}) == times.metric_edges({"event_times": counts}, 0.0)
    assert times.metric_edges({"event_times": counts}) == cut(counts, METRIC_BINS)
