"""`report` makes the page of a finished run anew, and sets several runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.terminal import explained, say


def report(
    results: Annotated[list[Path], typer.Argument(help="Folders of runs, or result.json files.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of one run: where the page goes.", show_default="beside it")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of one run: also a model card (Markdown), intended use left to fill in."),
    ] = None,
    part: Annotated[str, typer.Option(metavar="PART", help="Of several: test, validation or central.")] = "test",
    json_: Annotated[bool, typer.Option("--json", help="Of several: print the comparison as JSON.")] = False,
) -> None:
    """Make the report of a run anew, or compare runs by their pooled metrics.

    Example: v6-algorithm report runs/heart-a runs/heart-b
    """
    with explained():
        from v6_algorithm.errors import ExperimentError
        from v6_algorithm.researcher.python.result import compare, load
        from v6_algorithm.researcher.report.artifacts import write_file

        if part not in ("test", "validation", "central"):
            raise ExperimentError(f"--part {part}: is not known; allowed: test, validation, central")
        if len(results) == 1:
            folder = results[0] if results[0].is_dir() else results[0].parent
            place = out or folder / "report.html"
            try:
                write_file(place, load(results[0]).report())
            except OSError as error:
                raise ExperimentError(f"--out {place}: cannot be written: {error.strerror}") from None
            say(f"wrote {place}")
            if card is not None:
                _write_card(results[0], card)
            return
        if card is not None:
            raise ExperimentError("--card: is of one run; several are given")
        names = [path.name if path.is_dir() else path.parent.name or path.name for path in results]
        names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, results, strict=True)]
        frame = compare({name: load(path) for name, path in zip(names, results, strict=True)}, part)
        if frame.empty or not len(frame.columns):
            raise ExperimentError(f"--part {part}: none of these results has metrics of it")
        if json_:
            typer.echo(frame.to_json(orient="index", indent=1))
            return
        terminal.out.print(_table(frame, part))


def _write_card(run: Path, card: Path) -> None:
    """Write a run's model card; one that is there may have been filled in, and stays."""
    from v6_algorithm.errors import ExperimentError
    from v6_algorithm.researcher.python.result import load
    from v6_algorithm.researcher.report.artifacts import write_file
    from v6_algorithm.researcher.report.model_card import model_card

    if card.exists():
        raise ExperimentError(f"--card {card}: is there already, perhaps with what was filled in; name another file")
    try:
        write_file(card, model_card(load(run).content))
    except OSError as error:
        raise ExperimentError(f"--card {card}: cannot be written: {error.strerror}") from None
    say(f"wrote {card}; fill in its lines in italics")


def _table(frame: object, part: str) -> object:
    """Lay the runs side by side: a line for each metric, so that names of runs, which are few, share the width."""
    import pandas as pd
    from rich.table import Table
    from rich.text import Text

    from v6_algorithm.researcher.report import reading

    assert isinstance(frame, pd.DataFrame)  # noqa: S101
    table = Table(title=f"{part}, pooled")
    table.add_column("metric")
    for name in frame.index:
        table.add_column(Text(str(name)), justify="right", overflow="fold")
    for metric in frame.columns:
        cells = ["" if pd.isna(value) else f"{value:g}" if metric == "n" else f"{value:.4f}" for value in frame[metric]]
        table.add_row(Text(metric if metric == "n" else reading.label(metric)), *cells)
    return table
