"""`split-columns` turns coinstac-dinunet's split files into columns of a site's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.researcher.cli.terminal import explained, say


def split_columns(
    table: Annotated[Path, typer.Argument(help="A site's table, csv.", show_default=False)],
    files: Annotated[list[Path], typer.Argument(help="Split files of coinstac-dinunet.", show_default=False)],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the table with the columns goes.")],
    key: Annotated[
        str | None, typer.Option(help="Column with the files' entries.", show_default="they are row numbers")
    ] = None,
) -> None:
    """Turn dinunet's SPLIT_*.json into columns of the table, for `data.split_column`."""
    with explained():
        from v6_algorithm.data.sources import TableSource
        from v6_algorithm.data.split_files import add_split_columns

        try:
            frame = TableSource(str(table), "csv").read()
        except DataError as error:
            raise ExperimentError(f"{table}: {error}") from None
        frame = add_split_columns(frame, files, key)
        try:
            frame.to_csv(out_file, index=False)
        except OSError as error:
            raise ExperimentError(f"--out {out_file}: cannot be written: {error.strerror}") from None
        say(f"data:\n  split_column: [{', '.join(file.stem for file in files)}]\nsplit: given")
