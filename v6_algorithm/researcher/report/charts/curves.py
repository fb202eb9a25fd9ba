"""The charts of the report page: which series of a result go into which chart. Called by the page, draws with `svg`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v6_algorithm.researcher.report.charts.svg import LOOKS, Line, dot_chart, line_chart, participation_grid
from v6_algorithm.researcher.report.reading import (
    METRICS,
    MetricRow,
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


def history_charts(result: dict[str, Any]) -> list[str]:
    """Return up to three SVG charts over the rounds: the losses, the monitored or else the headline metric, and the
    learning rate where it changes."""
    histories = [history_columns(mapping(fold, "history")) for _, fold in folds(result)]
    histories = histories or [history_columns(mapping(result, "history"))]
    names = list(dict.fromkeys(name for history in histories for name in history if _known(histories, name)))
    # train_loss, validation_loss, and for a GAN train_generator_loss and the like.
    losses = sorted((name for name in names if name.endswith("loss")), key=lambda name: (len(name), name))
    charts = [_chart(result, histories, losses, "Loss", "loss")]
    if metric := _charted_metric(result, names):
        series = [name for name in (f"train_{metric}", f"validation_{metric}") if name in names]
        charts.append(_chart(result, histories, series, label(metric), "metric"))
    if any(len({finite(value) for value in history.get("train_lr", [])} - {None}) > 1 for history in histories):
        charts.append(_chart(result, histories, ["train_lr"], "Learning rate", "rate"))
    return [chart for chart in charts if chart]


def history_lines(history: dict[str, list[Any]], names: Sequence[str]) -> list[Line]:
    """Return a line for each of these columns that has a value, up to as many as there are looks."""
    known = [name for name in names if _known([history], name)][:LOOKS]
    return [_line(label(name.split("_", 1)[1]), _series(history, name), look) for look, name in enumerate(known)]


def _known(histories: Sequence[dict[str, list[Any]]], name: str) -> bool:
    return name != "round" and any(
        finite(value) is not None for history in histories for value in history.get(name, [])
    )


def _charted_metric(result: dict[str, Any], names: Sequence[str]) -> str | None:
    measured = [name.removeprefix("validation_") for name in names if name.startswith("validation_")]
    measured = [name for name in measured if not name.endswith("loss")]
    if (watched := monitored(result)) in measured:
        return watched
    return next((name for name in METRICS if name in measured), next(iter(measured), None))


def _chart(
    result: dict[str, Any], histories: Sequence[dict[str, list[Any]]], names: Sequence[str], title: str, ident: str
) -> str:
    # More lines than there are looks could not be told apart.
    lines = []
    for name in names[:LOOKS]:
        # Validation is always the dashed line, also where nothing was recorded in training.
        look = 1 if name.startswith("validation") and len(names) <= 2 else names.index(name)
        human = name.replace("_", " ").capitalize() if len(names) > 2 else name.split("_")[0].capitalize()
        runs = [_series(history, name) for history in histories if name in history]
        if len(runs) == 1:
            lines.append(_line(human, runs[0], look))
        else:
            lines += [_line("", run, look, faint=True) for run in runs]
            lines.append(_line(f"{human}, mean of folds", _mean(runs), look))
    best = finite(result.get("best_round")) if len(histories) == 1 else None
    rounds = max((len(history["round"]) for history in histories), default=0)
    many = f" One thin line per fold ({len(histories)} folds)." if len(histories) > 1 else ""
    marked = f" Round {best:g} is the best." if best is not None else ""
    description = f"{title} over {rounds} rounds: {', '.join(names[:LOOKS])}.{many}{marked}"
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


def comparison_chart(result: dict[str, Any], part: str, metric: str) -> str:
    """Return one row per site and scope with a dot for each run, where there are baselines to compare with."""
    rows = [row for row in metric_rows(result) if row.part == part and row.scope != "fold"]
    runs = list(dict.fromkeys([run_name(result), *(row.run for row in rows)]))[:LOOKS]
    if len(runs) < 2:
        return ""

    def values(scope: str, site: str = "") -> list[float | None]:
        return [_value(rows, run, scope, site, metric) for run in runs]

    table = [("pooled", values("pooled")), ("mean over sites", values("mean_over_sites"))]
    table += [(site, values("site", site)) for site in site_names(result)]
    table = [(text, found) for text, found in table if any(value is not None for value in found)]
    description = "; ".join(
        f"{text}: "
        + ", ".join(f"{run} {value:.3f}" for run, value in zip(runs, found, strict=True) if value is not None)
        for text, found in table
    )
    names = [run.capitalize() for run in runs]
    return dot_chart(table, names, ident="chart-runs", title=f"{label(metric)} ({part})", description=description)


def _value(rows: Sequence[MetricRow], run: str, scope: str, site: str, metric: str) -> float | None:
    for row in rows:
        if (row.run, row.scope, row.name) == (run, scope, site):
            return finite(row.metrics.get(metric))
    return None


def participation_chart(result: dict[str, Any]) -> str:
    """Return the grid of who answered in which round; empty when nothing is known."""
    entries = [entry for entry in sequence(result, "participation") if isinstance(entry, dict)]
    sites = site_names(result)
    columns: list[tuple[str, dict[str, str | None]]] = []
    for index, entry in enumerate(entries):
        outcome: dict[str, str | None] = {str(site): None for site in sequence(entry, "answered")}
        outcome |= {str(site): str(reason) for site, reason in mapping(entry, "missing").items()}
        sites += [site for site in outcome if site not in sites]
        at = entry.get("round", index + 1)
        labelled = entry.get("call", "train") == "train" and isinstance(at, int) and (at == 1 or at % 5 == 0)
        columns.append((str(at) if labelled else "", outcome))
    if not columns or not sites:
        return ""
    absent = sum(reason is not None for _, outcome in columns for reason in outcome.values())
    description = (
        f"{len(sites)} sites over {len(columns)} calls; {absent} replies missing. The reasons are listed above."
    )
    return participation_grid(
        sites, columns, ident="chart-participation", title="Who answered in which round", description=description
    )
