"""`init` writes a commented experiment for the researcher's own tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell


def init(
    files: Annotated[
        list[Path], typer.Argument(help="One table a hospital: csv, parquet or xlsx.", show_default=False)
    ],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="What is learned; guessed when absent.")] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="For survival: the times; --target is the event.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the experiment, and of its file.")] = "experiment",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json_: Json = False,
) -> None:
    """Write an experiment file for tables of yours, with what was seen in them.

    Example: v6-algorithm init hospital1.csv hospital2.csv --target outcome
    """
    with explained(json_):
        from v6_algorithm.data.sources import TableSource
        from v6_algorithm.errors import DataError, ExperimentError
        from v6_algorithm.researcher.drafting import draft, experiment_yaml, site_names

        path = Path(f"{name}.yaml")
        if path.exists() and not force:
            raise ExperimentError(f"{path}: is there already; --force writes over it, --name takes another name")
        tables = {}
        for site, file in site_names(files).items():
            if not file.exists():
                raise ExperimentError(f"there is no file {file}")
            try:
                tables[site] = TableSource(str(file)).read()
            except DataError as error:
                raise ExperimentError(f"{file}: {error}") from None
        drafted = draft(tables, {site: str(file) for site, file in site_names(files).items()}, target, duration)
        path.write_text(experiment_yaml(drafted, name), encoding="utf-8")
        tell({"file": str(path), **asdict(drafted)})
        say(f"wrote {path}: {drafted.problem} of {drafted.target} at {len(tables)} site{'s' * (len(tables) > 1)}, from")
        say(f"  {len(drafted.features)} numeric and {len(drafted.categorical)} categorical columns")
        for column in drafted.exclude:
            say(f"  not used: {column} ({drafted.reasons.get(column, '')})")
        say(f"next: v6-algorithm run {path}")
