"""Which value of a category separates: where it is the reference, that is named, and not the values beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.inference.separation import against_reference, with_references

CATEGORIES = {"ward": ["a", "b", "c"], "sex": ["f", "m"]}


@pytest.mark.parametrize(
    ("coefficients", "unbounded", "found"),
    [
        ({"(intercept)": -30.0, "ward=b": 29.0, "ward=c": 31.0}, ["(intercept)", "ward=b", "ward=c"], ["ward=a"]),
        # Two values of one class each: the intercept stays where it is.
        ({"(intercept)": 0.2, "ward=b": -29.0, "ward=c": -31.0}, ["ward=b", "ward=c"], []),
        ({"(intercept)": -30.0, "ward=b": 29.0, "ward=c": 0.3}, ["(intercept)", "ward=b"], []),
        # Of a Cox model the sign says whose rows have no event.
        ({"ward=b": 26.0, "ward=c": 25.0}, ["ward=b", "ward=c"], ["ward=a"]),
        ({"sex=m": -26.0}, ["sex=m"], []),
    ],
)
def test_a_reference_is_named_where_all_grows_against_it(coefficients, unbounded, found):
    assert list(against_reference(coefficients, unbounded, CATEGORIES)) == found


def test_other_terms_are_named_beside_it():
    said = with_references(["(intercept)", "ward=b", "age"], {"ward=a": ["ward=b", "(intercept)"]})
    assert said == "ward=a (a reference, against which ward=b, (intercept) are told), age"


def test_a_logistic_model_whose_reference_has_no_case_names_the_reference():
    """Its matrix was once singular, for what was left of the reference's column was rounding."""
    generator = np.random.default_rng(0)
    tables = {}
    for name in ("north", "south"):
        ward, age = generator.choice(list("abc"), 120), generator.normal(size=120)
        y = (generator.random(120) < 1 / (1 + np.exp(-age))) & (ward != "a")
        tables[name] = pd.DataFrame({"ward": ward, "age": age, "y": y.astype(int)})
    result = v6.run({"data": {"target": "y", "categorical": ["ward"]}, "model": "glm"}, sites=tables)
    assert any("glm: ward=a (a reference, against which ward=b, ward=c, (intercept)" in note for note in result.notes)
    left = result.coefficients["left_out"].dropna().to_dict()
    assert left == {"(intercept)": "separated", "ward=a": "reference", "ward=b": "separated", "ward=c": "separated"}
