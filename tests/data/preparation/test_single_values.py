"""Columns with one value, hospitals of one row, lists of labels that just fit: the smallest cases of the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.preparation.combat import Combat, Sums, _add_up
from v6_algorithm.data.preparation.spelling import _SHOWN, _listed, spelled_differently
from v6_algorithm.data.preparation.statistics import Moments, merge_moments
from v6_algorithm.data.splits import make_folds
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Given

CELLS = st.lists(st.one_of(st.just(np.nan), st.floats(-1e3, 1e3)), min_size=1, max_size=4)


@given(st.lists(CELLS, min_size=1, max_size=4))
def test_moments_of_few_values_are_those_of_all_rows_together(sites):
    """A site with a single value, or none, takes part as any other."""
    parts = [Moments.of([np.array(cells)[:, None]], with_range=True) for cells in sites]
    merged, values = merge_moments(parts), np.array([cell for cells in sites for cell in cells])
    known = values[~np.isnan(values)]
    assert (merged.rows[0], merged.count[0, 0]) == (len(values), len(known))
    if len(known):
        found = merged.mean[0, 0], merged.low[0, 0], merged.high[0, 0], merged.squares[0, 0]
        wanted = known.mean(), known.min(), known.max(), ((known - known.mean()) ** 2).sum()
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-6)


def test_a_hospital_of_one_row_has_no_spread_within():
    hospitals, rows, _, y, xx, xy, yy = _add_up([(np.array([[7.0, 3.0]]), np.array([[2.0]]))])
    assert (float(hospitals), float(rows), y.tolist()) == (1, 1, [7, 3])
    assert not xx.any() and not xy.any() and not yy.any()  # noqa: PT018


def test_labels_are_shown_up_to_twelve():
    assert _listed(list(range(_SHOWN))) == ", ".join(map(str, range(_SHOWN)))
    assert _listed(list(range(_SHOWN + 1))).endswith(", …")


@pytest.mark.parametrize(
    ("sets", "differ"),
    [
        ({"a": ["yes", "no"], "b": ["ja", "nein"]}, True),
        ({"a": [0, 1], "b": [1, 2]}, True),
        ({"a": [0, 1], "b": ["no", "yes"]}, True),
        ({"a": [-1, 1], "b": [0, 1]}, True),
        ({"a": [-1, 1], "b": [-1, 1]}, False),
        ({"a": [-1, 0, 1], "b": [0, 1]}, False),
        ({"a": [0, 1], "b": [0, 1]}, False),
        ({"a": ["x", "y", "z"], "b": ["x", "y"]}, False),
        ({"a": [7, 23, 110], "b": ["007", "023", 110]}, True),
        ({"a": ["007", "110"], "b": ["007", "110", "7"]}, False),
    ],
)
def test_each_kind_of_other_codes_by_itself_is_told(sets, differ):
    assert bool(spelled_differently("y", sets, allowed=False)) is differ
    assert not spelled_differently("y", sets, allowed=True)


@pytest.mark.parametrize("parts", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_group_in_any_two_parts_of_a_given_split_is_refused(parts):
    given_parts = ["train", "train", "validation", "test", *parts]
    groups = np.array([1, 2, 3, 4, 5, 5])
    with pytest.raises(DataError, match="a group has rows in two parts"):
        make_folds(Given(kind="given"), 6, np.random.default_rng(0), groups=groups, given=[given_parts])


def test_two_columns_are_harmonised_and_one_by_itself_is_not():
    generator = np.random.default_rng(0)
    none = np.zeros((30, 0))
    for columns, changed in ((1, False), (2, True), (3, True)):
        values = generator.normal(5, 2, (30, columns))
        sums = Sums.of([[(values, none), (values + 9, none)]])
        combat = Combat.fit(sums, untouched=np.zeros(columns, dtype=bool))
        assert (combat.adjust(values, none, 0, np.arange(30)) != values).any() == changed


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("yes", "yes\u200b"), ("yes", "\ufeffyes"), ("yes", "y\u00ades"), ("high-grade", "high\u2013grade"),
        ("high-grade", "high\u2011grade"), ("high-grade", "high\u2010grade"), ("T-1", "T\u22121"),
        ("stage II", "stage\u00a0II"),
        ("stage II", "stage \u2161"), ("ja", "\uff4a\uff41"), ("gro\u00df", "GROSS"), ("grade 2", "grade  2"),
    ],
)  # fmt: skip
def test_labels_that_look_alike_are_one_label_spelled_differently(first, second):
    (message,) = spelled_differently("y", {"a": [first, "no"], "b": [second, "no"]}, allowed=True)
    assert message.startswith("y: the same label is spelled differently: ")
    assert not spelled_differently("y", {"a": [first, "no"], "b": [first, "no"]}, allowed=False)


@pytest.mark.parametrize(
    ("first", "second"), [("1-2", "1.2"), ("a+", "a-"), ("I", "II"), ("T1", "T1a"), ("ill", "i11")]
)
def test_labels_that_only_resemble_each_other_are_two(first, second):
    assert not spelled_differently("y", {"a": [first, second, "no"], "b": [first, second, "no"]}, allowed=False)
