"""What a hospital tells of its table is looked at before anything is learned from it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation import event_times
from v6_algorithm.coordinator.preparation.schema_checks import (
    check_hidden,
    check_names,
    check_policy,
    check_schema,
    is_count,
    is_label,
    is_rows,
)
from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.errors import WireError

KIND = SimpleNamespace(check=lambda schema: None)
SCHEMA = {
    "labels": [0, 1], "task_labels": {}, "categories": {"sex": ["f", "m"]}, "rows": 40, "rows_without_target": 2,
    "columns": {"age": "number", "sex": "text"}, "few": ["sex"], "synthetic": 0, "hints": {"sex": next(iter(HINTS))},
    "left_out": 3, "groups": {"keyed": True, "hashes": ["0a"]},
}  # fmt: skip


def test_a_schema_as_it_should_be_is_read():
    assert check_schema(SCHEMA, KIND)["columns"] == SCHEMA["columns"]


@pytest.mark.parametrize(
    "change",
    [
        {"hints": {"sex": "a hint of its own"}}, {"hints": {"height": next(iter(HINTS))}}, {"hints": ["sex"]},
        {"labels": [[0]]}, {"labels": "01"}, {"rows": -1}, {"rows": True}, {"rows_without_target": 0.5},
        {"few": ["age"]}, {"synthetic": 41}, {"synthetic": -1}, {"left_out": -1}, {"columns": ["age"]},
        {"columns": {"x" * 10_000: "number"}}, {"groups": {"keyed": 1, "hashes": []}},
        {"groups": {"keyed": True, "hashes": [["0a"]]}},
    ],
)  # fmt: skip
def test_a_schema_with_one_thing_wrong_is_refused(change):
    with pytest.raises(WireError):
        check_schema(SCHEMA | change, KIND)


@pytest.mark.parametrize("cell", [[0, 5], [5, 0], [1.5, 5], [True, 5], [5], 5, ["5", "5"]])
def test_the_fewest_events_and_rows_of_a_cell_are_two_whole_numbers_from_1(monkeypatch, cell):
    monkeypatch.setattr(event_times, "unpack_arrays", lambda packed: packed)
    times = {"times": np.array([0.0, 2.0])}
    assert event_times.check_times({"event_times": times, "cell": [1, 5]})[1] == [1, 5]
    with pytest.raises(WireError, match="whole numbers from 1"):
        event_times.check_times({"event_times": times, "cell": cell})


def test_rules_in_force_are_a_hundred_short_ones_at_most():
    assert check_policy(None) == {}
    rules = {f"rule {number}": number for number in range(100)}
    assert check_policy(rules) == rules
    assert check_policy({"x" * 60: "y" * 60, "a": None, "b": True, "c": 0.5})["c"] == 0.5
    for wrong in (rules | {"more": 1}, ["rule"], {"x" * 61: 1}, {"a": "y" * 61}, {"a": [1]}, {"a": {}}):
        with pytest.raises(WireError, match="rules that it says are in force are malformed"):
            check_policy(wrong)


def test_counts_and_labels_have_an_end():
    assert [is_count(number) for number in (None, 0, 10**9 - 1, 10**9, -1, 0.5, "1")] == [True] * 3 + [False] * 4
    assert [is_rows(number) for number in (0, 10**9, 10**9 + 1, -1, True, None)] == [True] * 2 + [False] * 4
    assert [is_label(label) for label in (1, 0.5, "x" * 1000, "x" * 1001, None, [1])] == [True] * 3 + [False] * 3


def test_hints_may_be_of_every_column():
    hint = next(iter(HINTS))
    assert check_schema(SCHEMA | {"hints": {"age": hint, "sex": hint}}, KIND)["hints"] == {"age": hint, "sex": hint}
    for change in (
        {"fingerprint": "g"},
        {"fingerprint": "a" * 65},
        {"fingerprint": 3},
        {"at_zero": -1},
        {"few": "sex"},
    ):
        with pytest.raises(WireError):
            check_schema(SCHEMA | change, KIND)
    check_schema(SCHEMA | {"fingerprint": "a" * 64, "at_zero": 0, "synthetic": 40}, KIND)


def test_a_site_may_tell_nothing_of_any_column_that_it_was_asked_about():
    assert check_hidden(["b", "a"], ["a", "b"]) == ["b", "a"]
    assert check_hidden([], ["a"]) == []
    for wrong in (["c"], "a", None):
        with pytest.raises(WireError, match="columns that it was not asked about"):
            check_hidden(wrong, ["a", "b"])


def test_names_and_labels_have_a_thousand_letters_at_most():
    name = "x" * 1000
    assert name in check_schema(SCHEMA | {"columns": {name: "number", "sex": "text"}}, KIND)["columns"]
    assert check_schema(SCHEMA | {"labels": [name]}, KIND)["labels"] == [name]
    for change in ({"columns": {"x" + name: "number", "sex": "text"}}, {"labels": ["x" + name]}):
        with pytest.raises(WireError, match="at most 1000 letters"):
            check_schema(SCHEMA | change, KIND)


def test_names_of_hospitals_have_up_to_200_letters():
    check_names(["a" * 200])
    with pytest.raises(WireError, match="at most 200 letters"):
        check_names(["a" * 201])
