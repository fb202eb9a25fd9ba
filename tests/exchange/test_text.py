"""Text of a site's, fit for a terminal, a log and a spreadsheet."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.exchange.text import cell, printable


@given(st.text(max_size=200))
def test_nothing_that_a_terminal_acts_on_is_shown(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in shown)
    assert printable(shown) == shown


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), max_size=200))
def test_other_text_is_shown_as_it_is(text):
    assert printable(text) == text


def test_long_text_is_cut():
    assert printable("x" * 5000, 10) == "xxxxxxxxxx …"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "=\x1b"])
def test_a_cell_that_a_spreadsheet_would_run_is_quoted(text):
    assert str(cell(text)).startswith("'")


@pytest.mark.parametrize("value", [1, -1.5, None, True, "-1.5", "+3e4", "north", ""])
def test_numbers_and_words_stay(value):
    assert cell(value) == value
