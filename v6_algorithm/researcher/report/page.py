"""The report page: one self-contained HTML file a researcher can open offline, print, or mail to a colleague.

Called when the files of a run are written, and by `v6-algorithm report` for an older result.json. What is said is
gathered here, a function for each section; how it looks is in ``templates/report.html``.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from v6_algorithm.experiment.reading import to_yaml
from v6_algorithm.researcher.report import (
    coefficients,
    cost,
    data_section,
    groups,
    judging,
    meta_analysis,
    reading,
    samples,
)
from v6_algorithm.researcher.report.charts.curves import comparison_chart, history_charts, participation_chart
from v6_algorithm.researcher.report.facts import facts, kind_of, target_of
from v6_algorithm.researcher.report.formatting import number, seconds
from v6_algorithm.researcher.report.reading import MetricRow, finite, mapping, sequence
from v6_algorithm.researcher.report.shareable import shareable
from v6_algorithm.researcher.report.templating import (
    Row,
    Table,
    fill,
    heads,
    metric_cells,
    metric_head,
    metric_heads,
    with_interval,
)

# Notes of one kind, as many as sites and metrics, which are folded away.
_BINNED = re.compile(r": binned, within .+ of the exact values?$")
# A note of one site.
_OF_SITE = re.compile(r"^((?:[a-z]+, )?)site ('[^']+')(: .+)$")
# Metrics of the main table, with their intervals as many columns as a page is wide.
_MAIN = 4
# Columns of metrics without intervals that fit on a sheet of A4.
_ON_PAPER = 8
# Columns of all metrics on a sheet of paper.
_MOST_SCOPES = 7


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
    return render_shareable(shareable(result))


def render_shareable(result: dict[str, Any]) -> str:
    """Return the report page of a result that `shareable` has made fit to be shown."""
    evaluated = result.get("status") == reading.EVALUATED
    versions = [f"{name} {version}" for name, version in mapping(result, "software").items()]
    return fill(
        "report.html",
        kind="report",
        title=reading.title(result),
        status=str(result.get("status") or "unknown"),
        missing_sites=_missing_badge(result),
        lead=_lead(result),
        tiles=[] if evaluated else _tiles(result),
        notes=_grouped(note for note in _notes(result) if not _BINNED.search(note)),
        precision=[note for note in _notes(result) if _BINNED.search(note)],
        results=None if evaluated else _results(result),
        central=_central(result),
        groups=groups.sections(result),
        judging=judging.sections(result),
        sample=meta_analysis.section(result),
        curves=None if evaluated or result.get("status") == reading.TESTED else history_charts(result),
        samples=samples.section(result),
        data=data_section.section(result),
        folds=_folds(result),
        coefficients=coefficients.page_table(result),
        participation=_participation(result),
        cost=cost.section(result),
        facts=facts(result),
        experiment=to_yaml(mapping(result, "experiment")),
        footer="Made with " + ", ".join(versions or ["v6_algorithm"]),
    )


def _lead(result: dict[str, Any]) -> str:
    if result.get("status") == reading.EVALUATED:
        return f"The model of {result.get('model') or 'an earlier run'}, measured on {reading.central_name(result)}."
    experiment = mapping(result, "experiment")
    kind = kind_of(experiment.get("problem")).replace("_", " ")
    sites, rows = reading.site_count(result), reading.total(result, "rows")
    text = f"{reading.run_name(result).capitalize()} {'GAN' if kind == 'gan' else kind or 'learning'}"
    if target := target_of(experiment):
        text += f" of {target}"
    text += f" over {_many(sites, 'site')}" + (f" ({rows:,} rows)" if rows else "")
    if result.get("status") == reading.TESTED:
        text += ": a finished model, tested on all rows"
    elif folds := reading.folds(result):
        text += f": {_many(len(folds), 'imputed table' if coefficients.imputations(result) else 'fold')}"
    elif (rounds := finite(result.get("rounds_run"))) is not None:
        text += f": {_many(int(rounds), 'round')}"
        monitored = _in_text(reading.monitored(result))
        if (best := reading.best_round(result)) is not None:
            text += f", best round {best:g} by validation {monitored}"
        elif not reading.keeps_best(result):
            # An average has no round; without one, as where rounds ended before it began, the last is kept.
            average = mapping(experiment, "output").get("model") if result.get("best_round") is None else None
            text += ", last round kept" if average in (None, "last") else f", average over rounds ({average}) kept"
        elif (kept := finite(result.get("best_round"))) is not None:
            text += f", round {kept:g} kept, for validation {monitored} is not known of any"
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


def _headline_interval(result: dict[str, Any], part: str, metric: str) -> str:
    """Return the pooled headline's 95 % interval, empty where the result has none."""
    run = reading.run_name(result)
    rows = [row for row in reading.metric_rows(result) if (row.run, row.part, row.scope) == (run, part, "pooled")]
    text = reading.interval_text(dict(rows[0].metrics), metric) if rows else ""
    return f"pooled, 95\xa0%\xa0CI {text}" if text else "pooled"


def _tiles(result: dict[str, Any]) -> list[dict[str, str]]:
    part, metric, pooled, mean = _headline(result)
    tiles: list[tuple[str, str, str]] = []
    if metric:
        extra = _headline_interval(result, part, metric)
        extra += f"; mean over sites {number(mean)}" if mean is not None else ""
        value, extra = (number(pooled), extra) if pooled is not None else (number(mean), "mean over sites")
        tiles.append((f"{part.capitalize()} {reading.label(metric)}", value, extra))
    rows, tested = reading.total(result, "rows"), reading.total(result, part)
    tiles.append(("Sites", _missing_badge(result).removesuffix(" sites") or str(reading.site_count(result)), ""))
    if rows is not None:
        made = reading.total(result, "synthetic")
        beside = [f"{tested:,} for {part}" if tested else "", f"{made:,} synthetic" if made else ""]
        tiles.append(("Rows", f"{rows:,}", ", ".join(filter(None, beside))))
    best, folds = reading.best_round(result), reading.folds(result)
    rounds = finite(result.get("rounds_run"))
    if rounds is not None and result.get("status") != reading.TESTED:
        noun = "imputed table" if coefficients.imputations(result) else "fold"
        extra = f"in {_many(len(folds), noun)}" if folds else f"best: round {best:g}" if best is not None else ""
        tiles.append(("Rounds", f"{rounds:g}", extra))
    if (duration := finite(mapping(result, "timing").get("total_s"))) is not None:
        tiles.append(("Total time", seconds(duration), ""))
    return [{"name": name, "value": value, "extra": extra} for name, value, extra in tiles]


def _notes(result: dict[str, Any]) -> list[str]:
    notes = []
    if result.get("status") == "stopped" or result.get("stopped_because"):
        notes.append(f"The run stopped before its end: {result.get('stopped_because') or 'no reason was recorded'}")
    if (absent := reading.sites_not_in(result)) and (known := len(mapping(result, "sites"))):
        notes.append(f"{known} of {known + len(absent)} sites are in the result; not in it: {', '.join(absent)}")
    for site, reasons in reading.missing_sites(result).items():
        lost = "; ".join(
            f"{reason} ({times}×)" if reasons.keys() - {reason} else reason for reason, times in reasons.items()
        )
        notes.append(f"{site} did not take part in {_many(sum(reasons.values()), 'round')}: {lost}")
    # Who is not in the result is named above with the reason.
    named = tuple(f"site '{site}' took no part: " for site in absent)
    return notes + [str(note) for note in sequence(result, "notes") if not str(note).startswith(named)]


def _grouped(notes: Iterable[str]) -> list[str]:
    """Say once what is said of several sites in the same words."""
    sites: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        match = _OF_SITE.match(note)
        key = (match[1], match[3]) if match else (note, "")
        sites.setdefault(key, []).append(match[2] if match else "")
    return [
        head + (f"site{'s' if len(names) > 1 else ''} {', '.join(names)}{rest}" if rest else "")
        for (head, rest), names in sites.items()
    ]


def _results(result: dict[str, Any]) -> dict[str, Any]:
    tables = {part: _metric_table(result, part) for part in reading.PARTS}
    part = "test" if tables["test"] else "validation"
    metrics = reading.columns(row for row in reading.metric_rows(result) if row.part == part)
    return {
        "part": part,
        "table": _metric_table(result, part, most=_MAIN),
        "whole": _whole_tables(result, part) if len(metrics) > _MAIN else [],
        "validation": _whole_tables(result, "validation") if part == "test" and tables["validation"] else [],
        "of_folds": bool(reading.folds(result)),
        "chart": comparison_chart(result, part, metrics[0]) if tables[part] else None,
    }


def _metric_table(result: dict[str, Any], part: str, *, start: int = 0, most: int | None = None) -> Table | None:
    # What is of folds has a table of its own.
    rows = [row for row in reading.metric_rows(result) if row.part == part and "fold" not in row.scope]
    metrics = reading.columns(rows)[start:][:most]
    if not metrics:
        return None
    runs, known = list(dict.fromkeys(row.run for row in rows)), [row.metrics for row in rows]
    bounded, bodies = with_interval(metrics, known), []
    for run in runs:
        body = [Row([reading.RUNS.get(run, run)], group=True)] if len(runs) > 1 else []
        body += [
            _metric_row(result, row, metric_cells(metrics, row.metrics, bounded)) for row in rows if row.run == run
        ]
        bodies.append(body)
    return Table([*heads("Site", "n"), *metric_heads(metrics, known)], bodies, wide=True)


def _whole_tables(result: dict[str, Any], part: str) -> list[Table]:
    """Return all metrics, a row for each, with a column for each scope; of many sites a table for every few metrics."""
    rows = [row for row in reading.metric_rows(result) if row.part == part and "fold" not in row.scope]
    scopes = list(dict.fromkeys((row.scope, row.name) for row in rows))
    if len(scopes) > _MOST_SCOPES:
        count = len(reading.columns(rows))
        parts = [_metric_table(result, part, start=start, most=_MAIN) for start in range(0, count, _MAIN)]
        return [table for table in parts if table is not None]
    metrics, runs = reading.columns(rows), list(dict.fromkeys(row.run for row in rows))
    bodies = []
    for run in runs:
        by_scope = {(row.scope, row.name): row.metrics for row in rows if row.run == run}
        body = [Row([reading.RUNS.get(run, run)], group=True)] if len(runs) > 1 else []
        for metric in metrics:
            cells = []
            for scope in scopes:
                values = by_scope.get(scope, {})
                ends = reading.interval_text(dict(values), metric)
                cells.append(number(values.get(metric)) + (f" ({ends})" if ends else ""))
            body.append(Row([metric_head(metric).text, *cells]))
        bodies.append(body)
    names = [reading.SUMMARIES[scope].capitalize() if scope in reading.SUMMARIES else name for scope, name in scopes]
    return [Table(heads("Metric", *names), bodies, wide=True)]


def _metric_row(result: dict[str, Any], row: MetricRow, values: Sequence[str]) -> Row:
    name = reading.SUMMARIES[row.scope].capitalize() if row.scope in reading.SUMMARIES else row.name
    n = reading.evaluated(result, row)
    cells = [name, f"{n:,}" if n is not None else "" if row.scope == "mean_over_sites" else "–"]
    return Row([*cells, *values], strong=row.scope == "pooled")


def _central(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was measured on the researcher's own table."""
    rows = reading.central_rows(result)
    metrics, known = reading.columns(row for _, row in rows), [row.metrics for _, row in rows]
    if not metrics:
        return None
    bounded, body = with_interval(metrics, known), []
    for name, row in rows:
        n = reading.evaluated(result, row)
        cells = [name.capitalize() if row.scope != "site" else name, f"{n:,}" if n is not None else ""]
        body.append(Row([*cells, *metric_cells(metrics, row.metrics, bounded)]))
    table = Table([*heads("Model", "n"), *metric_heads(metrics, known)], [body], wide=True)
    return {"table": table, "name": reading.central_name(result)}


def _folds(result: dict[str, Any]) -> dict[str, Any] | None:
    folds = reading.folds(result)
    # Imputed tables of one fit are no parts of the rows.
    if not folds or coefficients.imputations(result):
        return None
    rows = [row for row in reading.metric_rows(result) if row.scope == "fold"]
    part = reading.main_part(rows)
    rows = [row for row in rows if row.part == part]
    metrics = reading.columns(rows)
    main = _fold_table(folds, rows, metrics[:_ON_PAPER], rounds=True)
    rest = [
        _fold_table(folds, rows, metrics[start : start + _ON_PAPER], rounds=False)
        for start in range(_ON_PAPER, len(metrics), _ON_PAPER)
    ]
    return {"table": main, "rest": rest, "part": part}


def _fold_table(
    folds: list[tuple[str, dict[str, Any]]], rows: list[reading.MetricRow], metrics: list[str], *, rounds: bool
) -> Table:
    """Return some metrics of each fold, which fit on paper, and their mean and standard deviation."""
    by_fold = {row.name: row.metrics for row in rows}
    body = []
    for name, fold in folds:
        values = [number(by_fold.get(name, {}).get(metric)) for metric in metrics]
        of_rounds = [_whole(fold.get(key)) for key in ("best_round", "rounds_run")] if rounds else []
        body.append(Row([name, *of_rounds, *values]))
    blank = ["", ""] if rounds else []
    values_of = [
        [value for row in rows if (value := finite(row.metrics.get(metric))) is not None] for metric in metrics
    ]
    if metrics:
        body.append(Row(["Mean", *blank, *(number(statistics.fmean(known)) for known in values_of)], strong=True))
        spread = (number(statistics.stdev(known)) if len(known) > 1 else "–" for known in values_of)
        body.append(Row(["± sd", *blank, *spread], strong=True))
    named = ["Fold", "Kept round", "Rounds"] if rounds else ["Fold"]
    return Table([*heads(*named), *map(metric_head, metrics)], [body])


def _participation(result: dict[str, Any]) -> dict[str, Any] | None:
    calls = len(sequence(result, "participation"))
    if not calls:
        return None
    complete = "the only call" if calls == 1 else f"all {calls:,} calls"
    return {"calls": complete, "chart": participation_chart(result) if reading.missing_sites(result) else None}


def _whole(value: object) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:g}"


def _missing_badge(result: dict[str, Any]) -> str:
    """Return "2 of 3 sites" where one that was asked is not in the result; else nothing."""
    known, absent = len(mapping(result, "sites")), len(reading.sites_not_in(result))
    return f"{known} of {known + absent} sites" if known and absent else ""


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
