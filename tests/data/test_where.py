"""`data.where`: which rows a site uses, within its owner's rules; and columns far from 0, which float32 cannot hold."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.where import rows_where
from v6_algorithm.engines.simulation import local
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment import Data, Experiment
from v6_algorithm.site.policy import ALLOWED_COLUMNS, Policy

ROWS = 200


def where(conditions):
    return Data.model_validate({"target": "y", "where": conditions}).where


def hospital(seed, offset=0.0):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": generator.integers(10, 90, ROWS), "ward": generator.choice(["icu", "north"], ROWS)})
    frame["lab"] = generator.normal(0, 1, ROWS).round(3) + offset
    return frame.assign(y=(frame["lab"] + generator.normal(0, 0.7, ROWS) > offset).astype(int))


def trained(frames, policy=None, **data):
    content = {"data": {"target": "y", **data}, "problem": "classification", "model": "logistic", "rounds": 3}
    contexts = {
        name: local.SiteContext({name: TableSource(**frame)}, **({"policy": policy} if policy else {}))
        for name, frame in frames.items()
    }
    return run(local.LocalFederation(contexts), Experiment.parse(content))


@given(
    st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=30),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.integers(-5, 5),
)
def test_a_condition_keeps_the_rows_that_meet_it_and_no_empty_cell(numbers, operator, threshold):
    frame = pd.DataFrame({"a": pd.Series(numbers, dtype=float)})
    compare = {"<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__", "==": "__eq__", "!=": "__ne__"}[operator]
    expected = [number is not None and getattr(number, compare)(threshold) for number in numbers]
    assert rows_where(frame, where({"a": f"{operator} {threshold}"})).tolist() == expected


def test_conditions_hold_together_and_any_takes_one_of_them():
    frame = pd.DataFrame({"age": [10, 30, 70, 80], "ward": ["icu", "icu", "north", None]})
    assert rows_where(frame, where({"age": [">= 18", "< 75"], "ward": "== icu"})).tolist() == [
        False,
        True,
        False,
        False,
    ]
    either = {"any": [{"age": "< 18"}, {"all": [{"age": "> 65"}, {"ward": "!= icu"}]}]}
    assert rows_where(frame, where(either)).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({}, "must be columns and conditions"),
        ({"age": "18"}, "must be an operator"),
        ({"visit": "BL"}, "must be an operator .*; if the label is meant, '== BL'"),
        ({"visit": ["== BL", "== M6"]}, r"visit: no row is all of these at once; any: \[\{visit: '== BL'\}, \{visit"),
        (
            {"date": ">= 2019-01-01"},
            "must be an operator and, behind .*, a number.*; dates and words are only == or !=",
        ),
        ({"age": 18}, "a condition is text"),
        ({"any": {"age": "> 1"}}, "any needs a list"),
    ],
)
def test_what_is_no_condition_is_refused(conditions, message):
    with pytest.raises(ExperimentError, match=message):
        Experiment.parse({"data": {"target": "y", "where": conditions}, "problem": "classification"})


def test_text_cannot_be_compared_and_a_column_must_be_there():
    frame = pd.DataFrame({"ward": ["icu"]})
    with pytest.raises(DataError, match=r"column 'ward' \(data.where\) holds text"):
        rows_where(frame, where({"ward": "> 3"}))
    with pytest.raises(DataError, match=r"column 'age' \(data.where\) is not there"):
        rows_where(frame, where({"age": "> 3"}))


def test_a_run_on_some_rows_is_a_run_on_a_table_of_these_rows():
    frames = {name: hospital(seed) for seed, name in enumerate(("a", "b"))}
    adults = {name: frame[frame["age"] >= 18].reset_index(drop=True) for name, frame in frames.items()}
    chosen = trained({name: {"frame": frame} for name, frame in frames.items()}, where={"age": ">= 18"})
    alone = trained({name: {"frame": frame} for name, frame in adults.items()})
    assert chosen["metrics"] == alone["metrics"]
    left_out = ROWS - len(adults["a"])
    assert f"site 'a': {left_out} rows do not meet data.where, and are left out" in chosen["notes"]


def test_a_node_refuses_a_choice_that_leaves_out_a_few_rows_and_columns_that_it_does_not_allow():
    frames = {name: {"frame": hospital(seed)} for seed, name in enumerate(("a", "b"))}
    with pytest.raises(Exception, match=re.escape("data.where leaves out fewer rows here than this node's minimum")):
        trained(frames, where={"age": "!= 50"})
    policy = Policy.from_environment({ALLOWED_COLUMNS: "y|lab"})
    with pytest.raises(Exception, match="does not allow column 'ward'"):
        trained(frames, policy=policy, where={"ward": "== icu"}, features=["lab"])


@pytest.mark.parametrize("source", ["frame", "parquet"])
def test_an_offset_of_a_column_changes_nothing_that_is_learned(tmp_path, source):
    """In float32, 1e8 and 1e8 + 3 are one number: a column was lost whose offset is large."""

    def frames(offset):
        found = {}
        for seed, name in enumerate(("a", "b")):
            frame = hospital(seed, offset)
            frame.to_parquet(tmp_path / f"{name}{offset:g}.parquet")
            found[name] = (
                {"frame": frame} if source == "frame" else {"uri": str(tmp_path / f"{name}{offset:g}.parquet")}
            )
        return found

    plain, far = (
        trained(frames(offset), features=["lab"])["metrics"]["test"]["pooled"]["auroc"] for offset in (0.0, 1e8)
    )
    assert plain > 0.8
    assert far == pytest.approx(plain, abs=0.005)
