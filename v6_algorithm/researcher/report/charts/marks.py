"""Charts as SVG from marks that take data: lines, points, spans, guides and squares, on two axes.

Called by the report pages; a new chart is a call of `chart` with its marks and axes. A chart is text with no script, no
font and no address in it, so that the page opens anywhere, offline, and prints. Colours are classes of the page's style
sheet, which knows light from dark; nothing is told by colour alone: each look has its own dash and marker. All lengths
are in units of the view box, where one unit is about one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from markupsafe import Markup, escape

WIDTH, HEIGHT = 480, 300
LOOKS = 4
_CHARACTER = 6.4  # mean width of a character at the 11-unit font of the style sheet
# Above this many points the markers would hide the line; they stay as invisible targets for the tooltip.
_MOST_MARKERS = 40
# Values beyond this are a diverged run and would overflow the axis arithmetic.
_LARGEST = 1e100

Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One direction of a chart, in the units of the data.

    Attributes
    ----------
    low, high
        Its ends.
    labels
        (value, text) of what is written beside it.
    length
        Of the plot in this direction; None takes what the chart's default size leaves.
    inset
        Room between an end and the frame.
    grid
        Whether each label has a line through the plot.
    bands
        Whether it is a list of names; the first one is then at the top.
    above
        For the horizontal axis: write the labels above the plot, upwards where they are wide.
    """

    low: float
    high: float
    labels: Sequence[tuple[float, str]]
    title: str = ""
    length: float | None = None
    inset: float = 0.0
    grid: bool = True
    bands: bool = False
    above: bool = False


def numbers(values: Iterable[float | None], title: str) -> Axis:
    """Return an axis with round ticks that enclose the values; of none of them, from 0 to 1."""
    known = [value for value in values if drawable(value)]
    places = ticks(min(known, default=0.0), max(known, default=1.0))
    return Axis(places[0], places[-1], list(zip(places, tick_text(places), strict=True)), title)


def rounds(first: float, last: float) -> Axis:
    """Return an axis of whole rounds."""
    labels = [(float(value), f"{value}") for value in round_ticks(first, last)]
    if first == last:
        return Axis(first - 1, last + 1, labels, "Round", grid=False)
    return Axis(first, last, labels, "Round", inset=10, grid=False)


def shares(title: str, length: float = 300) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(0, 1, [(tick / 5, f"{tick / 5:.1f}") for tick in range(6)], title, length)


def names(labels: Sequence[str], step: float, *, most: int = 26, above: bool = False, grid: bool = False) -> Axis:
    """Return an axis with a band of `step` for each name; its places are 0, 1, ….

    Names longer than `most` characters are cut.
    """
    cut = [(float(at), text if len(text) <= most else text[: most - 1] + "…") for at, text in enumerate(labels)]
    return Axis(-0.5, len(cut) - 0.5, cut, length=step * len(cut), grid=grid, bands=True, above=above)


class Mark(Protocol):
    """Something drawn from data."""

    def draw(self, at: Place) -> str:
        """Return SVG; `at` turns data into places."""

    @property
    def entry(self) -> tuple[str, int, bool]:
        """Label, look and whether it is a line, for the legend; no label, no entry."""


@dataclass(frozen=True)
class Line:
    """One series with a marker and a tip for each point: `ys` may hold None for a gap.

    `look` picks colour, dash and marker; `chosen` is the x of a point to stress; `unit` says in a tip what x is.
    Without `markers` there are no points, only the line.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    look: int = 0
    faint: bool = False
    markers: bool = True
    chosen: float | None = None
    unit: str = "round"

    def points(self) -> list[tuple[float, float | None]]:
        """Return the points, with what cannot be drawn as None."""
        return [(x, y if drawable(y) else None) for x, y in zip(self.xs, self.ys, strict=False)]

    @property
    def entry(self) -> tuple[str, int, bool]:
        return self.label, self.look, True

    def draw(self, at: Place) -> str:
        # A gap starts a new stretch; a stretch of one point has no length and is seen by its marker only.
        path, marks, pen_down = [], [], False
        known = sum(y is not None for _, y in self.points())
        for x, y in self.points():
            if y is not None:
                place = at(x, y)
                path.append(f"{'L' if pen_down else 'M'}{_px(place[0])} {_px(place[1])}")
                kind = " chosen" if x == self.chosen else "" if known <= _MOST_MARKERS else " hidden"
                tip = f"{f'{self.label}, ' if self.label else ''}{self.unit} {x:g}: {y:.4g}"
                marks.append(_marker(*place, self.look, 5 if x == self.chosen else 3, kind, tip))
            pen_down = y is not None
        if not self.markers or (self.faint and known > 1):
            marks = []
        faint = " faint" if self.faint else ""
        line = f'<path class="line look-{self.look % LOOKS}{faint}" d="{"".join(path)}"/>' if path else ""
        return line + "".join(marks)


@dataclass(frozen=True)
class Points:
    """Markers by themselves, each with a tip; None is not drawn, and a radius of 0 is a dot."""

    xs: Sequence[float | None]
    ys: Sequence[float | None]
    tips: Sequence[str]
    radii: Sequence[float] = ()
    look: int = 0
    label: str = ""

    @property
    def entry(self) -> tuple[str, int, bool]:
        return self.label, self.look, False

    def draw(self, at: Place) -> str:
        radii = self.radii or [4.5] * len(self.xs)
        parts = []
        for x, y, tip, radius in zip(self.xs, self.ys, self.tips, radii, strict=True):
            if x is not None and y is not None and drawable(x) and drawable(y):
                parts.append(_marker(*at(x, y), self.look, radius, "", tip) if radius else _dot(*at(x, y), tip))
        return "".join(parts)


@dataclass(frozen=True)
class Spans:
    """Horizontal lines, such as intervals: (y, from x, to x) each."""

    spans: Sequence[tuple[float, float, float]]
    entry: tuple[str, int, bool] = field(default=("", 0, True), init=False)

    def draw(self, at: Place) -> str:
        return "".join(_line("span", at(low, y), at(high, y)) for y, low, high in self.spans)


@dataclass(frozen=True)
class Guide:
    """A dashed line from one point to another, with a text above its end: a best round, the line of guessing."""

    start: tuple[float, float]
    end: tuple[float, float]
    text: str = ""
    anchor: str = "middle"
    entry: tuple[str, int, bool] = field(default=("", 0, True), init=False)

    def draw(self, at: Place) -> str:
        x, y = at(*self.end)
        label = _text(x, y - 6, self.text, "best-label", self.anchor) if self.text else ""
        return _line("best", at(*self.start), (x, y)) + label


@dataclass(frozen=True)
class Squares:
    """One square for each (column, row, kind, tip): ``answered`` filled, ``missing`` crossed, ``not-asked`` a dot."""

    cells: Sequence[tuple[int, int, str, str]]
    side: float = 13.0
    entry: tuple[str, int, bool] = field(default=("", 0, True), init=False)

    def draw(self, at: Place) -> str:
        return "".join(self._square(*at(column, row), kind, tip) for column, row, kind, tip in self.cells)

    def _square(self, x: float, y: float, kind: str, tip: str) -> str:
        if kind == "not-asked":
            return _dot(x, y, tip)
        half, arm = self.side / 2, self.side / 2 - 3.5
        cross = (
            f'<path d="M{_px(x - arm)} {_px(y - arm)}L{_px(x + arm)} {_px(y + arm)}'
            f'M{_px(x - arm)} {_px(y + arm)}L{_px(x + arm)} {_px(y - arm)}"/>'
        )
        box = f'x="{_px(x - half)}" y="{_px(y - half)}" width="{_px(self.side)}" height="{_px(self.side)}" rx="2"'
        drawn = f"<rect {box}/>{cross if kind == 'missing' else ''}"
        return f'<g class="{kind}"><title>{escape(tip)}</title>{drawn}</g>'


def chart(
    marks: Sequence[Mark], x: Axis, y: Axis, *, ident: str, title: str, description: str, fixed: bool = False
) -> Markup:
    """Return a chart.

    Parameters
    ----------
    marks : sequence of Mark
        Drawn in order; later ones lie on top. Those with a label are in the legend, ordered by look.
    x, y : Axis
        What goes across and what goes up.
    ident : str
        Unique in the page; ties the title and description to the chart for screen readers.
    title, description : str
        What a screen reader says.
    fixed : bool
        Keep the size, for a page that scrolls it, rather than fill the width.

    Returns
    -------
    Markup
        An `<svg>` element.
    """
    left = (30 if y.title else 12) + _CHARACTER * max((len(text) for _, text in y.labels), default=0)
    # Half of the last label stands beyond the end of its axis.
    margin = max(14.0, 0.0 if x.bands or not x.labels else _CHARACTER * len(x.labels[-1][1]) / 2 + 2)
    width = WIDTH if x.length is None else left + x.length + margin
    right = width - margin
    entries = sorted({mark.entry for mark in marks if mark.entry[0]}, key=lambda entry: entry[1])
    legend, top = _legend(entries, width) if entries else ("", 0.0)
    upright, widest = False, 0.0
    if x.above:
        widest = _CHARACTER * max((len(text) for _, text in x.labels), default=0)
        upright = x.length is not None and widest > x.length / max(len(x.labels), 1) - 4 and len(x.labels) > 1
        top += 10 + (widest if upright else 10)
    else:
        # Room for the text of a guide.
        top += 22 if x.length is None and y.length is None else 10
    below = 4 if x.above else 44 if x.title else 24
    bottom = HEIGHT - below if y.length is None else top + y.length
    across, upward = _scale(x, left, right), _scale(y, top, bottom) if y.bands else _scale(y, bottom, top)

    parts = [legend]
    for value, text in y.labels:
        at = upward(value)
        parts.append(_line("grid", (left, at), (right, at)) if y.grid else "")
        parts.append(_text(left - 6, at + 4, text, "tick", "end"))
    for value, text in x.labels:
        at = across(value)
        if x.grid:
            parts.append(_line("grid", (at, top), (at, bottom)))
        elif not x.bands:
            parts.append(_line("axis", (at, bottom), (at, bottom + 4)))
        if upright:
            parts.append(_upwards(at + 4, top - 4, text, "tick", "start"))
        else:
            parts.append(_text(at, top - 6 if x.above else bottom + 16, text, "tick", "middle"))
    if not (x.grid or x.bands):
        parts.append(_line("axis", (left, bottom), (right, bottom)))
    parts.append(_text((left + right) / 2, bottom + 36, x.title, "axis-title", "middle") if x.title else "")
    parts.append(_upwards(13, (top + bottom) / 2, y.title, "axis-title", "middle") if y.title else "")
    parts += [mark.draw(lambda at_x, at_y: (across(at_x), upward(at_y))) for mark in marks]
    size = f'width="{_px(width)}" height="{_px(bottom + below)}" ' if fixed else ""
    return Markup(  # noqa: S704 (every text in it went through escape)
        f'<svg role="img" viewBox="0 0 {_px(width)} {_px(bottom + below)}" {size}'
        f'aria-labelledby="{ident}-title {ident}-desc"><title id="{ident}-title">{escape(title)}</title>'
        f'<desc id="{ident}-desc">{escape(description)}</desc>{"".join(parts)}</svg>'
    )


def standalone(svg: str, css: str) -> bytes:
    """Return a chart as a file of its own; `css` has the rules and colours that a page would have."""
    opening, rest = str(svg).split(">", 1)
    style = f"<style>{css}svg {{ background: var(--card); font-family: system-ui, sans-serif; }}</style>"
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    # A name from a table may hold a lone surrogate, for which there is no UTF-8.
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening}>{style}{rest}\n'.encode("utf-8", "backslashreplace")


def drawable(value: float | None) -> TypeGuard[float]:
    """Say whether a value has a place on an axis."""
    return value is not None and abs(value) < _LARGEST


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten) that enclose low and high; at least two."""
    # A constant series, or one that differs by rounding only, still gets an axis around its value.
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-12):
        margin = 0.1 * abs(low) if abs(low) > 1e-9 else 0.5
        low, high = low - margin, high + margin
    raw = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    # Multiples, not running sums, which would drift to 0.30000000000000004.
    return [index * step for index in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def round_ticks(first: float, last: float) -> list[int]:
    """Return whole rounds to label between the first and the last."""
    step = max(1, round(ticks(0, max(last - first, 1), most=10)[1]))
    inner = [value for value in range(0, math.floor(last) + 1, step) if value >= first]
    start = math.ceil(first)
    return inner if inner and inner[0] - start <= step / 2 else [start, *inner]


def tick_text(values: Sequence[float]) -> list[str]:
    """Write the numbers of one axis with the same number of decimals."""
    step, largest = values[1] - values[0], max(abs(value) for value in values)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if largest >= 1e6 or decimals > 5:
        return [f"{value:.4g}" for value in values]
    # Adding 0.0 turns -0.0 into 0.0.
    return [f"{round(value, decimals) + 0.0:,.{decimals}f}" for value in values]


def _scale(axis: Axis, start: float, end: float) -> Callable[[float], float]:
    inset = math.copysign(axis.inset, end - start)
    start, end = start + inset, end - inset
    return lambda value: start + (value - axis.low) / (axis.high - axis.low) * (end - start)


def _legend(entries: Sequence[tuple[str, int, bool]], width: float) -> tuple[str, float]:
    """Return the legend, wrapped to the width, and its height."""
    x, y, parts = 8.0, 12.0, []
    for label, look, line in entries:
        needed = 46 + _CHARACTER * len(label)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + 18
        parts.append(f'<path class="line look-{look % LOOKS}" d="M{_px(x)} {_px(y)}h26"/>' if line else "")
        parts.append(_marker(x + 13, y, look, 3.5, "", ""))
        parts.append(_text(x + 32, y + 4, label, "legend", "start"))
        x += needed + 8
    return "".join(parts), y + 8


def _marker(x: float, y: float, look: int, r: float, kind: str, tip: str) -> str:
    """Return a disc, ring, diamond or triangle, so that looks differ without colour."""
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    attributes = f'class="marker look-{look % LOOKS}{kind}"'
    if look % LOOKS < 2:
        return f'<circle {attributes} cx="{_px(x)}" cy="{_px(y)}" r="{_px(r)}">{inside}</circle>'
    d, half = r * 1.35, r * 1.2
    corners = [(x, y - d), (x + d, y), (x, y + d), (x - d, y)]
    if look % LOOKS == 3:
        corners = [(x, y - d), (x + half, y + half * 0.8), (x - half, y + half * 0.8)]
    points = " ".join(f"{_px(a)},{_px(b)}" for a, b in corners)
    return f'<polygon {attributes} points="{points}">{inside}</polygon>'


def _dot(x: float, y: float, tip: str) -> str:
    return f'<circle class="not-asked" cx="{_px(x)}" cy="{_px(y)}" r="1.5"><title>{escape(tip)}</title></circle>'


def _line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{kind}" x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _upwards(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    place = f'text-anchor="{anchor}" transform="translate({_px(x)} {_px(y)}) rotate(-90)"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
