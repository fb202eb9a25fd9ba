"""The section on the data: columns used and not, balance of classes, empty cells, means by site and their shift."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, mapping, sequence
from v6_algorithm.researcher.report.templating import Row, Table, heads

# Columns in the tables, those that shift most first; result.json has all.
_SHOWN = 30
_SITES = 12
_SITES_A_TABLE = 6
_NAMES = 40
_ROLES = ("group", "split_column", "synthetic")


def section(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the section shows; None where a result tells nothing of its data."""
    spoken = _channels(result)
    sites = {
        str(name): {
            **mapping(site),
            "columns": {spoken.get(key, key): cell for key, cell in mapping(site, "columns").items()},
        }
        for name, site in mapping(result, "data", "means").items()
    }
    facts = _facts(result)
    if not sites and not facts:
        return None
    pooled = _pooled(sites)
    ranked = sorted(pooled, key=lambda name: -(pooled[name]["shift"] or 0))
    shown = ranked[:_SHOWN]
    return {
        "facts": facts,
        "table": _table(pooled, shown) if shown else None,
        "by_site": _by_site(sites, pooled, shown) if shown and 1 < len(sites) <= _SITES else None,
        "left": len(ranked) - len(shown),
    }


def _channels(result: Mapping[str, Any]) -> dict[str, str]:
    """Name the channels of images and series, `file[0]` in result.json, as a person would: counted from 1."""
    preparation = mapping(result, "preparation")
    columns = [str(name) for name in sequence(preparation, "features")]
    if not (preparation.get("image_shape") or preparation.get("sequence_length")):
        return {}
    found = [re.fullmatch(r"(.+)\[(\d+)\]", name) for name in columns]
    several = f" of {len(columns)}"
    return {
        match[0]: f"{match[1]}, channel {int(match[2]) + 1}{several}" if len(columns) > 1 else match[1]
        for match in found
        if match
    }


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    data, preparation = mapping(result, "experiment", "data"), mapping(result, "preparation")
    spoken = _channels(result)
    used = [spoken.get(str(name), str(name)) for name in sequence(preparation, "features")]
    used = [] if preparation.get("image_shape") else used
    used += [f"{name} ({len(values)} categories)" for name, values in mapping(preparation, "categories").items()]
    classes = mapping(result, "data", "classes")
    total = sum(finite(rows) or 0 for rows in classes.values())
    roles = [f"{data[role]} ({role})" for role in _ROLES if isinstance(data.get(role), str)]
    facts = {
        "Columns used": _listed(used),
        "Left out by the experiment": _listed([str(name) for name in sequence(data, "exclude")]),
        "Other columns": ", ".join(roles),
        "Training rows by class": ", ".join(
            f"{label}: {finite(rows) or 0:,.0f} ({(finite(rows) or 0) / total:.0%})" for label, rows in classes.items()
        )
        if total
        else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _pooled(sites: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by column the empty share, mean and sd of all training rows, and which site's mean is furthest off."""
    pooled: dict[str, dict[str, Any]] = {}
    names = dict.fromkeys(str(name) for site in sites.values() for name in mapping(site, "columns"))
    for name in names:
        cells = {site: mapping(content, "columns", name) for site, content in sites.items()}
        by_site = {
            site: (finite(cell.get("n")) or 0.0, finite(cell.get("mean")) or 0.0, finite(cell.get("sd")) or 0.0)
            for site, cell in cells.items()
            if finite(cell.get("mean")) is not None
        }
        n = sum(count for count, _, _ in by_site.values())
        rows = sum(finite(content.get("rows")) or 0.0 for content in sites.values())
        mean = sum(count * value for count, value, _ in by_site.values()) / n if n else None
        squares = sum(count * (sd**2 + (value - (mean or 0.0)) ** 2) for count, value, sd in by_site.values())
        sd = math.sqrt(squares / n) if n else 0.0
        shifts = (
            {site: (value - mean) / sd for site, (_, value, _) in by_site.items()} if mean is not None and sd else {}
        )
        site = max(shifts, key=lambda place: abs(shifts[place]), default=None)
        pooled[name] = {
            "missing": (rows - n) / rows if rows else None,
            "mean": mean,
            "sd": sd if mean is not None else None,
            "shifts": shifts,
            "site": site,
            "shift": abs(shifts[site]) if site is not None else None,
        }
    return pooled


def _table(pooled: Mapping[str, Mapping[str, Any]], shown: list[str]) -> Table:
    body = []
    for name in shown:
        column = pooled[name]
        missing, site = column["missing"], column["site"]
        body.append(
            Row(
                [
                    name,
                    "–" if missing is None else f"{missing:.1%}" if missing else "none",
                    "–" if column["mean"] is None else f"{number(column['mean'])} ± {number(column['sd'])}",
                    "" if site is None else f"{column['shifts'][site]:+.2f} sd at {site}",
                ]
            )
        )
    return Table(heads("Column", "Empty", "Mean ± sd, all sites", "Site furthest off"), [body])


def _by_site(
    sites: Mapping[str, Mapping[str, Any]], pooled: Mapping[str, Mapping[str, Any]], shown: list[str]
) -> list[Table]:
    """Return a table for every few sites, so that each fits on a sheet of A4."""
    names = list(sites)
    parts = [names[start : start + _SITES_A_TABLE] for start in range(0, len(names), _SITES_A_TABLE)]
    return [_of_sites(part, sites, pooled, shown) for part in parts]


def _of_sites(
    names: list[str],
    sites: Mapping[str, Mapping[str, Any]],
    pooled: Mapping[str, Mapping[str, Any]],
    shown: list[str],
) -> Table:
    body = []
    for name in shown:
        cells = []
        for site in names:
            mean, shift = finite(mapping(sites[site], "columns", name).get("mean")), pooled[name]["shifts"].get(site)
            cells.append("–" if mean is None else number(mean) + (f" ({shift:+.2f})" if shift is not None else ""))
        body.append(Row([name, *cells]))
    return Table(heads("Column", *names), [body], wide=True)
