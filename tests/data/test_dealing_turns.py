"""Whose turn it is when rows are dealt: the part furthest behind, as one by one would have it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.splits import _turns
from v6_algorithm.data.targets import _canonical, canonical


def one_by_one(rows, shares, entitled):
    dealt, turns = np.zeros(len(shares)), []
    for number in range(1, rows + 1):
        behind = shares * number - dealt
        turns.append(entitled[np.argmax(behind[entitled])])
        dealt[turns[-1]] += 1
    return turns


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any), st.integers(0, 400), st.randoms())
def test_turns_are_those_of_dealing_row_by_row(weights, rows, random):
    shares = np.array(weights) / sum(weights)
    entitled = np.array(random.sample(range(len(shares)), len(shares)))
    assert _turns(rows, shares, entitled).tolist() == one_by_one(rows, shares, entitled)


@given(st.integers(1, 30), st.integers(0, 400))
def test_equal_shares_take_turns(parts, rows):
    shares, entitled = np.full(parts, 1 / parts), np.random.default_rng(rows).permutation(parts)
    assert _turns(rows, shares, entitled).tolist() == one_by_one(rows, shares, entitled)


@given(
    st.lists(st.one_of(st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.sampled_from(["1", "01", " a ", "1.0"])))
)
def test_labels_have_the_form_that_each_by_itself_has(values):
    import pandas as pd

    labels = canonical(pd.Series(values, dtype=object))
    expected = [_canonical(value) for value in values]
    assert [(type(label), label) for label in labels] == [(type(label), label) for label in expected]


@given(st.lists(st.sampled_from(["a", " a", "1", "01", "1.0", "x"])))
def test_labels_of_text_alone_have_that_form_too(values):
    import pandas as pd

    for dtype in (object, "string"):
        labels = canonical(pd.Series(values, dtype=dtype))
        assert labels == [_canonical(value) for value in values]


def test_a_part_that_is_entitled_to_all_rows_gets_them():
    assert _turns(5, np.array([1.0, 0.0]), np.array([1, 0])).tolist() == [0] * 5
