"""`split-columns` turns coinstac-dinunet's split files into columns of a site's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.researcher.cli.output import Force, refuse_file
from v6_algorithm.researcher.cli.partition import Encoding, Separator, read_form
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell, writing


def split_columns(
    table: Annotated[Path, typer.Argument(help="A site's table, csv.", show_default=False)],
    files: Annotated[list[Path], typer.Argument(help="Split files of coinstac-dinunet.", show_default=False)],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the table with the columns goes.")],
    key: Annotated[
        str | None, typer.Option(help="Column with the files' entries.", show_default="they are row numbers")
    ] = None,
    separator: Separator = None,
    encoding: Encoding = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Turn dinunet's SPLIT_*.json into columns of the table, for `data.split_column`."""
    with explained(json_):
        from v6_algorithm.data.reading.lines import read_as_text, separator_of
        from v6_algorithm.data.sources import TableSource
        from v6_algorithm.data.split_files import add_split_columns

        refuse_file(out_file, force)
        if (kind := TableSource(str(table)).kind) != "csv":
            raise ExperimentError(f"{table}: is {kind}; split-columns reads and writes csv")
        try:
            source = TableSource(str(table), "csv", form=read_form(separator, encoding))
            source.read()
            # What is written is as it was: 007 is no 7, and an empty word stays that word.
            frame = read_as_text(str(table), table.name, source.form)
        except DataError as error:
            raise ExperimentError(f"{table}: {error}") from None
        frame = add_split_columns(frame.rename(columns=str.strip), files, key)
        with writing(out_file):
            frame.to_csv(out_file, index=False, sep=separator_of(str(out_file), source.form))
        tell({"file": str(out_file), "split_column": [file.stem for file in files]})
        say(f"data:\n  split_column: [{', '.join(file.stem for file in files)}]\nsplit: given")
