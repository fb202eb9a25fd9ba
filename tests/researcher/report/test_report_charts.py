"""The charts' arithmetic: round ticks that enclose the data, gaps, single points, constant and extreme series."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.researcher.report.charts.svg import (
    HEIGHT,
    WIDTH,
    Line,
    line_chart,
    participation_grid,
    round_ticks,
    tick_text,
    ticks,
)

VALUES = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


def draw(ys: list[float | None], **options: float) -> str:
    line = Line("Train", list(range(1, len(ys) + 1)), ys)
    return line_chart([line], ident="a", title="Loss", description="d", **options)


@given(st.lists(VALUES, max_size=50))
def test_any_series_stays_inside_the_chart(ys: list[float | None]) -> None:
    svg = draw(ys)
    assert "nan" not in svg
    for x, y in re.findall(r'<circle class="marker[^"]*" cx="([-\d.]+)" cy="([-\d.]+)"', svg):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


@given(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100))
def test_ticks_enclose_the_data_in_few_equal_steps(a: float, b: float) -> None:
    found = ticks(min(a, b), max(a, b))
    slack = 1e-6 * (found[-1] - found[0])
    assert found[0] <= min(a, b) + slack
    assert found[-1] >= max(a, b) - slack
    assert 2 <= len(found) <= 9
    assert all(math.isclose(y - x, found[1] - found[0], rel_tol=1e-3) for x, y in pairwise(found))
    assert len(tick_text(found)) == len(found)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.31, 0.68, ["0.3", "0.4", "0.5", "0.6", "0.7"]),
        (0.74, 0.89, ["0.70", "0.75", "0.80", "0.85", "0.90"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0, 12_000, ["0", "5,000", "10,000", "15,000"]),
    ],
)
def test_ticks_stand_at_round_numbers(low: float, high: float, texts: list[str]) -> None:
    assert tick_text(ticks(low, high)) == texts


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (1, 7), (1, 14), (5, 9), (1, 1000), (0, 3)])
def test_rounds_are_labelled_by_whole_numbers_inside_the_axis(first: int, last: int) -> None:
    found = round_ticks(first, last)
    assert found
    assert len(found) <= 12
    assert all(isinstance(value, int) and first <= value <= last for value in found)


def test_one_point_is_a_marker() -> None:
    assert draw([0.5]).count("<circle") == 2  # the point and the legend


def test_none_is_a_gap() -> None:
    path = re.search(r'<path class="line look-0" d="(M[^h"]*)"', draw([1, 2, None, 3, 4]))
    assert path is not None
    assert path[1].count("M") == 2


def test_nothing_to_draw_is_no_chart() -> None:
    assert draw([]) == draw([None, None]) == ""


def test_best_round_is_marked_only_inside_the_axis() -> None:
    assert "best: round 2" in draw([1, 2, 3], best=2)
    assert "best:" not in draw([1, 2, 3], best=9)


def test_chart_tells_its_title_and_description() -> None:
    assert '<title id="a-title">Loss</title><desc id="a-desc">d</desc>' in draw([1, 2])


def test_participation_tells_answered_missing_and_not_asked() -> None:
    svg = participation_grid(["a", "b", "c"], [("1", {"a": None, "b": "late"})], ident="p", title="t", description="d")
    assert "a, round 1: answered" in svg
    assert "b, round 1: missing: late" in svg
    assert "c, round 1: not asked" in svg
