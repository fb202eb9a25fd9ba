"""`report` makes the page of a finished run anew, and sets several runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import Force, refuse_file
from v6_algorithm.researcher.cli.terminal import Json, choice, explained, say, tell, writing

# Runs whose intervals a terminal has room for; the page of --out has them of all.
_MOST_INTERVALS = 2


def report(
    results: Annotated[list[Path], typer.Argument(help="Folders of runs, or result.json files.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the page goes; of several runs, one that compares them.",
            show_default="of one run beside it",
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of one run: also a model card (Markdown), intended use left to fill in."),
    ] = None,
    part: Annotated[
        str, typer.Option(**choice("test", "validation", "central"), help="Of several: which rows.")
    ] = "test",
    json_: Json = False,
    paired: Annotated[
        bool, typer.Option("--paired", help="Of two runs over the same folds: differences with intervals and p.")
    ] = False,
    force: Force = False,
) -> None:
    """Make the report of a run anew, or compare runs by their pooled metrics."""
    with explained(json_):
        from v6_algorithm.errors import ExperimentError
        from v6_algorithm.researcher.python.result import compare, load
        from v6_algorithm.researcher.report.artifacts import write_file

        if part not in ("test", "validation", "central"):
            raise ExperimentError(f"--part {part}: is not known; allowed: test, validation, central")
        if len(results) == 1:
            refuse_file(out, force)
            folder = results[0] if results[0].is_dir() else results[0].parent
            place = out or folder / "report.html"
            with writing(place):
                write_file(place, load(results[0]).report())
            say(f"wrote {place}")
            tell({"page": str(place), "card": str(card) if card else None})
            if card is not None:
                _write_card(results[0], card)
            return
        if card is not None:
            raise ExperimentError("--card: is of one run; several are given")
        if paired:
            _show_paired(results, part, as_json=json_)
            return
        refuse_file(out, force)
        names = [path.name if path.is_dir() else path.parent.name or path.name for path in results]
        names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, results, strict=True)]
        loaded = {name: load(path) for name, path in zip(names, results, strict=True)}
        frame = compare(loaded, part)
        if frame.empty or not len(frame.columns):
            raise ExperimentError(f"--part {part}: none of these results has metrics of it")
        if out is not None:
            from v6_algorithm.researcher.report.comparison import comparison_page

            page = comparison_page({name: dict(result.content) for name, result in loaded.items()}, part)
            with writing(out):
                write_file(out, page)
        if json_:
            terminal.print_raw(str(frame.to_json(orient="index", indent=1)) + "\n")
            return
        terminal.out.print(_table(frame, part))
        if out is not None:
            say(f"wrote {out}")


def _show_paired(results: list[Path], part: str, *, as_json: bool) -> None:
    """Print the differences of two runs over the same folds."""
    from rich.table import Table
    from rich.text import Text

    from v6_algorithm.errors import ExperimentError
    from v6_algorithm.researcher.python.paired import paired
    from v6_algorithm.researcher.python.result import load
    from v6_algorithm.researcher.report import reading
    from v6_algorithm.researcher.report.coefficients import p_text

    if len(results) != 2:
        raise ExperimentError(f"--paired: is of two runs; {len(results)} are given")
    frame = paired(load(results[0]), load(results[1]), part)
    if as_json:
        terminal.print_raw(str(frame.to_json(orient="index", indent=1)) + "\n")
        return
    table = Table(title=f"{part}, {frame['folds'].max():.0f} folds: second less first")
    for number, head in enumerate(("metric", "first", "second", "difference", "95 % CI", "p")):
        table.add_column(head, justify="right" if number else "left")
    for metric, line in frame.iterrows():
        table.add_row(
            Text(reading.label(str(metric))), f"{line['first']:.4f}", f"{line['second']:.4f}",
            f"{line['difference']:+.4f}", f"{line['low']:+.4f} to {line['high']:+.4f}", p_text(line["p"]),
        )  # fmt: skip
    terminal.out.print(table)


def _write_card(run: Path, card: Path) -> None:
    """Write a run's model card; one that is there may have been filled in, and stays."""
    from v6_algorithm.errors import ExperimentError
    from v6_algorithm.researcher.python.result import load
    from v6_algorithm.researcher.report.artifacts import write_file
    from v6_algorithm.researcher.report.model_card import model_card

    if card.exists():
        raise ExperimentError(f"--card {card}: is there already, perhaps with what was filled in; name another file")
    with writing(card, "--card"):
        write_file(card, model_card(load(run).content))
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
    ends = {name for metric in frame.columns for name in (f"{metric}_low", f"{metric}_high")}
    for metric in frame.columns:
        if metric in ends:
            continue  # beside the number that it is an end of
        cells = ["" if pd.isna(value) else f"{value:g}" if metric == "n" else f"{value:.4f}" for value in frame[metric]]
        if f"{metric}_low" in frame.columns and f"{metric}_high" in frame.columns and len(cells) <= _MOST_INTERVALS:
            low, high = frame[f"{metric}_low"], frame[f"{metric}_high"]
            cells = [
                f"{cell} ({a:.3f}-{b:.3f})" if cell and a == a and b == b else cell
                for cell, a, b in zip(cells, low, high, strict=True)
            ]
        table.add_row(Text(metric if metric == "n" else reading.label(metric)), *cells)
    return table
