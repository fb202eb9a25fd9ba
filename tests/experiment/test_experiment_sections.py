"""What a researcher may write, what it means when left out, and how a mistake is answered."""

from __future__ import annotations

import json

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

SMALLEST = {"data": {"target": "num"}}

# The contract's file, with the defaults it states.
CONTRACT = {
    "seed": 0,
    "mode": "federated",
    "data": {
        "target": "num",
        "positive": None,
        "features": None,
        "exclude": [],
        "categorical": [],
        "group": None,
        "split_column": None,
        "scaling": {"kind": "standard", "scope": "federation"},
        "missing": {"kind": "mean", "value": 0.0},
        "harmonisation": {"kind": "none", "covariates": []},
    },
    "problem": {"kind": "classification"},
    "model": {"kind": "mlp", "hidden": [64, 32], "norm": "layer", "dropout": 0.0, "activation": "relu"},
    "split": {"kind": "ratio", "train": 0.6, "validation": 0.2, "test": 0.2, "stratify": True},
    "rounds": 20,
    "training": {
        "local_epochs": 1,
        "local_steps": None,
        "batch_size": 32,
        "optimizer": {"kind": "adam", "lr": 0.001},
        "scheduler": None,
        "loss": None,
        "dtype": "float32",
    },
    "strategy": {"kind": "fedavg", "weighting": "samples"},
    "stopping": {"monitor": "loss", "patience": 5, "min_delta": 0.0001},
    "participation": {"fraction": 1.0, "minimum": 2, "deadline_s": 3600.0, "poll_s": 0.5},
    "privacy": {},
    "output": {"model": "best", "profile": False},
}

FULL = {
    "name": "heart",
    "seed": 7,
    "mode": "local",
    "sites": {"cleveland": "cleveland.csv", "va": {"uri": "va.db", "query": "SELECT * FROM t"}},
    "data": {
        "target": "num",
        "positive": "> 0",
        "features": ["age", "chol"],
        "categorical": ["cp"],
        "group": "patient",
        "scaling": {"kind": "robust", "scope": "site"},
        "missing": {"kind": "constant", "value": -1},
    },
    "model": {"kind": "mlp", "hidden": [8], "norm": "group", "dropout": 0.1},
    "split": {"kind": "kfold", "folds": 10},
    "training": {
        "local_steps": 4,
        "batch_size": None,
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
        "scheduler": {"kind": "StepLR", "step_size": 3},
        "loss": {"kind": "cross_entropy", "class_weights": [1, 2.5]},
    },
    "stopping": {"monitor": "ece", "patience": None},
}


def parsed(**changes):
    return Experiment.parse(SMALLEST | changes)


def refusal(**changes):
    with pytest.raises(ExperimentError) as refused:
        parsed(**changes)
    return str(refused.value)


def data(**changes):
    return {"data": {"target": "num"} | changes}


def test_defaults_are_those_of_the_contract():
    resolved = parsed().resolved()
    del resolved["name"], resolved["sites"]
    assert resolved == CONTRACT


@pytest.mark.parametrize("content", [SMALLEST, FULL], ids=["smallest", "full"])
def test_resolved_experiment_parses_to_itself(content):
    experiment = Experiment.parse(content)
    assert Experiment.parse(experiment.resolved()) == experiment


@pytest.mark.parametrize("content", [SMALLEST, FULL], ids=["smallest", "full"])
def test_resolved_experiment_survives_json(content):
    resolved = Experiment.parse(content).resolved()
    assert json.loads(json.dumps(resolved, allow_nan=False)) == resolved


def test_sites_are_not_told_where_the_others_keep_their_data():
    assert "va.db" not in json.dumps(Experiment.parse(FULL).for_sites())


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"model": "linear"}, {"model": {"kind": "linear"}}),
        ({"split": "ratio"}, {"split": {"kind": "ratio"}}),
        ({"problem": "regression"}, {"problem": {"kind": "regression"}}),
        ({"strategy": "fedavg"}, {"strategy": {"kind": "fedavg"}}),
        ({"sites": {"va": "va.csv"}}, {"sites": {"va": {"uri": "va.csv"}}}),
        ({"training": {"optimizer": "sgd"}}, {"training": {"optimizer": {"kind": "sgd"}}}),
        (data(scaling="minmax"), data(scaling={"kind": "minmax"})),
        (data(missing="drop"), data(missing={"kind": "drop"})),
    ],
)
def test_a_section_of_one_word_is_its_kind(short, long):
    assert parsed(**short) == parsed(**long)


@pytest.mark.parametrize(
    ("without", "written_out"),
    [
        ({"model": {"hidden": [8]}}, {"model": {"kind": "mlp", "hidden": [8]}}),
        ({"split": {"stratify": False}}, {"split": {"kind": "ratio", "stratify": False}}),
        ({"training": {"optimizer": {"lr": 0.1}}}, {"training": {"optimizer": {"kind": "adam", "lr": 0.1}}}),
    ],
)
def test_a_section_without_kind_is_of_the_default_kind(without, written_out):
    assert parsed(**without) == parsed(**written_out)


@pytest.mark.parametrize(
    ("content", "key", "given", "allowed"),
    [
        ({"rounds": 0}, "rounds:", "0", "greater than or equal to 1"),
        ({"rounds": "many"}, "rounds:", "'many'", "valid integer"),
        ({"seed": -1}, "seed:", "-1", "greater than or equal to 0"),
        ({"mode": "solo"}, "mode:", "'solo'", "'federated', 'centralised' or 'local'"),
        ({"name": ""}, "name:", "''", "at least 1 character"),
        (data(scaling="zscore"), "data.scaling.kind:", "'zscore'", "'none', 'standard', 'minmax' or 'robust'"),
        (data(missing="impute"), "data.missing.kind:", "'impute'", "'error', 'drop', 'mean', 'median' or 'constant'"),
        (data(positive="0"), "data.positive:", "'0'", "<=, >=, ==, !=, <, >"),
        (data(positive="> high"), "data.positive:", "'> high'", "an operator"),
        (data(positive="> nan"), "data.positive:", "'> nan'", "an operator"),
        (data(target=3), "data.target:", "3", "valid string"),
        ({"problem": "clasification"}, "problem.kind:", "'clasification'", "classification, regression"),
        ({"model": "cnn"}, "model.kind:", "'cnn'", "linear, logistic, mlp"),
        ({"model": {"kind": "mlp", "hidden": [0]}}, "model.hidden.0:", "0", "greater than or equal to 1"),
        ({"model": {"kind": "mlp", "dropout": 1}}, "model.dropout:", "1", "less than 1"),
        ({"split": {"kind": "kfold", "folds": 2}}, "split.folds:", "2", "greater than or equal to 3"),
        ({"split": {"train": 0.9}}, "split:", "1.3", "add up to 1"),
        ({"split": "random"}, "split.kind:", "'random'", "ratio, kfold, given"),
        ({"sites": {"va": {"uri": 3}}}, "sites.va.uri:", "3", "valid string"),
        ({"sites": []}, "sites:", "[]", "dictionary"),
        ({"training": {"batch_size": 0}}, "training.batch_size:", "0", "greater than or equal to 1"),
        ({"training": {"dtype": "half"}}, "training.dtype:", "'half'", "'float32' or 'float64'"),
        ({"training": {"loss": "hinge"}}, "training.loss.kind:", "'hinge'", "'cross_entropy', 'mse', 'mae' or 'huber'"),
        ({"training": {"optimizer": "adamm"}}, "training.optimizer:", "'adamm'", "adam, adamax, adamw"),
        ({"training": {"optimizer": {"lr": -1}}}, "training.optimizer:", "lr=-1", "learning rate"),
        ({"training": {"optimizer": {"lr": "fast"}}}, "training.optimizer:", "lr='fast'", "float"),
        ({"training": {"scheduler": "StepLR"}}, "training.scheduler:", "StepLR()", "step_size"),
        ({"strategy": "fedsgd"}, "strategy.kind:", "'fedsgd'", "'fedavg'"),
        ({"stopping": {"monitor": "auc"}}, "stopping.monitor", "'auc'", "did you mean 'auroc'?"),
        ({"participation": {"fraction": 0}}, "participation.fraction:", "0", "greater than 0"),
        ({"output": {"model": "first"}}, "output.model:", "'first'", "'best' or 'last'"),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(content, key, given, allowed):
    message = refusal(**content)
    assert key in message
    assert given in message
    assert allowed in message


def test_class_weights_that_are_no_weights_are_refused_in_one_line():
    loss = {"kind": "cross_entropy", "class_weights": "even"}
    assert refusal(training={"loss": loss}) == (
        "experiment: training.loss.class_weights: must be 'balanced' (given: 'even')"
    )


@pytest.mark.parametrize(
    ("content", "key", "meant"),
    [
        ({"rouns": 3}, "'rouns'", "'rounds'"),
        (data(postive="> 0"), "'postive'", "'positive'"),
        ({"training": {"local_epoch": 3}}, "'local_epoch'", "'local_epochs'"),
        ({"model": {"kind": "mlp", "hiden": [3]}}, "'hiden'", "'hidden'"),
        ({"training": {"optimizer": {"learning_rate": 0.1}}}, "'learning_rate'", "lr, betas"),
        ({"sites": {"va": {"url": "x.csv"}}}, "'url'", "'uri'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(content, key, meant):
    message = refusal(**content)
    assert "unknown" in message
    assert key in message
    assert meant in message


def test_every_mistake_is_named_at_once():
    message = refusal(rounds=0, mode="solo", training={"batch_size": -3})
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("content", [{}, {"data": {}}], ids=["no data", "no target"])
def test_the_target_is_required(content):
    with pytest.raises(ExperimentError, match=r"data(\.target)?: is required"):
        Experiment.parse(content)


@pytest.mark.parametrize("content", [None, [], "num", 3], ids=repr)
def test_an_experiment_that_is_no_mapping_is_refused(content):
    with pytest.raises(ExperimentError, match="must be a mapping"):
        Experiment.parse(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (data(features=["num"]), "'num' is the target"),
        (data(categorical=["num"]), "'num' is the target"),
        (data(group="patient", features=["patient"]), "'patient' is the group"),
        (data(features=["age"], exclude=["age"]), "'age' is named in features and in exclude"),
        (data(categorical=["cp"], exclude=["cp"]), "'cp' is named in categorical and in exclude"),
        (data(features=["age", "age"]), "named twice in features"),
        (data(features=[]), "features is empty"),
        (data(split_column="part"), "go together"),
        ({"split": {"kind": "given"}}, "go together"),
        ({"training": {"local_epochs": 1, "local_steps": 1}}, "local_epochs or local_steps"),
        ({"training": {"loss": "mse"}}, "training.loss.kind is mse"),
        ({"problem": "regression", "training": {"loss": "cross_entropy"}}, "training.loss.kind is cross_entropy"),
        ({"problem": "regression", "model": "logistic"}, "logistic is for classification"),
        ({"problem": "regression"} | data(positive="> 0"), "not regression"),
        ({"problem": "regression", "stopping": {"monitor": "auroc"}}, "does not measure"),
        (
            {"problem": "regression", "training": {"loss": {"kind": "mse", "class_weights": "balanced"}}},
            "class_weights is for classification",
        ),
        ({"sites": {}}, "no site is named"),
        ({"problem": {"kind": "regression", "depth": 3}}, "unknown key 'depth'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(content, message):
    assert message in refusal(**content)


@pytest.mark.parametrize(
    "partition",
    [
        {"kind": "iid"},
        {"kind": "dirichlet", "alpha": 1},
        {"kind": "dirichlet", "sites": 2, "alpha": 0},
        {"kind": "sizes"},
        {"kind": "sizes", "sizes": [1, 2], "sites": 3},
        {"kind": "sizes", "sizes": [1, 0]},
        {"kind": "iid", "sites": 2, "sizes": [1, 2]},
        {"kind": "iid", "sites": 0},
    ],
)
def test_a_partition_that_says_too_little_or_too_much_is_refused(partition):
    assert "sites.partition" in refusal(sites={"source": "builtin:wine", "partition": partition})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_may_be_infinite_or_nan(value):
    # One that slipped through would fail on the way to the sites, where JSON has no word for it.
    assert "finite" in refusal(training={"optimizer": {"kind": "sgd", "momentum": value}})
    assert "finite" in refusal(data={"target": "num", "missing": {"kind": "constant", "value": value}})
    assert "stopping.min_delta" in refusal(stopping={"min_delta": value})


def test_a_plug_in_may_monitor_a_metric_of_its_own(monkeypatch):
    from importlib import metadata

    entry = metadata.EntryPoint("segmentation", "somewhere:Problem", "v6_algorithm.problems")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    experiment = parsed(problem={"kind": "segmentation", "depth": 3}, stopping={"monitor": "dice"})
    assert experiment.problem.model_extra == {"depth": 3}
    assert experiment.stopping.monitor == "dice"
