"""A text file's lines against its header, for what pandas makes of lines that do not fit shifts values silently."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from v6_algorithm.errors import DataError
from v6_algorithm.experiment.table_form import TableForm

if TYPE_CHECKING:
    import pandas as pd

# Marks by which tables are often separated, that a header in one piece may show.
_SEPARATORS = (";", "\t", "|")


def read_csv(uri: str, name: str, form: TableForm, empty_words: list[str]) -> pd.DataFrame:
    """Read a text file as pandas does, but that every line must fit the header.

    Parameters
    ----------
    uri
        The file.
    name
        How messages call it.
    form
        Its marks and encoding.
    empty_words
        Cells that are empty.

    Raises
    ------
    DataError
        Naming a line with more or fewer cells than the header, a name that is in the header twice, or an encoding or
        separator that does not fit.
    """
    import pandas as pd

    separator = form.separator or ","
    try:
        frame = pd.read_csv(
            uri,
            sep=separator,
            decimal=form.decimal or ".",
            thousands=form.thousands,
            encoding=form.encoding,
            na_values=empty_words,
            keep_default_na=False,
            low_memory=False,
        )
    except UnicodeError:
        given = f"in {form.encoding} (data.encoding)" if form.encoding else "in UTF-8"
        raise DataError(
            f"{name} cannot be read as csv: it is not text {given}; data.encoding: {_likely_encoding(uri)} may be right"
        ) from None
    except pd.errors.ParserError:
        _check_lines(uri, name, separator, form.encoding)
        raise DataError(f"{name} cannot be read as csv: does a cell open with a quote that nothing closes?") from None
    columns = [str(column) for column in frame.columns]
    if len(columns) == 1 and form.separator is None:
        for mark in _SEPARATORS:
            if mark in columns[0]:
                shown = "\\t" if mark == "\t" else mark
                raise DataError(f'{name} has one column, in which "{shown}" stands: is it data.separator: "{shown}"?')
    # Without a cell too many every row has a number as its name; a line that is too short leaves its last cell empty.
    if not isinstance(frame.index, pd.RangeIndex) or (len(columns) and frame.iloc[:, -1].isna().any()):
        _check_lines(uri, name, separator, form.encoding)
    if any("." in column for column in columns):
        _check_names(uri, separator, form.encoding)
    return frame


def _check_lines(uri: str, name: str, separator: str, encoding: str | None) -> None:
    with _opened(uri, encoding) as file:
        reader = csv.reader(file, delimiter=separator)
        header: list[str] = []
        try:
            for row in reader:
                if not row:
                    continue
                header = header or row
                if len(row) != len(header):
                    more = "more" if len(row) > len(header) else "fewer"
                    raise DataError(
                        f"{name} cannot be read as csv: line {reader.line_num} has {len(row)} cells, {more} than the "
                        f"{len(header)} of the header, so values would stand in the wrong columns; mend the lines, or "
                        "give each column a name"
                    )
        except csv.Error:
            return


def _check_names(uri: str, separator: str, encoding: str | None) -> None:
    """Raise DataError for a name that is in the header twice, which pandas renames to ``name.1``."""
    with _opened(uri, encoding) as file:
        header = [cell.strip() for cell in next(csv.reader(file, delimiter=separator), [])]
    for cell in header:
        if cell and header.count(cell) > 1 and not cell.replace(".", "").isdigit():
            raise DataError(f"column '{cell}' is there twice")


def _opened(uri: str, encoding: str | None) -> TextIO:
    """Open a text file, compressed or not."""
    how: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(Path(uri).suffix.lower(), open)
    opened: TextIO = how(uri, "rt", encoding=encoding or "utf-8-sig", newline="")
    return opened


def _likely_encoding(uri: str) -> str:
    with open(uri, "rb") as file:
        start = file.read(2)
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
