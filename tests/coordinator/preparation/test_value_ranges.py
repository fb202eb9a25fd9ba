"""Columns of which two sites' values differ as two units do are named, and such as hospitals have are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.notes import value_ranges
from v6_algorithm.coordinator.preparation.notes.value_ranges import (
    check_codes,
    tell_codes,
    tell_ranges,
    tell_target_sizes,
)
from v6_algorithm.data.description.describe import codes_of
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Data
from v6_algorithm.researcher.report.coefficients import fit_text

# Mean and standard deviation at one site, and what the other writes of the same.
UNITS = {
    "glucose, mg/dL and mmol/L": (105, 30, lambda x: x / 18.02),
    "cholesterol, mg/dL and mmol/L": (200, 42, lambda x: x / 38.67),
    "creatinine, mg/dL and umol/L": (1.1, 0.6, lambda x: x * 88.4),
    "haemoglobin, g/dL and g/L": (13.6, 1.7, lambda x: x * 10),
    "temperature, C and F": (37.1, 0.7, lambda x: x * 1.8 + 32),
    "height, m and cm": (1.72, 0.1, lambda x: x * 100),
    "height, cm and inch": (172, 10, lambda x: x / 2.54),
    "weight, kg and lb": (78, 16, lambda x: x * 2.2046),
    "haematocrit, a share and percent": (0.42, 0.05, lambda x: x * 100),
    "age, years and months": (61, 14, lambda x: x * 12),
}


def moments(*columns):
    return {
        f"site{number}": Moments.of([np.asarray(column, dtype=float).reshape(-1, 1)], with_range=False)
        for number, column in enumerate(columns)
    }


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("seed", range(3))
def test_sites_that_write_a_column_in_two_units_are_told(kind, seed):
    mean, deviation, convert = UNITS[kind]
    generator = np.random.default_rng(seed)
    here, there = (np.abs(generator.normal(mean, deviation, 200)) for _ in range(2))
    (note,) = tell_ranges(["x"], moments(here, convert(there)))
    assert note.startswith("column 'x': the sites' values lie far apart")
    assert "in one unit?" in note
    assert tell_ranges(["x"], moments(here, there)) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda g: g.normal(45, 12, 200), lambda g: g.normal(70, 10, 200)),
        (lambda g: g.lognormal(1, 1.2, 200), lambda g: g.lognormal(2.2, 1.2, 200)),
        (lambda g: g.integers(0, 2, 200), lambda g: g.random(200) < 0.05),
        (lambda g: g.normal(0, 1, 200), lambda g: g.normal(1.5, 2, 200)),
        (lambda g: g.poisson(0.4, 200), lambda g: g.poisson(2, 200)),
        (lambda g: g.normal(45, 12, 5), lambda g: g.normal(4500, 12, 200)),
        (lambda g: g.normal(0, 1, 200), lambda g: g.normal(0, 10, 200)),
    ],
)
def test_sites_whose_patients_differ_are_not(first, second):
    generator = np.random.default_rng(0)
    assert tell_ranges(["x"], moments(first(generator), second(generator))) == []


# Two hospitals whose patients differ, so that the values of two units overlap, or spread more than they are large.
OVERLAPPING = {
    "weight": (lambda g: g.normal(88, 19, 150), lambda g: g.normal(73, 15, 150) * 2.2046, "in kg and in lb"),
    "Body_Weight (kg)": (lambda g: g.normal(70, 18, 60), lambda g: g.normal(84, 21, 60) * 2.2046, "in kg and in lb"),
    "lengte_cm": (lambda g: g.normal(150, 30, 150), lambda g: g.normal(158, 28, 150) / 2.54, "in inches and in cm"),
    "Hb": (lambda g: g.normal(12.0, 2.4, 150), lambda g: g.normal(13.1, 2.1, 150) / 1.6114, "in mmol/L and in g/dL"),
    "BUN": (lambda g: g.gamma(3, 6, 150), lambda g: g.gamma(3, 6, 150) / 2.801, "in mmol/L and in mg/dL"),
    "creatinine": (lambda g: g.lognormal(0, 1.1, 150), lambda g: g.lognormal(0.3, 1, 150) * 88.4, "in mg/dL and in"),
    "crp_baseline": (lambda g: g.lognormal(3, 1.3, 150), lambda g: g.lognormal(3, 1.2, 150) / 10, "in mg/dL and in mg"),
}


@pytest.mark.parametrize("name", OVERLAPPING)
@pytest.mark.parametrize("seed", range(3))
def test_a_measurement_in_its_two_units_is_told_by_its_name_though_values_overlap(name, seed):
    here, there, units = OVERLAPPING[name]
    generator = np.random.default_rng(seed)
    sites = moments(here(generator), there(generator))
    (note,) = tell_ranges([name], sites)
    assert units in note
    assert note.endswith("are they in one unit? Convert them there, or leave the column out with data.exclude")


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("weight", lambda g: g.normal(36, 17, 200), lambda g: g.normal(74, 16, 200)),
        ("weight", lambda g: g.normal(68, 12, 200), lambda g: g.normal(104, 22, 200)),
        ("hb", lambda g: g.normal(10.6, 1.9, 200), lambda g: g.normal(13.9, 1.4, 200)),
        ("height", lambda g: g.normal(110, 25, 200), lambda g: g.normal(170, 9, 200)),
        ("creatinine", lambda g: g.lognormal(0, 0.3, 200), lambda g: g.lognormal(1.4, 0.9, 200)),
        ("crp", lambda g: g.lognormal(0.5, 1, 200), lambda g: g.lognormal(1.8, 1, 200)),
        ("x", lambda g: g.normal(92, 21, 150), lambda g: g.normal(71, 15, 150) * 2.2046),
    ],
)
def test_a_measurement_of_other_patients_is_not(name, first, second):
    generator = np.random.default_rng(1)
    assert tell_ranges([name], moments(first(generator), second(generator))) == []


def test_a_site_between_those_of_two_units_hides_neither():
    generator = np.random.default_rng(2)
    sites = [generator.normal(mean, 0.2 * mean, 100) for mean in (66, 97)]
    (note,) = tell_ranges(["weight"], moments(*sites, generator.normal(80, 16, 100) * 2.2046))
    assert "as those in kg and in lb do" in note


def test_a_target_in_its_two_units_is_told_by_its_name():
    def told(name):
        sizes = {"p": (90, np.log2(81.0), 1), "q": (80, np.log2(170.0), 0)}
        return tell_target_sizes(
            Data(target=name), {site: {"target_sizes": {name: size}} for site, size in sizes.items()}
        )

    (note,) = told("weight")
    assert note.startswith("data.target: the sites' targets differ 2.1-fold in size")
    assert told("score") == []


@pytest.mark.parametrize("factor", [100, 1000, 1e6])
def test_values_around_zero_in_two_units_are_told_by_their_spread(factor):
    generator = np.random.default_rng(4)
    volts, others = generator.normal(0, 1, 200), generator.normal(0, factor, 200)
    (note,) = tell_ranges(["c1"], moments(volts, others))
    assert note.startswith("column 'c1': the sites' values lie far apart")
    assert "in one unit?" in note


def test_of_many_sites_the_one_in_another_unit_is_seen():
    generator = np.random.default_rng(3)
    sites = [generator.normal(105, 30, 80) for _ in range(30)]
    sites[7] = sites[7] / 18.02
    (note,) = tell_ranges(["x"], moments(*sites))
    assert "site7" in note


def test_codes_that_differ_between_sites_are_told():
    schemas = {"p": {"codes": {"sex": [0, 1], "cp": [0, 1]}}, "q": {"codes": {"sex": [1, 2]}}, "r": {}}
    (note,) = tell_codes(schemas, ["sex", "cp"])
    assert note.startswith("column 'sex' holds 0 and 1 at p; 1 and 2 at q: are these codes for the same?")
    assert tell_codes(schemas, ["cp"]) == []


def test_grades_from_another_number_on_are_told_and_grades_that_a_site_lacks_are_not():
    schemas = {"p": {"codes": {"nyha": [1, 2, 3, 4]}}, "q": {"codes": {"nyha": [0, 1, 2, 3]}}}
    (note,) = tell_codes(schemas, ["nyha"])
    assert note.startswith("column 'nyha' holds 0 to 3 at q; 1 to 4 at p: are these codes for the same?")
    schemas["q"] = {"codes": {"nyha": [1, 2, 3]}}
    assert tell_codes(schemas, ["nyha"]) == []


def test_codes_are_of_two_numbers_or_of_some_that_follow_each_other():
    frame = pd.DataFrame(
        {"two": [1, 5] * 12, "grade": [1, 2, 3, 4] * 6, "gap": [1, 2, 4, 5] * 6, "rare": [1, 2, 2, 3, 3, 3] * 4}
    ).assign(many=range(24), half=[0, 0.5, 1, 2] * 6)
    assert codes_of(frame, 5) == {"two": (1, 5), "grade": (1, 2, 3, 4)}
    assert codes_of(frame, 4)["rare"] == (1, 2, 3)


def test_a_site_with_rows_in_both_units_is_told():
    generator = np.random.default_rng(0)
    creatinine = generator.gamma(20, 0.05, 80)
    mixed = np.where(np.arange(80) < 56, 88.4, 1) * generator.gamma(20, 0.05, 80)
    (note,) = tell_ranges(["creatinine"], moments(creatinine, mixed))
    assert note.startswith("column 'creatinine': the sites' values lie far apart")


@pytest.mark.parametrize(
    "codes",
    [
        ["sex"],
        {"age": [0, 1]},
        {"sex": [1, 0]},
        {"sex": [0.5, 1]},
        {"sex": [False, True]},
        {"sex": [0]},
        {"sex": 1},
        {"sex": [*range(11)]},
    ],
)
def test_codes_are_two_whole_numbers_of_a_column_that_is_there(codes):
    check_codes({"sex": [0, 1]}, ["sex"])
    with pytest.raises(WireError):
        check_codes(codes, ["sex"])


def test_a_run_tells_of_units_and_codes():
    def table(seed):
        generator = np.random.default_rng(seed)
        sex = generator.integers(0, 2, 80)
        glucose = generator.normal(100, 20, 80)
        return pd.DataFrame({"sex": sex, "glucose": glucose, "y": (glucose > 100) ^ (generator.random(80) < 0.2)})

    sites = {"p": table(0), "q": table(1).assign(sex=lambda f: f["sex"] + 1, glucose=lambda f: f["glucose"] / 18)}
    notes = v6.run({"data": {"target": "y"}, "rounds": 1}, sites).notes
    assert any(note.startswith("column 'glucose': the sites' values lie far apart") for note in notes)
    assert any(note.startswith("column 'sex' holds 0 and 1 at p; 1 and 2 at q") for note in notes)
    same = v6.run({"data": {"target": "y"}, "rounds": 1}, {"p": table(0), "q": table(1)}).notes
    assert not any("far apart" in note or "codes for the same" in note for note in same)


def test_a_column_without_name_or_values_is_told_as_empty_and_odds_name_their_class():

    generator = np.random.default_rng(0)
    age = generator.normal(60, 9, 120)
    group = np.where(generator.random(120) < 1 / (1 + np.exp((60 - age) / 9)), "case", "control")
    rows = pd.DataFrame({"age": age, "Unnamed: 4": np.nan, "group": group})
    experiment = {"data": {"target": "group"}, "model": {"kind": "glm"}, "rounds": 15}
    result = v6.run(experiment, {"p": rows[:60], "q": rows[60:]})
    assert "left out, empty at every site that has them: Unnamed: 4" in result.notes
    assert fit_text(result.content).startswith("binomial (positive: control), link logit, 120 rows")


def test_of_columns_that_cannot_be_apart_none_is_looked_at_one_by_one(monkeypatch):
    looked_at = []
    monkeypatch.setattr(value_ranges, "_differ", lambda *numbers: looked_at.append(numbers))
    generator = np.random.default_rng(0)
    sites = {site: Moments.of([generator.normal(5, 1, (40, 300))], with_range=False) for site in "abc"}
    assert tell_ranges([f"x{number}" for number in range(300)], sites) == []
    assert looked_at == []


@pytest.mark.parametrize("seed", range(4))
def test_columns_are_told_whether_or_not_those_that_cannot_be_apart_are_passed_over(monkeypatch, seed):
    generator, columns = np.random.default_rng(seed), 400
    # As of the same and of other units, around 0 and far from it, mixed, constant, and of few values.
    factors = np.array([1, 1, 1, 2.2046, 2.54, 3.9, 4, 10, 18, 30, 31, 1000, -1, 0])
    middle = generator.choice([0, 0.1, 1, 7, 300], columns)
    sites = {}
    for site in "abc":
        values = (middle + generator.standard_normal((30, columns))) * generator.choice(factors, columns)
        values[generator.random(columns) < 0.1 * np.ones((30, 1))] = np.nan
        values[5:, generator.random(columns) < 0.1] = np.nan
        sites[site] = Moments.of([values + generator.choice([0, 0, 3, 3.1], columns)], with_range=False)
    names = [f"x{number}" for number in range(columns)]
    told = tell_ranges(names, sites)
    monkeypatch.setattr(value_ranges, "_may_be_apart", lambda means, deviations, seen: seen.sum(axis=0) > 1)
    assert told == tell_ranges(names, sites)
    assert 0 < len(told) < columns
