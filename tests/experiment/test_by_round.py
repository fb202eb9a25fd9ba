"""Local work that changes with the round, as an experiment says it."""

import json

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment


def training(**section):
    return Experiment.parse({"data": {"target": "y"}, "training": section}).training


def test_a_number_counts_from_its_round_on():
    made = training(local_epochs={1: 1, 3: 2, 10: 5})
    assert [made.epochs_in(number) for number in (1, 2, 3, 9, 10, 99)] == [1, 1, 2, 2, 5, 5]
    assert made.steps_in(1) is None
    assert training(local_steps={1: 7}).steps_in(4) == 7


def test_a_schedule_survives_json_in_any_order():
    made = Experiment.parse({"data": {"target": "y"}, "training": {"local_steps": {10: 3, 1: 2, 2: 1}}})
    again = Experiment.parse(json.loads(json.dumps(made.for_sites(), sort_keys=True)), checked=True)
    assert made.training.local_steps == again.training.local_steps
    assert list(again.training.local_steps) == [1, 2, 10]
    assert made.resolved()["training"]["local_steps"] == {"1": 2, "2": 1, "10": 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({2: 1}, "training.local_epochs: by round, the first key must be 1, such as {1: 1, 5: 2}"),
        ({}, "the first key must be 1"),
        ({1: 0}, "whole numbers from 1"),
        ({0: 1, 1: 1}, "whole numbers from 1"),
        ({1: 1.5}, "whole numbers from 1"),
        ({1: True}, "whole numbers from 1"),
        ({"first": 1}, "whole numbers from 1"),
        (0, "training.local_epochs: must be greater than or equal to 1"),
        (True, "local_epochs: true and false are not allowed here"),
        ("many", "training.local_epochs: must be a whole number"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_key(given, message):
    with pytest.raises(ExperimentError) as refused:
        training(local_epochs=given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_epochs_and_steps_are_one_or_the_other_by_round_as_well():
    with pytest.raises(ExperimentError, match="local_epochs or local_steps, not both"):
        training(local_epochs={1: 1}, local_steps={1: 1})
