"""A condition whose word a site spells differently stops that site, and columns with one value are told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.notes.constant_columns import tell_constant
from v6_algorithm.data.preparation import Moments, merge_moments
from v6_algorithm.data.targets import TargetColumn, labels_of
from v6_algorithm.data.where import rows_where
from v6_algorithm.errors import DataError, ExperimentError


def hospital(seed, words):
    generator = np.random.default_rng(seed)
    rows = 40
    frame = pd.DataFrame(generator.normal(size=(rows, 2)), columns=["a", "b"])
    return frame.assign(
        days=generator.exponential(300, rows).round() + 1, status=[words[row % 2] for row in range(rows)]
    )


PROBLEMS = {
    "survival": (
        {"target": {"duration": "days", "event": "status"}, "features": ["a", "b"]},
        {"kind": "survival"},
        "cox",
    ),
    "classification": ({"target": "status", "features": ["a", "b"]}, {"kind": "classification"}, "linear"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("words", [("alive", "Dead"), ("alive", "dead."), ("dead", "DEAD")])
def test_the_word_of_an_event_that_a_site_spells_differently_stops_the_run(problem, words):
    data, kind, model = PROBLEMS[problem]
    sites = {"p": hospital(0, ("alive", "dead")), "q": hospital(1, words)}
    experiment = {"data": {**data, "positive": "== dead"}, "problem": kind, "model": model, "rounds": 1}
    with pytest.raises(ExperimentError, match=r"(?s)'q'.*holds 'dead' \(data\.positive\) spelled differently") as error:
        v6.run(experiment, sites)
    assert error.value.exit_code == 2
    assert words[1] not in str(error.value).replace("holds 'dead'", "")


@pytest.mark.parametrize("condition", ["== dead", "!= alive", "== 1"])
def test_conditions_are_met_as_they_are_written(condition):
    cells = pd.Series([1, 0, 1] if "1" in condition else ["dead", "alive", "dead"])
    assert labels_of(cells, TargetColumn("y", kind="class", positive=condition)) == [1, 0, 1]


FRAME = pd.DataFrame({"arm": ["A", "B", "a", None], "age": [1, 2, 3, 4]})


@pytest.mark.parametrize("where", [{"arm": ["== A"]}, {"any": [{"arm": ["!= A"]}, {"age": ["> 3"]}]}])
def test_a_row_filter_whose_word_is_spelled_differently_is_refused(where):
    with pytest.raises(DataError, match=r"column 'arm' holds 'A' \(data\.where\) spelled differently"):
        rows_where(FRAME, where)


def test_spellings_that_a_row_filter_names_itself_are_meant():
    where = {"any": [{"arm": ["== A"]}, {"arm": ["== a"]}]}
    assert rows_where(FRAME, where).tolist() == [True, False, True, False]
    assert rows_where(FRAME, {"arm": ["== B"], "age": ["> 1"]}).tolist() == [False, True, False, False]


def moments(*columns):
    return Moments.of([np.array(columns, dtype=float).T], with_range=False)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, -3.7])
def test_columns_with_one_value_are_told(value):
    generator = np.random.default_rng(0)
    of = lambda one: moments([value] * 7, [one] * 7, generator.normal(size=7), [np.nan] * 7)  # noqa: E731
    sites = {"p": of(1.0), "q": of(2.0)}
    names = ["constant", "of the site", "varies", "empty"]
    everywhere, at_each = tell_constant(names, sites, merge_moments(sites.values()))
    assert everywhere.endswith("nothing is learned from it: constant")
    assert ": of the site; data.exclude" in at_each
    (alone,) = tell_constant(names[:1], {"p": moments([value] * 7)}, moments([value] * 7))
    assert alone.startswith("site 'p': one value")


def test_one_value_at_a_site_far_from_those_of_others_is_told():
    generator = np.random.default_rng(0)
    rare = lambda share: generator.random(60) < share  # noqa: E731
    sites = {
        name: moments(generator.normal(240, 50, 60), rare(0.1), rare(0.5), generator.poisson(1, 60))
        for name in ("p", "q")
    }
    sites["r"] = moments(*np.zeros((4, 60)))
    (note,) = tell_constant(["chol", "rare", "half", "count"], sites, merge_moments(sites.values()))
    assert note.startswith("site 'r': one value in all training rows, unlike other sites: chol, count;")
    few = {**sites, "r": moments(*np.zeros((4, 5)))}
    assert tell_constant(["chol", "rare", "half", "count"], few, merge_moments(few.values())) == []


def test_columns_that_vary_are_not_told():
    sites = {name: moments(np.arange(7), 1e9 + np.arange(7), [0, 0, 0, 0, 0, 0, 1]) for name in ("p", "q")}
    assert tell_constant(["a", "b", "c"], sites, merge_moments(sites.values())) == []
