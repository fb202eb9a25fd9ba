"""Charts as hand-written SVG: lines over rounds, dots per site, and squares for who took part.

Called by the report page. A chart is text with no script, no font and no address in it, so that the page opens
anywhere, offline, and prints. Colours are classes of the page's style sheet, which knows light from dark; nothing is
told by colour alone: each look has its own dash and marker. All lengths are in units of the view box, where one unit is
about one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
CHARACTER = 6.4  # mean width of a character at the 11-unit font of the style sheet
LOOKS = 4
# Above this many points the markers would hide the line; they stay as invisible targets for the tooltip.
MOST_MARKERS = 40
# Values beyond this are a diverged run and would overflow the axis arithmetic.
LARGEST = 1e100


@dataclass(frozen=True)
class Line:
    """One series: `ys` may hold None for a gap; `look` picks colour, dash and marker; no label, no legend entry."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    look: int = 0
    faint: bool = False

    def points(self) -> list[tuple[float, float | None]]:
        """Return the points, with what cannot be drawn as None."""
        return [(x, y if y is not None and abs(y) < LARGEST else None) for x, y in zip(self.xs, self.ys, strict=False)]


def line_chart(lines: Sequence[Line], *, ident: str, title: str, description: str, best: float | None = None) -> str:
    """Return a chart of lines over rounds.

    Parameters
    ----------
    lines : sequence of Line
        Drawn in order; later ones lie on top.
    ident : str
        Unique in the page; ties the title and description to the chart for screen readers.
    title, description : str
        What a screen reader says; the title is also the label of the vertical axis.
    best : float, optional
        The round to mark.

    Returns
    -------
    str
        An `<svg>` element, or an empty string when no line has a value.
    """
    points = [(x, y) for line in lines for x, y in line.points() if y is not None]
    if not points:
        return ""
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    tick_labels = tick_text(y_ticks)
    legend, legend_height = legend_of([(line.label, line.look) for line in lines if line.label], WIDTH)
    left = 30 + CHARACTER * max(len(text) for text in tick_labels)
    right, top, bottom = WIDTH - 14.0, legend_height + 22.0, HEIGHT - 40.0

    first, last = min(x for x, _ in points), max(x for x, _ in points)
    x_of = _scale(first, last, left + 10, right - 10) if last > first else _scale(first - 1, first + 1, left, right)
    y_of = _scale(y_ticks[0], y_ticks[-1], bottom, top)

    parts = [legend]
    for value, text in zip(y_ticks, tick_labels, strict=True):
        y = px(y_of(value))
        parts.append(f'<line class="grid" x1="{px(left)}" x2="{px(right)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{px(left - 6)}" y="{y}" dy="0.35em" text-anchor="end">{text}</text>')
    for value in round_ticks(first, last):
        x = x_of(value)
        parts.append(f'<line class="axis" x1="{px(x)}" x2="{px(x)}" y1="{px(bottom)}" y2="{px(bottom + 4)}"/>')
        parts.append(text_at(x, bottom + 16, f"{value:g}", "tick", "middle"))
    parts.append(f'<line class="axis" x1="{px(left)}" x2="{px(right)}" y1="{px(bottom)}" y2="{px(bottom)}"/>')
    parts.append(text_at((left + right) / 2, HEIGHT - 6, "Round", "axis-title", "middle"))
    middle = px((top + bottom) / 2)
    parts.append(
        f'<text class="axis-title" text-anchor="middle" transform="translate(12 {middle}) rotate(-90)">'
        f"{escape(title)}</text>"
    )
    if best is not None and first <= best <= last:
        at = x_of(best)
        anchor = "start" if at < left + 40 else "end" if at > right - 40 else "middle"
        parts.append(f'<line class="best" x1="{px(at)}" x2="{px(at)}" y1="{px(top)}" y2="{px(bottom)}"/>')
        parts.append(text_at(at, top - 6, f"best: round {best:g}", "best-label", anchor))
    for line in lines:
        place = [(x_of(x), None if y is None else y_of(y)) for x, y in line.points()]
        parts.append(_curve(line, place, best))
    return svg_of(parts, WIDTH, HEIGHT, ident, title, description)


def _curve(line: Line, place: list[tuple[float, float | None]], best: float | None) -> str:
    faint = " faint" if line.faint else ""
    # A gap starts a new stretch; a stretch of one point has no length and is seen by its marker only.
    path, pen_down = [], False
    for x, y in place:
        if y is not None:
            path.append(f"{'L' if pen_down else 'M'}{px(x)} {px(y)}")
        pen_down = y is not None
    parts = [f'<path class="line look-{line.look % LOOKS}{faint}" d="{"".join(path)}"/>'] if path else []
    if line.faint and len(path) > 1:
        return "".join(parts)
    hidden = "" if len(path) <= MOST_MARKERS else " hidden"
    for (x_value, y_value), (x, y) in zip(line.points(), place, strict=True):
        if y is None or y_value is None:
            continue
        kind = " chosen" if x_value == best else hidden
        name = f"{line.label}, " if line.label else ""
        tip = f"<title>{escape(name)}round {x_value:g}: {y_value:.4g}</title>"
        parts.append(marker_of(x, y, line.look, 5 if x_value == best else 3, kind, tip))
    return "".join(parts)


def dot_chart(
    rows: Sequence[tuple[str, Sequence[float | None]]],
    names: Sequence[str],
    *,
    ident: str,
    title: str,
    description: str,
    spans: Sequence[tuple[float, float] | None] | None = None,
) -> str:
    """Return one horizontal line per row with one marker per name: the same metric under several runs.

    Parameters
    ----------
    rows : sequence of (label, values)
        One value per name, None where there is none.
    names : sequence of str
        What is compared; the first is drawn on top.
    ident, title, description : str
        As for `line_chart`.
    spans : sequence of (float, float) or None, optional
        Where each row's line begins and ends, such as a confidence interval; without, at its markers.

    Returns
    -------
    str
        An `<svg>` element, or an empty string when no row has a value.
    """
    known = [value for _, values in rows for value in values if value is not None and abs(value) < LARGEST]
    if not known:
        return ""
    known += [end for span in spans or [] if span is not None for end in span]
    legend, legend_height = legend_of([(name, look) for look, name in enumerate(names)], WIDTH, lines=False)
    labels = [label if len(label) <= 22 else label[:21] + "…" for label, _ in rows]
    left = 14 + CHARACTER * max(len(label) for label in labels)
    step, top = 26.0, legend_height + 10.0
    bottom = top + step * len(rows)
    x_ticks = ticks(min(known), max(known))
    x_of = _scale(x_ticks[0], x_ticks[-1], left + 8, WIDTH - 22)
    parts = [legend]
    for value, text in zip(x_ticks, tick_text(x_ticks), strict=True):
        x = px(x_of(value))
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{px(top)}" y2="{px(bottom)}"/>')
        parts.append(text_at(x_of(value), bottom + 16, text, "tick", "middle"))
    parts.append(text_at((left + WIDTH) / 2, bottom + 36, title, "axis-title", "middle"))
    for index, ((full, values), label) in enumerate(zip(rows, labels, strict=True)):
        y = top + step * (index + 0.5)
        parts.append(text_at(left - 6, y + 4, label, "tick", "end"))
        drawn = [(look, value) for look, value in enumerate(values) if value is not None and abs(value) < LARGEST]
        if drawn:
            own = spans[index] if spans else None
            ends = [x_of(value) for value in own or [value for _, value in drawn]]
            span = f'x1="{px(min(ends))}" x2="{px(max(ends))}" y1="{px(y)}" y2="{px(y)}"'
            parts.append(f'<line class="span" {span}/>')
        for look, value in reversed(drawn):
            tip = f"<title>{escape(full)}, {escape(names[look])}: {value:.4g}</title>"
            parts.append(marker_of(x_of(value), y, look, 4.5, "", tip))
    return svg_of(parts, WIDTH, bottom + 44, ident, title, description)


def participation_grid(
    sites: Sequence[str],
    columns: Sequence[tuple[str, dict[str, str | None]]],
    *,
    ident: str,
    title: str,
    description: str,
) -> str:
    """Return squares, one row per site and one column per round: filled answered, crossed missing, dot not asked.

    Parameters
    ----------
    sites : sequence of str
        The rows.
    columns : sequence of (label, outcome)
        Per round its label (may be empty) and for each site asked None when it answered, else the reason.
    ident, title, description : str
        As for `line_chart`.

    Returns
    -------
    str
        An `<svg>` element of fixed size; the page scrolls it when it is wide.
    """
    cell, box = 17.0, 13.0
    labels = [site if len(site) <= 26 else site[:25] + "…" for site in sites]
    left = 10 + CHARACTER * max((len(label) for label in labels), default=0)
    top = 20.0
    parts = [text_at(left + cell * i + box / 2, 12, text, "tick", "middle") for i, (text, _) in enumerate(columns)]
    for row, (site, label) in enumerate(zip(sites, labels, strict=True)):
        y = top + cell * row
        parts.append(text_at(left - 6, y + box - 3, label, "tick", "end"))
        for index, (round_label, outcome) in enumerate(columns):
            x = left + cell * index
            where = f"{escape(site)}, round {escape(round_label or str(index + 1))}"
            if site not in outcome:
                dot = f'<circle class="not-asked" cx="{px(x + box / 2)}" cy="{px(y + box / 2)}" r="1.5">'
                parts.append(f"{dot}<title>{where}: not asked</title></circle>")
                continue
            reason = outcome[site]
            kind, says = ("answered", "answered") if reason is None else ("missing", f"missing: {reason}")
            parts.append(f'<g class="{kind}"><title>{where}: {escape(says)}</title>')
            parts.append(f'<rect x="{px(x)}" y="{px(y)}" width="{px(box)}" height="{px(box)}" rx="2"/>')
            if reason is not None:
                a, b, c, d = x + 3.5, y + 3.5, x + box - 3.5, y + box - 3.5
                parts.append(f'<path d="M{px(a)} {px(b)}L{px(c)} {px(d)}M{px(a)} {px(d)}L{px(c)} {px(b)}"/>')
            parts.append("</g>")
    width = left + cell * len(columns) + 8
    return svg_of(parts, width, top + cell * len(sites) + 2, ident, title, description, fixed=True)


def bubble_grid(
    rows: Sequence[tuple[str, Sequence[int]]], columns: Sequence[str], *, ident: str, title: str, description: str
) -> str:
    """Return discs, one row of them per row and one column per column, whose areas are the counts.

    Parameters
    ----------
    rows : sequence of (label, counts)
        One count per column; a count of 0 is a dot.
    columns : sequence of str
        What is counted.
    ident, title, description : str
        As for `line_chart`.

    Returns
    -------
    str
        An `<svg>` element of fixed size; the page scrolls it when it is wide.
    """
    cell = 34.0
    labels = [label if len(label) <= 26 else label[:25] + "…" for label, _ in rows]
    names = [name if len(name) <= 14 else name[:13] + "…" for name in columns]
    left = 12 + CHARACTER * max((len(label) for label in labels), default=0)
    # Names that are wider than a column are written upwards.
    upright = max((len(name) for name in names), default=0) * CHARACTER > cell - 4
    top = 10 + (CHARACTER * max((len(name) for name in names), default=0) if upright else 12)
    largest = max((count for _, counts in rows for count in counts), default=1) or 1
    parts = []
    for index, name in enumerate(names):
        x = left + cell * (index + 0.5)
        if upright:
            place = f'transform="translate({px(x + 4)} {px(top - 4)}) rotate(-90)"'
            parts.append(f'<text class="tick" {place}>{escape(name)}</text>')
        else:
            parts.append(text_at(x, top - 6, name, "tick", "middle"))
    for number, ((full, counts), label) in enumerate(zip(rows, labels, strict=True)):
        y = top + cell * (number + 0.5)
        parts.append(
            f'<line class="grid" x1="{px(left)}" x2="{px(left + cell * len(names))}" y1="{px(y)}" y2="{px(y)}"/>'
        )
        parts.append(text_at(left - 6, y + 4, label, "tick", "end"))
        for index, count in enumerate(counts):
            tip = f"<title>{escape(full)}, {escape(columns[index])}: {count:,}</title>"
            x, r = left + cell * (index + 0.5), (cell / 2 - 1) * math.sqrt(count / largest)
            kind = "marker look-0" if count else "not-asked"
            parts.append(f'<circle class="{kind}" cx="{px(x)}" cy="{px(y)}" r="{px(max(r, 1.5))}">{tip}</circle>')
    width = left + cell * len(names) + 8
    return svg_of(parts, width, top + cell * len(rows) + 2, ident, title, description, fixed=True)


def standalone(chart: str, css: str) -> bytes:
    """Return a chart as a file of its own.

    Parameters
    ----------
    chart
        An `<svg>` element of this module.
    css
        The rules and colours that a page would have.
    """
    opening, rest = chart.split(">", 1)
    style = f"<style>{css}svg {{ background: var(--card); font-family: system-ui, sans-serif; }}</style>"
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    # A name from a table may hold a lone surrogate, for which there is no UTF-8.
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening}>{style}{rest}\n'.encode("utf-8", "backslashreplace")


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


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def legend_of(entries: Sequence[tuple[str, int]], width: float, *, lines: bool = True) -> tuple[str, float]:
    """Return the legend, wrapped to the width, and its height."""
    x, y, parts = 8.0, 12.0, []
    for label, look in entries:
        needed = 46 + CHARACTER * len(label)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + 18
        if lines:
            parts.append(f'<path class="line look-{look % LOOKS}" d="M{px(x)} {px(y)}h26"/>')
        parts.append(marker_of(x + 13, y, look, 3.5, "", ""))
        parts.append(text_at(x + 32, y + 4, label, "legend", "start"))
        x += needed + 8
    return "".join(parts), y + 8


def marker_of(x: float, y: float, look: int, r: float, kind: str, inside: str) -> str:
    """Return a disc, ring, diamond or triangle, so that looks differ without colour."""
    attributes = f'class="marker look-{look % LOOKS}{kind}"'
    if look % LOOKS < 2:
        return f'<circle {attributes} cx="{px(x)}" cy="{px(y)}" r="{px(r)}">{inside}</circle>'
    d, half = r * 1.35, r * 1.2
    corners = [(x, y - d), (x + d, y), (x, y + d), (x - d, y)]
    if look % LOOKS == 3:
        corners = [(x, y - d), (x + half, y + half * 0.8), (x - half, y + half * 0.8)]
    points = " ".join(f"{px(a)},{px(b)}" for a, b in corners)
    return f'<polygon {attributes} points="{points}">{inside}</polygon>'


def text_at(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    """Return a text, escaped."""
    return f'<text class="{kind}" x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def px(value: float) -> str:
    """Write a length."""
    return f"{value:.1f}".removesuffix(".0")


def svg_of(
    parts: Sequence[str], width: float, height: float, ident: str, title: str, description: str, *, fixed: bool = False
) -> str:
    size = f' width="{px(width)}" height="{px(height)}"' if fixed else ""
    return (
        f'<svg role="img" viewBox="0 0 {px(width)} {px(height)}"{size} aria-labelledby="{ident}-title {ident}-desc">'
        f'<title id="{ident}-title">{escape(title)}</title><desc id="{ident}-desc">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
