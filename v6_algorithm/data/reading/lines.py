"""A text file's lines against its header, for what pandas makes of lines that do not fit shifts values silently."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from v6_algorithm.data.description.mixed_columns import COMMA
from v6_algorithm.data.names import check_once
from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.data.reading.cells import MAY_BE_LABELS, note_words, words_of_labels
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.table_form import TableForm

if TYPE_CHECKING:
    import pandas as pd

# What tells Excel the separator, in a line above the header.
_SEP = re.compile(r"[\ufeff]?\"?sep=([^\r\n\"])\"?[\r\n]", re.I)
# Marks by which tables are often separated, that a header in one piece may show.
_SEPARATORS = (";", "\t", "|", "^")
_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
_FIRST_LINE, _FEW_LINES = 2, 50
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_csv(
    uri: str, name: str, form: TableForm, empty_words: list[str], assumed: Assumed | None = None
) -> pd.DataFrame:
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
    assumed
        What is taken for granted is written here.

    Raises
    ------
    DataError
        Naming a line with more or fewer cells than the header, a name that is in the header twice, or an encoding or
        separator that does not fit.
    """
    separator = separator_of(uri, form)
    frame = _read(
        uri,
        name,
        form,
        decimal=form.decimal or ".",
        # A mark for thousands is left to `cells.uniform`: pandas takes any of them out, and makes 271 of 27.1.
        na_values=empty_words,
        keep_default_na=False,
        low_memory=False,
    )
    columns = [str(column) for column in frame.columns]
    if len(columns) == 1 and form.separator is None:
        _check_one_column(columns[0], uri, name, separator, form)
        if _fits_spaces(uri, form.encoding):
            raise DataError(f'{name} has one column, of as many words as its name: is it data.separator: " "?')
    # The first line of data says how many cells pandas expects; a line that is too short leaves its last cell empty.
    if not _begins_well(uri, separator, form.encoding) or (len(columns) and frame.iloc[:, -1].isna().any()):
        _check_lines(uri, name, separator, form)
    if any("." in column for column in columns):
        _check_names(uri, separator, form.encoding)
    _check_quotes(frame, name, separator)
    if assumed is not None:
        _note_words(frame, uri, name, form, assumed)
    return _with_codes(frame, uri, name, form, empty_words)


def _note_words(frame: pd.DataFrame, uri: str, name: str, form: TableForm, assumed: Assumed) -> None:
    """Write down the cells of labels that say None, NA or N/A, which pandas has read as empty."""
    import pandas as pd

    places = [place for place, column in enumerate(frame.columns) if str(column).strip() in form.codes]
    places = [place for place in places if not pd.api.types.is_numeric_dtype(frame.dtypes.iloc[place])]
    if not any(frame.iloc[:, place].isna().any() for place in places):
        return
    if not _mentions(uri, [word.encode() for word in MAY_BE_LABELS]):
        return
    text = _read(uri, name, form, usecols=places, dtype=str, keep_default_na=False, na_filter=False)
    counts = {str(column): Counter(map(str, text[column])) for column in text.columns}
    note_words({column: words_of_labels(of_column, form.kept) for column, of_column in counts.items()}, assumed)


def _mentions(uri: str, words: Sequence[bytes]) -> bool:
    """Say whether a file has any of these bytes."""
    how: Any = COMPRESSED.get(Path(uri).suffix.lower(), open)
    with how(uri, "rb") as file:
        end = b""
        while block := file.read(2**20):
            if any(word in end + block for word in words):
                return True
            end = block[-max(map(len, words)) :]
    return False


def _check_one_column(column: str, uri: str, name: str, separator: str, form: TableForm) -> None:
    """Raise DataError where another separator stands in the header of a table that seems to have one column."""
    if separator in column:
        raise DataError(f"{name} has one column, for each line is in quotation marks as a whole: take them out")
    for mark in _SEPARATORS if separator == "," else (*_SEPARATORS, ","):
        if mark in column:
            shown = "\\t" if mark == "\t" else mark
            commas = "" if mark == "," or form.decimal else _with_commas(uri, mark, form.encoding)
            raise DataError(
                f'{name} has one column, in which "{shown}" stands: is it data.separator: "{shown}"{commas}?'
            )


def _with_commas(uri: str, mark: str, encoding: str | None) -> str:
    """Ask for a decimal comma as well where the first lines have numbers with one between these marks."""
    with _opened(uri, encoding) as file:
        cells = [cell.strip().strip('"') for line in islice(file, 1, _FEW_LINES) for cell in line.split(mark)]
    commas = any(COMMA.fullmatch(cell) for cell in cells)
    return ', with data.decimal: ","' if commas else ""


def _with_codes(frame: pd.DataFrame, uri: str, name: str, form: TableForm, empty_words: list[str]) -> pd.DataFrame:
    """Return the table with columns of codes as text where one of them begins with a 0, which no number does."""
    import pandas as pd

    places = [place for place, column in enumerate(frame.columns) if str(column).strip() in form.codes]
    places = [place for place in places if pd.api.types.is_numeric_dtype(frame.dtypes.iloc[place])]
    if not places:
        return frame
    text = _read(uri, name, form, usecols=places, dtype=str, na_values=empty_words, keep_default_na=False)
    coded = [column for column in text.columns if text[column].str.fullmatch(r"\s*0\d+\s*").any()]
    return frame.assign(**{str(column): text[column] for column in coded}) if coded else frame


def read_as_text(uri: str, name: str, form: TableForm) -> pd.DataFrame:
    """Read a text file without understanding it: what is ``007``, ``1.50`` or ``?`` stays so; raises as `read_csv`."""
    _check_lines(uri, name, separator_of(uri, form), form)
    frame = _read(uri, name, form, dtype=str, keep_default_na=False, na_filter=False)
    _check_quotes(frame, name, separator_of(uri, form))
    return frame


def _read(uri: str, name: str, form: TableForm, **options: Any) -> pd.DataFrame:
    import pandas as pd

    _check_bytes(uri, name, form.encoding)
    separator = separator_of(uri, form)
    try:
        frame: pd.DataFrame = pd.read_csv(
            uri,
            sep=r"\s+" if separator == " " else separator,
            encoding=form.encoding,
            skiprows=1 if _said_to_excel(uri, form.encoding) else 0,
            **options,
        )
    except UnicodeError:
        raise _not_in_encoding(uri, name, form.encoding) from None
    except pd.errors.ParserError:
        _check_lines(uri, name, separator, form)
        raise DataError(f"{name} cannot be read as csv: does a cell open with a quote that nothing closes?") from None
    return frame


def _not_in_encoding(uri: str, name: str, encoding: str | None) -> DataError:
    given = f"in {encoding} (data.encoding)" if encoding else "in UTF-8"
    return DataError(
        f"{name} cannot be read as csv: it is not text {given}; data.encoding: {_likely_encoding(uri)} may be right"
    )


def separator_of(file: str, form: TableForm) -> str:
    """Return what stands between the cells of a text file: as said, else a tab in .tsv and a comma in others.

    A first line ``sep=;`` says so as well, as Excel reads and writes it; raises DataError where it says another.
    """
    said = _said_to_excel(file, form.encoding)
    if said and form.separator not in (None, said):
        raise DataError(
            f"{Path(file).name} begins with the line sep={said}, which tells Excel the separator, and data.separator "
            f"is {form.separator!r}"
        )
    return said or form.separator or ("\t" if Path(file).suffix.lower() == ".tsv" else ",")


def _said_to_excel(uri: str, encoding: str | None) -> str | None:
    """Return the separator of a first line such as ``sep=;``, which is none of the table's; None without one."""
    try:
        with _whole(uri, encoding) as file:
            match = _SEP.match(file.readline(16))
    except (OSError, UnicodeError, EOFError):
        return None
    return match[1] if match else None


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
                pieces, place = cell.splitlines(), dtype_place
                inner = pieces[1:-1]
                # The rest of the line in which it opens, and the start of the one in which it closes, fit the table.
                ends = pieces[0].count(separator), pieces[-1].count(separator)
                if ends == (frame.shape[1] - place - 1, place) or any(
                    len(next(csv.reader([line], delimiter=separator), [])) == frame.shape[1] for line in inner
                ):
                    raise DataError(
                        f"{name} cannot be read as csv: a cell of column '{frame.columns[dtype_place]}' holds whole "
                        "lines of the table; does a quote open in one line that closes in another?"
                    )


def _check_lines(uri: str, name: str, separator: str, form: TableForm) -> None:
    encoding = form.encoding
    above = 1 if _said_to_excel(uri, encoding) else 0
    with _opened(uri, encoding) as file:
        header: list[str] = []
        try:
            rows = _rows(file, separator)
            for row in rows:
                if not row:
                    continue
                header = header or row
                if len(row) != len(header):
                    line = row.number + above
                    if len(header) == 1:
                        _check_one_column(header[0], uri, name, separator, form)
                    if len(row) > len(header) and (len(header) == 1 or header[0].startswith(("#", "!"))):
                        raise DataError(
                            f"{name} cannot be read as csv: line {line} has {len(row)} cells, its first line "
                            f"{len(header)}: does a title or remark stand above the header? Take it out"
                        )
                    more = "more" if len(row) > len(header) else "fewer"
                    raise DataError(
                        f"{name} cannot be read as csv: line {line} has {len(row)} cells, {more} than the "
                        f"{len(header)} of the header, so values would stand in the wrong columns; "
                        f"{_remedy(row, header, line, [len(other) for other in islice(filter(None, rows), 3)])}"
                    )
        except UnicodeError:
            raise _not_in_encoding(uri, name, encoding) from None
        except csv.Error:
            return


def _remedy(row: list[str], header: list[str], line: int, following: list[int]) -> str:
    """Say how a line came to have another number of cells than the header, where that is clear, and what to do."""
    alike = len(row) > len(header) and bool(following) and set(following) == {len(row)}
    if alike and len(row) == len(header) + 1 and line == _FIRST_LINE:
        return (
            "are the first cells names of the rows, as R's write.table writes them? Write with row.names = FALSE, or "
            "give that column a name"
        )
    if alike and not any(_NUMBER.fullmatch(cell) for cell in row):
        return f"do lines of remarks stand above the header, which is line {line}? Take them out"
    return "mend the lines, or give each column a name"


def _rows(file: TextIO, separator: str) -> Iterator[_Row]:
    """Split a file into cells; between words any number of spaces and tabs is one."""
    if separator != " ":
        reader = csv.reader(file, delimiter=separator)
        for row in reader:
            yield _Row(row, reader.line_num)
        return
    spaced = csv.reader((line.replace("\t", " ").strip() + "\n" for line in file), delimiter=" ", skipinitialspace=True)
    for row in spaced:
        yield _Row(row, spaced.line_num)


class _Row(list[str]):
    """A line's cells, and the number of the line in which they end."""

    def __init__(self, cells: list[str], number: int) -> None:
        super().__init__(cells)
        self.number = number


def _fits_spaces(uri: str, encoding: str | None) -> bool:
    """Say whether the first lines are of as many words each, two or more, as in a table whose cells spaces separate."""
    with _opened(uri, encoding) as file:
        counts = [len(line.split()) for line in islice(file, 20) if line.strip()]
    return len(counts) > 1 and min(counts) > 1 and len(set(counts[1:])) == 1 and counts[1] - counts[0] in (0, 1)


def _begins_well(uri: str, separator: str, encoding: str | None) -> bool:
    """Say whether the first line of data has as many cells as the header: with more pandas takes the first as names."""
    with _opened(uri, encoding) as file:
        try:
            rows = (row for row in _rows(file, separator) if row)
            header: list[str] = next(rows, [])
            return len(next(rows, header)) == len(header)
        except csv.Error:
            return False


def _check_bytes(uri: str, name: str, encoding: str | None) -> None:
    """Raise DataError for a byte of 0, at which pandas ends a cell: what follows in it would be lost."""
    if encoding is not None and encoding.lower().replace("_", "-").startswith(("utf-16", "utf16", "utf-32", "utf32")):
        return
    how: Any = COMPRESSED.get(Path(uri).suffix.lower(), open)
    with how(uri, "rb") as file:
        while block := file.read(2**20):
            if b"\0" in block:
                likely = _likely_encoding(uri)
                remedy = (
                    f"data.encoding: {likely} may be right"
                    if likely.startswith("utf")
                    else "is it a file of Excel, or of another program? Save it as csv"
                )
                raise DataError(f"{name} cannot be read as csv: it holds bytes of 0, as no text does; {remedy}")


def _check_names(uri: str, separator: str, encoding: str | None) -> None:
    """Check the names as they are written, for pandas calls the second of two alike ``name.1``."""
    with _opened(uri, encoding) as file:
        header = [cell.strip() for cell in next(_rows(file, separator), [])]
    # Numbers are a row, of a file that has no header.
    check_once(cell for cell in header if cell and not cell.replace(".", "").isdigit())


def _opened(uri: str, encoding: str | None) -> TextIO:
    """Open a text file, compressed or not, at its header."""
    file = _whole(uri, encoding)
    if _said_to_excel(uri, encoding):
        file.readline()
    return file


def _whole(uri: str, encoding: str | None) -> TextIO:
    how: Any = COMPRESSED.get(Path(uri).suffix.lower(), open)
    opened: TextIO = how(uri, "rt", encoding=encoding or "utf-8-sig", newline="")
    return opened


def _likely_encoding(uri: str) -> str:
    with open(uri, "rb") as file:
        start = file.read(64)
    if start[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    # Latin letters in two bytes each have a 0 in every other, also without a mark that says so.
    for name, zeros, letters in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if len(start) > 1 and not any(zeros) and all(letters):
            return name
    return "latin-1"
