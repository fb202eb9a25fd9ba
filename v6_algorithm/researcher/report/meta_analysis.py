"""Sites as a sample: the table, forest plots and file of the meta-analysis in a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, label, mapping

if TYPE_CHECKING:
    from markupsafe import Markup

HEADER = (
    "part", "what", "sites", "estimate", "low", "high", "prediction_low", "prediction_high", "tau2", "i2", "q", "q_p",
    "scale",
)  # fmt: skip
_COEFFICIENTS = "coefficients"
# Forest plots that a page holds, and those that are not folded away.
_MOST_PLOTS = 6
_FIRST_PLOTS = 2


def _entries(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for part in mapping(result, "meta_analysis"):
        for name in mapping(result, "meta_analysis", part):
            yield str(part), str(name), mapping(result, "meta_analysis", part, name)


def rows(result: dict[str, Any]) -> list[list[Any]]:
    """Return a row for each metric and term, under `HEADER`."""
    return [
        [part, name, *(values.get(key) if key == "scale" else finite(values.get(key)) for key in HEADER[2:])]
        for part, name, values in _entries(result)
    ]


def section(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the page's section, or None where nothing was compared over sites."""
    from v6_algorithm.researcher.report.templating import Row, Table, heads

    lines: list[Row] = []
    plots: list[Markup] = []
    entries = list(_entries(result))
    # The coefficients first, then the part that counts most.
    parts = list(dict.fromkeys(part for part, _, _ in entries))
    chosen = next((part for part in (_COEFFICIENTS, "test", "validation") if part in parts), None)
    for part, name, values in entries:
        if part != chosen:
            continue
        shown = name if part == _COEFFICIENTS else label(name)
        lines.append(
            Row(
                [
                    shown,
                    f"{finite(values.get('sites')) or 0:.0f}",
                    _with(values, "estimate", "low", "high"),
                    _with(values, None, "prediction_low", "prediction_high"),
                    f"{finite(values.get('i2')) or 0:.0%}",
                    number(finite(values.get("tau2"))),
                ]
            )
        )
        if len(plots) < _MOST_PLOTS and name != "(intercept)" and (plot := _forest(part, shown, values, len(plots))):
            plots.append(plot)
    if not lines:
        return None
    what = "Term" if chosen == _COEFFICIENTS else "Metric"
    head = heads(what, "Sites", "Mean over sites (95 % CI)", "Next site (95 %)", "I²", "τ²")
    first, more = plots[:_FIRST_PLOTS], plots[_FIRST_PLOTS:]
    return {"part": chosen, "table": Table(head, [lines], wide=True), "plots": first, "more": more}


def _with(values: dict[str, Any], estimate: str | None, low: str, high: str) -> str:
    ends = [finite(values.get(key)) for key in (low, high)]
    if None in ends:
        return "–"
    interval = f"{number(ends[0])} to {number(ends[1])}"
    return interval if estimate is None else f"{number(finite(values.get(estimate)))} ({interval})"


def _forest(part: str, name: str, values: dict[str, Any], place: int) -> Markup | None:
    from v6_algorithm.researcher.report.charts.curves import dot_chart

    sites = {site: mapping(values, "values", site) for site in mapping(values, "values")}
    lines = [(site, [finite(of_site.get("value"))]) for site, of_site in sites.items()]
    intervals = [_pair(of_site, "low", "high") for of_site in sites.values()]
    lines += [("mean over sites", [finite(values.get("estimate"))])]
    intervals += [_pair(values, "low", "high")]
    if (next_site := _pair(values, "prediction_low", "prediction_high")) is not None:
        lines.append(("next site", [finite(values.get("estimate"))]))
        intervals.append(next_site)
    return dot_chart(
        lines,
        [name],
        ident=f"forest-{place}",
        title=name,
        description=f"Forest plot of {name} ({part}): each site with its interval, their mean and the next site's.",
        intervals=intervals,
    )


def _pair(values: dict[str, Any], low: str, high: str) -> tuple[float, float] | None:
    first, second = finite(values.get(low)), finite(values.get(high))
    return None if first is None or second is None else (first, second)
