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
    frame = _read(
        uri,
        name,
        form,
        decimal=form.decimal or ".",
        thousands=form.thousands,
        na_values=empty_words,
        keep_default_na=False,
        low_memory=False,
    )
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
    _check_quotes(frame, name, separator)
    return frame


def read_as_text(uri: str, name: str, form: TableForm) -> pd.DataFrame:
    """Read a text file without understanding it: what is ``007``, ``1.50`` or ``?`` stays so; raises as `read_csv`."""
    _check_lines(uri, name, form.separator or ",", form.encoding)
    frame = _read(uri, name, form, dtype=str, keep_default_na=False, na_filter=False)
    _check_quotes(frame, name, form.separator or ",")
    return frame


def _read(uri: str, name: str, form: TableForm, **options: Any) -> pd.DataFrame:
    import pandas as pd

    separator = form.separator or ","
    try:
        frame: pd.DataFrame = pd.read_csv(uri, sep=separator, encoding=form.encoding, **options)
    except UnicodeError:
        raise _not_in_encoding(uri, name, form.encoding) from None
    except pd.errors.ParserError:
        _check_lines(uri, name, separator, form.encoding)
        raise DataError(f"{name} cannot be read as csv: does a cell open with a quote that nothing closes?") from None
    return frame


def _not_in_encoding(uri: str, name: str, encoding: str | None) -> DataError:
    given = f"in {encoding} (data.encoding)" if encoding else "in UTF-8"
    return DataError(
        f"{name} cannot be read as csv: it is not text {given}; data.encoding: {_likely_encoding(uri)} may be right"
    )


def _check_quotes(frame: pd.DataFrame, name: str, separator: str) -> None:
    """Raise DataError where a cell holds whole lines of the table: a quote opens in one line, and closes in another."""
    import pandas as pd

    if frame.shape[1] < 2:
        return
    for dtype_place, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "OUT" and not isinstance(dtype, pd.StringDtype):
            continue
        for cell in frame.iloc[:, dtype_place]:
            # The first and the last piece are the rest of the line where it opens, and the start of that where it ends.
            if isinstance(cell, str) and "\n" in cell:
                inner = cell.splitlines()[1:-1]
                if any(len(next(csv.reader([line], delimiter=separator), [])) == frame.shape[1] for line in inner):
                    raise DataError(
                        f"{name} cannot be read as csv: a cell of column '{frame.columns[dtype_place]}' holds whole "
                        "lines of the table; does a quote open in one line that closes in another?"
                    )


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
        except UnicodeError:
            raise _not_in_encoding(uri, name, encoding) from None
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
