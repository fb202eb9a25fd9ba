"""Excel's books: the one sheet that is a table, and what a sheet shows that its cells do not hold.

`sources` reads through here. pandas sees values only; merged cells, errors, what is hidden and formulas without a
result are looked for in the sheet's XML (ECMA-376), and in old books (xls) as xlrd tells of them.
"""

from __future__ import annotations

import html
import re
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.names import check_once
from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# Sheets that a message names.
_SHOWN = 30
_ATTRIBUTE = re.compile(r'([\w:]+)="([^"]*)"')
_CELL = re.compile(rb"<(?:\w+:)?c\b([^>]*)(?<!/)>(.*?)</(?:\w+:)?c>", re.S)
_VALUE = re.compile(rb"<(?:\w+:)?v\b[^>]*(?<!/)>[^<]")
_ERROR = re.compile(rb'<(?:\w+:)?c\b[^>]*\bt="e"[^>]*>')
_PLACE = re.compile(rb'\br="([A-Z]+)\d+"')
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*\bref="[A-Z]+\d+:[A-Z]+(\d+)"')
_HIDDEN = re.compile(rb'<(?:\w+:)?row\b[^>]*\bhidden="(?:1|true)"')
_TRUE = ("1", "true")
# The first bytes of an old book.
_OLD = b"\xd0\xcf\x11\xe0"
_MOST_COLUMNS = 16_384
# How xlrd names a cell that holds an error.
_XLS_ERROR = 5


def read_excel(uri: str, name: str, sheet: str | None, words: Collection[str], assumed: Assumed) -> pd.DataFrame:
    """Read a sheet of a book.

    Parameters
    ----------
    uri
        The file.
    name
        How messages call it.
    sheet
        Of the table; None: the one that has more than one column.
    words
        Cells that are empty.
    assumed
        What is taken for granted is written here.

    Raises
    ------
    DataError
        When there is no such sheet, or several have tables; a name is in the header twice; cells of rows are merged; or
        formulas have no result.
    """
    import pandas as pd

    with Path(uri).open("rb") as file:
        old = file.read(len(_OLD)) == _OLD
    # Only with what a book looks like does xlrd tell of merged cells, and of what is hidden.
    with pd.ExcelFile(uri, engine_kwargs={"formatting_info": True} if old else None) as book:
        sheets = list(map(str, book.sheet_names))
        hidden = _hidden_sheets(uri, book.book if old else None)
        if sheet is not None and sheet not in sheets:
            raise DataError(f"{name} has no sheet '{sheet}'; it has: {_listed(sheets, hidden)}")
        if sheet is None and len(sheets) > 1:
            # A sheet of one column is a remark.
            heads = {one: book.parse(one, nrows=1) for one in sheets}
            tables = [one for one, head in heads.items() if len(head) and head.shape[1] > 1] or sheets[:1]
            if len(tables) > 1:
                raise DataError(
                    f"{name} has {len(tables)} sheets with tables: {_listed(tables, hidden)}; "
                    "say which with sheet_name, or --sheet of a task"
                )
            sheet = tables[0]
            assumed["sheet"] = [sheet], len(sheets)
        sheet = sheets[0] if sheet is None else sheet
        if sheet in hidden:
            assumed["hidden sheet"] = [sheet], 1
        header = book.parse(sheet, header=None, nrows=1, dtype=object)
        cells = header.iloc[0].tolist() if len(header) else []
        names = [str(cell).strip() if cell == cell and cell is not None else "" for cell in cells]
        check_once(one for one in names if one)
        if old:
            columns = _check_old(book.book[sheet], name, names, assumed)
        else:
            columns = _check_sheet(_xml(uri, sheet), name, names, assumed)
        if unseen := _named([place for place in columns if place < len(names)], names):
            assumed["hidden columns"] = unseen, len(unseen)
        frame = book.parse(sheet, na_values=list(words), keep_default_na=False)
        if any(column != column for column in frame.columns):
            raise DataError(f"{name} has an error of Excel, such as #REF!, in place of a column's name")
        return frame


def _listed(sheets: Sequence[str], hidden: Collection[str]) -> str:
    return ", ".join(f"{sheet} (hidden)" if sheet in hidden else sheet for sheet in sheets[:_SHOWN])


def _check_sheet(xml: bytes, name: str, names: Sequence[str], assumed: Assumed) -> list[int]:
    """Look for what a reader of the sheet sees otherwise than it is stored; return the places of hidden columns.

    Below the header only the first of merged cells has a value, and a formula that no program has computed has none.
    """
    if any(int(last) > 1 for last in _MERGED.findall(xml)):
        raise _merged(name)
    if b"<f" in xml or b":f>" in xml:
        # A result may be an empty text.
        bare = sum(
            (b"<f" in cell or b":f>" in cell) and b't="str"' not in given and not _VALUE.search(cell)
            for given, cell in _CELL.findall(xml)
        )
        if bare:
            raise DataError(
                f"{name} has {bare:,} formulas without a result, which no program has computed yet: open it in Excel, "
                "and save it"
            )
    if errors := [_place_of(cell) for cell in _ERROR.findall(xml)]:
        assumed["excel errors"] = _named(errors, names), len(errors)
    if hidden := len(_HIDDEN.findall(xml)):
        assumed["hidden rows"] = [], hidden
    spans = [item for item in _elements(xml.partition(b"<sheetData")[0], "col") if item.get("hidden") in _TRUE]
    # One element may be of all 16,384 columns.
    return sorted(
        {place for item in spans for place in range(int(item["min"]) - 1, min(int(item["max"]), _MOST_COLUMNS))}
    )


def _place_of(cell: bytes) -> int:
    """Return the place of a cell's column, from 0, by its name such as AB12; -1 where it has none."""
    match, place = _PLACE.search(cell), 0
    for letter in match[1] if match else b"":
        place = 26 * place + letter - ord("A") + 1
    return place - 1


def _named(places: Collection[int], names: Sequence[str]) -> list[str]:
    """Return the names of some columns in their order, each once; pandas' of one without a name."""
    known = {place: name for place, name in enumerate(names) if name}
    return [known.get(place, f"Unnamed: {place}") for place in sorted(set(places))]


def _check_old(sheet: Any, name: str, names: Sequence[str], assumed: Assumed) -> list[int]:
    """Look for the same in a sheet of an old book, which xlrd has read: its formulas always have a result."""
    if any(below > 1 for _, below, _, _ in sheet.merged_cells):
        raise _merged(name)
    errors = [
        place for row in range(sheet.nrows) for place, kind in enumerate(sheet.row_types(row)) if kind == _XLS_ERROR
    ]
    if errors:
        assumed["excel errors"] = _named(errors, names), len(errors)
    if hidden := sum(bool(row.hidden) for place, row in sheet.rowinfo_map.items() if place < sheet.nrows):
        assumed["hidden rows"] = [], hidden
    return sorted(place for place, column in sheet.colinfo_map.items() if column.hidden)


def _merged(name: str) -> DataError:
    return DataError(
        f"{name} has merged cells among its rows, of which only the first holds a value: unmerge them in Excel, "
        "and fill in each"
    )


def is_locked(uri: str) -> bool:
    """Say whether a book is encrypted: such as xlsx are in an old book's container then, under this name."""
    with Path(uri).open("rb") as file:
        return "EncryptedPackage".encode("utf-16-le") in file.read()


def _hidden_sheets(uri: str, old: Any) -> set[str]:
    """Return the sheets that a reader of the book does not see."""
    if old is not None:
        return {str(sheet.name) for sheet in old.sheets() if sheet.visibility}
    if not zipfile.is_zipfile(uri):
        return set()
    with zipfile.ZipFile(uri) as book:
        xml = book.read("xl/workbook.xml") if "xl/workbook.xml" in book.namelist() else b""
    states = ("hidden", "veryHidden")
    return {html.unescape(item.get("name", "")) for item in _elements(xml, "sheet") if item.get("state") in states}


def _xml(uri: str, sheet: str) -> bytes:
    """Return the XML of a sheet; nothing where the book does not say where it is."""
    if not zipfile.is_zipfile(uri):
        return b""
    with zipfile.ZipFile(uri) as book:
        parts = set(book.namelist())
        if not {"xl/workbook.xml", "xl/_rels/workbook.xml.rels"} <= parts:
            return b""
        sheets = _elements(book.read("xl/workbook.xml"), "sheet")
        places = _elements(book.read("xl/_rels/workbook.xml.rels"), "Relationship")
        key = next((item.get("r:id") for item in sheets if html.unescape(item.get("name", "")) == sheet), None)
        place = next((item["Target"] for item in places if key is not None and item.get("Id") == key), "")
        part = place.lstrip("/") if place.startswith("/") else str(Path("xl", place).as_posix())
        return book.read(part) if part in parts else b""


def _elements(xml: bytes, tag: str) -> list[dict[str, str]]:
    """Return the attributes of each element of a name."""
    found = re.findall(rf"<(?:\w+:)?{tag}\b([^>]*)>", xml.decode("utf-8", "replace"))
    return [dict(_ATTRIBUTE.findall(attributes)) for attributes in found]
