"""Hints at their limits: where a number of rows, a day or a size is just enough, and just not."""

from __future__ import annotations

import numpy as np
import pandas as pd

import v6_algorithm.api as v6
from v6_algorithm.data.description.hints import _are_day_numbers, _has_dots
from v6_algorithm.data.description.unknown import _FEWEST_DIFFERENT, _has_repeated_top


def test_a_32nd_day_is_no_date():
    days = np.array([20240131.0, 20240215.0, 20231108.0])
    assert _are_day_numbers("datum", days)
    assert not _are_day_numbers("datum", np.append(days, 20240132.0))


def test_thousands_stand_beside_numbers_whose_median_is_100():
    dotted = np.array([1.234, 2.345, 1.111, 3.217])
    assert _has_dots(np.concatenate([dotted, [100.0, 99.0, 130.0]]))
    assert not _has_dots(np.concatenate([dotted, [99.0, 98.0, 130.0]]))


def test_a_code_stands_beside_enough_different_numbers():
    others = np.linspace(1, 9, _FEWEST_DIFFERENT)
    assert _has_repeated_top(np.append(others, [99.9] * 3))
    assert not _has_repeated_top(np.append(others[1:], [99.9] * 3))


def test_a_number_that_tells_the_target_is_told_beside_columns_of_text():
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"age": generator.normal(60, 9, 80), "y": np.arange(80) % 2})
    rows = rows.assign(outcome_code=rows["y"] + 3, ward=np.where(rows["age"] > 60, "north", "south"))
    experiment = {"data": {"target": "y"}, "model": "linear", "rounds": 1}
    notes = v6.run(experiment, {"p": rows[:40], "q": rows[40:]}).notes
    assert any("outcome_code" in note and "target" in note for note in notes)
