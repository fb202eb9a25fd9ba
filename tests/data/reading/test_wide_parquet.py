"""A parquet file of many numbers is read as arrays: the same cells, types and names as pyarrow's own frame has."""

import threading

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from v6_algorithm.data.reading import parquet
from v6_algorithm.data.sources import TableSource

GENERATOR = np.random.default_rng(5)


def _table(kind: str) -> pd.DataFrame:
    numbers = GENERATOR.standard_normal((30, 1100))
    numbers[GENERATOR.random(numbers.shape) < 0.1] = np.nan
    numbers[:, 7] = np.nan
    frame = pd.DataFrame(numbers.astype("float32" if kind == "float32" else "float64")).rename(columns="x{}".format)
    if kind == "mixed":
        frame["x3"] = GENERATOR.integers(0, 9, 30)
        frame["x600"] = pd.array([1, None, *range(28)], dtype="Int64")
        frame["x601"] = pd.array([0.5, None, *range(28)], dtype="Float64")
        frame["x602"] = pd.Categorical(["a", "b"] * 15)
        frame["x603"] = pd.date_range("2020-01-01", periods=30)
        # float32 would make neighbours one.
        frame["x1050"] = 1e7 + GENERATOR.random(30)
        frame["x1051"] = 1e300
    if kind == "named rows":
        frame.index = [f"row {number}" for number in range(30)]
    if kind == "later rows":
        frame.index = range(5, 35)
    return frame.assign(y=["yes", None, "no"] * 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float64", "mixed", "named rows", "later rows"])
def test_wide_parquet_has_the_cells_types_and_rows_of_pyarrows_frame(tmp_path, kind):
    written = _table(kind)
    written.to_parquet(tmp_path / "table.parquet")
    source = TableSource(str(tmp_path / "table.parquet"))
    whole = pd.read_parquet(tmp_path / "table.parquet")
    if kind == "named rows":
        whole = whole.reset_index(drop=True)
    pd.testing.assert_frame_equal(source.read_as_it_is(), whole)
    read = source.read(exact={"x5"})
    # Only numbers that are inputs are narrowed, and those not that float32 is too coarse for.
    exact = {"x5", *(["x1050"] if kind == "mixed" else [])}
    narrow = [name for name in whole if whole[name].dtype in ("float64", "int64") and name not in exact]
    with np.errstate(over="ignore"):
        expected = whole.astype(dict.fromkeys(narrow, "float32")).reset_index(drop=True)
    shared = [name for name in whole if name not in ("x600", "x601", "x602", "x603", "y")]
    pd.testing.assert_frame_equal(read[shared], expected[shared])
    pd.testing.assert_frame_equal(source.read(lambda name: name in ("x9", "y")), whole[["x9", "y"]])


def test_numbers_of_a_wide_parquet_file_stand_in_one_array(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_BLOCK", 4)
    written = pd.DataFrame(GENERATOR.standard_normal((5, 23)).astype("float32")).rename(columns="x{}".format)
    written.iloc[2, 3] = np.nan
    written.insert(9, "word", list("abcde"))
    written.to_parquet(tmp_path / "table.parquet")
    read = TableSource(str(tmp_path / "table.parquet")).read(exact=set())
    pd.testing.assert_frame_equal(read, written)
    # Of the columns before the word those of two blocks, and behind it those of three; what is beside the word is not.
    for first, last in ((0, 7), (12, 23)):
        assert np.shares_memory(read.iloc[:, first:last].to_numpy(), read.iloc[:, [first]].to_numpy())
        assert np.shares_memory(read.iloc[:, first : last + 1].to_numpy(), read.iloc[:, last : last + 1].to_numpy())


def test_next_columns_of_a_wide_parquet_file_are_read_while_the_former_are_looked_at(tmp_path, monkeypatch):
    written = pd.DataFrame(GENERATOR.standard_normal((5, 12)).astype("float32")).rename(columns="x{}".format)
    written.to_parquet(tmp_path / "table.parquet")
    monkeypatch.setattr(parquet, "_BLOCK", 4)
    read, readers = pq.ParquetFile.read, []

    def spied(self, columns=None, **more):
        readers.append((columns, threading.current_thread() is threading.main_thread()))
        return read(self, columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "read", spied)
    pd.testing.assert_frame_equal(TableSource(str(tmp_path / "table.parquet")).read(exact=set()), written)
    names = written.columns.tolist()
    assert readers == [(names[:4], True), (names[4:8], False), (names[8:], False)]


def test_long_columns_of_a_parquet_file_are_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_OF_LONG", 20)
    written = pd.DataFrame(GENERATOR.standard_normal((20, 3)).astype("float32"), columns=list("abc"))
    written.insert(1, "word", ["yes", "no"] * 10)
    written.to_parquet(tmp_path / "table.parquet")
    tables, read = [], pq.ParquetFile.read

    def kept(*given, **more):
        tables.append(read(*given, **more))
        return tables[-1]

    monkeypatch.setattr(pq.ParquetFile, "read", kept)
    frame = TableSource(str(tmp_path / "table.parquet")).read()
    pd.testing.assert_frame_equal(frame, written)
    for name in "abc":
        assert np.shares_memory(frame[name].to_numpy(), tables[0][name].chunk(0).to_numpy())
