"""Cells that databases and parquet files have and text files have not: decimals, bytes, UUIDs, structures, spans."""

from __future__ import annotations

import datetime
import sqlite3
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from v6_algorithm.data.description.describe import column_kind
from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.rows.numbers import numbers_of
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.targets import canonical

ROWS = 4
COLUMNS = {
    "decimal": (pa.array([Decimal("1.50"), None, Decimal("2.25"), Decimal("-3")]), "numeric", None),
    "dictionary of text": (pa.array(["m", "f", None, "m"]).dictionary_encode(), "text", None),
    "dictionary of numbers": (pa.array([3, 1, None, 3]).dictionary_encode(), "numeric", None),
    "boolean with missing": (pa.array([True, None, False, True]), "numeric", None),
    "bytes that are text": (pa.array([b"m", b"f", None, b"m"]), "text", None),
    "bytes": (pa.array([b"\xff", b"\xfe", None, b"\xff"]), "text", "nested"),
    "duration": (pa.array([datetime.timedelta(days=day) for day in range(ROWS)]), "other", "dates"),
    "date": (pa.array([datetime.date(2024, 1, day + 1) for day in range(ROWS)]), "text", "dates"),
    "timestamp": (pa.array([datetime.datetime(2024, 1, day + 1) for day in range(ROWS)]), "other", "dates"),
    "struct": (pa.array([{"a": 1}, None, {"a": 2}, {"a": 3}]), "text", "nested"),
    "list": (pa.array([[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]), "other", "arrays"),
    "half": (pa.array(np.array([1, 2, 3, 4], np.float16)), "numeric", None),
    "unsigned": (pa.array([1, None, 3, 2**63], pa.uint64()), "numeric", None),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_type_of_a_parquet_file_is_read_or_told(tmp_path, name):
    array, kind, reason = COLUMNS[name]
    pq.write_table(pa.table({"a": array, "y": [0, 1, 0, 1]}), tmp_path / "t.parquet")
    for exact in (None, ("y",)):
        column = TableSource(str(tmp_path / "t.parquet")).read(exact=exact)["a"]
        assert column_kind(column) == kind
        assert hint(column, kind) == reason
        if kind == "numeric":
            numbers = numbers_of(pd.DataFrame({"a": column}), ["a"], "float64")[:, 0]
            expected = [np.nan if value is None else float(value) for value in array.to_pylist()]
            np.testing.assert_array_equal(numbers, expected)


def test_text_in_bytes_is_the_same_label_as_text(tmp_path):
    pq.write_table(pa.table({"a": pa.array([b" m", b"f", b"NA"])}), tmp_path / "t.parquet")
    column = TableSource(str(tmp_path / "t.parquet")).read()["a"]
    assert canonical(column.dropna()) == ["m", "f"]
    assert column.isna().tolist() == [False, False, True]


def test_cells_of_a_database_are_read_or_told(tmp_path):
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("CREATE TABLE t (a NUMERIC, b BLOB, c TEXT, y BOOLEAN)")
        rows = [(1.5, b"m", str(uuid.uuid4()), True), (None, b"f", str(uuid.uuid4()), False), (2, b"m", None, None)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    connection.close()
    frame = TableSource(str(tmp_path / "t.db"), query="SELECT * FROM t").read()
    assert {name: column_kind(frame[name]) for name in frame} == {
        "a": "numeric",
        "b": "text",
        "c": "text",
        "y": "numeric",
    }
    assert canonical(frame["b"]) == ["m", "f", "m"]


def test_decimals_and_uuids_of_a_dataframe(tmp_path):
    frame = TableSource(
        frame=pd.DataFrame({"a": [Decimal("0.1"), None], "b": [uuid.UUID(int=1), uuid.UUID(int=2)]})
    ).read()
    np.testing.assert_array_equal(numbers_of(frame, ["a"], "float64")[:, 0], [0.1, np.nan])
    assert column_kind(frame["b"]) == "text"
