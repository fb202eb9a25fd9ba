"""What an Excel sheet shows that its cells do not hold: merged cells, errors, hidden rows, uncomputed formulas."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import openpyxl
import pytest

from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.reading.excel import _check_old
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.table_form import TableForm

HEADER = ["age", "crp", "sex", "y"]


def book(tmp_path, change=lambda sheet: None, rows=8, header=HEADER):
    made = openpyxl.Workbook()
    sheet = made.active
    sheet.append(header)
    for row in range(rows):
        sheet.append([60 + row, row / 4, "mf"[row % 2], row % 2])
    change(sheet)
    made.save(tmp_path / "t.xlsx")
    return TableSource(str(tmp_path / "t.xlsx"))


def test_a_plain_sheet_is_read_and_nothing_is_told(tmp_path):
    source = book(tmp_path)
    assert source.read()["crp"].tolist() == [row / 4 for row in range(8)]
    assert source.assumed == {}


def put(cell, value):
    return lambda sheet: sheet.__setitem__(cell, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sheet: sheet.merge_cells("C3:C5"),
            "merged cells among its rows, of which only the first holds a value",
        ),
        (lambda sheet: sheet.merge_cells("A1:A2"), "merged cells among its rows"),
        (put("B4", "=A4/2"), "has 1 formulas without a result, which no program has computed yet"),
        (put("D1", "age"), "column 'age' is there twice"),
        (put("D1", " age "), "column 'age' is there twice"),
    ],
)
def test_what_a_sheet_shows_otherwise_than_it_holds_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        book(tmp_path, change).read()


def test_merged_titles_in_the_header_line_are_no_rows(tmp_path):
    with pytest.raises(DataError, match="the first line below the header holds words"):
        book(
            tmp_path, lambda sheet: (sheet.insert_rows(1), sheet.__setitem__("A1", "Labs"), sheet.merge_cells("A1:D1"))
        ).read()


@pytest.mark.parametrize("error", ["#DIV/0!", "#N/A", "#VALUE!", "#REF!"])
def test_errors_are_empty_cells_and_counted(tmp_path, error):
    def change(sheet):
        for place in ("B3", "B6"):
            sheet[place].value = error
            sheet[place].data_type = "e"

    source = book(tmp_path, change)
    assert source.read()["crp"].isna().tolist() == [False, True, False, False, True, False, False, False]
    assert source.assumed == {"excel errors": (["crp"], 2)}


def test_hidden_rows_are_rows_and_counted(tmp_path):
    def change(sheet):
        for row in (3, 4):
            sheet.row_dimensions[row].hidden = True

    source = book(tmp_path, change)
    assert len(source.read()) == 8
    assert source.assumed == {"hidden rows": ([], 2)}


def test_dates_are_told_also_where_they_are_numbers_of_days(tmp_path):
    def change(sheet):
        for row in range(2, 10):
            sheet.cell(row, 1).value = datetime.date(2024, 1, row)
            sheet.cell(row, 2).value = 45290 + 3 * row

    frame = book(tmp_path, change, header=["seen", "date_of_visit", "sex", "y"]).read()
    assert hint(frame["seen"], "other") == "dates"
    assert hint(frame["date_of_visit"], "numeric") == "day numbers"
    for name in ("update", "candidate", "platelets", "validated"):
        assert hint(frame["date_of_visit"].rename(name), "numeric") is None


def test_the_word_none_among_labels_is_counted_and_kept_on_request(tmp_path):
    def change(sheet):
        for row in range(2, 10):
            sheet.cell(row, 3).value = ["None", "current", "former"][row % 3]

    form = TableForm(codes=("sex",))
    source = book(tmp_path, change)
    source = TableSource(source.uri, form=form)
    assert source.read()["sex"].isna().sum() == 3
    assert source.assumed == {"word None": (["sex"], 3)}
    kept = TableSource(source.uri, form=TableForm(codes=("sex",), kept=("None",)))
    assert (kept.read()["sex"] == "None").sum() == 3
    assert kept.assumed == {}


@pytest.mark.parametrize(("every", "reason"), [(1, "dates"), (2, "some dates"), (8, "some dates")])
def test_dates_that_excel_made_of_some_cells_are_told(tmp_path, every, reason):
    def change(sheet):
        for row in range(2, 10, every):
            sheet.cell(row, 2).value = datetime.datetime(2024, 2, row)

    frame = book(tmp_path, change).read()
    assert hint(frame["crp"], "other" if every == 1 else "text") == reason


def test_an_error_in_place_of_a_name_is_refused(tmp_path):
    def change(sheet):
        sheet["B1"].value = "#REF!"
        sheet["B1"].data_type = "e"

    with pytest.raises(DataError, match="has an error of Excel, such as #REF!, in place of a column's name"):
        book(tmp_path, change).read()


@pytest.mark.parametrize("row", [10, 12])
def test_a_remark_below_the_rows_is_refused(tmp_path, row):
    with pytest.raises(
        DataError, match="the last line holds one cell, of words in a column of numbers, as a remark does"
    ):
        book(tmp_path, put(f"A{row}", "source: laboratory")).read()
    assert len(book(tmp_path, put(f"C{row}", "m")).read()) == row - 1


def test_a_book_with_macros_is_a_book(tmp_path):
    source = book(tmp_path)
    (tmp_path / "t.xlsx").rename(tmp_path / "t.xlsm")
    assert TableSource(source.uri.replace("xlsx", "xlsm")).read().shape == (8, 4)


def test_hidden_columns_are_columns_and_named(tmp_path):
    def change(sheet):
        sheet.column_dimensions["B"].hidden = True
        sheet.column_dimensions["C"].hidden = True

    source = book(tmp_path, change)
    assert source.read().columns.tolist() == HEADER
    assert source.assumed == {"hidden columns": (["crp", "sex"], 2)}


def test_rows_that_a_filter_takes_out_are_told_of_as_hidden(tmp_path):
    def change(sheet):
        sheet.auto_filter.ref = "A1:D9"
        sheet.auto_filter.add_filter_column(3, ["1"])
        for row in (2, 4, 6, 8):
            sheet.row_dimensions[row].hidden = True

    source = book(tmp_path, change)
    assert len(source.read()) == 8
    assert source.assumed == {"hidden rows": ([], 4)}


def test_a_hidden_sheet_is_called_so(tmp_path):
    def change(sheet):
        other = sheet.parent.create_sheet("old")
        other.append(HEADER)
        other.append([1, 2, "m", 0])
        other.sheet_state = "veryHidden"

    source = book(tmp_path, change)
    with pytest.raises(DataError, match=r"2 sheets with tables: Sheet, old \(hidden\)"):
        source.read()
    chosen = TableSource(source.uri, sheet_name="old")
    assert len(chosen.read()) == 1
    assert chosen.assumed == {"hidden sheet": (["old"], 1)}


def old_sheet(**change):
    """What xlrd tells of a sheet of an old book."""
    hidden, shown = SimpleNamespace(hidden=1), SimpleNamespace(hidden=0)
    plain = {
        "merged_cells": [(0, 1, 0, 4)], "nrows": 9, "row_types": lambda row: [2, 2, 1, 2],
        "rowinfo_map": {0: shown, 3: shown}, "colinfo_map": {0: shown, 2: shown},
    }  # fmt: skip
    return SimpleNamespace(**plain | change), hidden, shown


def test_an_old_sheet_is_looked_at_as_a_new_one():
    sheet, hidden, shown = old_sheet()
    assumed = {}
    assert _check_old(sheet, "t.xls", ["id", "age"], assumed) == []
    assert assumed == {}
    with pytest.raises(DataError, match=r"t\.xls has merged cells among its rows"):
        _check_old(old_sheet(merged_cells=[(2, 5, 1, 2)])[0], "t.xls", [], {})
    sheet, *_ = old_sheet(
        rowinfo_map={2: hidden, 3: hidden, 4: shown, 12: hidden},
        colinfo_map={1: hidden, 2: shown},
        row_types=lambda row: [2, 5 if row < 3 else 2, 1, 2],
    )
    assert _check_old(sheet, "t.xls", ["id", "age"], assumed) == [1]
    assert assumed == {"excel errors": (["age"], 3), "hidden rows": ([], 2)}


def test_an_old_book_without_its_reader_names_that(tmp_path, monkeypatch):
    (tmp_path / "t.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))

    def missing(*_, **__):
        raise ImportError("`Import xlrd` failed.  Use pip or conda to install the xlrd package.")

    monkeypatch.setattr("pandas.ExcelFile", missing)
    with pytest.raises(DataError, match="needs the package xlrd: pip install xlrd"):
        TableSource(str(tmp_path / "t.xls")).read()
