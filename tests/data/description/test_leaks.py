"""Columns that tell the target by themselves are named, where enough rows say so; others are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.notes.leaks import check_leaks
from v6_algorithm.data.description.leaks import telling_columns
from v6_algorithm.data.targets import TargetColumn
from v6_algorithm.errors import WireError

ROWS = 60


def table(seed=0):
    generator = np.random.default_rng(seed)
    y = (np.arange(ROWS) % 2).astype(int)
    return pd.DataFrame({"a": generator.normal(size=ROWS), "b": generator.normal(size=ROWS) + y, "y": y})


def told(frame, target=TargetColumn("y", kind="class"), categorical=(), smallest=5):
    numeric = [name for name in frame.columns if name not in categorical]
    return telling_columns(frame, numeric, categorical, [target], smallest)


COLUMNS = {
    "the target again": (lambda y: y, "copy"),
    "its complement": (lambda y: 1 - y, "copy"),
    "other numbers": (lambda y: np.where(y == 1, 7.5, 12.0), "copy"),
    "a score with a threshold": (lambda y: y * 10 + np.linspace(0, 1, ROWS), "separates"),
    "known of cases only": (lambda y: np.where(y == 1, np.linspace(5, 9, ROWS), np.nan), "empty"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_that_tells_the_class_is_named_with_how(kind):
    make, reason = COLUMNS[kind]
    frame = table()
    frame["leak"] = make(frame["y"].to_numpy())
    assert told(frame) == {"leak": reason}


def test_columns_that_only_go_along_with_the_class_are_not_named():
    assert told(table()) == {}
    frame = table()
    copy = frame["y"].to_numpy().copy()
    copy[3] = 1 - copy[3]
    assert told(frame.assign(nearly=copy)) == {"nearly": "nearly"}
    copy[5] = 1 - copy[5]
    assert told(frame.assign(nearly=copy)) == {}


def test_labels_that_are_the_class_in_other_words_are_named():
    frame = table().assign(word=lambda frame: np.where(frame["y"] == 1, "ill", "well"), ward=["n", "s", "w"] * 20)
    assert told(frame, categorical=("word", "ward")) == {"word": "copy"}


def test_three_classes_in_another_order_are_told_and_two_of_them_alone_are_not():
    frame = table().assign(y=np.arange(ROWS) % 3)
    frame["stage"], frame["half"] = frame["y"].map({0: 20, 1: 5, 2: 11}), frame["y"].map({0: 1, 1: 1, 2: 0})
    assert told(frame) == {"stage": "copy"}


@pytest.mark.parametrize(("smallest", "cases"), [(6, 5), (1, 1)])
def test_nothing_is_told_of_few_rows_of_a_class(smallest, cases):
    frame = table().assign(y=lambda frame: (frame.index < cases).astype(int))
    frame["leak"] = frame["y"]
    assert told(frame, smallest=smallest) == {}


def test_what_few_rows_show_by_chance_is_not_told():
    frame = table().iloc[:10]
    assert told(frame.assign(leak=frame["y"])) == {}


NUMBERS = {
    "pounds": (lambda y: np.round(y * 2.2046, 1), "line"),
    "its negative": (lambda y: -3 * y + 2, "line"),
    "its exponential": (lambda y: np.exp(y / 10), "follows"),
    "bands of it": (lambda y: np.floor(y / 4), "follows"),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("of", ["number", "duration"])
def test_a_column_that_tells_the_number_is_named_with_how(kind, of):
    make, reason = NUMBERS[kind]
    generator = np.random.default_rng(1)
    y = generator.uniform(1, 100, ROWS)
    frame = pd.DataFrame({"near": y + generator.normal(size=ROWS) * 5, "y": y, "leak": make(y)})
    assert told(frame, TargetColumn("y", kind=of)) == {"leak": reason}


def test_a_run_names_the_column_and_the_sites():
    sites = {name: table(seed) for seed, name in enumerate("pqr")}
    for name in "pq":
        sites[name]["discharged"] = 1 - sites[name]["y"]
    sites["r"]["discharged"] = np.random.default_rng(5).integers(0, 2, ROWS)
    notes = v6.run({"data": {"target": "y"}, "rounds": 1}, sites).notes
    (note,) = [note for note in notes if "discharged" in note]
    assert note.startswith("column 'discharged' at p, q: it is the target written differently")
    assert "data.exclude leaves it out" in note
    excluded = v6.run({"data": {"target": "y", "exclude": ["discharged"]}, "rounds": 1}, sites).notes
    assert not any("discharged" in note for note in excluded)


@pytest.mark.parametrize("leaks", [["a"], {"c": "copy"}, {"a": "a word of its own"}])
def test_a_site_names_its_own_columns_with_known_reasons(leaks):
    check_leaks({"a": "copy"}, ["a", "b"])
    with pytest.raises(WireError):
        check_leaks(leaks, ["a", "b"])


@pytest.mark.parametrize("kind", ["class", "number"])
def test_of_long_tables_some_rows_are_looked_at_first_and_the_same_columns_are_named(monkeypatch, kind):
    generator = np.random.default_rng(4)
    rows = 2_000
    y = (generator.random(rows) < 0.2).astype(int) if kind == "class" else generator.normal(size=rows).round(2)
    copy = y.copy()
    # Of a class 1 in 25 of the rarer one is written down wrongly, and of a number one row.
    wrong = np.flatnonzero(y == 1)[::25] if kind == "class" else np.array([7])
    copy[wrong] = 1 - copy[wrong] if kind == "class" else copy[wrong] + 0.5
    frame = pd.DataFrame(
        {
            "y": y, "copy": y * 3 + 1, "few wrong": copy, "other": generator.normal(size=rows),
            "coin": generator.integers(0, 2, rows), "curve": np.exp(y.astype(float)),
            "goes along": y + generator.normal(size=rows),
            "apart": y + generator.random(rows) / 2, "gaps": np.where(y == 1, np.nan, generator.normal(size=rows)),
            # It tells in all rows but one, which is not among the first that are looked at.
            "all but one": np.where(np.arange(rows) == 1_013, np.where(y > 0, -50.0, 50.0), y * 2.0),
        }
    )  # fmt: skip
    target = TargetColumn("y", kind=kind)
    of_all = told(frame, target)
    monkeypatch.setattr("v6_algorithm.data.description.leaks._FIRST_ROWS", 200)
    assert told(frame, target) == of_all
    assert of_all == (
        {"copy": "copy", "curve": "copy", "few wrong": "nearly", "apart": "separates", "gaps": "empty"}
        if kind == "class"
        else {"copy": "line", "curve": "follows", "few wrong": "line"}
    )
