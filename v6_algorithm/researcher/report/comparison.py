"""Several runs on one page: their metrics beside each other, by site, and the settings in which they differ.

Called by `v6-algorithm report RUN RUN… --out FILE`. What comes from results is escaped by the template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from v6_algorithm.researcher.report import formatting, reading
from v6_algorithm.researcher.report.charts.curves import runs_chart
from v6_algorithm.researcher.report.charts.marks import LOOKS
from v6_algorithm.researcher.report.templating import Row, Table, fill, heads, metric_head

# What says who and where, not how it was trained.
_NOT_SETTINGS = ("name", "sites", "output", "central")
_LONGEST = 60


def comparison_page(results: Mapping[str, dict[str, Any]], part: str) -> str:
    """Return a self-contained page.

    Parameters
    ----------
    results
        Name of a run to its result, as in result.json.
    part
        ``test``, ``validation`` or ``central``.
    """
    pooled = {name: reading.mapping(result, "metrics", part, "pooled") for name, result in results.items()}
    rows = [reading.MetricRow(name, part, "pooled", "", values) for name, values in pooled.items()]
    metrics = reading.columns(rows)
    first = next((metric for metric in metrics if metric != "loss"), metrics[0])
    settings = _settings(results)
    return fill(
        "comparison.html",
        kind="comparison",
        title=", ".join(results),
        lead=f"{reading.part_title(part)} of {len(results)} runs, all sites pooled",
        same_rows=len({values.get("n") for values in pooled.values()}) == 1,
        metrics=Table(
            heads("metric", *results),
            [
                [Row(["n", *(_count(values) for values in pooled.values())])]
                + [
                    Row([metric_head(metric).text, *(_with_interval(values, metric) for values in pooled.values())])
                    for metric in metrics
                ]
            ],
            wide=True,
        ),
        headline=reading.label(first),
        curves=runs_chart(results),
        curves_of=LOOKS if len(results) > LOOKS else None,
        by_site=_by_site(results, part, first),
        settings=Table(heads("key", *results), [settings], wide=True) if settings else None,
    )


def _count(values: Mapping[str, Any]) -> str:
    n = reading.finite(values.get("n"))
    return "" if n is None else f"{n:,.0f}"


def _with_interval(values: dict[str, Any], metric: str) -> str:
    number = formatting.number(values.get(metric))
    return f"{number} ({reading.interval_text(values, metric)})" if reading.interval(values, metric) else number


def _by_site(results: Mapping[str, dict[str, Any]], part: str, metric: str) -> Table | None:
    """Return the headline metric at each site, or None where no site has it."""
    sites = list(dict.fromkeys(site for result in results.values() for site in reading.site_names(result)))
    values = {
        site: [reading.mapping(result, "metrics", part, "sites", site) for result in results.values()] for site in sites
    }
    lines = [
        Row([site, *(_with_interval(at_site, metric) for at_site in of)])
        for site, of in values.items()
        if any(reading.finite(at_site.get(metric)) is not None for at_site in of)
    ]
    return Table(heads("site", *results), [lines], wide=True) if lines else None


def _settings(results: Mapping[str, dict[str, Any]]) -> list[Row]:
    """Return the keys of the experiments whose values are not the same in all runs."""
    flat = [dict(_flat(reading.mapping(result, "experiment"))) for result in results.values()]
    keys = list(dict.fromkeys(key for of in flat for key in of))
    rows = []
    for key in keys:
        values = [of.get(key, "–") for of in flat]
        if len(set(values)) > 1 and key.split(".")[0] not in _NOT_SETTINGS:
            rows.append(Row([key, *values]))
    return rows


def _flat(value: Any, lead: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [pair for key, item in value.items() for pair in _flat(item, f"{lead}.{key}" if lead else str(key))]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(lead, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")]
