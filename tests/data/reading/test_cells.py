"""What a table's cells are, whatever it is read from: lines that fit the header, one definition of empty, numbers."""

from __future__ import annotations

import random
import sqlite3

import numpy as np
import pandas as pd
import pytest
from hospitals import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v6_algorithm.data.description.describe import column_kinds
from v6_algorithm.data.description.hints import hint, without_hint
from v6_algorithm.data.reading.cells import EMPTY_WORDS
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data
from v6_algorithm.experiment.table_form import TableForm


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def read(uri, **form):
    return TableSource(uri, form=TableForm(**form)).read()


# -- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("age,y\n1,2,\n3,4,\n", "line 2 of t.csv has 3 cells, more than the 2"),  # every line: names of rows to pandas
        ("age,y\n1,2\n3,4,5\n", "line 3 of t.csv has 3 cells, more than the 2"),
        ("age,y,z\n1,2,3\n3,4\n", "line 3 of t.csv has 2 cells, fewer than the 3"),
        ('age,y\n"a\nb",2\n1\n', "line 4 of t.csv has 1 cells, fewer than the 2"),
        ("y,age\nr1,1,2\nr2,3,4\n", "line 2 of t.csv has 3 cells, more than the 2"),  # R writes names of rows so
        ("y,age\n1,1,2\n2,3,4\n", "line 2 of t.csv has 3 cells, more than the 2"),  # and pandas reads these as its own
        ("y,age\n0,1,2\n1,3,4\n", "line 2 of t.csv has 3 cells, more than the 2"),
    ],
)
def test_a_line_that_does_not_fit_the_header_is_refused_by_its_number(write, text, line):
    with pytest.raises(DataError, match=r"t\.csv cannot be read as csv") as refused:
        read(write(text))
    assert line.removeprefix("line ").split(" of")[0] in str(refused.value)
    assert line.split("has ")[1] in str(refused.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 5), st.integers(1, 6), st.data())
def test_no_value_is_ever_read_into_another_column(tmp_path, columns, rows, data):
    """Every cell holds the name of its column; whatever lines are too long or short, none is read elsewhere."""
    names = [f"c{number}" for number in range(columns)]
    lengths = [columns + data.draw(st.sampled_from([0, 0, 0, 1, -1])) for _ in range(rows)]
    lines = [[f"{name}-value" for name in [*names, "over"][:length]] for length in lengths]
    file = tmp_path / "t.csv"
    file.write_text("\n".join(",".join(line) for line in [names, *lines]) + "\n")
    if set(lengths) - {columns}:
        with pytest.raises(DataError):
            read(str(file))
    else:
        frame = read(str(file))
        assert all((frame[name] == f"{name}-value").all() for name in names)


def test_a_quote_that_swallows_lines_is_refused_and_a_remark_of_several_lines_is_not(write):
    swallowed = 'age,note,y\n1,"open,0\n2,a,1\n3,b,0\n4,shut",1\n5,c,0\n'
    with pytest.raises(DataError, match="a cell of column 'note' holds whole lines of the table"):
        read(write(swallowed))
    assert read(write('age,note,y\n1,"first line\nsecond\nthird",0\n2,b,1\n'))["y"].tolist() == [0, 1]


@pytest.mark.parametrize("verb", ["partition", "split-columns"])
def test_every_command_that_reads_a_csv_refuses_lines_that_do_not_fit(tmp_path, write, verb):
    table = write("id,age,y\n" + "".join(f"{row},{row + 20},{row % 2}\n" for row in range(20)) + "20,4711,1,3\n")
    (tmp_path / "SPLIT_0.json").write_text('{"train": [0]}')
    options = {"partition": ["--sites", 2], "split-columns": [tmp_path / "SPLIT_0.json"]}
    done = command(verb, table, *options[verb], "--out", tmp_path / "out.csv")
    assert done.exit_code == 2
    assert "line 22 has 4 cells, more than the 3 of the header" in done.output.replace("\n", " ")
    assert "4711" not in done.output
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("verb", ["partition", "split-columns"])
def test_cells_are_written_as_they_were_read_with_their_separator(tmp_path, write, verb):
    lines = [f"00{row};{row},50;{'NA' if row % 2 else '?'};Zürich" for row in range(6)]
    table = write("\n".join(["id;dose;ward;city", *lines]) + "\n", encoding="latin-1")
    (tmp_path / "SPLIT_0.json").write_text('{"train": ["000", "001"], "test": ["005"]}')
    options = {"partition": ["--sites", 1], "split-columns": [tmp_path / "SPLIT_0.json", "--key", "id"]}
    done = command(verb, table, *options[verb], "--separator", ";", "--encoding", "latin-1", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    made = tmp_path / "out" / "site1.csv" if verb == "partition" else tmp_path / "out"
    assert sorted(line.rsplit(";", 1)[0] if verb == "split-columns" else line
                  for line in made.read_text().splitlines()[1:]) == lines  # fmt: skip


def test_a_mark_that_is_none_is_refused_with_its_option(tmp_path, write):
    for option, value in (("--separator", ";;"), ("--encoding", "utf-9"), ("--decimal", "x")):
        done = command("partition", write("a;b\n1;2\n"), "--sites", 1, option, value, "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert f"{option} {value}: " in done.output


def test_01_is_not_1_in_a_column_of_codes(write):
    uri = write("ward,age,zip\n01,050,0123\n1,60,4711\n,70,\n")
    frame = read(uri, codes=("ward", "age"))
    assert frame["ward"].tolist()[:2] == ["01", "1"]
    assert frame["ward"].isna().tolist() == [False, False, True]
    assert frame["age"].tolist() == ["050", "60", "70"]
    assert read(uri)["ward"].tolist()[:2] == [1, 1]


@pytest.mark.parametrize("between", [" ", "   ", "\t ", " \t"])
def test_cells_between_spaces_are_suggested_and_read(write, between):
    uri = write(
        "".join(between.join(line) + "\n" for line in (["age", "crp", "y"], ["50", "1.5", "0"], ["61", "2", "1"]))
    )
    with pytest.raises(DataError, match=r'is it data\.separator: "( |\\t)"'):
        read(uri)
    assert read(uri, separator=" ").to_dict("list") == {"age": [50, 61], "crp": [1.5, 2.0], "y": [0, 1]}
    with pytest.raises(DataError, match="line 3 has 2 cells, fewer than the 3"):
        read(write("age crp y\n1 2 3\n4 5\n"), separator=" ")
    with pytest.raises(DataError, match="line 2 has 4 cells, more than the 3"):
        read(write("age crp y\n0 1 2 3\n1 4 5 6\n"), separator=" ")


def test_a_byte_of_0_which_ends_a_cell_is_refused(write):
    with pytest.raises(DataError, match="holds bytes of 0, as no text does; is it a file of Excel, or of"):
        read(write("age,y\n5\0000,1\n"))
    with pytest.raises(DataError, match=r"data\.encoding: utf-16 may be right"):
        read(write("age,y\n50,1\n", encoding="utf-16"))
    assert read(write("age,y\n50,1\n", encoding="utf-16"), encoding="utf-16")["age"].tolist() == [50]


def test_blank_lines_and_empty_last_cells_are_no_fault(write):
    assert read(write("age,y\n1,2\n\n3,\n")).shape == (2, 2)


def test_a_name_that_is_in_the_header_twice_is_refused(write):
    with pytest.raises(DataError, match="column 'age' is there twice"):
        read(write("age,y,age\n1,2,3\n"))


def test_the_separator_that_the_header_shows_is_suggested(write):
    with pytest.raises(DataError, match=r'is it data\.separator: ";"'):
        read(write("age;y\n1;2\n"))
    assert read(write("age;y\n1,5;2\n"), separator=";", decimal=",")["age"].tolist() == [1.5]


@pytest.mark.parametrize(("encoding", "suggested"), [("latin-1", "latin-1"), ("utf-16", "utf-16")])
def test_another_encoding_is_named_with_what_to_write(write, encoding, suggested):
    file = write("naam,y\nZoë,1\n", encoding=encoding)
    with pytest.raises(DataError, match=f"data.encoding: {suggested}"):
        read(file)
    assert read(file, encoding=suggested)["naam"].tolist() == ["Zoë"]


def test_a_sheet_that_is_not_there_is_told_with_those_that_are(tmp_path):
    pytest.importorskip("openpyxl")
    pd.DataFrame({"a": [1]}).to_excel(tmp_path / "t.xlsx", sheet_name="visits", index=False)
    with pytest.raises(DataError, match=r"t\.xlsx has no sheet 'visit'; it has: visits"):
        TableSource(str(tmp_path / "t.xlsx"), sheet_name="visit").read()


# -- empty cells ---------------------------------------------------------------------------------------------------


def as_every_source(folder, cells):
    """Return the same column of text as a csv, Excel and parquet file, from SQL, and as dataframes."""
    frame = pd.DataFrame({"a": pd.Series(cells, dtype=object), "b": range(len(cells))})
    frame.to_csv(folder / "t.csv", index=False, quoting=1)
    frame.to_excel(folder / "t.xlsx", index=False)
    frame.to_parquet(folder / "t.parquet", index=False)
    (folder / "t.sqlite").unlink(missing_ok=True)
    with sqlite3.connect(folder / "t.sqlite") as connection:
        frame.to_sql("t", connection, index=False)
    connection.close()
    files = {name: TableSource(str(folder / name)) for name in ("t.csv", "t.xlsx", "t.parquet")}
    arrow = frame.astype({"a": "string[pyarrow]"}).astype({"a": pd.ArrowDtype(__import__("pyarrow").string())})
    return files | {
        "sql": TableSource(str(folder / "t.sqlite"), query="SELECT * FROM t"),
        "frame": TableSource(frame=frame),
        "arrow": TableSource(frame=arrow),
        "category": TableSource(frame=frame.astype({"a": "category"})),
    }


def test_the_same_cells_are_empty_whatever_the_source(tmp_path):
    pytest.importorskip("openpyxl")
    cells = ["ward", *EMPTY_WORDS, "  ", " NA ", "\t", "none of these", "yes"]
    for name, source in as_every_source(tmp_path, cells).items():
        known = source.read()["a"].dropna()
        assert [str(cell).strip() for cell in known] == ["ward", "none of these", "yes"], name


def test_a_word_can_be_kept_whatever_the_source(tmp_path):
    pytest.importorskip("openpyxl")
    for name, source in as_every_source(tmp_path, ["None", "NA", "mild"]).items():
        kept = TableSource(**{**source.__dict__, "form": TableForm(kept=("None",))}).read()["a"].dropna()
        assert kept.tolist() == ["None", "mild"], name


def test_one_blank_cell_does_not_make_a_column_of_numbers_text(tmp_path):
    pytest.importorskip("openpyxl")
    for name, source in as_every_source(tmp_path, ["1.5", " ", "2"]).items():
        assert column_kinds(source.read())["a"] == "numeric", name


@pytest.mark.parametrize("dtype", ["int64[pyarrow]", "double[pyarrow]", "bool[pyarrow]"])
def test_a_dataframe_of_pyarrow_is_read_as_one_of_numpy(dtype):
    frame = pd.DataFrame({"a": pd.array([1, None, 0], dtype=dtype)})
    column = TableSource(frame=frame).read()["a"]
    assert not isinstance(column.dtype, pd.ArrowDtype)
    assert column.isna().tolist() == [False, True, False]
    assert [float(value) for value in column.dropna()] == [1.0, 0.0]


# -- numbers -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 3)), min_size=1, max_size=20))
def test_decimal_commas_and_thousands_marks_change_no_number(numbers):
    written = [f"{number:,.3f}".translate(str.maketrans(",.", ".,")) for number in numbers]
    frame = pd.DataFrame({"a": pd.Series(written, dtype=object)})
    read = TableSource(frame=frame, form=TableForm(decimal=",", thousands=".")).read()["a"]
    assert read.tolist() == numbers


NAMES = [
    ("subject", ""), ("sub-", ""), ("PAT ", ""), ("TCGA-", "-01A"), ("P", "_2"), ("ISIC_00", ""), ("#", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["1,5", "2", "3,25"], "decimal comma"),
        (["1,500", "2,000,000"], "thousands"),
        (["1 234", "12\u00a0000", "1\u202f234 567"], "thousands space"),
        ([f"{number} mmHg" for number in range(20)], "units"),
        ([f"€{number}" for number in range(20)], "units"),
        ([f"EUR {number}" for number in range(20)], "units"),
        ([f"T{number % 4}" for number in range(20)], None),
        *(([f"{before}{number}{behind}" for number in range(20)], "names") for before, behind in NAMES),
        ([f"sub-{number // 2}" for number in range(40)], None),
        ([f"{number:04d}A" for number in range(20)], "names"),
        (["".join(random.Random(row).choices("abcdef", k=12)) for row in range(120)], "names"),
        (["stroke", "sepsis", "asthma", *(f"{letter}-itis" for letter in "abcdefghijk")], None),
        ([f"{number} mm" if number % 2 else f"{number} cm" for number in range(20)], "several units"),
        (["45%", "7 %"], "percent"),
        (["<0.1", "0.3", "> 5"], "limits"),
        (["<0,1", "0,3", "2,5"], "limits"),
        (["<1", "1 000", "2 000,5"], "limits"),
        ([*(f"{number},5" for number in range(9)), "not done"], "word not done"),
        (["1", "2", "3", "4", "5", "6", "7", "8", "not done"], "word not done"),
        (["mild", "severe"], None),
        (["1.234.567", "987", "12.345", "2.000.000"], "thousands dot"),
        ([*(f"{number} mg" for number in range(15)), "12", "7"], "units"),
        ([*(f"{number}%" for number in range(15)), "unknown"], "percent"),
        (["<5", "<5", ">90", "<5", "<1", "low"], "limits"),
        ([*(f"{day}-03-2021" for day in range(1, 20)), "unknown"], "dates"),
        ([*(str(number) for number in range(30)), "T4"], "words"),
        (["12A", "13B", "7C", "9D", "88E"] * 4, None),
        # Cells count, not different ones: 4 of 5 are numbers; with spaces around them they are the same.
        (["1", " 1", "1 ", "1", "not done"], "word not done"),
        (["1", "2", "3", *["not done"] * 3], None),
        # As keys 1, 1.0 and True were one.
        ([True, 1, 1.0, 1.5, "not done"], None),
    ],
)
def test_text_that_is_meant_as_numbers_is_told_by_its_kind(cells, reason):
    assert hint(pd.Series(cells, dtype=object), "text") == reason


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (np.arange(30), "row numbers"),
        (np.where(np.arange(30) == 5, np.nan, np.arange(30) + 1000.0), "row numbers"),
        (np.where(np.arange(30) % 2, np.nan, np.arange(30.0)), None),
        (np.random.default_rng(1).permutation(200) + 80_000, "row numbers"),
        (np.random.default_rng(1).integers(0, 90, 200), None),
        (np.random.default_rng(1).normal(size=200), None),
        (np.array([1.0, np.inf, 2.0]), "infinite"),
        (np.array([1.0, 1e39, 2.0]), "infinite"),
    ],
)
def test_numbers_that_count_rows_or_are_too_large_are_told(numbers, reason):
    assert hint(pd.Series(numbers), "numeric") == reason
    assert reason is None or not without_hint(np.asarray(numbers, dtype=np.float64)[:, None])[0]


WEIGHTS = np.random.default_rng(3).normal(75, 9, 80).round(1)
STAGES = np.random.default_rng(3).integers(1, 5, 80)
PLATELETS = np.random.default_rng(3).integers(300, 2500, 80)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (np.append(WEIGHTS, 999), "codes"), (np.append(WEIGHTS, -9), "codes"), (np.append(STAGES, 99), "codes"),
        (np.append(STAGES, [88, 99, 99]), "codes"), (np.append(STAGES, -9), "codes"),
        (np.append(WEIGHTS, -99), "codes"), (np.append(WEIGHTS, 9999.99), "codes"),
        (np.append(WEIGHTS, 999.9), "codes"),
        (np.append(WEIGHTS, [-1, -1]), "codes"), (np.append(PLATELETS, -1), "codes"),
        (np.where(PLATELETS < 1000, PLATELETS, PLATELETS / 1000), "dots"),
    ],
)  # fmt: skip
def test_codes_and_thousands_that_are_read_as_they_stand_are_told(column, reason):
    """A lone -9 or 999 was learned from as a number, and 1.234 for 1234 as 1.234, both without a word."""
    assert hint(pd.Series(column), "numeric") == reason
    assert not without_hint(np.asarray(column, dtype=np.float64)[:, None])[0]


@pytest.mark.parametrize(
    "column",
    [
        np.append(WEIGHTS, [99, 111]), np.append(WEIGHTS - 75, -9), np.arange(0.5, 1000), np.append(STAGES, -1),
        np.append(np.arange(0, 900, 7), 999), np.append(STAGES, 9), np.tile([0, 1], 40), np.append(np.ones(20), 99),
        np.append(STAGES[:5], 99), WEIGHTS / 1000, np.exp(WEIGHTS / 20).round(3), PLATELETS / 1000,
        [float(f"{number:.4g}") for number in np.exp(np.linspace(0, 6.9, 200))],
        [float(f"{number:.3g}") for number in np.exp(np.linspace(0, 6.9, 200))],
    ],
)  # fmt: skip
def test_ordinary_columns_are_told_of_neither(column):
    assert hint(pd.Series(column), "numeric") not in ("codes", "dots")


def test_a_space_for_thousands_may_be_one_that_does_not_break():
    frame = pd.DataFrame({"a": ["1 234", "12\u00a0000", "1\u202f234\u202f567", "8"]})
    assert TableSource(frame=frame, form=TableForm(thousands=" ")).read()["a"].tolist() == [1234, 12_000, 1_234_567, 8]


def test_one_mark_has_one_use():
    with pytest.raises(ValueError, match="decimal and thousands are both"):
        Data.model_validate({"target": "y", "decimal": ",", "thousands": ","})
    with pytest.raises(ValueError, match="unknown encoding 'latin1000'"):
        Data.model_validate({"target": "y", "encoding": "latin1000"})


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (lambda row: "<LOD" if row % 4 == 0 else row * 1.5, "words"),
        (lambda row: "onbekend" if row % 3 == 0 else row * 1.5, "word onbekend"),
        (lambda row: "unknown" if row % 3 else row % 5, None),
        (lambda row: f"{110 + row % 20}/{70 + row % 15}", "pairs"),
        (lambda row: f"{row % 5 * 10}-{row % 5 * 10 + 9}", None),
        (lambda row: f"{row % 3}/3", None),
    ],
)
def test_words_in_many_rows_and_pairs_of_numbers_are_told_as_such(cell, reason):
    """A third of "not known" made a column text that data.categorical was to use; 120/80 was a patient's name."""
    assert hint(pd.Series([cell(row) for row in range(60)], dtype=object), "text") == reason


@pytest.mark.parametrize("seed", range(8))
def test_large_whole_numbers_that_crowd_around_a_middle_are_measurements(seed):
    volumes = np.random.default_rng(seed).normal(1_300_000, 120_000, 60).round()
    assert len(set(volumes)) == 60
    assert hint(pd.Series(volumes, name="BrainSegVol"), "numeric") is None
