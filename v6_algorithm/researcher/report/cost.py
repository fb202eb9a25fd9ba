"""What a run cost on the page: seconds of a round, working time and traffic of each site."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from v6_algorithm.researcher.report import formatting, reading
from v6_algorithm.researcher.report.reading import finite, mapping, sequence
from v6_algorithm.researcher.report.templating import Row, Table, heads


def section(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return a sentence and a table of the calls, or None where there was no call."""
    calls = [entry for entry in sequence(result, "timing", "rounds") if isinstance(entry, dict)]
    if not calls:
        return None
    # Preparation and evaluation are calls too, but no rounds; a run that never trained has nothing else to show.
    rounds = [entry for entry in calls if entry.get("call", "train") == "train"] or calls
    sites = [] if mapping(result, "secure_aggregation") else reading.site_names(result)
    sent, received = _by_site(rounds, "bytes_sent"), _by_site(rounds, "bytes_received")
    worked = _by_site(rounds, "site_s")
    sites = list(dict.fromkeys([*sites, *sent, *received, *worked]))
    whole_sent, whole_received = _by_site(calls, "bytes_sent"), _by_site(calls, "bytes_received")
    body = []
    for site in sites:
        traffic = sum(whole_sent.get(site, [])) + sum(whole_received.get(site, []))
        cells = [formatting.seconds(_median(worked.get(site, [])))]
        cells += [formatting.size(_median(way.get(site, []))) for way in (sent, received)]
        body.append(Row([site, *cells, formatting.size(traffic)]))
    per_round = [[_sum(mapping(entry, key)) for entry in rounds] for key in ("bytes_sent", "bytes_received")]
    cells = [formatting.size(_median(values)) for values in per_round]
    traffic = sum(sum(_sum(mapping(entry, key)) for entry in calls) for key in ("bytes_sent", "bytes_received"))
    body.append(Row(["All sites", "", *cells, formatting.size(traffic)], strong=True))
    whole = _median([value for entry in rounds if (value := finite(entry.get("seconds"))) is not None])
    waiting = _median([value for entry in rounds if (value := finite(entry.get("waiting_s"))) is not None])
    text = f"A round took {formatting.seconds(whole)} (median)"
    text += f", of which {formatting.seconds(waiting)} waiting for the sites" if waiting is not None else ""
    head = heads("Site", "Working time per round", "Sent to site per round", "Received per round", "Traffic in all")
    return {"text": text, "table": Table(head, [body], wide=True)}


def _by_site(rounds: Iterable[dict[str, Any]], key: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for entry in rounds:
        for site, value in mapping(entry, key).items():
            if (known := finite(value)) is not None:
                values.setdefault(str(site), []).append(known)
    return values


def _sum(by_site: dict[str, Any]) -> float:
    return sum(finite(value) or 0.0 for value in by_site.values())


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
