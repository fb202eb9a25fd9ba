"""A name that is not there is looked for in other spellings, and one that is there twice is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.data.measurements import measurement_of
from v6_algorithm.data.names import alike_to, check_once, not_there
from v6_algorithm.data.rows.numbers import LeftOut
from v6_algorithm.errors import DataError, ExperimentError

THERE = ["age", "Outcome", "Glucose (mg/dL)", "gr\u00f6\u00dfe"]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("outcome", ["Outcome"]),
        ("OUTCOME", ["Outcome"]),
        ("out_come", ["Outcome"]),
        ("glucose", ["Glucose (mg/dL)"]),
        ("Glucose [mmol/L]", ["Glucose (mg/dL)"]),
        ("gro\u0308\u00dfe", ["gr\u00f6\u00dfe"]),
        ("result", []),
        ("age", []),
    ],
)
def test_names_that_differ_in_spelling_or_unit_are_found(asked, meant):
    assert alike_to(asked, THERE) == meant


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("weight", "kg"), ("Weight (lb)", "kg"), ("weight_kg", "kg"), ("BodyWeight", "kg"), ("Gewicht", "kg"),
        ("Hb_baseline", "mmol/L"), ("creatinine_umol_l", "mg/dL"), ("hs_crp_mg_l", "mg/dL"), ("ldl_c", "mmol/L"),
        ("age", None), ("weight loss", None), ("birth_weight", None), ("class_weight", None), ("time_in_days", None),
        ("length of stay", None), ("m", None), ("min", None), ("lab", None), ("x1", None), ("bmi", None),
    ],
)  # fmt: skip
def test_measurements_of_two_units_are_known_by_their_names(name, units):
    known = measurement_of(name)
    assert (known and known.units[0]) == units


def test_columns_that_differ_in_the_unit_of_their_names_are_told_as_one():
    lacking = {"weight_kg": ["b"], "weight_lb": ["a"], "dose": ["a"]}
    (note,) = LeftOut(somewhere=lacking).notes()
    assert "'weight_kg' and 'weight_lb' differ in the unit that their names have" in note
    assert "'dose'" not in note


def test_a_name_that_is_not_there_comes_with_the_one_that_may_be_meant_or_with_all():
    assert not_there("column 'outcome' (data.target)", "outcome", THERE).startswith(
        "column 'outcome' (data.target) is not there; is it 'Outcome' there?"
    )
    assert not_there("column 'y' (data.target)", "y", ["a", "b"]) == (
        "column 'y' (data.target) is not there; it has: a, b"
    )


def test_a_name_that_is_there_twice_is_refused():
    check_once(["a", "A", 1])
    with pytest.raises(DataError, match="column 'a' is there twice; name each column differently"):
        check_once(["a", "b", "a"])


ROLES = {
    "target": ({"target": "Outcome"}, "Outcome"),
    "features": ({"target": "y", "features": ["Age"]}, "Age"),
    "categorical": ({"target": "y", "categorical": ["Sex"]}, "Sex"),
    "group": ({"target": "y", "group": "Ward"}, "Ward"),
    "where": ({"target": "y", "where": {"Age": "> 10"}}, "Age"),
}


@pytest.mark.parametrize("role", ROLES)
def test_a_run_says_which_site_spells_a_column_otherwise(role):
    data, name = ROLES[role]

    def table(seed):
        generator = np.random.default_rng(seed)
        columns = {"Age": generator.normal(60, 9, 40), "b": generator.normal(size=40), "Ward": np.arange(40) // 2}
        return pd.DataFrame(columns | {"Sex": ["f", "m"] * 20, "Outcome": [0, 1] * 20, "y": [0, 0, 1, 1] * 10})

    sites = {"p": table(0), "q": table(1).rename(columns={name: name.lower()})}
    with pytest.raises(ExperimentError, match=rf"site 'q': column '{name}'.* is it '{name.lower()}' there\?"):
        v6.run({"data": data, "rounds": 1}, sites)
