"""Reading one site's table, and saying what is wrong with it without quoting it."""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.files import print_files
from v6_algorithm.data.imaging.naming import count_unfitting
from v6_algorithm.data.imaging.stack import find_images
from v6_algorithm.data.sources import TableSource, source_from_node, source_in
from v6_algorithm.errors import DataError, SiteError
from v6_algorithm.experiment import Image

FRAME = pd.DataFrame({"age": [61.0, None, 47.5], "sex": ["f", "m", "f"], "num": [0, 1, 1]})


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "ward.sqlite"
    with sqlite3.connect(path) as connection:
        FRAME.to_sql("visits", connection, index=False)
    connection.close()
    return path


def assert_is_the_frame(frame):
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)


# -- kinds of tables -----------------------------------------------------------------------------------------------


def test_csv_is_read(tmp_path):
    FRAME.to_csv(tmp_path / "table.csv", index=False)
    assert_is_the_frame(TableSource(str(tmp_path / "table.csv")).read())


@pytest.mark.parametrize("name", ["table.parquet", "table.pq", "TABLE.PARQUET"])
def test_parquet_is_read(tmp_path, name):
    FRAME.to_parquet(tmp_path / name)
    assert_is_the_frame(TableSource(str(tmp_path / name)).read())


@pytest.fixture
def wide(tmp_path):
    """A parquet file of more columns than are read at once, with names that arrow takes for paths."""
    frame = pd.DataFrame({f"ENSG{gene}.{gene % 3}": [gene, gene + 0.1, None] for gene in range(1200)})
    frame = frame.assign(ENSG1=[1, 2, 2**40], age=[0.1, 0.2, 0.3], name=["a", None, "c"])
    frame.to_parquet(tmp_path / "wide.parquet")
    return tmp_path / "wide.parquet", frame


def test_a_wide_parquet_file_is_read_whole(wide):
    path, frame = wide
    pd.testing.assert_frame_equal(TableSource(str(path)).read(), frame, check_dtype=False)


def test_only_wanted_columns_are_read(wide):
    path, frame = wide
    wanted = ["ENSG1", "ENSG1199.2", "name"]
    for source in (TableSource(str(path)), TableSource(frame=frame)):
        assert sorted(source.read(set(wanted).__contains__).columns) == sorted(wanted)


def test_numbers_that_are_only_inputs_are_read_as_float32(wide):
    path, frame = wide
    found = TableSource(str(path)).read(exact={"age"})
    assert found["age"].tolist() == [0.1, 0.2, 0.3]
    assert found["name"].tolist()[0] == "a"
    assert set(found.dtypes[frame.columns.str.startswith("ENSG")]) == {np.dtype("float32")}
    np.testing.assert_array_equal(found["ENSG7.1"], frame["ENSG7.1"].astype("float32"))


def test_what_pandas_wrote_as_names_of_rows_is_no_column(tmp_path):
    FRAME.set_index(pd.Index([7, 8, 9], name="patient")).to_parquet(tmp_path / "table.parquet")
    assert_is_the_frame(TableSource(str(tmp_path / "table.parquet")).read().reset_index(drop=True))


def test_excel_is_read_from_the_sheet_named(tmp_path):
    path = tmp_path / "table.xlsx"
    with pd.ExcelWriter(path) as writer:
        FRAME.to_excel(writer, sheet_name="visits", index=False)
        FRAME.assign(num=9).to_excel(writer, sheet_name="later", index=False)
    assert_is_the_frame(TableSource(str(path), sheet_name="visits").read())
    assert TableSource(str(path), sheet_name="later").read()["num"].tolist() == [9, 9, 9]


@pytest.mark.parametrize("prefix", ["", "sqlite:///"])
def test_sqlite_is_read_by_its_query(database, prefix):
    source = TableSource(f"{prefix}{database}", query="SELECT * FROM visits")
    assert_is_the_frame(source.read())
    assert TableSource(f"{prefix}{database}", query="SELECT num FROM visits WHERE age > 50").read()["num"].tolist() == [
        0
    ]


@pytest.fixture
def through_sqlalchemy(database, monkeypatch):
    """`through_sqlalchemy(query)` reads the table `visits`, which holds FRAME."""
    monkeypatch.setattr("v6_algorithm.data.sources._ENDINGS", {})
    return lambda query: TableSource(f"sqlite+pysqlite:///{database}", query=query).read()


def test_a_database_with_another_driver_is_read_by_sqlalchemy(through_sqlalchemy):
    assert_is_the_frame(through_sqlalchemy("SELECT * FROM visits"))


def test_a_query_that_deletes_leaves_the_hospitals_rows_where_they_are(through_sqlalchemy):
    with pytest.raises(DataError):
        through_sqlalchemy("DELETE FROM visits")
    assert_is_the_frame(through_sqlalchemy("SELECT * FROM visits"))


def test_a_colon_in_a_query_is_a_colon(through_sqlalchemy):
    assert set(through_sqlalchemy("SELECT ':x %y' AS mark FROM visits")["mark"]) == {":x %y"}


def test_a_query_that_finds_no_rows_is_told_so(through_sqlalchemy):
    with pytest.raises(DataError, match="column names but no rows"):
        through_sqlalchemy("SELECT * FROM visits WHERE age < 0")


def test_a_dataframe_is_its_own_table():
    assert_is_the_frame(TableSource(frame=FRAME).read())


def test_the_type_given_overrules_the_ending(tmp_path):
    FRAME.to_csv(tmp_path / "table.txt", index=False)
    assert_is_the_frame(TableSource(str(tmp_path / "table.txt"), type="csv").read())
    FRAME.to_parquet(tmp_path / "default")
    assert_is_the_frame(TableSource(str(tmp_path / "default"), type="parquet").read())


def test_a_type_that_is_none_of_ours_is_refused(write):
    with pytest.raises(DataError, match="type 'sparql' cannot be read; allowed: csv, parquet, excel, npz, sql"):
        TableSource(write("t.csv", "a\n1\n"), type="sparql").read()


# -- cells and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["", "?", " ?", "NA", "NaN", "null"])
def test_the_marks_of_a_missing_value_are_read_as_missing(write, mark):
    column = TableSource(write("t.csv", f"id,chol\n1,233\n2,{mark}\n3,250\n")).read()["chol"]
    assert column.isna().tolist() == [False, True, False]
    assert pd.api.types.is_float_dtype(column)


def test_a_question_mark_in_excel_is_missing(tmp_path):
    pd.DataFrame({"chol": ["233", "?"]}).to_excel(tmp_path / "t.xlsx", index=False)
    assert TableSource(str(tmp_path / "t.xlsx")).read()["chol"].isna().tolist() == [False, True]


def test_names_of_columns_are_stripped_text(write):
    assert list(TableSource(write("t.csv", " age , num\n1,2\n")).read().columns) == ["age", "num"]
    assert list(TableSource(frame=pd.DataFrame([[1, 2]])).read().columns) == ["0", "1"]


def test_a_byte_order_mark_is_not_part_of_a_name(write):
    assert list(TableSource(write("t.csv", b"\xef\xbb\xbfage,num\n1,2\n")).read().columns) == ["age", "num"]


def test_reading_leaves_the_given_dataframe_alone():
    frame = pd.DataFrame({" age ": [1]})
    TableSource(frame=frame).read()
    assert list(frame.columns) == [" age "]


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.xlsx", "t.sqlite"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path, name):
    with pytest.raises(DataError, match=f"there is no file {name}"):
        TableSource(str(tmp_path / name), query="SELECT 1").read()


def test_a_missing_database_is_not_created(tmp_path):
    with pytest.raises(DataError):
        TableSource(str(tmp_path / "t.db"), query="SELECT 1").read()
    assert not (tmp_path / "t.db").exists()


def test_a_query_cannot_change_the_database(database):
    with pytest.raises(DataError):
        TableSource(str(database), query="DELETE FROM visits").read()
    assert len(TableSource(str(database), query="SELECT * FROM visits").read()) == 3


def test_an_empty_file_is_refused(write):
    with pytest.raises(DataError, match=r"the file t.csv is empty"):
        TableSource(write("t.csv", "")).read()


def test_a_table_with_names_and_no_rows_is_refused(write):
    with pytest.raises(DataError, match="column names but no rows"):
        TableSource(write("t.csv", "age,num\n")).read()


def test_a_table_without_columns_is_refused():
    with pytest.raises(DataError, match="no columns"):
        TableSource(frame=pd.DataFrame(index=[1, 2])).read()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"patient,num\n\xff\xfe4711,1\n"),
        ("t.csv", b'patient,num\n"4711,1\n'),
        ("t.csv", b"a,b\n1,2\n4711,4711,4711,4711\n"),
        ("t.parquet", b"4711"),
        ("t.xlsx", b"4711"),
        ("t.sqlite", b"4711" * 50),
    ],
    ids=["encoding", "quote", "ragged", "parquet", "excel", "sqlite"],
)
def test_a_file_that_cannot_be_read_is_refused_without_quoting_it(write, name, content):
    with pytest.raises(DataError, match=f"{name} cannot be read as") as refused:
        TableSource(write(name, content), query="SELECT * FROM visits").read()
    assert "4711" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder; a table is a file"):
        TableSource(str(tmp_path)).read()


def test_a_database_without_a_query_is_refused(database):
    with pytest.raises(DataError, match="needs a query"):
        TableSource(str(database)).read()


def test_a_query_that_fails_does_not_quote_the_table(database):
    with pytest.raises(DataError, match=r"ward.sqlite: the query cannot be run: near \"nothing\": syntax error$"):
        TableSource(str(database), query="SELECT nothing FROM visits").read()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM visit",
        "select a from main.visit where a > 1",
        'SELECT v.a FROM visits v JOIN "Visit" w ON v.a = w.a',
        "WITH some AS (SELECT * FROM visits) SELECT * FROM some, (SELECT a FROM visit)",
    ],
)
@pytest.mark.parametrize("by", ["file", "address", "sqlalchemy"])
def test_a_table_that_is_not_there_is_named_with_those_that_are(database, request, query, by):
    if by == "sqlalchemy":
        request.getfixturevalue("through_sqlalchemy")
    uri = str(database) if by == "file" else f"sqlite+pysqlite:///{database}"
    with pytest.raises(DataError, match=r"(?i)has no table 'visit'; it has: visits$"):
        TableSource(uri, query=query).read()


@pytest.mark.parametrize(
    "uri", ["nodriver://user:secret@host", "nodriver://host/db?password=secret", "postgresql://u:secret@h/x"]
)
def test_the_password_in_a_databases_address_is_not_told(uri):
    with pytest.raises(DataError) as refused:
        TableSource(uri, query="SELECT 1").read()
    assert "secret" not in str(refused.value)


def test_a_package_that_is_not_there_is_named(write, monkeypatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'openpyxl'", name="openpyxl")

    monkeypatch.setattr(pd, "ExcelFile", missing)
    with pytest.raises(DataError, match=r"reading excel needs the package openpyxl: pip install"):
        TableSource(write("t.xlsx", "x")).read()


# -- fingerprints --------------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_the_file(write):
    path = write("t.csv", "a\n1\n")
    before = TableSource(path).fingerprint
    assert TableSource(path).fingerprint == before
    os.utime(path, ns=(1, 1))
    assert TableSource(path).fingerprint != before


def test_a_fingerprint_changes_with_the_sheet(write):
    path = write("t.xlsx", "x")
    assert TableSource(path, sheet_name="a").fingerprint != TableSource(path, sheet_name="b").fingerprint


def test_what_can_change_unseen_has_no_fingerprint(database, tmp_path):
    assert TableSource(frame=FRAME).fingerprint is None
    assert TableSource(str(database), query="SELECT 1").fingerprint is None
    assert TableSource("postgresql://host/db", query="SELECT 1").fingerprint is None
    assert TableSource(str(tmp_path / "nowhere.csv")).fingerprint is None


# -- the node's environment ----------------------------------------------------------------------------------------


NODE = {
    "USER_REQUESTED_DATABASE_LABELS": "heart",
    "HEART_DATABASE_URI": "/mnt/data/heart.xlsx",
    "HEART_DATABASE_TYPE": "excel",
    "HEART_SHEET_NAME": "visits",
}


def test_the_nodes_database_is_found_by_its_label():
    assert source_from_node(NODE) == TableSource("/mnt/data/heart.xlsx", "excel", None, "visits")


def test_the_query_of_the_task_is_passed_on():
    environment = NODE | {"HEART_DATABASE_TYPE": "sql", "HEART_QUERY": "SELECT 1"}
    assert source_from_node(environment).query == "SELECT 1"


@pytest.mark.parametrize(("labels", "count"), [("", 0), (None, 0), ("heart,lung,kidney", 3)])
def test_a_task_must_ask_for_one_database_or_two(labels, count):
    environment = {} if labels is None else NODE | {"USER_REQUESTED_DATABASE_LABELS": labels}
    with pytest.raises(DataError, match=f"must ask for one database, or for a table and a folder; it asks for {count}"):
        source_from_node(environment)


def test_a_node_without_the_database_is_absent_rather_than_wrong():
    with pytest.raises(SiteError, match="this node has no database 'lung'") as refused:
        source_from_node(NODE | {"USER_REQUESTED_DATABASE_LABELS": "lung"})
    assert refused.value.kind == "absent"


@pytest.fixture
def node(tmp_path):
    """`node(table=path, images=folder)` is a node's environment of which a task asks for all databases."""

    def node(labels=None, **databases):
        environment = {f"{label.upper()}_DATABASE_URI": str(uri) for label, uri in databases.items()}
        return environment | {"USER_REQUESTED_DATABASE_LABELS": ",".join(labels or databases)}

    return node


@pytest.fixture
def scans(tmp_path):
    """A folder of images without a table, and a table beside it that names them."""
    for name in ("scans/well/b_1.npy", "scans/ill/a_1.npy", "scans/ill/a_2.npy", "scans/ill/.hidden.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / name, np.zeros((2, 2)))
    (tmp_path / "scans" / "ill" / "a_3.txt").write_text("no image")
    pd.DataFrame({"file": ["ill/a_1.npy"], "y": [1]}).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "scans"


@pytest.mark.parametrize("labels", [["table", "images"], ["images", "table"]])
def test_of_two_databases_the_folder_is_where_the_tables_files_are(node, scans, labels):
    table = scans.parent / "t.csv"
    found = source_from_node(node(labels, table=table, images=scans))
    assert (found.uri, found.folder) == (str(table), scans)


def test_a_table_of_its_own_is_taken_before_one_in_the_folder(node, scans):
    (scans / "other.csv").write_text("file,y\n")
    table = scans.parent / "t.csv"
    assert source_from_node(node(table=table, images=scans)).uri == str(table)
    assert source_from_node(node(images=scans)).uri == str(scans / "other.csv")


def test_a_node_may_have_one_of_the_two_databases(node, scans):
    (scans / "other.csv").write_text("file,y\n")
    assert source_from_node(node(["table", "images"], images=scans)).uri == str(scans / "other.csv")
    with pytest.raises(SiteError, match="no database 'table' or 'images'") as refused:
        source_from_node(node(["table", "images"]))
    assert refused.value.kind == "absent"


def test_two_tables_or_two_folders_are_refused(node, scans):
    table = scans.parent / "t.csv"
    with pytest.raises(DataError, match="databases 'a' and 'b' are two tables here; allowed: a table and a folder"):
        source_from_node(node(a=table, b=table))
    with pytest.raises(DataError, match="'a' and 'b' are two folders here"):
        source_from_node(node(a=scans, b=scans.parent))


# -- tables of names -----------------------------------------------------------------------------------------------


def test_a_folder_without_a_table_is_read_by_its_names_in_their_order(scans):
    frame = source_in(scans, ("{y}/{patient}_{number}.npy", "file")).read()
    assert frame["file"].tolist() == ["ill/a_1.npy", "ill/a_2.npy", "well/b_1.npy"]
    assert frame["y"].tolist() == ["ill", "ill", "well"]
    assert frame["patient"].tolist() == ["a", "a", "b"]
    assert frame["number"].tolist() == [1, 2, 1]


def test_a_field_with_leading_zeros_stays_text(scans):
    (scans / "ill" / "a_1.npy").rename(scans / "ill" / "a_01.npy")
    frame = source_in(scans, ("{y}/{patient}_{number}.npy", "file")).read()
    assert frame["number"].tolist() == ["01", "2", "1"]


def test_a_folder_with_a_table_is_read_by_its_table(scans):
    (scans / "t.csv").write_text("file,y\nill/a_1.npy,1\n")
    assert source_in(scans, ("{y}/*", "file")).uri == str(scans / "t.csv")


def test_a_folder_without_a_table_or_a_template_says_what_it_needs(scans):
    with pytest.raises(DataError, match=r"has 0 tables .* or data\.image\.files say how its images are named"):
        source_in(scans)


def test_names_that_do_not_fit_are_counted_and_not_told(scans):
    assert count_unfitting(scans, "{y}/a_{number}.npy") == 1
    with pytest.raises(DataError, match="no image in the folder has a name that") as refused:
        source_in(scans, ("{y}/{number:8}.npy", "file")).read()
    assert "a_1" not in str(refused.value)


def test_links_are_not_followed_out_of_the_folder_or_within(scans):
    (scans.parent / "outside").mkdir()
    np.save(scans.parent / "outside" / "c_1.npy", np.zeros((2, 2)))
    (scans / "linked").symlink_to(scans.parent / "outside")
    (scans / "ill" / "d_1.npy").symlink_to(scans.parent / "outside" / "c_1.npy")
    assert len(source_in(scans, ("{y}/*", "file")).read()) == 3


def test_a_table_of_names_changes_when_a_file_is_added(scans):
    image = Image(files="{y}/*")
    prints = []
    for name in ("ill/x_1.npy", "ill/x_2.npy"):
        np.save(scans / name, np.zeros((2, 2)))
        source = source_in(scans, image.names)
        prints.append(print_files(find_images(source.read()["file"], source.folder)))
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("name", "content", "looks"),
    [
        ("t.csv", b"PK\x03\x04" + b"\0" * 60, "excel (xlsx) or a zip file; give its type, or save it as csv"),
        ("t.csv", b"PAR1" + b"\0" * 60, "parquet"),
        ("t.csv", b"SQLite format 3\0" + b"\0" * 60, "a database (sql)"),
        ("t.csv", b"\x1f\x8b" + b"\0" * 60, "a gzip file"),
        ("t.csv", b"\xd0\xcf\x11\xe0" + b"\0" * 60, "an old excel file (xls)"),
        ("t.parquet", b"age,y\n4711,1\n", "text, as csv is; give its type, or save it as parquet"),
        ("t.parquet", b"\n <!DOCTYPE html>\n<p>4711", "an HTML page"),
        ("t.xlsx", b"<html>4711</html>", "an HTML page; give its type, or save it as excel"),
        ("t.xlsx", b"age;y\n4711;1\n", "text, as csv is"),
        ("t.sqlite", b"age,y\n4711,1\n" * 50, "text, as csv is; give its type, or save it as sql"),
        ("t.csv", b"\x1f\x8b\xff4711", "a gzip file"),
        ("t.csv", b"<!DOCTYPE html>\n<p>4711, 4712</p>\n", "an HTML page; give its type, or save it as csv"),
    ],
    ids=range(12),
)
def test_a_file_of_another_kind_is_told_by_what_it_begins_as(write, name, content, looks):
    with pytest.raises(DataError) as refused:
        TableSource(write(name, content), query="SELECT * FROM visits").read()
    assert f"it begins as {looks}" in str(refused.value)
    assert "4711" not in str(refused.value)


@pytest.mark.parametrize(("name", "content"), [("t.parquet", b"PAR1" + b"4711" * 9), ("t.xlsx", b"PK\x03\x044711")])
def test_a_damaged_file_of_its_kind_is_not_said_to_be_of_another(write, name, content):
    with pytest.raises(DataError, match="cannot be read as") as refused:
        TableSource(write(name, content)).read()
    assert "it begins as" not in str(refused.value)


@pytest.mark.parametrize("lines", ["age,y\n1,2\n3,4\n", "age,y\n1\t2,5\n"])
def test_commas_in_a_file_that_is_called_tsv_are_told(tmp_path, lines):
    (tmp_path / "t.tsv").write_text(lines)
    with pytest.raises(DataError, match=r'is it data\.separator: ","'):
        TableSource(str(tmp_path / "t.tsv")).read()


def test_a_folders_table_may_be_the_participants_of_bids(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t61\n")
    assert source_in(tmp_path).read()["age"].tolist() == [61]
    # Beside a table, a tsv file is one of its files.
    (tmp_path / "covariates.csv").write_text("participant_id,age\nsub-01,62\n")
    assert source_in(tmp_path).read()["age"].tolist() == [62]
    (tmp_path / "covariates.csv").unlink()
    (tmp_path / "sessions.tsv").write_text("session\n1\n")
    with pytest.raises(DataError, match="has 2 tables"):
        source_in(tmp_path)
