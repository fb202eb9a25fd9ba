"""Tables as programs export them: what is no table is refused with the remedy, what differs between sites is told."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.notes.patients import tell_repeats
from v6_algorithm.coordinator.preparation.notes.value_ranges import tell_target_sizes
from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.description.repeats import RowHashes, row_hashes
from v6_algorithm.data.preparation.spelling import may_be_one
from v6_algorithm.data.sources import TableSource, source_in
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment import Data
from v6_algorithm.experiment.table_form import TableForm

HEADER = "age,crp,y"
LINES = [f"{50 + row},{row / 4},{row % 2}" for row in range(12)]


def read(folder, lines, name="t.csv"):
    (folder / name).write_text("\n".join(lines) + "\n")
    return TableSource(str(folder / name)).read()


TEXTS = {
    "R's row names": ([HEADER, *(f"{row},{line}" for row, line in enumerate(LINES))], "row.names = FALSE"),
    "OpenClinica's preamble": (["Dataset,full", "Protocol,X", HEADER, *LINES], "do lines of remarks stand above the h"),
    "one line too long": ([HEADER, *LINES[:5], "1,2,3,4", *LINES], "mend the lines, or give each column a name"),
    "SQL*Plus's dashes": ([HEADER, "---,----,-", *LINES], "the line below the header is of dashes"),
    "means and deviations below": ([HEADER, *LINES, ",,", "mean,2.1,", "SD,1,"], "the last 2 lines hold words such as"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_lines_that_are_no_rows_are_refused_with_what_they_most_likely_are(tmp_path, kind):
    lines, message = TEXTS[kind]
    with pytest.raises(DataError, match=message.replace("*", r"\*")):
        read(tmp_path, lines)


def test_words_at_the_end_of_a_column_of_words_are_rows(tmp_path):
    words = [f"{line},{word}" for line, word in zip(LINES, ["low", "mean"] * 6, strict=True)]
    assert len(read(tmp_path, [f"{HEADER},kind", *words])) == 12


FILES = {
    "t.csv": (b"$FL2@(#) SPSS" + bytes(400), "begins as a file of SPSS"),
    "u.csv": (bytes(8) + b"DUCK" + bytes(400), "begins as a DuckDB database"),
    "v.csv": (b"\x89HDF\r\n" + bytes(400), "begins as HDF5"),
    "w.csv": (b"abc" + bytes(400), "is it a file of Excel, or of another program"),
    "t.duckdb": (bytes(8) + b"DUCK" + bytes(400), "is a DuckDB database, which is not read"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_programs_are_named(tmp_path, name):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        TableSource(str(tmp_path / name)).read()


def test_a_table_written_in_parts_is_told(tmp_path):
    frame = pd.DataFrame({"a": np.arange(10.0), "sex": [0, 1] * 5})
    frame.to_parquet(tmp_path / "site", partition_cols=["sex"])
    with pytest.raises(DataError, match="no table of its own, and 2 in folders below"):
        source_in(tmp_path / "site")


def test_names_of_several_levels_are_refused():
    frame = pd.DataFrame(np.zeros((3, 2)), columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    with pytest.raises(DataError, match="names of 2 levels; join each to one name"):
        TableSource(frame=frame).read()


def test_a_table_that_begins_further_down_is_told():
    frame = pd.DataFrame(np.zeros((12, 3)), columns=["Unnamed: 0", "Unnamed: 1", "Unnamed: 2"])
    with pytest.raises(ExperimentError, match="does the table begin further down or to the right"):
        v6.run({"data": {"target": "y"}}, {"p": frame, "q": frame})


def table(seed=0, rows=60):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": generator.normal(30, 5, rows), "b": generator.normal(size=rows)})
    return frame.assign(y=np.arange(rows) % 2, dose=generator.lognormal(2, 0.5, rows))


TARGETS = {
    "percent": ("regression", lambda f: f["dose"].map("{:.1f}%".format), "a percent sign; regression.*take the sign"),
    "comma": ("regression", lambda f: f["dose"].map("{:.2f}".format).str.replace(".", ","), r'data\.decimal: ","'),
    "units": ("count", lambda f: f["a"].round().astype(int).map("{} days".format), "with a unit; loss poisson"),
    "words": ("regression", lambda f: f["y"].map({0: "no", 1: "yes"}), "holds text; regression needs numbers$"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_target_of_text_is_refused_with_why_it_is_text(kind):
    problem, make, message = TARGETS[kind]
    frame = table()
    frame["y"] = make(frame)
    with pytest.raises(ExperimentError, match=message):
        v6.run({"data": {"target": "y"}, "problem": problem}, {"p": frame, "q": frame})


def test_measurements_are_no_classes_and_are_not_shown():
    frame = table()
    with pytest.raises(ExperimentError, match="holds 120 different numbers, with fractions") as refused:
        v6.run({"data": {"target": "dose"}}, {"p": frame, "q": table(1)})
    assert str(frame["dose"].iloc[0]) not in str(refused.value)
    halves = frame.assign(y=np.arange(60) % 3 / 2)
    result = v6.run({"data": {"target": "y"}, "rounds": 1}, {"p": halves, "q": halves.assign(b=1.5)})
    assert result.content["rounds_run"] == 1


def test_a_class_that_may_be_unknown_is_named_where_there_must_be_two():
    frame = table().assign(y=lambda f: f["y"].where(f.index > 9, 999))
    with pytest.raises(ExperimentError, match=r"has 3 classes.*; 999 may mean that nothing is known"):
        v6.run({"data": {"target": "y"}, "model": "glm"}, {"p": frame, "q": frame})


WHERE = {
    "words": ({"ward": "== surgery"}, "no row meets that of ward alone"),
    "several": ({"a": "> 0", "ward": "== surgery"}, "no row meets that of ward alone"),
    "limits": ({"low": "> 3"}, "holds numbers beside limits such as < 1, and the condition '> 3' needs numbers: write"),
}


@pytest.mark.parametrize("kind", WHERE)
def test_a_condition_that_no_row_meets_is_named(kind):
    where, message = WHERE[kind]
    frame = table().assign(ward=["icu", "med"] * 30, low=["<2", "5", "7"] * 20)
    with pytest.raises(ExperimentError, match=message):
        v6.run({"data": {"target": "y", "where": where}}, {"p": frame, "q": frame})


def test_conditions_that_every_row_meets_are_told():
    frame = table().assign(ward=["icu", "icu", "med"] * 20)
    for word, told in (("surgery", True), ("icu", False)):
        data = {"target": "y", "where": {"ward": f"!= {word}"}}
        notes = v6.run({"data": data, "rounds": 1}, {"p": frame, "q": frame}).notes
        assert any("every row of every site" in note for note in notes) is told


def test_a_condition_of_an_event_that_no_row_meets_is_named():
    frame = table().rename(columns={"dose": "days"}).assign(y=["censored", "event"] * 30)
    data = {"target": {"duration": "days", "event": "y"}, "positive": "== dead"}
    with pytest.raises(ExperimentError, match=r"none meets data\.positive '== dead'"):
        v6.run(
            {"data": data, "problem": "survival", "model": {"kind": "cox", "strata": "none"}}, {"p": frame, "q": frame}
        )


def test_an_empty_event_is_not_said_to_be_left_out_where_it_may_mean_that_none_is_seen():
    frame = table().rename(columns={"dose": "days"}).assign(y=lambda f: f["y"].where(f["y"] == 1))
    with pytest.raises(ExperimentError, match=r"not seen, write 0 there; .*where: {y: '>= 0'} leaves out"):
        v6.run(
            {"data": {"target": {"duration": "days", "event": "y"}}, "problem": "survival"}, {"p": frame, "q": frame}
        )


def test_a_table_that_two_sites_have_and_rows_that_are_copies_are_told():
    frame = table()
    shuffled = frame.sample(frac=1, random_state=1).assign(patient=range(60))
    notes = v6.run({"data": {"target": "y"}, "rounds": 1}, {"p": frame, "q": shuffled, "r": table(1)}).notes
    (note,) = [note for note in notes if "the same rows" in note]
    assert note.startswith("sites p, q have the same rows: is one table given twice?")
    twice = pd.concat([frame, frame.iloc[:20]], ignore_index=True)
    sites = {"p": twice.assign(pid=range(80)), "q": table(1).assign(pid=range(60))}
    notes = v6.run({"data": {"target": "y"}, "rounds": 1}, sites).notes
    assert any(note.startswith("site 'p': 20 rows are exact copies of others") for note in notes)
    grouped = v6.run({"data": {"target": "y", "group": "pid"}, "rounds": 1}, sites).notes
    assert not any("copies" in note for note in grouped)


def test_rows_of_few_values_are_alike_by_chance_and_not_told():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"sex": generator.integers(0, 2, 200), "stage": generator.integers(1, 5, 200)})
    kinds = dict.fromkeys(frame.columns, "numeric")
    assert row_hashes(frame, kinds, {}) is None
    hashes = row_hashes(table(), dict.fromkeys(table().columns, "numeric"), {})
    assert hashes.repeated() == 0
    twice = lambda rows, alike: RowHashes(np.concatenate([hashes.hashes, hashes.hashes[:rows]]), alike).repeated()  # noqa: E731
    assert [twice(1, hashes.alike), twice(9, hashes.alike), twice(9, 1e-3)] == [0, 9, 0]
    assert tell_repeats({"p": {"table": "ab"}, "q": {"table": "cd"}, "r": {}}) == []
    assert "some rows are exact copies" in tell_repeats({"p": {"repeated": None}})[0]


def test_targets_in_other_units_or_of_one_number_are_told():
    sites = {"p": table(), "q": table(1).assign(dose=lambda f: f["dose"] * -100, a=37.0)}
    data = {"targets": {"dose": {"kind": "regression"}, "a": {"kind": "regression"}}}
    notes = "\n".join(v6.run({"data": data, "problem": "multitask", "rounds": 1}, sites).notes)
    assert "data.targets.dose: the sites' targets differ" in notes
    assert "data.targets.dose: all numbers of column 'dose' are below 0 at q, and above it at p: do they" in notes
    assert "data.targets.a: column 'a' has one number in all rows at q: what is learned there is that number" in notes
    data = Data(target="dose")
    one, other = ({"target_sizes": {"dose": [50, mean, 1]}} for mean in (3.0, 5.0))
    assert tell_target_sizes(data, {"p": one, "q": other, "r": {}}) == []


def test_of_wide_tables_targets_are_compared_too(monkeypatch):
    monkeypatch.setattr("v6_algorithm.data.description.describe.MOST_HINTED", 2)
    sites = {"p": table(), "q": table(1).assign(dose=lambda f: f["dose"] * 100)}
    notes = v6.run({"data": {"target": "dose"}, "problem": "regression", "rounds": 1}, sites).notes
    assert any(n.startswith("data.target: the sites' targets differ") for n in notes)


def test_a_column_of_zeros_at_one_site_is_told_and_a_sex_alone_is_not():
    sites = {name: table(seed).assign(sex=lambda f: f.index % 2) for seed, name in enumerate("pq")}
    sites["q"] = sites["q"].assign(dose=0.0, sex=1)
    (note,) = [n for n in v6.run({"data": {"target": "y"}, "rounds": 1}, sites).notes if "unlike other sites" in n]
    assert note.startswith("site 'q': one value in all training rows, unlike other sites: dose;")


NUMBERED = {
    "yyyymmdd": (lambda row: 20190101 + row % 12 * 100 + row % 28, "day numbers"),
    "Excel's days": (lambda row: 43831 + row * 7 % 900, "day numbers"),
    "seconds": (lambda row: 1577836800 + row * 86411, "day numbers"),
    "case numbers": (lambda row: 100_003 + row * 7919 % 899_999, "row numbers"),
    "case numbers below a million": (lambda row: 17 + row * 617_933 % 999_983, "row numbers"),
    "platelets": (lambda row: 150_000 + row * 7 % 120 * 1000 + row % 2 * 1000, None),
    "NT-proBNP": (lambda row: 5 + row**3 // 7, None),
    "leukocytes": (lambda row: 4_000 + row * 411, None),
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_numbers_that_are_dates_or_count_patients_are_told_whatever_the_column_is_called(kind):
    number, reason = NUMBERED[kind]
    assert hint(pd.Series([number(row) for row in range(70)], name="opname"), "numeric") == reason


def test_an_excluded_column_that_no_site_has_is_told():
    frame = table().assign(leak=1.5)
    data = {"target": "y", "exclude": ["Leak", "other", "b"]}
    notes = v6.run({"data": data, "rounds": 1}, {"p": frame, "q": table(1).assign(leak=2.5)}).notes
    assert "data.exclude: no site tells of a column 'Leak'; is it 'leak'?" in notes
    assert "data.exclude: no site tells of a column 'other'" in notes
    assert not any("'b'" in note for note in notes)


def test_a_dash_in_one_column_is_no_line_of_dashes(tmp_path):
    lines = [line if row else line.replace("0.0", "-") for row, line in enumerate(LINES)]
    assert len(read(tmp_path, [HEADER, *lines])) == 12


def test_labels_with_zeros_in_front_and_without_are_told():
    assert "such as 01 and 1" in may_be_one("y", {"p": ["01", 2], "q": [1, 2]})[0]
    assert may_be_one("y", {"p": ["01", "02"], "q": ["01", "02"]}) == []


QUERIES = {
    "SELECT a, bb FROM t": "the query cannot be run: no such column: bb",
    "SELEC * FROM t": 'the query cannot be run: near "SELEC": syntax error',
}


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_wrong_with_a_query_is_said(tmp_path, query):
    with sqlite3.connect(tmp_path / "t.db") as connection:
        table().to_sql("t", connection)
    with pytest.raises(DataError, match=QUERIES[query]):
        TableSource(str(tmp_path / "t.db"), query=query).read()


def test_an_infinite_target_is_a_row_without_one_and_not_filled_in():
    frame = table()
    frame.loc[:6, "dose"] = np.inf
    notes = v6.run(
        {"data": {"target": "dose"}, "problem": "regression", "rounds": 1}, {"p": frame, "q": table(1)}
    ).notes
    assert "site 'p': 7 rows have no target, and are left out" in notes
    assert not any("filled in" in note for note in notes)


@pytest.mark.parametrize(
    ("cells", "form", "numbers"),
    [
        (["27.1", "3.5"], TableForm(decimal=",", thousands="."), [27.1, 3.5]),
        (["1.234,5", "12"], TableForm(decimal=",", thousands="."), [1234.5, 12.0]),
        (["1.234", "56.789"], TableForm(decimal=",", thousands="."), [1234.0, 56789.0]),
        (["1,234.5", "12"], TableForm(thousands=","), [1234.5, 12.0]),
        (["1,5", "12"], TableForm(thousands=","), ["1,5", "12"]),
    ],
)
def test_a_mark_for_thousands_is_one_only_between_groups_of_three(tmp_path, cells, form, numbers):
    (tmp_path / "t.csv").write_text("a;y\n" + "".join(f"{cell};1\n" for cell in cells))
    column = TableSource(str(tmp_path / "t.csv"), form=replace(form, separator=";")).read()["a"]
    assert (pd.to_numeric(column).tolist() if isinstance(numbers[0], float) else column.tolist()) == numbers


@pytest.mark.parametrize(
    ("line", "commas"), [("61,5;3,2;0", ', with data.decimal: ","'), ("61.5;3.2;0", ""), ("61;a, b;0", "")]
)
def test_another_separator_is_asked_for_with_the_decimal_comma_where_there_is_one(tmp_path, line, commas):
    with pytest.raises(DataError, match=f'is it data.separator: ";"{commas}\\?'):
        read(tmp_path, ["age;crp;y", *[line] * 4])
