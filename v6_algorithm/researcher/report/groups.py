"""Groups of rows in the report, in subgroups.csv and in the terminal: how good the model is for each, and the gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from v6_algorithm.researcher.report import reading
from v6_algorithm.researcher.report.charts.curves import dot_chart
from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, mapping
from v6_algorithm.researcher.report.templating import Row, Table, heads, metric_cells, metric_heads, with_interval

HEADER = ("part", "column", "group", "metric", "value", "class")
# Metrics with their intervals that a sheet of paper is wide enough for.
_MAIN = 4


def group_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, float | None, str]]:
    """Return the rows of subgroups.csv; those of a gap have ``(gap)`` for their group.

    The last of each is the class, or the condition, that a metric of one class of two is of.
    """
    rows: list[tuple[str, str, str, str, float | None, str]] = []
    named = reading.class_of_one(result)
    for part, column, groups in _columns(result):
        for group, metrics in {**groups, "(gap)": mapping(result, "gap", part, column)}.items():
            rows += [
                (part, column, group, metric, finite(value), named if reading.is_of_one_class(metric) else "")
                for metric, value in metrics.items()
            ]
    return rows


def gap_lines(result: Mapping[str, Any], part: str) -> list[str]:
    """Return a sentence for each column of groups: the headline metric of the worst and the best, and the gap."""
    lines = []
    for _, column, groups in _columns(result, part):
        metric = _headline(groups)
        if metric is None:
            continue
        known = _ranked(groups, metric)
        if len(known) > 1:
            (low, worst), (high, best) = known[0], known[-1]
            ends = [_with_interval(name, value, groups[name], metric) for value, name in ((low, worst), (high, best))]
            sentence = f"{reading.label(metric)} from {ends[0]} to {ends[1]}, gap {number(high - low)}"
            lines.append(f"{column} ({part}): {sentence}")
    return lines


def _with_interval(name: str, value: float, metrics: dict[str, Any], metric: str) -> str:
    around = reading.interval_text(metrics, metric)
    return f"{number(value)} ({name}{f', 95 % CI {around}' if around else ''})"


def sections(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the section shows, a part each; empty where no groups were asked for, or none is told."""
    parts = dict.fromkeys(part for part, _, _ in _columns(result))
    ranked = sorted(parts, key=["test", "central", "validation"].index)
    return [{"title": reading.part_title(part), **_part(result, part)} for part in ranked]


def _part(result: Mapping[str, Any], part: str) -> dict[str, Any]:
    columns = [(column, groups) for _, column, groups in _columns(result, part)]
    rows = [
        reading.MetricRow("", part, "", group, metrics) for _, groups in columns for group, metrics in groups.items()
    ]
    metrics = reading.columns(rows)
    if not metrics:
        return {"table": None, "more": None}
    first, more = metrics[:_MAIN], metrics[_MAIN:]
    return {
        "table": _table(result, part, columns, first, [row.metrics for row in rows]),
        # The others without their intervals, which subgroups.csv has: on paper no more columns fit.
        "more": _table(result, part, columns, more, []) if more else None,
        "chart": _chart(columns, metrics[0], part),
    }


def _table(
    result: Mapping[str, Any],
    part: str,
    columns: Sequence[tuple[str, Mapping[str, Any]]],
    metrics: Sequence[str],
    known: Sequence[Mapping[str, Any]],
) -> Table:
    """Return groups by metrics, with the intervals of those for which `known` has any."""
    bounded, bodies = with_interval(metrics, known), []
    for column, groups in columns:
        body = [Row([column], group=True)]
        for group, values in groups.items():
            n = finite(values.get("n"))
            body.append(Row([group, "–" if n is None else f"{n:,.0f}", *metric_cells(metrics, values, bounded)]))
        gap = metric_cells(metrics, mapping(result, "gap", part, column), bounded)
        bodies.append([*body, Row(["Gap", "", *gap], strong=True)])
    if by_site := mapping(result, "gap", part, "site"):
        bodies.append([Row(["Gap between sites", "", *metric_cells(metrics, by_site, bounded)], strong=True)])
    return Table([*heads("Group", "n"), *metric_heads(metrics, known)], bodies, wide=True)


def _chart(columns: Sequence[tuple[str, Mapping[str, Any]]], metric: str, part: str) -> Markup | None:
    rows = [
        (f"{column}: {group}", [finite(values.get(metric))])
        for column, groups in columns
        for group, values in groups.items()
    ]
    intervals = [reading.interval(dict(values), metric) for _, groups in columns for values in groups.values()]
    label = reading.label(metric)
    described = "; ".join(f"{name} {value:.3f}" for name, (value,) in rows if value is not None)
    title, ident = f"{label} ({part})", f"chart-groups-{part}"
    return dot_chart(rows, [label], ident=ident, title=title, description=described, intervals=intervals)


def _columns(result: Mapping[str, Any], only: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield part, column and groups, of those that have any."""
    for part, columns in mapping(result, "subgroups").items():
        for column, groups in mapping(columns).items():
            if mapping(groups) and only in (None, part) and part in reading.RESULT_PARTS:
                yield part, str(column), {str(group): mapping(by_group) for group, by_group in groups.items()}


def _headline(groups: Mapping[str, dict[str, Any]]) -> str | None:
    rows = [reading.MetricRow("", "", "", group, dict(metrics)) for group, metrics in groups.items()]
    return next(iter(reading.columns(rows)), None)


def _ranked(groups: Mapping[str, Mapping[str, Any]], metric: str) -> list[tuple[float, str]]:
    values = [(finite(metrics.get(metric)), group) for group, metrics in groups.items() if group != "not known"]
    return sorted((value, group) for value, group in values if value is not None)
