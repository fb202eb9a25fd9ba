"""What `v6-algorithm describe` shows and writes: rich tables, summary.json and summary.csv, from the summary alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report import table_one
from v6_algorithm.researcher.report.artifacts import write_file
from v6_algorithm.researcher.report.formatting import number

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("column", "scope", "site", "statistic", "value")
# A cell that a site keeps to itself.
HIDDEN = "few"
# Pairs of columns that are shown; summary.json has the whole matrix.
_PAIRS = 10
# Sizes of images by site.
_SIZES = 4


def summary_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a summary: rows and labels by site, numeric columns pooled and by site, correlations."""
    tables = [_labels(name, labels, summary["sites"]) for name, labels in summary["labels"].items()]
    tables += [_images(summary["images"])] if summary.get("images") else []
    numeric = {name: column for name, column in summary["columns"].items() if "pooled" in column}
    if numeric:
        tables += [_pooled(numeric), _by_site(numeric, list(summary["sites"]))]
    if summary["correlations"]:
        tables += _correlations(summary["correlations"])
    if summary.get("table_one"):
        tables.append(table_one.terminal_table(summary["table_one"]))
    if summary.get("curves"):
        tables.append(table_one.curves_table(summary["curves"]))
        if summary["curves"].get("causes"):
            tables.append(table_one.incidence_table(summary["curves"]))
    return tables


def write_summary(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write summary.json, correlations.csv and summary.csv: a line a number; column, scope, site, statistic, value.

    By group also table1.csv, .tex and .html, kaplan_meier.csv and .svg, cumulative_incidence.csv and an .svg a cause.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_lines(summary))
    content = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    written = [write_file(folder / "summary.json", content), write_file(folder / "summary.csv", text.getvalue())]
    if summary["correlations"]:
        written.append(write_file(folder / "correlations.csv", correlations_csv(summary["correlations"])))
    return written + (_write_groups(summary, folder) if summary.get("table_one") else [])


def _write_groups(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write Table 1 as CSV, HTML and LaTeX, and the survival curves as CSV and SVG."""
    from v6_algorithm.researcher.report.charts.marks import standalone
    from v6_algorithm.researcher.report.templating import chart_css

    written = [
        write_file(folder / "table1.csv", table_one.csv_text(summary["table_one"])),
        write_file(folder / "table1.tex", table_one.latex_text(summary["table_one"])),
        write_file(folder / "table1.html", table_one.page(summary)),
    ]
    if curves := summary.get("curves"):
        rows = table_one.lines_of_csv(table_one.CURVES_HEADER, table_one.curve_rows(curves))
        written.append(write_file(folder / "kaplan_meier.csv", rows))
        written.append(write_file(folder / "kaplan_meier.svg", standalone(table_one.curves_chart(curves), chart_css())))
        if curves.get("causes"):
            rows = table_one.lines_of_csv(table_one.INCIDENCE_HEADER, table_one.incidence_rows(curves))
            written.append(write_file(folder / "cumulative_incidence.csv", rows))
            for number, drawn in enumerate(table_one.incidence_charts(curves).values(), start=1):
                name = f"cumulative_incidence_{number}.svg"
                written.append(write_file(folder / name, standalone(drawn, chart_css())))
    return written


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for site, site_summary in summary["sites"].items():
        yield "", "site", site, "rows", site_summary["rows"]
    for site, image in summary.get("images", {}).items():
        for what, counts in (("size", image["sizes"]), ("unreadable", image["causes"])):
            for label, rows in counts.items():
                yield "(images)", "site", site, f"n {what} {label}", rows
        for end in ("low", "high"):
            yield "(images)", "site", site, f"mean {end}est", image[end]
    for name, labels in summary["labels"].items():
        for scope, site, row in [
            ("pooled", "", labels["pooled"]),
            *(("site", *item) for item in labels["sites"].items()),
        ]:
            for label, rows in zip(labels["labels"], row["counts"], strict=True):
                yield name, scope, site, f"n {label}", rows
            yield name, scope, site, "hidden", row["hidden"]
            yield name, scope, site, "missing", row["missing"]
    for name, column in summary["columns"].items():
        scopes = [
            ("pooled", "", column.get("pooled", {})),
            *(("site", *item) for item in column.get("sites", {}).items()),
        ]
        for scope, site, numbers in scopes:
            for statistic in ("n", "missing", "mean", "sd"):
                if statistic in numbers:
                    yield name, scope, site, statistic, numbers[statistic]
            for q, quantile in (numbers.get("quantiles") or {}).items():
                yield name, scope, site, f"quantile {q}", quantile["value"]
                yield name, scope, site, f"quantile {q} low", quantile["low"]
                yield name, scope, site, f"quantile {q} high", quantile["high"]


def _table(title: str, first: str, columns: list[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    # Text, not str: names from elsewhere are shown as they are, never read as rich markup.
    table = Table(title=Text(title))
    table.add_column(Text(first))
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table


def _labels(name: str, labels: Mapping[str, Any], sites: Mapping[str, Any]) -> Table:
    from rich.text import Text

    rows = {"pooled": labels["pooled"], **labels["sites"]}
    hides = any(row["hidden"] for row in rows.values())
    columns = ["n", *(str(label) for label in labels["labels"]), *([HIDDEN] if hides else []), "missing"]
    table = _table(f"{name} ({labels['role']})", "site", columns)
    for site, row in rows.items():
        n = sum(site_summary["rows"] for site_summary in sites.values()) if site == "pooled" else sites[site]["rows"]
        known = max(n - row["missing"], 1)
        cells = [HIDDEN if rows is None else f"{rows:,} ({rows / known:.0%})" for rows in row["counts"]]
        hidden = [f"{row['hidden']:,}" if row["hidden"] else ""] if hides else []
        table.add_row(Text(site), f"{n:,}", *cells, *hidden, f"{row['missing']:,}" if row["missing"] else "")
    return table


def _images(images: Mapping[str, Any]) -> Table:
    from rich.text import Text

    table = _table("images", "site", ["channels x lengths", "mean lowest to highest", "unreadable"])
    for site, image in images.items():
        ranked = sorted(image["sizes"].items(), key=lambda item: -item[1])
        sizes = [f"{size} ({rows:,})" for size, rows in ranked[:_SIZES]]
        sizes += [f"… {len(ranked) - _SIZES} more"] if len(ranked) > _SIZES else []
        sizes += [f"rare sizes ({image['hidden']:,})"] if image["hidden"] else []
        values = HIDDEN if image["low"] is None else f"{number(image['low'])} to {number(image['high'])}"
        unreadable = [f"{rows:,} {cause.replace('_', ' ')}" for cause, rows in image["causes"].items()]
        table.add_row(Text(site), Text("\n".join(sizes)), values, Text("\n".join(unreadable)))
    return table


def _pooled(columns: Mapping[str, Any]) -> Table:
    from rich.text import Text

    quantiles = next(
        (
            list(summary_of["pooled"]["quantiles"])
            for summary_of in columns.values()
            if summary_of["pooled"]["quantiles"]
        ),
        [],
    )
    named = ["median" if q == "0.5" else f"{float(q):.0%}" for q in quantiles]
    table = _table("all sites", "column", ["n", "missing", "mean", "sd", *named])
    for name, column in columns.items():
        pooled = column["pooled"]
        quantile_values = pooled["quantiles"] or {}
        cells = [number(quantile_values[q]["value"]) if q in quantile_values else "" for q in quantiles]
        missing = f"{pooled['missing']:,}" if pooled["missing"] else ""
        table.add_row(Text(name), f"{pooled['n']:,}", missing, number(pooled["mean"]), number(pooled["sd"]), *cells)
    return table


def _bounded(quantile: Mapping[str, Any]) -> str:
    """Write a quantile with the bounds between which it lies, where these are not the same number."""
    value, low, high = (quantile[name] for name in ("value", "low", "high"))
    shown = number(value)
    if low is None and high is None:
        return f"{shown} (no bounds)"
    if low is None:
        return f"{shown} (below {number(high)})"
    if high is None:
        return f"{shown} (from {number(low)})"
    ends = number(low), number(high)
    return shown if ends == (shown, shown) else f"{shown} ({ends[0]} to {ends[1]})"


def _by_site(columns: Mapping[str, Any], sites: list[str]) -> Table:
    from rich.text import Text

    table = _table("by site: mean ± sd (missing)", "column", sites)
    for name, column in columns.items():
        table.add_row(Text(name), *(_site_cell(column["sites"].get(site)) for site in sites))
    return table


def _site_cell(numbers: Mapping[str, Any] | None) -> str:
    if numbers is None:
        return "-"
    if numbers.get("hidden"):
        return HIDDEN
    if not numbers["n"]:
        return "empty"
    missing = numbers["missing"] / (numbers["n"] + numbers["missing"])
    return f"{number(numbers['mean'])} ± {number(numbers['sd'])}{f' ({missing:.0%})' if missing else ''}"


def _correlations(correlations: Mapping[str, Any]) -> list[Table]:
    from rich.text import Text

    names, matrix = correlations["columns"], correlations["matrix"]
    pairs = [
        (matrix[i][j], names[i], names[j], correlations["n"][i][j])
        for i in range(len(names))
        for j in range(i)
        if matrix[i][j] is not None
    ]
    pairs.sort(key=lambda pair: -abs(pair[0]))
    if not pairs:
        return []
    table = _table("strongest correlations, all sites", "column", ["with", "r", "n"])
    for r, first, second, n in pairs[:_PAIRS]:
        table.add_row(Text(second), Text(first), f"{r:+.2f}", f"{n:,}")
    return [table]


def correlations_csv(correlations: Mapping[str, Any]) -> str:
    """Return a line for each pair of columns: rows with both, r, its 95 % interval (Fisher's z) and p (t test)."""
    names = correlations["columns"]
    lines = [["column", "with", "n", "r", "low", "high", "p"]]
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            r, n = correlations["matrix"][i][j], correlations["n"][i][j]
            more = [correlations[key][i][j] for key in ("low", "high", "p")]
            told = ["" if value is None else repr(value) for value in (r, *more)]
            lines.append([first, names[j], str(n), *told])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
