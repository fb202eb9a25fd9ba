"""Plain arguments of `master`: each sets its key of the experiment, as `--set` does, or leaves it alone."""

from __future__ import annotations

import copy
import inspect
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import v6_algorithm
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.arguments import PATHS, with_arguments

# One value for each argument, none of them its default.
VALUES = {
    "target": "num",
    "positive": "> 0",
    "features": ["age", "chol"],
    "categorical": ["cp"],
    "exclude": ["thal"],
    "group": "patient",
    "scaling": "minmax",
    "missing": "median",
    "problem": "classification",
    "model": "mlp",
    "hidden": [8, 4],
    "train_share": 0.5,
    "validation_share": 0.25,
    "test_share": 0.25,
    "folds": 4,
    "rounds": 7,
    "local_epochs": 2,
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "patience": 3,
    "seed": 11,
    "minimum_sites": 3,
    "deadline_s": 60,
}
SHARES = {"train_share", "validation_share", "test_share"}


def at(content, path):
    for key in path.split("."):
        content = content[key]
    return content


def test_every_plain_argument_is_a_parameter_of_master_and_none_other_is():
    others = {"client", "data", "experiment", "organizations", "names", "weights", "resume", "mock_client"}
    assert set(inspect.signature(v6_algorithm.master).parameters) - others == set(PATHS) == set(VALUES)


@pytest.mark.parametrize("left_out", [SHARES, {"folds"}], ids=["folds", "shares"])
def test_a_form_without_json_makes_the_experiment(left_out):
    arguments = {name: value for name, value in VALUES.items() if name not in left_out}
    experiment = Experiment.parse(with_arguments(None, arguments)).resolved()
    for name, value in arguments.items():
        assert at(experiment, PATHS[name]) == value, name


def test_folds_make_the_split_a_cross_validation():
    assert Experiment.parse(with_arguments(None, {"target": "y", "folds": 4})).split.kind == "kfold"


@pytest.mark.parametrize("name", sorted(VALUES))
def test_an_argument_is_the_same_as_its_key_given_with_set(name, tmp_path):
    base = {"data": {"target": "y"}, "model": "mlp", "split": {"stratify": False}}
    overrides = [f"{PATHS[name]}={VALUES[name] if name == 'positive' else json.dumps(VALUES[name])}"]
    overrides += ["split.kind=kfold"] if name == "folds" else []
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(base))

    def outcome(make):
        try:
            return make().resolved()
        except ExperimentError as error:
            return str(error).replace(file.name, "experiment")

    with_set = outcome(lambda: Experiment.load(file, overrides))
    assert outcome(lambda: Experiment.parse(with_arguments(base, {name: VALUES[name]}))) == with_set
    # One of three shares does not add up to 1 with the defaults of the others; it says so.
    assert isinstance(with_set, str) == (name.endswith("_share")), with_set


@pytest.mark.parametrize("empty", [None, "", "  ", []], ids=repr)
@pytest.mark.parametrize("name", sorted(PATHS))
def test_what_a_form_sends_for_an_empty_field_changes_nothing(name, empty):
    experiment = {"data": {"target": "y", "features": ["a"]}, "model": {"kind": "mlp", "hidden": [3]}, "rounds": 9}
    assert with_arguments(experiment, {name: empty}) == experiment


def test_zero_is_a_value_and_not_an_empty_field():
    with pytest.raises(ExperimentError, match=r"rounds: must be greater than or equal to 1 \(given: 0\)"):
        Experiment.parse(with_arguments(None, {"target": "y", "rounds": 0}))


@given(st.dictionaries(st.sampled_from(sorted(VALUES)), st.sampled_from([None, 0, "x", [1]])))
def test_the_experiment_that_was_given_is_not_changed(arguments):
    experiment = {"data": {"target": "y"}, "model": "mlp", "training": {"optimizer": {"kind": "adam", "lr": 0.1}}}
    before = copy.deepcopy(experiment)
    with_arguments(experiment, arguments)
    assert experiment == before


def test_an_option_of_another_kind_is_refused_and_not_dropped_unseen():
    experiment = {"data": {"target": "y"}, "model": {"kind": "mlp", "hidden": [8]}}
    with pytest.raises(ExperimentError, match="model: unknown key 'hidden'; allowed: kind"):
        Experiment.parse(with_arguments(experiment, {"model": "logistic"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 5}, "experiment: data.target: is required"),
        ({"target": "y", "problem": "clasification"}, r"problem.kind: .*\(did you mean 'classification'\?\)"),
        ({"target": "y", "model": "forest"}, "model.kind: unknown value 'forest'; allowed: linear, logistic, mlp"),
        ({"target": "y", "optimizer": "adamm"}, r"unknown optimizer 'adamm' \(did you mean 'adam'\?\)"),
        ({"target": "y", "test_share": 0.5}, "split: train, validation and test must add up to 1, not to 1.3"),
        (
            {"target": "y", "test_share": 0.2, "folds": 5},
            "split: unknown key 'test'; allowed: kind, folds, repeats, stratify",
        ),
        ({"target": "y", "scaling": "zscore"}, "data.scaling.kind: must be 'none', 'standard', 'minmax' or 'robust'"),
        ({"target": "y", "features": "age"}, r"data.features: must be a valid list \(given: 'age'\)"),
        ({"target": "y", "problem": "regression", "positive": "> 0"}, "data.positive makes a 0/1 target"),
        ({}, "experiment: is required, or the plain argument `target`"),
    ],
)
def test_a_wrong_value_is_told_as_in_a_file(arguments, message):
    with pytest.raises(ExperimentError, match=message) as raised:
        Experiment.parse(with_arguments(None, arguments))
    assert "\n" not in str(raised.value)
