"""The charts of the report page: which series of a result go into which chart, drawn with `marks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from v6_algorithm.researcher.report.charts.marks import (
    LOOKS,
    Guide,
    Line,
    Mark,
    Points,
    Spans,
    Squares,
    chart,
    drawable,
    names,
    numbers,
    rounds,
)
from v6_algorithm.researcher.report.reading import (
    METRICS,
    MetricRow,
    best_round,
    finite,
    folds,
    history_columns,
    label,
    mapping,
    metric_rows,
    monitored,
    run_name,
    sequence,
    site_names,
)

Series = list[tuple[float, float | None]]


def line_chart(
    lines: Sequence[Line], *, ident: str, title: str, description: str, best: float | None = None
) -> Markup | None:
    """Return a chart of lines over rounds, the best one marked; None when no line has a value."""
    points = [(x, y) for line in lines for x, y in line.points() if y is not None]
    if not points:
        return None
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    x, y = rounds(first, last), numbers([y for _, y in points], title)
    drawn: list[Mark] = [replace(line, chosen=best) for line in lines]
    if best is not None and first <= best <= last:
        share = (best - first) / (last - first) if last > first else 0.5
        anchor = "start" if share < 0.08 else "end" if share > 0.92 else "middle"
        drawn.insert(0, Guide((best, y.low), (best, y.high), f"best: round {best:g}", anchor))
    return chart(drawn, x, y, ident=ident, title=title, description=description)


def dot_chart(
    rows: Sequence[tuple[str, Sequence[float | None]]],
    compared: Sequence[str],
    *,
    ident: str,
    title: str,
    description: str,
    intervals: Sequence[tuple[float, float] | None] | None = None,
) -> Markup | None:
    """Return a line per row with a marker per name that is compared; the first lies on top.

    The line spans the row's interval, or without any its markers. None when no row has a value.
    """
    known = [[value for value in values if drawable(value)] for _, values in rows]
    ends = [
        (given or (min(values), max(values))) if values else None
        for values, given in zip(known, intervals or [None] * len(rows), strict=True)
    ]
    x = numbers([value for pair in ends if pair for value in pair] + [value for row in known for value in row], title)
    spans = Spans([(at, *pair) for at, pair in enumerate(ends) if pair])
    if not spans.spans:
        return None
    points = [
        Points(
            [values[look] for _, values in rows],
            range(len(rows)),
            [f"{name}, {compared[look]}: {values[look] or 0:.4g}" for name, values in rows],
            look=look,
            label=compared[look],
        )
        for look in range(len(compared))
    ]
    y = names([name for name, _ in rows], 26, most=22)
    return chart([spans, *reversed(points)], x, y, ident=ident, title=title, description=description)


def history_charts(result: dict[str, Any]) -> list[Markup]:
    """Return up to four SVG charts over the rounds: the losses, the monitored or else the headline metric, the learning
    rate where it changes, and what training has cost under differential privacy."""
    histories = [history_columns(mapping(fold, "history")) for _, fold in folds(result)]
    histories = histories or [history_columns(mapping(result, "history"))]
    series = list(dict.fromkeys(name for history in histories for name in history if _known(histories, name)))
    # train_loss, validation_loss, and for a GAN train_generator_loss and the like.
    losses = sorted((name for name in series if name.endswith("loss")), key=lambda name: (len(name), name))
    charts = [_chart(result, histories, losses, "Loss", "loss")]
    if metric := _charted_metric(result, series):
        shown = [name for name in (f"train_{metric}", f"validation_{metric}") if name in series]
        charts.append(_chart(result, histories, shown, label(metric), "metric"))
    if any(len({finite(value) for value in history.get("train_lr", [])} - {None}) > 1 for history in histories):
        charts.append(_chart(result, histories, ["train_lr"], "Learning rate", "rate"))
    if "epsilon" in series:
        charts.append(_chart(result, histories, ["epsilon"], "Epsilon spent", "epsilon"))
    return [chart for chart in charts if chart]


def runs_chart(results: Mapping[str, dict[str, Any]]) -> Markup | None:
    """Return one chart of several runs over their rounds, a line a run, of what all of them recorded.

    That is the metric they were judged by in validation, else the validation loss, else the loss of training; of folds
    the mean. None where no column is in all runs; of more runs than there are looks the first.
    """
    shown = dict(list(results.items())[:LOOKS])
    histories = {
        name: [history_columns(mapping(fold, "history")) for _, fold in folds(result)]
        or [history_columns(mapping(result, "history"))]
        for name, result in shown.items()
    }

    def recorded(column: str) -> bool:
        return all(_known(of, column) for of in histories.values())

    names = [name for of in histories.values() for history in of for name in history]
    judged = next((metric for result in shown.values() if (metric := _charted_metric(result, names))), None)
    column = next(filter(recorded, [f"validation_{judged}", "validation_loss", "train_loss"]), None)
    if column is None:
        return None
    lines = []
    for look, (name, of) in enumerate(histories.items()):
        runs = [_series(history, column) for history in of if column in history]
        lines.append(_line(name, runs[0] if len(runs) == 1 else _mean(runs), look))
    part, _, what = column.partition("_")
    title = f"{label(what)}, {part}"
    description = f"{title}, over the rounds of {len(shown)} runs."
    return line_chart(lines, ident="chart-runs", title=title, description=description)


def history_lines(history: dict[str, list[Any]], columns: Sequence[str]) -> list[Line]:
    """Return a line for each of these columns that has a value, up to as many as there are looks."""
    known = [name for name in columns if _known([history], name)][:LOOKS]
    return [_line(label(name.split("_", 1)[-1]), _series(history, name), look) for look, name in enumerate(known)]


def _known(histories: Sequence[dict[str, list[Any]]], name: str) -> bool:
    return name != "round" and any(
        finite(value) is not None for history in histories for value in history.get(name, [])
    )


def _charted_metric(result: dict[str, Any], series: Sequence[str]) -> str | None:
    measured = [name.removeprefix("validation_") for name in series if name.startswith("validation_")]
    measured = [name for name in measured if not name.endswith("loss")]
    if (watched := monitored(result)) in measured:
        return watched
    return next((name for name in METRICS if name in measured), next(iter(measured), None))


def _chart(
    result: dict[str, Any], histories: Sequence[dict[str, list[Any]]], columns: Sequence[str], title: str, ident: str
) -> Markup | None:
    # More lines than there are looks could not be told apart.
    lines = []
    for name in columns[:LOOKS]:
        # Validation is always the dashed line, also where nothing was recorded in training.
        look = 1 if name.startswith("validation") and len(columns) <= 2 else columns.index(name)
        human = name.replace("_", " ").capitalize() if len(columns) > 2 else name.split("_")[0].capitalize()
        runs = [_series(history, name) for history in histories if name in history]
        if len(runs) == 1:
            lines.append(_line(human, runs[0], look))
        else:
            lines += [_line("", run, look, faint=True) for run in runs]
            lines.append(_line(f"{human}, mean of folds", _mean(runs), look))
    best = best_round(result) if len(histories) == 1 else None
    longest = max((len(history["round"]) for history in histories), default=0)
    many = f" One thin line per fold ({len(histories)} folds)." if len(histories) > 1 else ""
    marked = f" Round {best:g} is the best." if best is not None else ""
    description = f"{title} over {longest} rounds: {', '.join(columns[:LOOKS])}.{many}{marked}"
    return line_chart(lines, ident=f"chart-{ident}", title=title, description=description, best=best)


def _series(history: dict[str, list[Any]], name: str) -> Series:
    return [
        (float(at), finite(value))
        for at, value in zip(history["round"], history[name], strict=False)
        if finite(at) is not None
    ]


def _line(text: str, series: Series, look: int, faint: bool = False) -> Line:
    return Line(text, [at for at, _ in series], [value for _, value in series], look, faint)


def _mean(runs: Sequence[Series]) -> Series:
    """Return the mean over the folds for the rounds that all of them reached.

    Beyond those, folds that stopped early are absent and the mean would jump for that reason alone.
    """
    values = [dict(run) for run in runs]
    shared = [at for at, _ in min(runs, key=len) if all(run.get(at) is not None for run in values)]
    return [(at, sum(run[at] or 0.0 for run in values) / len(values)) for at in shared]


def comparison_chart(result: dict[str, Any], part: str, metric: str) -> Markup | None:
    """Return one row per site and scope with a dot for each run, where there are baselines to compare with."""
    rows = [row for row in metric_rows(result) if row.part == part and row.scope != "fold"]
    runs = list(dict.fromkeys([run_name(result), *(row.run for row in rows)]))[:LOOKS]
    if len(runs) < 2:
        return None

    def values(scope: str, site: str = "") -> list[float | None]:
        return [_value(rows, run, scope, site, metric) for run in runs]

    table = [("pooled", values("pooled")), ("mean over sites", values("mean_over_sites"))]
    table += [(site, values("site", site)) for site in site_names(result)]
    table = [(text, measured) for text, measured in table if any(value is not None for value in measured)]
    description = "; ".join(
        f"{text}: "
        + ", ".join(f"{run} {value:.3f}" for run, value in zip(runs, measured, strict=True) if value is not None)
        for text, measured in table
    )
    title, compared = f"{label(metric)} ({part})", [run.capitalize() for run in runs]
    return dot_chart(table, compared, ident="chart-runs", title=title, description=description)


def _value(rows: Sequence[MetricRow], run: str, scope: str, site: str, metric: str) -> float | None:
    for row in rows:
        if (row.run, row.scope, row.name) == (run, scope, site):
            return finite(row.metrics.get(metric))
    return None


def participation_chart(result: dict[str, Any]) -> Markup | None:
    """Return the grid of who answered in which call; None when nothing is known."""
    entries = [entry for entry in sequence(result, "participation") if isinstance(entry, dict)]
    known, labels = dict.fromkeys(site_names(result)), []
    outcomes: list[dict[str, str | None]] = []
    for index, entry in enumerate(entries):
        outcome: dict[str, str | None] = {str(site): None for site in sequence(entry, "answered")}
        outcome |= {str(site): str(reason) for site, reason in mapping(entry, "missing").items()}
        known |= dict.fromkeys(outcome)
        at = entry.get("round", index + 1)
        labelled = entry.get("call", "train") == "train" and isinstance(at, int) and (at == 1 or at % 5 == 0)
        labels.append(str(at) if labelled else "")
        outcomes.append(outcome)
    sites = list(known)
    if not outcomes or not sites:
        return None
    cells = []
    for column, outcome in enumerate(outcomes):
        where = f"round {labels[column] or column + 1}"
        for row, site in enumerate(sites):
            reason = outcome.get(site)
            kind = "not-asked" if site not in outcome else "answered" if reason is None else "missing"
            says = "not asked" if kind == "not-asked" else kind if reason is None else f"missing: {reason}"
            cells.append((column, row, kind, f"{site}, {where}: {says}"))
    absent = sum(kind == "missing" for _, _, kind, _ in cells)
    return chart(
        [Squares(cells)],
        names(labels, 17, above=True),
        names(sites, 17),
        ident="chart-participation",
        title="Who answered in which round",
        description=f"{len(sites)} sites over {len(outcomes)} calls; {absent} replies missing. "
        "The reasons are listed above.",
        fixed=True,
    )
