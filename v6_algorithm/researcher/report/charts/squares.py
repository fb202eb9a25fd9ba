"""Charts of one share against another, both from 0 to 1: ROC curves and calibration."""

from __future__ import annotations

from collections.abc import Sequence

from v6_algorithm.researcher.report.charts.svg import Line, legend_of, marker_of, px, svg_of, text_at

# The plot is a square; room for the axes' numbers and titles is beside it.
_SIDE, _LEFT, _BELOW = 300.0, 56.0, 44.0
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LARGEST_DISC = 11.0


def square_chart(
    lines: Sequence[Line],
    *,
    axes: tuple[str, str],
    ident: str,
    title: str,
    description: str,
    weights: Sequence[float] | None = None,
) -> str:
    """Return lines over the unit square, with its diagonal.

    Parameters
    ----------
    lines : sequence of Line
        Their points are within 0 and 1.
    axes : (str, str)
        Titles of the horizontal and the vertical axis.
    ident, title, description : str
        As for `svg.line_chart`.
    weights : sequence of float, optional
        Of the first line's points: they are discs whose areas go with these.

    Returns
    -------
    str
        An `<svg>` element, or an empty string when there is nothing to draw.
    """
    if not any(y is not None for line in lines for _, y in line.points()):
        return ""
    legend, top = "", 8.0
    if named := [(line.label, line.look) for line in lines if line.label]:
        legend, height = legend_of(named, _LEFT + _SIDE)
        top = height + 8
    bottom = top + _SIDE

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x * _SIDE, bottom - y * _SIDE

    parts = [legend]
    for tick in _TICKS:
        x, y = at(tick, tick)
        parts.append(f'<line class="grid" x1="{px(_LEFT)}" x2="{px(_LEFT + _SIDE)}" y1="{px(y)}" y2="{px(y)}"/>')
        parts.append(f'<line class="grid" x1="{px(x)}" x2="{px(x)}" y1="{px(top)}" y2="{px(bottom)}"/>')
        parts.append(text_at(_LEFT - 6, y + 4, f"{tick:.1f}", "tick", "end"))
        parts.append(text_at(x, bottom + 16, f"{tick:.1f}", "tick", "middle"))
    parts.append(f'<path class="best" d="M{px(_LEFT)} {px(bottom)}L{px(_LEFT + _SIDE)} {px(top)}"/>')
    parts.append(text_at(_LEFT + _SIDE / 2, bottom + 36, axes[0], "axis-title", "middle"))
    middle = px((top + bottom) / 2)
    parts.append(
        f'<g transform="translate(14 {middle}) rotate(-90)">{text_at(0, 0, axes[1], "axis-title", "middle")}</g>'
    )
    for number, line in enumerate(lines):
        points = [(*at(x, y), x, y) for x, y in line.points() if y is not None]
        path = "L".join(f"{px(x)} {px(y)}" for x, y, _, _ in points)
        parts.append(f'<path class="line look-{line.look}" d="M{path}"/>')
        if weights is not None and number == 0:
            parts += _discs(line, points, weights)
    return svg_of(parts, _LEFT + _SIDE + 14, bottom + _BELOW, ident, title, description)


def _discs(line: Line, points: Sequence[tuple[float, float, float, float]], weights: Sequence[float]) -> list[str]:
    largest = max(weights, default=0) or 1
    known = [weight for weight, (_, y) in zip(weights, line.points(), strict=True) if y is not None]
    return [
        marker_of(
            x,
            y,
            line.look,
            max(2.0, _LARGEST_DISC * (weight / largest) ** 0.5),
            "",
            f"<title>{weight:,.0f} rows: predicted {over:.3f}, observed {share:.3f}</title>",
        )
        for weight, (x, y, over, share) in zip(known, points, strict=True)
    ]
