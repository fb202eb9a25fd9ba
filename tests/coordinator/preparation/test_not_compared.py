"""What nodes keep to themselves is said to be not compared, where somebody would take silence for an all-clear."""

from __future__ import annotations

import pytest

from v6_algorithm.coordinator.preparation.notes.not_compared import tell_not_compared
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.policy import Policy

RULES = {name: Policy.of(preset).in_force() for name, preset in (("ada", "trusted"), ("bob", "standard"))}
TABLE = "not compared, since nodes keep it to themselves: whether two sites have the same rows (at "
TARGET = "not compared, since nodes keep it to themselves: how large 'age' is (at "


@pytest.mark.parametrize(
    ("content", "rules", "told"),
    [
        ({"data": {"target": "y"}}, RULES, [f"{TABLE}bob)"]),
        ({"data": {"target": "age"}, "problem": "regression"}, RULES, [f"{TABLE}bob)", f"{TARGET}bob)"]),
        (
            {"data": {"targets": {"sex": "classification", "age": "regression"}}, "problem": "multitask"},
            {"bob": RULES["bob"], "eve": RULES["bob"]},
            [f"{TABLE}bob, eve)", f"{TARGET}bob, eve)"],
        ),
        ({"data": {"target": "y"}, "problem": "regression"}, {"ada": RULES["ada"], "ben": RULES["ada"]}, []),
        ({"data": {"target": "y"}, "problem": "regression"}, {"bob": RULES["bob"]}, []),
    ],
)
def test_what_is_not_compared_is_said(content, rules, told):
    notes = tell_not_compared(Experiment.parse(content), rules, tables=True)
    assert [note.split("), so ")[0] + ")" if "), so " in note else note for note in notes] == told
    # Images have no rows to compare, and targets all the same.
    assert tell_not_compared(Experiment.parse(content), rules, tables=False) == [
        note for note in notes if note.startswith(TARGET)
    ]
