"""Pieces of the report page that are HTML: cells, rows and tables, in which every text of a result is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from v6_algorithm.researcher.report import reading


class Markup(str):
    """Text that is HTML already; everything else is escaped when it enters the page."""

    __slots__ = ()


def table_of(head: Sequence[str], bodies: Sequence[str], *, wide: bool = False) -> str:
    """Return a table; `bodies` are HTML, the groups of its rows."""
    cells = "".join(f'<th scope="col">{_cell(text)}</th>' for text in head)
    groups = "".join(f"<tbody>{body}</tbody>" for body in bodies)
    # A wide table scrolls inside its box; the box takes the focus so that the keyboard can scroll it too.
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="Table by {safe(head[0]).lower()}">'
    kind = ' class="wide"' if wide else ""
    return f"{box}<table{kind}><thead><tr>{cells}</tr></thead>{groups}</table></div>"


def row_of(cells: Sequence[str], *, strong: bool = False) -> str:
    """Return a row, whose first cell is its head."""
    first, *rest = map(_cell, cells)
    kind = ' class="strong"' if strong else ""
    return f'<tr{kind}><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else safe(text)


def safe(text: str) -> str:
    """Escape a text."""
    return escape(text, quote=True)


def metric_heads(metrics: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[Markup]:
    """Return the heads of columns of metrics; behind one whose standard error some row knows that of its interval."""
    with_interval = _with_interval(metrics, list(rows))
    heads = []
    for metric in metrics:
        heads.append(metric_head(metric))
        if metric in with_interval:
            meaning = "95 % confidence interval by DeLong's method, as if rows were independent"
            heads.append(Markup(f'<abbr title="{safe(meaning)}">95&nbsp;%&nbsp;CI</abbr>'))
    return heads


def metric_cells(metrics: Sequence[str], values: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a row's cells under `metric_heads` of the same rows."""
    with_interval = _with_interval(metrics, list(rows))
    cells = []
    for metric in metrics:
        cells.append(reading.number(values.get(metric)))
        if metric in with_interval:
            cells.append(reading.interval_text(dict(values), metric))
    return cells


def _with_interval(metrics: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [metric for metric in metrics if any(reading.interval(dict(values), metric) for values in rows)]


def metric_head(metric: str) -> Markup:
    """Return a metric's label with its direction, and what it says as a tip."""
    known = reading.described(metric)
    if known is None:
        return Markup(safe(reading.label(metric)))
    arrow = "↑" if known.higher_is_better else "↓"
    return Markup(f'<abbr title="{safe(known.meaning)}">{safe(known.label)}&nbsp;{arrow}</abbr>')
