"""No count of few rows leaves a site, nor follows from what does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.summary.cells import tell_labels

COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), max_size=8)
SMALLEST = st.integers(1, 12)


@given(COUNTS, SMALLEST)
def test_no_label_of_few_rows_is_told_and_no_row_is_lost(counts, smallest):
    told, hidden = tell_labels(counts, smallest)
    assert all(rows >= smallest and rows == counts[label] for label, rows in told.items())
    assert sum(told.values()) + hidden == sum(counts.values())


@given(COUNTS, SMALLEST)
def test_what_is_hidden_does_not_follow_from_the_total(counts, smallest):
    """Complementary disclosure: with one label hidden, its rows are the total less those told."""
    told, hidden = tell_labels(counts, smallest)
    concealed = set(counts) - set(told)
    assert len(concealed) != 1 or len(counts) == 1
    assert hidden == 0 or hidden >= smallest or not told


def test_a_rare_label_takes_the_next_rarest_with_it():
    assert tell_labels({"no": 90, "maybe": 20, "yes": 2}, 5) == ({"no": 90}, 22)
    assert tell_labels({"no": 98, "yes": 2}, 5) == ({}, 100)


def test_labels_of_enough_rows_are_all_told():
    assert tell_labels({0: 90, 1: 5}, 5) == ({0: 90, 1: 5}, 0)
