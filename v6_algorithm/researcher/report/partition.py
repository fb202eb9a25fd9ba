"""Who got what: a table for the terminal and a page with a picture, from the summary of a partition.

Called by `v6-algorithm partition`. Labels and site names come from the data; the template escapes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report.charts.marks import Points, chart, names
from v6_algorithm.researcher.report.templating import Row, Table, fill, heads

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

# Columns of labels that a terminal has room for; the page has them all.
_MOST_COLUMNS = 8
_MOST_ROWS = 40


def partition_table(summary: dict[str, Any]) -> TerminalTable:
    """Return rows, share, groups and labels of each site.

    Parameters
    ----------
    summary : dict
        ``{"title", "rows", "left_out", "labels": [...], "sites": [{"name", "rows", "groups"?, "labels"?: [...]}]}``.
    """
    from rich.table import Table as TerminalTable
    from rich.text import Text

    # Text, not str: names are shown as they are, never read as rich markup.
    table = TerminalTable(title=Text(summary["title"]))
    table.add_column("site")
    header, lines = _lines(summary, _MOST_COLUMNS)
    for name in header:
        table.add_column(Text(name), justify="right")
    for site, cells in lines[:_MOST_ROWS]:
        table.add_row(Text(site), *map(Text, cells))
    if len(lines) > _MOST_ROWS:
        table.add_row(Text(f"… {len(lines) - _MOST_ROWS} more"))
    return table


def partition_page(summary: dict[str, Any]) -> str:
    """Return a self-contained page with the picture and the table of `partition_table`, and how to do it again."""
    header, lines = _lines(summary, len(summary["labels"]))
    left_out = summary["left_out"]
    return fill(
        "partition.html",
        kind="partition",
        title=summary["title"],
        lead=f"{summary['rows']:,} rows at {len(lines)} sites"
        + (f"; {left_out:,} rows are at none" if left_out else ""),
        chart=_chart(summary),
        rows=Table(heads("site", *header), [[Row([site, *cells]) for site, cells in lines]]),
        again=summary["again"],
    )


def _chart(summary: dict[str, Any]) -> str:
    """Return a disc for each site and label, whose area is the number of rows."""
    labels = summary["labels"] or ["rows"]
    cell = 34
    counts = [
        (column, row, count, f"{site['name']}, {labels[column]}: {count:,}")
        for row, site in enumerate(summary["sites"])
        for column, count in enumerate(site.get("labels") or [site["rows"]])
    ]
    largest = max((count for _, _, count, _ in counts), default=1) or 1
    columns, rows, sizes, tips = zip(*counts, strict=True) if counts else ((), (), (), ())
    radii = [max(1.5, (cell / 2 - 1) * (count / largest) ** 0.5) if count else 0 for count in sizes]
    return chart(
        [Points(columns, rows, tips, radii)],
        names(labels, cell, most=14, above=True),
        names([site["name"] for site in summary["sites"]], cell, grid=True),
        ident="partition",
        title=summary["title"],
        description="One disc for each site and label; its area is the number of rows.",
        fixed=True,
    )


def _lines(summary: dict[str, Any], most: int) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the header and, for each site, its name and cells; labels beyond `most` are left to the page."""
    labels = summary["labels"][:most]
    shown = max(summary["rows"], 1)
    grouped = any("groups" in site for site in summary["sites"])
    header = ["rows", "share", *(["groups"] if grouped else []), *labels]
    if len(summary["labels"]) > most:
        header.append("…")
    lines = []
    for site in summary["sites"]:
        cells = [f"{site['rows']:,}", f"{site['rows'] / shown:.1%}"]
        cells += [f"{site['groups']:,}"] if grouped else []
        cells += [f"{count:,}" for count in site.get("labels", [])[:most]]
        lines.append((site["name"], cells))
    return header, lines
