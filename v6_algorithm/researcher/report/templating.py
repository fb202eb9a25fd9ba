"""The templates of the report pages, and the tables that they show.

Every text that comes from a result (names of sites, reasons, notes) is escaped by Jinja2 where it enters a page: pages
are only ever filled in through `fill`, and only the charts of `charts.marks` come as markup.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report import formatting, reading

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Head:
    """The head of a column, and what it means, shown as a tip."""

    text: str
    meaning: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table, whose first cell is its head; of a `group` it is the only one."""

    cells: Sequence[str]
    strong: bool = False
    group: bool = False


@dataclass(frozen=True)
class Table:
    """A table; `bodies` are groups of its rows. A wide one keeps its first column in view on a narrow screen."""

    head: Sequence[Head]
    bodies: Sequence[Sequence[Row]]
    wide: bool = False


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def fill(template: str, **values: Any) -> str:
    """Return a template filled in: a complete HTML document that refers to nothing outside itself."""
    return _environment().get_template(template).render(values | {"next_number": count(1).__next__})


def chart_css() -> str:
    """Return the colours and rules that a chart in a file of its own needs."""
    return "".join((_FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in ("colours", "charts"))


def heads(*texts: str) -> list[Head]:
    """Return heads of columns that need no explanation."""
    return [Head(text) for text in texts]


def metric_heads(metrics: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[Head]:
    """Return the heads of columns of metrics; behind one whose interval some row knows that of it."""
    bounded = with_interval(metrics, rows)
    columns = []
    for metric in metrics:
        columns.append(metric_head(metric))
        if metric in bounded:
            meaning = "95 % confidence interval, as if rows were independent; how, says docs/evaluation.md"
            columns.append(Head("95\xa0%\xa0CI", meaning))
    return columns


def metric_cells(metrics: Sequence[str], values: Mapping[str, Any], bounded: Collection[str]) -> list[str]:
    """Return a row's cells under `metric_heads`; `bounded` are the metrics `with_interval` of the same rows."""
    cells = []
    for metric in metrics:
        cells.append(formatting.number(values.get(metric)))
        if metric in bounded:
            cells.append(reading.interval_text(dict(values), metric))
    return cells


def metric_head(metric: str) -> Head:
    """Return a metric's label with its direction, and what it says as a tip."""
    known = reading.described(metric)
    if known is None:
        return Head(reading.label(metric))
    return Head(f"{known.label}\xa0{'↑' if known.higher_is_better else '↓'}", known.meaning)


def with_interval(metrics: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics whose interval some row knows."""
    rows = list(rows)
    return [metric for metric in metrics if any(reading.interval(dict(values), metric) for values in rows)]
