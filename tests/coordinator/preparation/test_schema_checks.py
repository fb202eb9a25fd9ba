"""What a hospital tells of its table is looked at before anything is learned from it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation import event_times
from v6_algorithm.coordinator.preparation.schema_checks import check_schema
from v6_algorithm.data.cells import HINTS
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
