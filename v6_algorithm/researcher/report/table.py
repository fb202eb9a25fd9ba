"""The table a run ends with in the terminal: sites against the main metrics. Called by the CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import (
    CENTRAL,
    RUNS,
    SUMMARIES,
    central_name,
    central_rows,
    columns,
    evaluated,
    event_of,
    label,
    main_part,
    mapping,
    metric_rows,
    positive_class,
    sites_not_in,
    title,
)

if TYPE_CHECKING:
    from rich.table import Table

# Characters of a terminal for which the table is made; of the metrics those that fit there beside the names.
WIDTH = 80
_WIDEST, _NAMES, _METRIC = 5, 26, 10


def closing_table(result: dict[str, Any], width: int = WIDTH) -> Table:
    """Return the metrics of the test part (validation where nothing was tested), one row per scope and site.

    Parameters
    ----------
    result : dict
        The result of `master`; may be partial.
    width : int
        Characters of the terminal; a narrow one gets fewer metrics, and says so.

    Returns
    -------
    rich.table.Table
        The main run first, then one section per baseline.
    """
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in metric_rows(result) if row.scope != "fold"]
    part = main_part(rows)
    rows = [row for row in rows if row.part == part]
    # What no site could tell of its rows may still be known of the researcher's own.
    metrics, caption = _fitting(columns([*rows, *(row for _, row in central_rows(result))]), width)
    # Text, not str: a site's name is shown as it is, never read as rich markup.
    lost, taking_part = sites_not_in(result), len(mapping(result, "sites"))
    without = f", {taking_part} of {taking_part + len(lost)} sites, without {', '.join(lost)}" if lost else ""
    of_class = f"; {named}" if (named := positive_class(result, metrics) or event_of(result)) else ""
    table = Table(title=Text(f"{title(result)}: {part}{without}{of_class}"), caption=caption)
    table.add_column("site", overflow="fold")
    table.add_column("n", justify="right")
    for metric in metrics:
        table.add_column(Text(label(metric)), justify="right")
    runs = list(dict.fromkeys(row.run for row in rows))
    for run in runs:
        if len(runs) > 1:
            table.add_section()
            table.add_row(Text(RUNS.get(run, run), style="bold"))
        for row in (row for row in rows if row.run == run):
            name = SUMMARIES.get(row.scope, row.name)
            n = evaluated(result, row)
            cells = [number(row.metrics.get(metric)) for metric in metrics]
            table.add_row(Text(name), f"{n:,}" if n is not None else "", *cells)
    if central_rows(result):
        table.add_section()
        table.add_row(Text(f"{CENTRAL}: {central_name(result)}", style="bold"))
        _add_central(table, result, metrics)
    return table


def _fitting(metrics: list[str], width: int) -> tuple[list[str], str | None]:
    """Return the first metrics, as many as fit, and what is to be said where a usual terminal has room for more."""
    shown = metrics[: max(1, min(_WIDEST, (width - _NAMES) // _METRIC))]
    usual = metrics[:_WIDEST]
    return shown, None if shown == usual else f"a terminal of {WIDTH} columns has room for {len(usual)} metrics"


def central_table(result: dict[str, Any], width: int = WIDTH) -> Table:
    """Return the metrics on the researcher's own table; `result` and `width` are as for `closing_table`."""
    from rich.table import Table
    from rich.text import Text

    metrics, caption = _fitting(columns(row for _, row in central_rows(result)), width)
    table = Table(title=Text(f"{title(result)}: {central_name(result)}"), caption=caption)
    table.add_column("model", overflow="fold")
    table.add_column("n", justify="right")
    for metric in metrics:
        table.add_column(Text(label(metric)), justify="right")
    _add_central(table, result, metrics)
    return table


def _add_central(table: Table, result: dict[str, Any], metrics: list[str]) -> None:
    from rich.text import Text

    for name, row in central_rows(result):
        n = evaluated(result, row)
        cells = [number(row.metrics.get(metric)) for metric in metrics]
        table.add_row(Text(name), f"{n:,}" if n is not None else "", *cells)
