"""Rankings from histograms against the same rows one by one, and how fine the bins are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from v6_algorithm.learning.metrics import histogram, sparse

LENGTHS = st.sampled_from([1, 2, 5, 39, 40, 41])


def drawn(seed, length, most):
    generator = np.random.default_rng(seed)
    above, below = generator.integers(0, most, (2, length)) * (generator.random((2, length)) < 0.4)
    above[generator.integers(length)] += 1
    below[generator.integers(length)] += 1
    return above, below


def in_order(above, below, first):
    """Rows of each bin from the highest on: those of class `first` before the others."""
    rows = []
    for positive, negative in zip(above[::-1].tolist(), below[::-1].tolist(), strict=True):
        rows += [1] * positive + [0] * negative if first else [0] * negative + [1] * positive
    return rows


@given(st.integers(0, 9999), LENGTHS, st.sampled_from([2, 90]))
@settings(max_examples=40, deadline=None)
def test_areas_and_bounds_are_those_of_all_rows(seed, length, most):
    above, below = drawn(seed, length, most)
    order = np.arange(length)
    better = ((order[:, None] > order) + (order[:, None] == order) / 2.0) * np.outer(above, below)
    tied = (above * below).sum()
    pairs = above.sum() * below.sum()
    for counts in ((above, below), (above.tolist(), below.tolist())):
        assert histogram.auroc(*counts) == pytest.approx(better.sum() / pairs, abs=1e-14)
        assert histogram.auroc_resolution(*counts) == pytest.approx(tied / 2 / pairs, abs=1e-14)
        worst, best = histogram.average_precision_bounds(*counts)
        for bound, first in ((worst, 0), (best, 1)):
            rows = in_order(above, below, first)
            hits = np.cumsum(rows) / np.arange(1, len(rows) + 1)
            assert bound == pytest.approx(hits[np.array(rows) == 1].mean(), abs=1e-13)
        target, score = np.repeat([1, 0], [above.sum(), below.sum()]), np.repeat([*order, *order], [*above, *below])
        precision = sk.average_precision_score(target, score)
        assert histogram.average_precision(*counts) == pytest.approx(precision, abs=1e-13)
        assert histogram.average_precision_resolution(*counts) == pytest.approx(
            max(best - precision, precision - worst), abs=1e-13
        )


@pytest.mark.parametrize("taken", [64, 127, 128, 255, 256, 300])
def test_a_bound_of_many_rows_in_a_bin_is_their_sum(taken):
    """Harmonic numbers are listed up to 255, and come from their series beyond."""
    positives, negatives = [1, taken], [taken, 0]
    terms = [Fraction(taken + 1, 2 * taken + 1)] + [Fraction(1)] * taken
    worst, _ = histogram.average_precision_bounds(positives, negatives)
    assert worst == pytest.approx(float(sum(terms) / len(terms)), abs=1e-15)
    # With `taken` negatives before them, many positives: (k) / (taken + k).
    worst, _ = histogram.average_precision_bounds([taken], [taken])
    exact = sum(Fraction(k, taken + k) for k in range(1, taken + 1)) / taken
    assert worst == pytest.approx(float(exact), abs=1e-14)


@pytest.mark.parametrize("factor", [1, 2**20, 10**10])
def test_shares_of_any_number_of_rows_are_rounded_once(factor):
    """Products of more than 2^26 rows are no floats, and of more than 2^31 no int64."""
    for seed in range(20):
        above, below = (counts * factor + (counts > 0) * seed for counts in drawn(seed, 45, 9))
        lower = np.cumsum(below.astype(object)) * 2 - below
        pairs = 2 * int(above.sum()) * int(below.sum())
        exact = Fraction(int((above.astype(object) * lower).sum()), pairs)
        for counts in ((above, below), (above[:39].tolist(), below[:39].tolist())):
            few = len(counts[0]) < 40
            if few and (above[39:].any() or below[39:].any()):
                continue
            assert histogram.auroc(*counts) == float(exact)
        tied = int((above.astype(object) * below).sum())
        assert histogram.auroc_resolution(above, below) == float(Fraction(tied, pairs))
        filled = (above + below) > 0
        assert histogram.rankings([(above[filled], below[filled])] * 2)[0] == [float(exact)] * 2


def test_so_fine_are_the_bins():
    """As docs and comments say: 8e-5 of a logit near 0, and up to the logits of the smallest floats."""
    edges = histogram.logit_edges(histogram.FINE_BINS)
    middle = len(edges) // 2
    assert edges[middle] == 0
    assert edges[middle + 1] == pytest.approx(8e-5, rel=0.03)
    assert edges[-1] + (edges[-1] - edges[-2]) == pytest.approx(700, abs=0.01)
    coarse = histogram.logit_edges(histogram.COARSE_BINS)
    assert np.diff(coarse) == pytest.approx(24 / 512)
    assert coarse[0] == pytest.approx(-12 + 24 / 512)
    for found in (edges, coarse, histogram.bin_edges(3)):
        assert not found.flags.writeable, "the cached edges are those of every later state"


@pytest.mark.parametrize("bins", [2, 3, 4, 5])
def test_the_nearest_edge_and_the_middle_are_those_of_a_search(bins):
    edges = histogram.bin_edges(bins)
    halfway = (edges[1:] + edges[:-1]) / 2
    sought = np.concatenate(
        [np.linspace(0, 1, 401), edges, halfway, 10.0 ** -np.arange(3, 9), 1 - 10.0 ** -np.arange(3, 9)]
    )
    place, edge = histogram.nearest_edges(sought, bins)
    # argmin takes the lower of two as near.
    assert place.tolist() == np.abs(edges - sought[:, None]).argmin(axis=1).tolist()
    assert (edge == edges[place]).all()


def test_histograms_keep_the_arrays_that_they_are_made_of_unless_these_hold_pythons_integers():
    """Whoever adds up need not read the lists again."""
    flat = np.array([0, 3, 9]), np.array([2, 1, 5])
    assert sparse.flat(sparse.from_flat(flat, 2, 8), 8) is flat
    large = sparse.from_flat((flat[0], flat[1].astype(object) * 2**62), 2, 8)
    assert large == [{"bins": [0, 3], "rows": [2**63, 2**62]}, {"bins": [1], "rows": [5 * 2**62]}]
    assert not isinstance(large, sparse.Counted)
