"""What is looked up of a column of text once: the same as pandas says of it, question by question."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.description.describe import column_kind, column_kinds, hints_of
from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.reading.cells import cleaned, columns_at
from v6_algorithm.data.reading.texts import has_value, texts_of
from v6_algorithm.experiment.table_form import TableForm

WORDS = ["f", "m", "1", "1.0", " 2.5 ", "007", "1e400", "9007199254740993", "-", "None", "nan", "inf", "", "< 1"]
# Without a NUL, up to which pandas compares objects: the texts "" and "\0" are one to it.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
CELLS = st.lists(st.one_of(st.none(), st.sampled_from(WORDS), TEXT), min_size=1, max_size=40)
DTYPES = ("object", "str", "string")
OTHERS = {
    "numbers": pd.Series([1.5, None]),
    "words and numbers": pd.Series(["a", 1], dtype=object),
    "bytes": pd.Series([b"a"], dtype=object),
    "nothing": pd.Series([None, None], dtype=object),
    "categories": pd.Series(["a", "b"], dtype="category"),
    "dates": pd.Series(pd.to_datetime(["2020-01-01", None])),
    "whole numbers": pd.Series(pd.array([1, None], dtype="Int64")),
    "truth": pd.Series([True, False]),
}


@given(CELLS, st.sampled_from(DTYPES))
def test_texts_are_what_pandas_says_of_the_column(cells, dtype):
    column = pd.Series(cells, dtype=object).astype(dtype)
    texts = texts_of(column)
    if dtype == "object" and column.isna().all():
        assert texts is None
        return
    known = column.dropna()
    assert texts.counts == known.astype(object).value_counts(sort=False).to_dict()
    assert texts.values == known.astype(object).unique().tolist()
    np.testing.assert_array_equal(texts.code >= 0, column.notna())
    assert [texts.values[place] for place in texts.code if place >= 0] == known.tolist()
    read = pd.to_numeric(column.astype(object).where(column.notna(), np.nan), errors="coerce")
    np.testing.assert_array_equal(texts.numbers, read.to_numpy(dtype=np.float64))
    assert texts.are_numbers == bool(pd.to_numeric(known.astype(object), errors="coerce").notna().all())


@pytest.mark.parametrize("column", OTHERS.values(), ids=OTHERS)
def test_a_column_of_anything_else_has_no_texts_and_tells_its_empty_cells(column):
    assert texts_of(column) is None
    np.testing.assert_array_equal(has_value(column), column.notna().to_numpy())


@pytest.mark.parametrize("beside", [[], ["\u00a0a"]], ids=["alone", "beside text"])
def test_a_cell_that_is_no_text_is_never_written_out(beside):
    class Array:
        """As an array of a series: its text takes far longer than all else that is done with it."""

        def __str__(self):
            raise AssertionError("it was written out")

        __repr__ = __str__

    column = pd.Series([Array(), Array(), None, *beside], dtype=object)
    read = cleaned(column, TableForm())
    assert read[:2].tolist() == column[:2].tolist()
    assert read[3:].tolist() == [text.strip() for text in beside]


@given(CELLS, st.sampled_from(DTYPES))
def test_cells_with_a_value_are_those_that_are_not_empty(cells, dtype):
    column = pd.Series(cells, dtype=object).astype(dtype)
    np.testing.assert_array_equal(has_value(column), column.notna().to_numpy())


@pytest.mark.parametrize("rows", [1, 40, 100, 101])
def test_what_kinds_and_hints_look_up_together_is_what_each_finds_alone(rows):
    generator = np.random.default_rng(rows)
    numbers = {f"x{number}": generator.choice([0.0, 1.0, 2.5, -9, 1e39, np.nan], rows) for number in range(12)}
    frame = pd.DataFrame(numbers).assign(
        id=np.arange(rows), word=generator.choice(["f", "m"], rows), text=generator.choice(["1", "2", "< 1"], rows),
        digits=generator.choice(["1", "2.5"], rows), empty=None, last=generator.random(rows),
    )  # fmt: skip
    looked_up = TableColumns(frame)
    kinds = column_kinds(frame, looked_up)
    hints = hints_of(frame, kinds, looked_up)
    assert (kinds, hints) == (column_kinds(frame), hints_of(frame, kinds))
    assert kinds == {name: column_kind(frame[name]) for name in frame}
    alone = {name: hint(frame[name], kind) for name, kind in kinds.items()}
    assert {name: reason for name, reason in hints.items() if reason != "repeats"} == {
        name: reason for name, reason in alone.items() if reason is not None
    }


@pytest.mark.parametrize("places", [[0, 1, 2], [1, 2], [2], [0, 2], [2, 1], [2, 0, 1], []], ids=str)
def test_columns_at_places_are_those_that_are_taken(places):
    frame = pd.DataFrame({"a": [1, 2], "b": [1.5, np.nan], "c": ["x", "y"]})
    pd.testing.assert_frame_equal(columns_at(frame, places), frame.take(places, axis=1))
