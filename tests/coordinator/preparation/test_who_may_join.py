"""Which runs sites may join later, which absences count, and how many event times a Cox model may have."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation import event_times
from v6_algorithm.coordinator.preparation.joining import Joining
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

COX = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival"}
LINEAR = {"data": {"target": "y"}, "model": "linear"}


def waited_for(content, *entries):
    caller = SimpleNamespace(close_books=lambda: None, participation=list(entries))
    return Joining(Experiment.parse(content), caller, SimpleNamespace(sites=["here"])).state_dict()["tries"]


def prepared(round_=0, call="prepare", **missing):
    return {"call": call, "round": round_, "missing": missing}


@pytest.mark.parametrize(
    ("content", "joins"),
    [
        (LINEAR, True), (COX | {"model": {"kind": "cox", "strata": "site"}}, True),
        (COX | {"model": {"kind": "cox", "strata": "none"}}, False),
        (LINEAR | {"split": "leave_one_site_out"}, False), (LINEAR | {"participation": {"join": False}}, False),
        (LINEAR | {"data": {"target": "y", "harmonisation": "combat"}}, False),
        (LINEAR | {"privacy": {"secure_aggregation": {"threshold": 2}}}, False), (LINEAR | {"mode": "local"}, False),
    ],
)  # fmt: skip
def test_nobody_joins_where_something_is_of_certain_sites(content, joins):
    assert waited_for(content, prepared(a="late: no answer")) == ({"a": 0} if joins else {})


def test_who_was_away_is_waited_for_and_who_refused_is_not():
    first = prepared(a="late: no answer", b="refused: too few rows", c="crashed", d="unreachable: offline", here="late")
    assert waited_for(LINEAR, first) == {"a": 0, "c": 0, "d": 0}
    # What a site said last counts, of the preparation at the beginning alone.
    later = [prepared(a="data: no column"), prepared(2, e="late"), prepared(0, "train", f="late")]
    assert waited_for(LINEAR, first, *later) == {"c": 0, "d": 0}


def test_so_many_event_times_are_sent_and_no_more(monkeypatch):
    """Three times of two columns: a count, two sums and three products, at risk and of events."""
    answers = {"a": (np.array([1.0, 2.0]), [1, 1]), "b": (np.array([2.0, 5.0]), [5, 9])}
    setup = Setup(["x", "z"], {}, None)
    monkeypatch.setattr(event_times, "_MOST_NUMBERS", 3 * 6 * 2)
    agreed, notes = event_times.agree_on_times(answers, setup)
    assert agreed.event_times.tolist() == [1, 2, 5]
    assert "site 'b': its node joins event times: each of its 2 stands for at least 5 events and 9 rows" in notes[0]
    assert notes[1].startswith("model cox: a told the times of single events")
    assert len(notes) == 2
    monkeypatch.setattr(event_times, "_MOST_NUMBERS", 3 * 6 * 2 - 1)
    with pytest.raises(ExperimentError, match="sums at 3 event times for 2 columns are 36 numbers a round"):
        event_times.agree_on_times(answers, setup)
    with pytest.raises(ExperimentError, match="no training row of any site has an event"):
        event_times.agree_on_times({"a": (np.array([]), [1, 1])}, setup)
