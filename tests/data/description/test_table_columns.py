"""What several ask of a table's columns is looked up once, and is what pandas says of each column."""

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.description import hints, leaks, repeats, table_columns
from v6_algorithm.data.description.describe import codes_of, column_kinds, hints_of
from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.targets import TargetColumn


def table(rows: int = 60) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    label = generator.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "single": generator.standard_normal(rows).astype(np.float32),
            "word": generator.choice(["a", "b", None], rows),
            "copy": 2.0 * label + 1,
            "digits": generator.choice(["1", "2.5", None], rows),
            "whole": generator.integers(0, 4, rows).astype(np.int8),
            "nullable": pd.array(np.where(label, pd.NA, 3), dtype="Int64"),
            "yes": label == 1,
            "empty": np.nan,
            "gaps": np.where(generator.random(rows) < 0.3, np.nan, generator.standard_normal(rows)),
            "y": label,
        }
    )


def facts(frame: pd.DataFrame, columns: TableColumns | None) -> tuple[object, ...]:
    kinds = column_kinds(frame, columns)
    hints = hints_of(frame, kinds, columns)
    numeric = [name for name, kind in kinds.items() if kind == "numeric"]
    told = leaks.telling_columns(frame, numeric, ["word"], [TargetColumn("y", kind="class")], 3, columns)
    hashes = repeats.row_hashes(frame, kinds, hints, columns)
    assert hashes is not None
    return kinds, hints, codes_of(frame, 5, columns), told, hashes.of_table(b"key")


@pytest.mark.parametrize("cells", [10**6, 120, 1], ids=["kept whole", "two columns at a time", "one column at a time"])
@pytest.mark.parametrize("rows", [None, np.array([7, 3, 50])], ids=["all rows", "some rows"])
def test_blocks_hold_what_pandas_reads_of_each_column(monkeypatch, cells, rows):
    monkeypatch.setattr(table_columns, "_MOST_CELLS", cells)
    frame = table()
    names = [name for name in frame if name != "word"]
    found: dict[str, np.ndarray] = {}
    for some, block in TableColumns(frame).blocks(names, rows):
        found |= dict(zip(some, block.T, strict=True))
    assert set(found) == set(names)
    for name in names:
        expected = pd.to_numeric(frame[name]).to_numpy(dtype=np.float64, na_value=np.nan)
        np.testing.assert_array_equal(found[name], expected if rows is None else expected[rows])


def test_without_names_blocks_are_those_of_numbers():
    names = [name for some, _ in TableColumns(table()).blocks() for name in some]
    assert names == ["single", "copy", "whole", "yes", "empty", "gaps", "y"]


def test_the_numbers_and_texts_of_a_small_table_are_looked_up_once(monkeypatch):
    asked = {"columns_at": 0, "texts_of": 0}
    for name in asked:
        real = getattr(table_columns, name)

        def counted(*given, name=name, real=real):
            asked[name] += 1
            return real(*given)

        monkeypatch.setattr(table_columns, name, counted)
    frame = table()
    together = facts(frame, TableColumns(frame))
    # Text, text that is numbers, and nullable whole numbers, which have none.
    assert asked == {"columns_at": 1, "texts_of": 3}
    assert together == facts(frame, None)
    assert together[3] == {"copy": "copy", "nullable": "empty", "yes": "copy"}


def test_hashes_of_rows_do_not_follow_from_how_many_are_looked_at_together(monkeypatch):
    frame = table()
    kinds = column_kinds(frame)
    whole = repeats.row_hashes(frame, kinds, {})
    monkeypatch.setattr(repeats, "_CACHED_CELLS", 16)
    monkeypatch.setattr(table_columns, "_MOST_CELLS", 100)
    parts = repeats.row_hashes(frame, kinds, {})
    np.testing.assert_array_equal(whole.hashes, parts.hashes)
    # Another word, an empty cell for a word, and -0.0 for 0.0, which is the same number.
    for name, cell, same in (("word", "c", False), ("word", None, False), ("copy", 5.0, False)):
        other = frame.copy()
        other.loc[frame.index[frame["word"] == "a"][0], name] = cell
        assert (repeats.row_hashes(other, kinds, {}).hashes == whole.hashes).all() == same
    zero = frame.assign(copy=np.where(frame["copy"] == 1, 0.0, 1.0))
    negative = zero.assign(copy=np.where(zero["copy"] == 0, -0.0, 1.0))
    np.testing.assert_array_equal(*(repeats.row_hashes(one, kinds, {}).hashes for one in (zero, negative)))


def test_columns_that_begin_with_a_fraction_are_not_searched_to_their_end(monkeypatch):
    rows = 1000
    numbers = np.random.default_rng(2).standard_normal((rows, 3)) + 50
    late = np.arange(rows) % 7.0
    late[-1] = 3.5
    frame = pd.DataFrame(numbers, columns=["a", "b", "c"]).assign(late=late, code=np.arange(rows) % 3.0)
    converted, floored = [], []
    block, floor = TableColumns._block, np.floor

    def spied(self, names, rows):
        converted.append((tuple(names), None if rows is None else len(rows)))
        return block(self, names, rows)

    def counted(array, *more):
        floored.append(np.size(array))
        return floor(array, *more)

    monkeypatch.setattr(TableColumns, "_block", spied)
    assert codes_of(frame, 5) == {"code": (0, 1, 2)}
    assert converted == [(tuple(frame), 100), (("late", "code"), None)]
    monkeypatch.setattr(hints.np, "floor", counted)
    plain = hints.without_hint(frame.to_numpy())
    # All of the first hundred rows, and the other rows of two columns.
    assert sum(floored) <= 5 * 100 + 2 * (rows - 100)
    assert plain[:3].all()
