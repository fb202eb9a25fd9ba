"""Fourth sample: books of Excel and sites whose file is another thing (A1 to A3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, refused, told, told_or_refused
from tools.examine.fourth import BASE, FITS, ROWS, fourth
from tools.examine.patients import (
    csv,
    each,
    files,
    glm,
    logit_is,
    number,
    written,
)  # fmt: skip


# Books of Excel
def book(kind: str, name: str, fill: Any, expected: Expected, experiment: Any = None, only: str = "abc") -> None:
    """Register an input of xlsx files; `fill` writes a table into a book of openpyxl."""

    def make(folder: Path) -> Input:
        import openpyxl

        paths = written(folder, csv(BASE))
        for site in only:
            made = openpyxl.Workbook()
            fill(made, BASE[site])
            made.save(folder / f"{site}.xlsx")
            paths[site] = str(folder / f"{site}.xlsx")
        return Input(paths, experiment or glm(), expected)

    fourth(kind, name)(make)


def put(sheet: Any, rows: Sequence[Sequence[Any]], top: int = 1, left: int = 1) -> None:
    """Write rows into a sheet."""
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            sheet.cell(top + r, left + c).value = cell


def lines(f: pd.DataFrame) -> list[list[Any]]:
    """Return a header and rows of Python's numbers."""
    return [list(f.columns), *f.astype(object).to_numpy().tolist()]


book(
    "A1",
    "a title and a blank row above the table",
    lambda b, f: put(b.active, [["Cohort 2025"], [], *lines(f)]),
    told_or_refused(r"header|title|row"),
)
book(
    "A1",
    "the table begins in C4",
    lambda b, f: put(b.active, lines(f), 4, 3),
    Expected(refused=(r"further down|header|title|begin",), right=logit_is(ROWS)),
)
book(
    "A1",
    "a legend to the right of the table",
    lambda b, f: (put(b.active, lines(f)), put(b.active, [["1 = dead"], ["0 = alive"]], 2, 8)),
    told_or_refused(r"Unnamed|no name|column", right=logit_is(ROWS)),
)
book(
    "A1",
    "a footnote two rows below the table",
    lambda b, f: (put(b.active, lines(f)), put(b.active, [["* fasting"]], len(f) + 4)),
    told_or_refused(r"last|remark|word|age"),
)
book(
    "A1",
    "a second table below the first",
    lambda b, f: (put(b.active, lines(f)), put(b.active, lines(f.head(20)), len(f) + 4)),
    told_or_refused(r"header|row|table"),
)
book(
    "A1",
    "mean and SD below, by hand",
    lambda b, f: put(b.active, [*lines(f), [], ["Mean", *f.iloc[:, 1:].mean()], ["SD", *f.iloc[:, 1:].std()]]),
    refused(r"last|mean|row"),
)
book(
    "A1",
    "an unnamed mean below, all columns",
    lambda b, f: put(b.active, [*lines(f), list(f.mean())]),
    told_or_refused(r"last|mean|died"),
)
book(
    "A2",
    "numbers stored as text, decimal comma",
    lambda b, f: put(b.active, lines(f.assign(chol=f.chol.astype(str).str.replace(".", ",")))),
    told("chol", "decimal"),
)
book(
    "A2",
    "numbers stored as text at one site",
    lambda b, f: put(b.active, lines(f.assign(chol=f.chol.astype(str)))),
    FITS,
    only="b",
)
book(
    "A2",
    "real dates, and dates of birth",
    lambda b, f: put(
        b.active, [[*f.columns, "born"], *[[*row, datetime(1950, 1 + i % 12, 1)] for i, row in enumerate(lines(f)[1:])]]
    ),
    told("born", right=logit_is(ROWS)),
)
book("A10", "TRUE and FALSE as the target", lambda b, f: put(b.active, lines(f.assign(died=f.died.astype(bool)))), FITS)
book(
    "A3",
    "a sheet README before the table",
    lambda b, f: (put(b.active, [["This book was made by"], ["dr. X, 2025"]]), put(b.create_sheet("data"), lines(f))),
    Expected(refused=("sheet",), told=("sheet",), right=logit_is(ROWS)),
)
book(
    "A3",
    "baseline and follow-up sheets",
    lambda b, f: (put(b.active, lines(f)), put(b.create_sheet("follow-up"), lines(f))),
    refused("sheet"),
)
book("A3", "an empty book", lambda b, f: None, refused(r"empty|no column|sheet", r"\bb\b|b\.xlsx"), only="b")
book(
    "A5",
    "#N/A and #DIV/0! in cells",
    lambda b, f: put(b.active, lines(f.assign(chol=np.where(number(f) % 9 == 0, "#DIV/0!", f.chol)))),
    told("#DIV/0|error|chol"),
)
book(
    "A1",
    "100 empty rows with a format below",
    lambda b, f: (put(b.active, lines(f)), [setattr(b.active.cell(len(f) + 100, 1), "number_format", "0.00")]),
    FITS,
)


# Sites
def broken(name: str, file: str, content: bytes, expected: Expected) -> None:
    """Register an input of which site b has another file."""

    def make(folder: Path) -> Input:
        paths = written(folder, csv(BASE))
        (folder / file).write_bytes(content)
        return Input(paths | {"b": str(folder / file)}, glm(), expected)

    fourth("A3", name)(make)


broken("a truncated parquet file", "b.parquet", b"PAR1" + b"\0" * 300, refused(r"\bb\b|b\.parquet", "parquet"))
broken("a truncated xlsx file", "b.xlsx", b"PK\3\4" + b"\0" * 300, refused(r"\bb\b|b\.xlsx", "xlsx|excel"))
broken("parquet called csv", "b.csv", b"PAR1" + b"\x15\x04" * 300 + b"PAR1", refused(r"b\.csv|\bb\b", "parquet"))
broken(
    "a web page that asks to log in",
    "b.csv",
    b"<!DOCTYPE html><html><body>Please log in</body></html>",
    refused(r"b\.csv|\bb\b", "html|web page"),
)
broken("a pdf", "b.pdf", b"%PDF-1.7\n" + b"x" * 300, refused(r"pdf"))
broken("an R file", "b.rds", b"\x1f\x8b\x08\0" + b"\0" * 100, refused(r"rds|\bR\b"))
broken(
    "an ods book",
    "b.ods",
    b"PK\3\4" + b"\0" * 26 + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
    refused(r"ods|OpenDocument"),
)
broken("an Access database", "b.accdb", b"\0\1\0\0Standard ACE DB\0" + b"\0" * 300, refused(r"accdb|Access"))
broken(
    "a Git LFS pointer",
    "b.csv",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
    refused(r"b\.csv|\bb\b", "LFS|died|pointer"),
)
broken("only a byte order mark", "b.csv", b"\xef\xbb\xbf", refused(r"\bb\b", "empty|no column"))
broken("one patient", "b.csv", b"age,sbp,chol,bmi,died\n61.0,130,5.1,26.2,1\n", told_or_refused(r"\bb\b"))


@fourth("A3", "a folder without a table")
def _(folder: Path) -> Input:
    (folder / "empty").mkdir()
    return Input(
        written(folder, csv(BASE)) | {"b": str(folder / "empty")}, glm(), refused(r"\bb\b|empty", "table|file")
    )


@fourth("A3", "missing: drop, and one site lacks a value in every row")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(chol=np.nan), "b")
    return files(folder, frames, glm(missing={"kind": "drop"}), told_or_refused(r"\bb\b"))


@fourth("A3", "a categorical column is not at one site")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(sex=np.where(number(f) % 2, "F", "M")), "ac")
    return files(folder, frames, glm(categorical=["sex"]), refused("sex", r"\bb\b"))
