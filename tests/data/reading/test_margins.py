"""Lines of a file that are no rows: units, labels, totals, a second header, remarks; and files that are no tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.table_form import TableForm

HEADER = ["age", "crp", "sex", "y"]
ROWS = [[60 + row, f"{row / 4:.2f}", "mf"[row % 2], row % 2] for row in range(12)]


def read(tmp_path, lines, kind="csv"):
    if kind == "csv":
        (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    else:
        cells = [[float(cell) if str(cell).replace(".", "").isdigit() else cell for cell in line] for line in lines]
        pd.DataFrame(cells[1:], columns=lines[0]).replace("", None).to_excel(tmp_path / "t.xlsx", index=False)
    return TableSource(str(tmp_path / f"t.{kind}")).read()


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, ["years", "mg/L", "", ""], *ROWS], "t.*: the first line below the header holds words in 2 columns"),
        ([HEADER, ["Age at visit", "CRP", "Sex", "Outcome"], *ROWS], "the first line below .* words in 3 columns"),
        ([HEADER, ["Age", "CRP", "Sex", "Y"], *[['{"I":"Q1"}', '{"I":"Q2"}', "a", "b"]], *ROWS], "first 2 lines below"),
        ([HEADER, ["", "10^9/L", "", "0=no"], *ROWS], "the first line below the header holds words in 2 columns"),
        ([HEADER, *ROWS, ["Total", "", "", 6]], "the last line holds a word such as total or mean"),
        ([HEADER, *ROWS, ["Gemiddelde", 1.5, "", ""]], "the last line holds a word such as total or mean"),
        ([HEADER, *ROWS, ["", "", "", "N"]], "the last line holds a word such as total or mean"),
        ([HEADER, *ROWS, HEADER, *ROWS], "row 13 repeats the header: are these several tables in one file"),
    ],
)
def test_a_line_that_is_no_row_is_refused_by_its_place(tmp_path, kind, lines, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, lines, kind)


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
@pytest.mark.parametrize(
    "lines",
    [
        [HEADER, *ROWS],
        [HEADER, ["<1", "ND", "m", 1], *ROWS],  # one column of a word: not measured
        [HEADER, ["unknown", "unknown", "m", 1], *ROWS],  # a code for "not known" in both
        [HEADER, ["years", "mg/L", "m", 1], *ROWS, ["old", "high", "f", 0]],  # words elsewhere, too
        [HEADER, *ROWS, ["<1", 2, "n", 1]],
        [HEADER, *[[row[0], row[1], "total", row[3]] for row in ROWS]],
        [HEADER, *ROWS, ["sex", 1, "m", 1]],
    ],
)
def test_words_that_rows_hold_are_no_margins(tmp_path, kind, lines):
    assert len(read(tmp_path, lines, kind)) == len(lines) - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# exported by R\nage,y\n1,0\n2,1\n",
            r"line 2 has 2 cells, its first line 1: .* remark .* above the header",
        ),
        ("Export of 2024\n\nage,y\n1,0\n2,1\n", r"line 3 has 2 cells, its first line 1: does a title"),
        ("!Series,x\nage,crp,y\n1,0,1\n", "does a title or remark stand above the header"),
        ("age^crp^y\n1^2^0\n", r'is it data.separator: "\^"'),
        ("age,crp,y\n1,2,0,9\n", "has 4 cells, more than the 3 of the header"),
    ],
)
def test_a_line_above_the_header_is_told_as_such(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        TableSource(str(tmp_path / "t.csv")).read()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.dta", "is a file of Stata, which is not read; save it as csv or parquet"), ("t.SAV", "is a file of SPSS"),
        ("t.sas7bdat", "is a file of SAS"), ("t.rds", "is a file of R"), ("t.json", "is JSON"),
        ("t.csv.zip", "is an archive"), ("t.ods", "is a LibreOffice sheet"), ("t.feather", "is a feather file"),
    ],
)  # fmt: skip
def test_files_of_other_programs_are_told_by_their_name(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"\x1f\x8b\0\0[{")
    with pytest.raises(DataError, match=message):
        TableSource(str(tmp_path / name)).read()


@pytest.mark.parametrize(
    "start",
    ["sep=;\n", "sep=;\r\n", "SEP=;\n", '"sep=;"\n', "\ufeffsep=;\n"],
    ids=["unix", "dos", "case", "quoted", "bom"],
)
def test_a_line_that_tells_excel_the_separator_is_no_row(tmp_path, start):
    (tmp_path / "t.csv").write_text(f"{start}age;crp;y\n1;0;1\n2;5;0\n", newline="")
    frame = TableSource(str(tmp_path / "t.csv")).read()
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"age": [1, 2], "crp": [0, 5], "y": [1, 0]}))
    with pytest.raises(DataError, match=r"line sep=;, which tells Excel the separator, and data\.separator is ','"):
        TableSource(str(tmp_path / "t.csv"), form=TableForm(separator=",")).read()
    (tmp_path / "t.csv").write_text(f"{start}age;crp;y\n1;0;1\n2;5;0;9\n", newline="")
    with pytest.raises(DataError, match="line 4 has 4 cells, more than the 3 of the header"):
        TableSource(str(tmp_path / "t.csv")).read()


# -- sheets ----------------------------------------------------------------------------------------------------------


def book(path, **sheets):
    with pd.ExcelWriter(path) as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    return TableSource(str(path))


FRAME = pd.DataFrame({"age": np.arange(4), "y": [0, 1, 0, 1]})


def test_two_sheets_with_tables_are_asked_for_by_name(tmp_path):
    """The first year of two was all that was read, without a word."""
    with pytest.raises(DataError, match="has 2 sheets with tables: 2023, 2024; say which with sheet_name, or --sheet"):
        book(tmp_path / "t.xlsx", **{"2023": FRAME, "2024": FRAME + 1}).read()
    source = TableSource(str(tmp_path / "t.xlsx"), sheet_name="2024")
    assert source.read()["age"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("first", ["Info", "Data"])
def test_the_one_sheet_with_a_table_is_read_wherever_it_stands(tmp_path, first):
    remarks = pd.DataFrame({"age: in years": ["as of 2024"]})
    sheets = {"Info": remarks, "Data": FRAME, "Sheet3": pd.DataFrame()}
    ordered = {first: sheets[first], **sheets}
    assert list(book(tmp_path / "t.xlsx", **ordered).read().columns) == ["age", "y"]
