"""The report page: one self-contained HTML file a researcher can open offline, print, or mail to a colleague.

Called when the files of a run are written, and by `v6-algorithm report` for an older result.json. Every text that
comes from a result (names of sites, reasons, notes) is escaped where it enters the page, in `markup`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from v6_algorithm.researcher.report import reading, samples
from v6_algorithm.researcher.report.charts.curves import comparison_chart, history_charts, participation_chart
from v6_algorithm.researcher.report.groups import groups_section
from v6_algorithm.researcher.report.judging import judging_section
from v6_algorithm.researcher.report.markup import metric_cells, metric_head, metric_heads, row_of, safe, table_of
from v6_algorithm.researcher.report.reading import MetricRow, finite, mapping, number, sequence
from v6_algorithm.researcher.report.style import document


def render(result: dict[str, Any]) -> str:
    """Return the report page.

    Parameters
    ----------
    result : dict
        The result of `master`, as in result.json; may be partial.

    Returns
    -------
    str
        A complete HTML document that refers to nothing outside itself.
    """
    result = reading.shareable(result)
    evaluated = result.get("status") == reading.EVALUATED
    sections = (
        _header(result),
        "" if evaluated else _tiles(result),
        _notes(result),
        "" if evaluated else _metrics(result),
        _central(result),
        groups_section(result),
        judging_section(result),
        "" if evaluated else _curves(result),
        samples.section(result),
        _folds(result),
        _participation(result),
        _cost(result),
        _experiment(result),
        _footer(result),
    )
    body = "\n".join(section for section in sections if section)
    return document(f"{safe(reading.title(result))} – report", body)


def _header(result: dict[str, Any]) -> str:
    status = str(result.get("status") or "unknown")
    kind = "stopped" if status == "stopped" else "completed"
    return (
        f'<header><p class="kicker">Federated learning report <span class="status {kind}">{safe(status)}</span></p>'
        f'<h1>{safe(reading.title(result))}</h1><p class="lead">{safe(_summary(result))}</p></header>'
    )


def _summary(result: dict[str, Any]) -> str:
    if result.get("status") == reading.EVALUATED:
        return f"The model of {result.get('model') or 'an earlier run'}, measured on {reading.central_name(result)}."
    experiment = mapping(result, "experiment")
    kind = _kind(experiment.get("problem")).replace("_", " ")
    sites, rows = len(reading.site_names(result)), reading.total(result, "rows")
    text = f"{reading.run_name(result).capitalize()} {kind or 'learning'}"
    if target := _target(experiment):
        text += f" of {target}"
    text += f" over {_many(sites, 'site')}" + (f" ({rows:,} rows)" if rows else "")
    if folds := reading.folds(result):
        text += f": {_many(len(folds), 'fold')}"
    elif (rounds := finite(result.get("rounds_run"))) is not None:
        text += f": {_many(int(rounds), 'round')}"
        if (best := finite(result.get("best_round"))) is not None:
            text += f", best round {best:g} by validation {_in_text(reading.monitored(result))}"
            if mapping(experiment, "output").get("model") == "last":
                text += ", last round kept"
    part, metric, pooled, mean = _headline(result)
    if metric:
        values = [f"{number(pooled)} pooled"] if pooled is not None else []
        values += [f"{number(mean)} as the mean over sites"] if mean is not None else []
        text += f"; {part} {reading.label(metric)} {', '.join(values)}"
    return text + "."


def _in_text(metric: str) -> str:
    """Return a metric's label inside a sentence: "loss", but "AUROC"."""
    label = reading.label(metric)
    return label if label[:2].isupper() else label.lower()


def _headline(result: dict[str, Any]) -> tuple[str, str | None, float | None, float | None]:
    """Return part, metric, pooled value and mean over sites of what the run is judged by."""
    run = reading.run_name(result)
    scopes = ("pooled", "mean_over_sites")
    rows = [row for row in reading.metric_rows(result) if row.run == run and row.scope in scopes]
    part = reading.main_part(rows)
    rows = [row for row in rows if row.part == part]
    metrics = reading.columns(rows)
    if not metrics:
        return part, None, None, None
    values = {row.scope: finite(row.metrics.get(metrics[0])) for row in rows}
    return part, metrics[0], values.get("pooled"), values.get("mean_over_sites")


def _tiles(result: dict[str, Any]) -> str:
    part, metric, pooled, mean = _headline(result)
    tiles: list[tuple[str, str, str]] = []
    if metric:
        extra = f"pooled; mean over sites {number(mean)}" if mean is not None else "pooled"
        value, extra = (number(pooled), extra) if pooled is not None else (number(mean), "mean over sites")
        tiles.append((f"{part.capitalize()} {reading.label(metric)}", value, extra))
    rows, tested = reading.total(result, "rows"), reading.total(result, part)
    tiles.append(("Sites", str(len(reading.site_names(result))), ""))
    if rows is not None:
        made = reading.total(result, "synthetic")
        beside = [f"{tested:,} for {part}" if tested else "", f"{made:,} synthetic" if made else ""]
        tiles.append(("Rows", f"{rows:,}", ", ".join(filter(None, beside))))
    best, folds = finite(result.get("best_round")), reading.folds(result)
    if (rounds := finite(result.get("rounds_run"))) is not None:
        extra = f"in {_many(len(folds), 'fold')}" if folds else f"best: round {best:g}" if best is not None else ""
        tiles.append(("Rounds", f"{rounds:g}", extra))
    if (duration := finite(mapping(result, "timing").get("total_s"))) is not None:
        tiles.append(("Total time", reading.seconds(duration), ""))
    cells = (
        f"<div><dt>{safe(name)}</dt><dd>{safe(value)}"
        + (f"<small>{safe(extra)}</small>" if extra else "")
        + "</dd></div>"
        for name, value, extra in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _notes(result: dict[str, Any]) -> str:
    items = []
    if result.get("status") == "stopped" or result.get("stopped_because"):
        items.append(f"The run stopped before its end: {result.get('stopped_because') or 'no reason was recorded'}")
    for site, reasons in reading.missing_sites(result).items():
        lost = "; ".join(
            f"{reason} ({times}×)" if reasons.keys() - {reason} else reason for reason, times in reasons.items()
        )
        items.append(f"{site} did not take part in {_many(sum(reasons.values()), 'round')}: {lost}")
    items += [str(note) for note in sequence(result, "notes")]
    if not items:
        return ""
    listed = "".join(f"<li>{safe(item)}</li>" for item in items)
    return f'<section class="notes"><h2>Please note</h2><ul>{listed}</ul></section>'


def _metrics(result: dict[str, Any]) -> str:
    tables = {part: _metric_table(result, part) for part in reading.PARTS}
    if not any(tables.values()):
        return "<section><h2>Results</h2><p>Nothing was evaluated.</p></section>"
    part = "test" if tables["test"] else "validation"
    metric = reading.columns(row for row in reading.metric_rows(result) if row.part == part)[0]
    chart = comparison_chart(result, part, metric)
    body = tables[part]
    if reading.folds(result):
        body += '<p class="hint">Each fold tests on other rows; here the folds are pooled.</p>'
    body += (
        '<p class="hint">↑ more is better, ↓ less is better, – not defined, such as AUROC at a site with one class '
        "only. “Pooled” counts every row alike, “mean over sites” every site.</p>"
    )
    if chart:
        body += f'<figure class="runs"><h3>The same sites under each run</h3>{chart}</figure>'
    if part == "test" and tables["validation"]:
        body += f"<details><summary>Validation metrics</summary>{tables['validation']}</details>"
    return f"<section><h2>{part.capitalize()} results</h2>{body}</section>"


def _metric_table(result: dict[str, Any], part: str) -> str:
    # What is of folds has a table of its own.
    rows = [row for row in reading.metric_rows(result) if row.part == part and "fold" not in row.scope]
    metrics = reading.columns(rows)
    if not metrics:
        return ""
    runs, known = list(dict.fromkeys(row.run for row in rows)), [row.metrics for row in rows]
    heads = metric_heads(metrics, known)
    bodies = []
    for run in runs:
        group = f'<tr class="group"><th colspan="{len(heads) + 2}">{safe(reading.RUNS.get(run, run))}</th></tr>'
        body = [group] if len(runs) > 1 else []
        body += [_metric_row(result, row, metric_cells(metrics, row.metrics, known)) for row in rows if row.run == run]
        bodies.append("".join(body))
    return table_of(["Site", "n", *heads], bodies, wide=True)


def _metric_row(result: dict[str, Any], row: MetricRow, values: Sequence[str]) -> str:
    name = reading.SUMMARIES[row.scope].capitalize() if row.scope in reading.SUMMARIES else row.name
    n = reading.evaluated(result, row)
    cells = [name, f"{n:,}" if n is not None else "" if row.scope == "mean_over_sites" else "–"]
    return row_of([*cells, *values], strong=row.scope == "pooled")


def _central(result: dict[str, Any]) -> str:
    """Return what was measured on the researcher's own table."""
    rows = reading.central_rows(result)
    metrics, known = reading.columns(row for _, row in rows), [row.metrics for _, row in rows]
    if not metrics:
        return ""
    body = []
    for name, row in rows:
        n = reading.evaluated(result, row)
        cells = [name.capitalize() if row.scope != "site" else name, f"{n:,}" if n is not None else ""]
        body.append(row_of([*cells, *metric_cells(metrics, row.metrics, known)]))
    table = table_of(["Model", "n", *metric_heads(metrics, known)], ["".join(body)], wide=True)
    where = f"All rows of {reading.central_name(result)}, a table of the researcher's, measured where that is."
    return f'<section><h2>Central evaluation</h2>{table}<p class="hint">{safe(where)}</p></section>'


def _curves(result: dict[str, Any]) -> str:
    charts = history_charts(result)
    if not charts:
        return "<section><h2>Learning curves</h2><p>No round was completed.</p></section>"
    figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
    hint = ""
    if reading.folds(result):
        hint = '<p class="hint">Thin: single folds. Thick: their mean, over the rounds that every fold reached.</p>'
    return f'<section><h2>Learning curves</h2><div class="charts">{figures}</div>{hint}</section>'


def _folds(result: dict[str, Any]) -> str:
    folds = reading.folds(result)
    if not folds:
        return ""
    rows = [row for row in reading.metric_rows(result) if row.scope == "fold"]
    part = reading.main_part(rows)
    rows = [row for row in rows if row.part == part]
    metrics, by_fold = reading.columns(rows), {row.name: row.metrics for row in rows}
    body = []
    for name, fold in folds:
        values = [number(by_fold.get(name, {}).get(metric)) for metric in metrics]
        body.append(row_of([name, _whole(fold.get("best_round")), _whole(fold.get("rounds_run")), *values]))
    values_of = [
        [value for row in rows if (value := finite(row.metrics.get(metric))) is not None] for metric in metrics
    ]
    if metrics:
        body.append(row_of(["Mean", "", "", *(number(statistics.fmean(known)) for known in values_of)], strong=True))
        spread = (number(statistics.stdev(known)) if len(known) > 1 else "–" for known in values_of)
        body.append(row_of(["± sd", "", "", *spread], strong=True))
    table = table_of(["Fold", "Best round", "Rounds", *map(metric_head, metrics)], ["".join(body)])
    return (
        f"<section><h2>Folds</h2>{table}"
        f'<p class="hint">{part.capitalize()} metrics of each fold, pooled over the sites. sd: standard deviation '
        "between folds, which share training rows; it understates the uncertainty for new patients.</p></section>"
    )


def _participation(result: dict[str, Any]) -> str:
    calls = len(sequence(result, "participation"))
    if not calls:
        return ""
    if not reading.missing_sites(result):
        sentence = f"Every site answered each time it was asked, in {_all(calls, 'call')}."
        return f"<section><h2>Participation</h2><p>{sentence}</p></section>"
    return (
        f'<section><h2>Participation</h2><div class="grid-scroll">{participation_chart(result)}</div>'
        '<p class="hint">Columns are calls: preparation, rounds, evaluation. Filled: answered. Crossed: missing; '
        "the reasons are under “Please note”. Dot: not asked.</p></section>"
    )


def _cost(result: dict[str, Any]) -> str:
    calls = [entry for entry in sequence(result, "timing", "rounds") if isinstance(entry, dict)]
    if not calls:
        return ""
    # Preparation and evaluation are calls too, but no rounds; a run that never trained has nothing else to show.
    rounds = [entry for entry in calls if entry.get("call", "train") == "train"] or calls
    sites = reading.site_names(result)
    sent, received = _by_site(rounds, "bytes_sent"), _by_site(rounds, "bytes_received")
    worked = _by_site(rounds, "site_s")
    sites += [site for site in {**sent, **received, **worked} if site not in sites]
    whole_sent, whole_received = _by_site(calls, "bytes_sent"), _by_site(calls, "bytes_received")
    body = []
    for site in sites:
        traffic = sum(whole_sent.get(site, [])) + sum(whole_received.get(site, []))
        cells = [reading.seconds(_median(worked.get(site, [])))]
        cells += [reading.size(_median(way.get(site, []))) for way in (sent, received)]
        cells.append(reading.size(traffic))
        body.append(row_of([site, *cells]))
    per_round = [[_sum(mapping(entry, key)) for entry in rounds] for key in ("bytes_sent", "bytes_received")]
    cells = [reading.size(_median(values)) for values in per_round]
    traffic = sum(sum(_sum(mapping(entry, key)) for entry in calls) for key in ("bytes_sent", "bytes_received"))
    body.append(row_of(["All sites", "", *cells, reading.size(traffic)], strong=True))
    whole = _median([value for entry in rounds if (value := finite(entry.get("seconds"))) is not None])
    waiting = _median([value for entry in rounds if (value := finite(entry.get("waiting_s"))) is not None])
    text = f"A round took {reading.seconds(whole)} (median)"
    text += f", of which {reading.seconds(waiting)} waiting for the sites" if waiting is not None else ""
    head = ["Site", "Working time per round", "Sent to site per round", "Received per round", "Traffic in all"]
    return (
        f"<section><h2>Cost</h2><p>{safe(text)}.</p>{table_of(head, [''.join(body)], wide=True)}"
        '<p class="hint">Time and traffic per round are medians over the rounds; the traffic in all '
        "includes preparation and evaluation.</p></section>"
    )


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


def _experiment(result: dict[str, Any]) -> str:
    import yaml

    experiment, preparation = mapping(result, "experiment"), mapping(result, "preparation")
    privacy = [name.replace("_", " ") for name, value in mapping(experiment, "privacy").items() if value]
    classes = [str(name) for name in sequence(preparation, "classes")]
    shape = [str(length) for length in sequence(preparation, "image_shape")]
    facts = {
        "Problem": _kind(experiment.get("problem")),
        "Target": _target(experiment),
        # Of an image the features are its channels.
        "Features": "" if shape else str(len(sequence(preparation, "features")) or ""),
        "Images": f"{' x '.join(shape[1:])}, channels: {shape[0]}" if shape else "",
        "Classes": ", ".join(classes[:12]) + (" …" if classes[12:] else ""),
        "Model": _kind(experiment.get("model")),
        "Strategy": _kind(experiment.get("strategy")),
        "Split": _kind(experiment.get("split")),
        "Rounds at most": str(experiment.get("rounds") or ""),
        "Privacy": ", ".join(privacy) or "none configured",
        "Seed": str(experiment.get("seed", "")),
    }
    items = "".join(f"<div><dt>{name}</dt><dd>{safe(fact)}</dd></div>" for name, fact in facts.items() if fact)
    text = yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)
    return (
        f'<section><h2>Experiment</h2><dl class="facts">{items}</dl>'
        f"<details><summary>The whole experiment file</summary><pre>{safe(text)}</pre></details></section>"
    )


def _footer(result: dict[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in mapping(result, "software").items()]
    text = "Made with " + ", ".join(versions) if versions else "Made with v6_algorithm"
    return f"<footer>{safe(text)}. The numbers are in result.json, metrics.csv and history.csv.</footer>"


def _kind(section: object) -> str:
    """Return the `kind` of a section, or the section itself where the kind is all that was given."""
    return str((section.get("kind") if isinstance(section, dict) else section) or "")


def _target(experiment: dict[str, Any]) -> str:
    target = mapping(experiment, "data").get("target") or dict.fromkeys(mapping(experiment, "data", "targets"))
    if isinstance(target, dict):
        return ", ".join(str(value or key) for key, value in target.items())
    return str(target or "")


def _whole(value: object) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:g}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _all(count: int, noun: str) -> str:
    return f"the only {noun}" if count == 1 else f"all {count:,} {noun}s"
