"""The charts' arithmetic: round ticks that enclose the data, gaps, single points, constant and extreme series."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.researcher.report.charts.curves import line_chart, participation_chart
from v6_algorithm.researcher.report.charts.marks import (
    HEIGHT,
    WIDTH,
    Guide,
    Line,
    Points,
    Spans,
    Squares,
    chart,
    names,
    numbers,
    round_ticks,
    shares,
    tick_text,
    ticks,
)

VALUES = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


def draw(ys: list[float | None], **options: float) -> str:
    line = Line("Train", list(range(1, len(ys) + 1)), ys)
    return line_chart([line], ident="a", title="Loss", description="d", **options) or ""


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
    calls = [{"round": 1, "answered": ["a"], "missing": {"b": "late"}}]
    svg = participation_chart({"sites": {site: {} for site in "abc"}, "participation": calls}) or ""
    assert "a, round 1: answered" in svg
    assert "b, round 1: missing: late" in svg
    assert "c, round 1: not asked" in svg


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30)
FINITE = st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(FINITE, FINITE, TEXTS), min_size=1, max_size=8), TEXTS)
def test_any_marks_on_any_axes_are_well_formed_and_escaped(rows: list[tuple[float, float, str]], title: str) -> None:
    low, high, texts = zip(*rows, strict=True)
    ends = [(row, min(pair), max(pair)) for row, pair in enumerate(zip(low, high, strict=True))]
    marks = [Spans(ends), Points(low, range(len(rows)), texts, look=2, label=title), Guide((0, 0), (0, 1), title)]
    svg = chart(
        marks, numbers([*low, *high, 0], title), names(texts, 20), ident="a", title=title, description=title, fixed=True
    )
    drawn = ElementTree.fromstring(svg)  # noqa: S314 (ours)
    assert sum(tag.tag == "polygon" for tag in drawn.iter()) == len(rows) + bool(title)
    assert drawn.find("title").text in (title, None)
    right = float(drawn.get("viewBox").split()[2])
    assert all(0 <= float(tag.get(side)) <= right for tag in drawn.iter("line") for side in ("x1", "x2"))


def test_a_new_chart_is_a_call() -> None:
    """A decision curve, say, which no page shows yet."""
    net = Line("Model", [0.1, 0.5, 0.9], [0.3, None, 0.1], unit="threshold")
    everybody = Line("Treat all", [0.1, 0.9], [0.2, 0.0], look=1)
    x, y = shares("Threshold", length=200), numbers([0.0, 0.3], "Net benefit")
    svg = chart([net, everybody], x, y, ident="d", title="Decision curve", description="…")
    assert "Model, threshold 0.1: 0.3" in svg
    assert svg.count('class="legend"') == 2


def test_the_first_band_is_at_the_top_and_numbers_grow_upwards() -> None:
    cells = Squares([(0, 0, "answered", "first"), (0, 1, "missing", "second")])
    svg = chart([cells], names(["x"], 20), names(["a", "b"], 20), ident="a", title="t", description="d")
    first, second = (float(y) for y in re.findall(r'<rect x="[^"]+" y="([^"]+)"', svg))
    assert second - first == 20
    points = Points([0, 0], [0, 1], ["low", "high"])
    svg = chart([points], shares("x"), shares("y"), ident="a", title="t", description="d")
    low, high = (float(y) for y in re.findall(r'cy="([^"]+)"', svg))
    assert low - high == 300
