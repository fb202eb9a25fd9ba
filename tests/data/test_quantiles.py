"""Quantiles of a federation are the pooled ones, within bounds that hold, whatever the values; and no cell is small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.quantiles import _CELLS, CALLS, Cells, check_windows, next_windows, quantiles
from v6_algorithm.errors import WireError

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
VALUES = st.lists(
    st.floats(-1e6, 1e6) | st.integers(-2, 3).map(float) | st.sampled_from([1e9, -1e50, 1e-300, 1e7 + 1]),
    min_size=1,
    max_size=80,
).map(np.array)
SITES = st.lists(VALUES, min_size=1, max_size=4)
SMALLEST = st.integers(1, 12)
ANYWHERE = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=4)


def asked(sites, smallest, shares=SHARES):
    """Return, call by call, the quantiles that the coordinator finds."""
    windows = None
    for _ in range(CALLS):
        columns = [Cells.check(Cells.of([own], smallest, windows).arrays(), 1).columns() for own in sites]
        yield quantiles([own[0] for own in columns], shares)
        windows, wanted = next_windows(columns, shares)
        if not wanted:
            return


def edges_of(cells):
    """Return where cells begin and how many rows are below: what two answers could be subtracted at."""
    return dict(zip(cells.low[1:].tolist(), np.cumsum(cells.rows).tolist(), strict=False))


@given(SITES, SMALLEST)
def test_the_true_quantile_is_within_its_bounds_and_the_estimate_within_the_range(sites, smallest):
    pooled = np.concatenate(sites)
    slack = 1e-9 * np.abs(pooled).max()
    for found in asked(sites, smallest):
        for one, true in zip(found, np.quantile(pooled, SHARES), strict=True):
            assert one.low is None or one.low <= true + slack
            assert one.high is None or true <= one.high + slack
            assert pooled.min() <= one.value <= pooled.max()


@given(SITES, SMALLEST)
def test_another_call_never_makes_a_bound_wider(sites, smallest):
    infinite = float("inf")
    before = [(-infinite, infinite)] * len(SHARES)
    for found in asked(sites, smallest):
        bounds = [
            (-infinite if one.low is None else one.low, infinite if one.high is None else one.high) for one in found
        ]
        assert all(old[0] <= new[0] and new[1] <= old[1] for old, new in zip(before, bounds, strict=True))
        before = bounds


@given(VALUES, SMALLEST, st.lists(ANYWHERE, min_size=1, max_size=5))
def test_all_answers_together_have_no_cell_of_few_rows(values, smallest, requests):
    """Or the difference of two answers would tell of them; whatever a request asks for."""
    edges = edges_of(Cells.of([values], smallest))
    for windows in requests:
        cells = Cells.of([values], smallest, np.sort(np.array([windows]), axis=2))
        assert (cells.rows >= min(smallest, len(values))).all()
        edges |= edges_of(cells)
    below = [0, *(edges[edge] for edge in sorted(edges)), len(values)]
    assert (np.diff(below) >= min(smallest, len(values))).all()
    for edge, rows in edges.items():
        assert (values < edge).sum() == rows


@given(VALUES, SMALLEST)
def test_a_smallest_and_a_largest_value_stay_at_home(values, smallest):
    """Moving the outermost rows further out changes means, and no edge."""
    ordered = np.sort(values)
    if ordered[0] == ordered[-1]:
        return
    further = ordered.copy()
    further[0] -= 1 + abs(further[0])
    further[-1] += 1 + abs(further[-1])
    first, second = (Cells.of([own], max(smallest, 2)) for own in (ordered, further))
    assert first.low.tolist() == second.low.tolist()


def test_with_no_least_cell_quantiles_are_numpys():
    values = np.random.default_rng(0).normal(0, 1, 500)
    *_, found = asked([values[:200], values[200:]], 1)
    np.testing.assert_allclose([one.value for one in found], np.quantile(values, SHARES), atol=0.01)


@pytest.mark.parametrize("outliers", [[1e6], [1e9, -1e12], [1e300]])
@pytest.mark.parametrize("rows", [200, 3000])
def test_an_outlier_moves_no_quantile(rows, outliers):
    """A grid over the range had a median of 17.6 for 0.0245."""
    values = np.random.default_rng(1).exponential(0.035, rows)
    with_outliers = np.concatenate([values, outliers])
    shares = (0.25, 0.5, 0.75)
    *_, found = asked([with_outliers[: rows // 3], with_outliers[rows // 3 :]], 5, shares)
    true = np.quantile(with_outliers, shares)
    for one, expected in zip(found, true, strict=True):
        assert one.value == pytest.approx(expected, abs=0.02 * (true[2] - true[0]))
        assert one.high - one.low < (130 / rows + 0.1) * (true[2] - true[0])


@pytest.mark.parametrize("offset", [0.0, 1e7, -1e7])
def test_values_far_from_zero_are_cut_as_well(offset):
    values = offset + np.random.default_rng(2).normal(0, 1, 2000)
    *_, found = asked([values], 5, (0.25, 0.5, 0.75))
    np.testing.assert_allclose([one.value for one in found], np.quantile(values, (0.25, 0.5, 0.75)), atol=0.01)


def test_whole_numbers_have_whole_quantiles():
    values = np.random.default_rng(3).poisson(2, 400).astype(float)
    *_, found = asked([values[:100], values[100:]], 5, (0.25, 0.5, 0.75))
    assert [(one.low, one.value, one.high) for one in found] == [
        (q, q, q) for q in np.quantile(values, (0.25, 0.5, 0.75))
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.array([0, 5, 5])},
        {"number": np.array([2])},
        {"number": np.array([3.0])},
        {"low": np.array([0.0, 2.0, 1.0])},
        {"mean": np.array([0.0, 9.0, 9.5])},
        {"mean": np.array([0.0, np.nan, 2.5])},
        {"state": np.array([0, 1, 7])},
        {"extra": np.zeros(1)},
    ],
    ids=str,
)
def test_cells_that_cannot_be_are_refused(change):
    good = {
        "number": np.array([3]), "rows": np.array([5, 5, 5]), "mean": np.array([0.5, 1.5, 2.5]),
        "low": np.array([0.0, 1.0, 2.0]), "state": np.array([0, 1, 0]),
    }  # fmt: skip
    Cells.check(good, 1)
    with pytest.raises(WireError, match="cells"):
        Cells.check(good | change, 1)


@pytest.mark.parametrize(
    "windows", [np.zeros((1, 40, 2)), np.zeros((2, 1, 2)), np.full((1, 1, 2), np.inf), np.zeros(2)]
)
def test_places_to_cut_that_cannot_be_are_refused(windows):
    with pytest.raises(WireError, match="places to cut"):
        check_windows(windows, 1)


def test_as_many_places_to_cut_may_be_asked_for_as_a_column_has_cells():
    windows = np.zeros((2, _CELLS, 2))
    assert check_windows(windows, 2) is windows
    with pytest.raises(WireError, match=f"{_CELLS} at most"):
        check_windows(np.zeros((2, _CELLS + 1, 2)), 2)
