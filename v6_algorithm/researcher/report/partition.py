"""Who got what: a table for the terminal and a page with a picture, from the summary of a partition.

Called by `v6-algorithm partition`. Labels and site names come from the data and are escaped where they enter the page.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report.charts.svg import bubble_grid
from v6_algorithm.researcher.report.style import document

if TYPE_CHECKING:
    from rich.table import Table

# Columns of labels that a terminal has room for; the page has them all.
_MOST_COLUMNS = 8
_MOST_ROWS = 40


def partition_table(summary: dict[str, Any]) -> Table:
    """Return rows, share, groups and labels of each site.

    Parameters
    ----------
    summary : dict
        ``{"title", "rows", "left_out", "labels": [...], "sites": [{"name", "rows", "groups"?, "labels"?: [...]}]}``.
    """
    from rich.table import Table
    from rich.text import Text

    # Text, not str: names are shown as they are, never read as rich markup.
    table = Table(title=Text(summary["title"]))
    table.add_column("site")
    names, lines = _lines(summary, _MOST_COLUMNS)
    for name in names:
        table.add_column(Text(name), justify="right")
    for site, cells in lines[:_MOST_ROWS]:
        table.add_row(Text(site), *map(Text, cells))
    if len(lines) > _MOST_ROWS:
        table.add_row(Text(f"… {len(lines) - _MOST_ROWS} more"))
    return table


def partition_page(summary: dict[str, Any]) -> str:
    """Return a self-contained page with the picture and the table of `partition_table`, and how to do it again."""
    names, lines = _lines(summary, len(summary["labels"]))
    labels = summary["labels"]
    counts = [(site["name"], site.get("labels") or [site["rows"]]) for site in summary["sites"]]
    picture = bubble_grid(
        counts,
        labels or ["rows"],
        ident="partition",
        title=summary["title"],
        description="One disc for each site and label; its area is the number of rows.",
    )
    header = "".join(f"<th>{escape(name)}</th>" for name in ["site", *names])
    body = "".join(
        f"<tr><th>{escape(site)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for site, cells in lines
    )
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    left_out = summary["left_out"]
    lead = f"{summary['rows']:,} rows at {len(lines)} sites" + (f"; {left_out:,} rows are at none" if left_out else "")
    return document(
        f"{escape(summary['title'])} – partition",
        f'<header><p class="kicker">Partition</p><h1>{escape(summary["title"])}</h1>'
        f'<p class="lead">{escape(lead)}.</p></header>'
        f'<section><h2>Who got what</h2><div class="grid-scroll">{picture}</div></section>'
        f'<section><div class="scroll">{table}</div></section>'
        f"<section><h2>Again</h2><pre>{escape(summary['again'])}</pre></section>",
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
