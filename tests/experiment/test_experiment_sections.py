"""What a researcher may write, what it means when left out, and how a mistake is answered."""

from __future__ import annotations

import json

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

SMALLEST = {"data": {"target": "num"}}
SURVIVAL = {"duration": "days", "event": "died"}

# The contract's file, with the defaults it states.
CONTRACT = {
    "seed": 0,
    "mode": "federated",
    "data": {
        "targets": None,
        "target": "num",
        "positive": None,
        "features": None,
        "sequence": None,
        "image": None,
        "measures": None,
        "rows": None,
        "exclude": [],
        "categorical": [],
        "group": None,
        "synthetic": None,
        "split_column": None,
        "where": None,
        "load_limit": None,
        "scaling": {"kind": "standard", "scope": "federation"},
        "target_scaling": "none",
        "missing_values": None,
        "different_labels": "stop",
        "not_missing": [],
        "separator": None,
        "decimal": None,
        "thousands": None,
        "encoding": None,
        "missing": {"kind": "mean", "value": 0.0, "imputations": 10, "iterations": 5, "indicators": []},
        "harmonisation": {"kind": "none", "covariates": []},
    },
    "problem": {"kind": "classification"},
    "model": {"kind": "mlp", "hidden": [64, 32], "norm": "layer", "dropout": 0.0, "activation": "relu"},
    "split": {"kind": "ratio", "train": 0.6, "validation": 0.2, "test": 0.2, "stratify": True},
    "rounds": 20,
    "start": {"weights": None, "partial": False, "pretrain_epochs": None},
    "training": {
        "local_epochs": 1,
        "local_steps": None,
        "batch_size": 32,
        "evaluation_batch_size": 8192,
        "accumulate": 1,
        "optimizer": {"kind": "adam", "lr": 0.001},
        "scheduler": None,
        "loss": None,
        "freeze": None,
        "augmentation": [],
        "dtype": "float32",
        "device": "auto",
        "precision": "full",
        "deterministic": False,
    },
    "strategy": {
        "kind": "fedavg",
        "weighting": "samples",
        "clip": None,
        "combine": {
            "kind": "mean",
            "malicious": 1,
            "keep": None,
            "radius": None,
            "iterations": 1,
            "weighted": False,
        },
        "server": None,
        "batch_norm": "moments",
        "private": None,
        "compress": {"stages": [], "start": 2},
        "compress_down": None,
    },
    "stopping": {"monitor": "loss", "patience": 5, "min_delta": 0.0001},
    "resident": True,
    "pipeline": 0,
    "participation": {
        "fraction": 1.0,
        "minimum": 2,
        "deadline_s": 3600.0,
        "late": "drop",
        "poll_s": 0.5,
        "unfit": "stop",
        "quarantine": 3,
        "join": True,
        "maximum_share": 1.0,
    },
    "privacy": {"secure_aggregation": None, "differential_privacy": None},
    "evaluation": {"subgroups": [], "specificity": [0.9, 0.95], "by": None},
    "central": None,
    "personal": None,
    "output": {"model": "best", "average_from": None, "decay": 0.9, "dinunet": False, "profile": False},
    "tune": None,
}

FULL = {
    "name": "heart",
    "seed": 7,
    "mode": "local",
    "evaluation": {"subgroups": ["sex", {"column": "age", "bands": [40, 60]}], "specificity": [0.8]},
    "central": {"uri": "held_back.csv"},
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
    told = json.dumps([Experiment.parse(FULL).for_sites(), Experiment.parse(FULL).for_task()])
    assert "va.db" not in told
    assert "held_back.csv" not in told


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
        (data(missing_values=-9), data(missing_values=[-9])),
        (data(missing_values={"chol": 0, "cp": "none"}), data(missing_values={"chol": [0], "cp": ["none"]})),
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
        ({"rounds": "many"}, "rounds:", "'many'", "whole number"),
        ({"seed": -1}, "seed:", "-1", "greater than or equal to 0"),
        ({"mode": "solo"}, "mode:", "'solo'", "'federated', 'centralised' or 'local'"),
        ({"name": ""}, "name:", "''", "at least 1 character"),
        (data(scaling="zscore"), "data.scaling.kind:", "'zscore'", "'none', 'standard', 'minmax' or 'robust'"),
        (data(missing="guess"), "data.missing.kind:", "'guess'", "'drop', 'mean', 'median', 'constant' or 'impute'"),
        (data(missing_values=[[9]]), "data.missing_values:", "[9]", "a number or a text"),
        (data(missing_values={"smoker": [False]}), "data.missing_values:", "False", "in quotes if it is yes or no"),
        (data(missing_values={"smoker": float("nan")}), "data.missing_values:", "nan", "a number or a text"),
        (data(missing_values=10**400), "data.missing_values:", "1000", "a number or a text"),
        (data(missing_values=[-9, " "]), "data.missing_values:", "' '", "an empty cell is missing anyway"),
        (data(missing_values={"smoker": []}), "data.missing_values:", "[]", "names no code"),
        (data(positive="0"), "data.positive:", "'0'", "<=, >=, ==, !=, <, >"),
        (data(positive="> high"), "data.positive:", "'> high'", "an operator"),
        (data(positive="> nan"), "data.positive:", "'> nan'", "an operator"),
        (data(target=3), "data.target:", "3", "must be text"),
        ({"problem": "clasification"}, "problem.kind:", "'clasification'", "classification, regression"),
        ({"model": "forest"}, "model.kind:", "'forest'", "linear, logistic, mlp"),
        ({"model": {"kind": "mlp", "hidden": [0]}}, "model.hidden.0:", "0", "greater than or equal to 1"),
        ({"model": {"kind": "mlp", "dropout": 1}}, "model.dropout:", "1", "less than 1"),
        ({"split": {"kind": "kfold", "folds": 2}}, "split.folds:", "2", "greater than or equal to 3"),
        ({"split": {"train": 0.9}}, "split:", "1.3", "add up to 1"),
        ({"split": "random"}, "split.kind:", "'random'", "ratio, kfold, leave_one_site_out, given"),
        ({"sites": {"va": {"uri": 3}}}, "sites.va.uri:", "3", "must be text"),
        ({"sites": []}, "sites:", "[]", "mapping"),
        ({"training": {"batch_size": 0}}, "training.batch_size:", "0", "greater than or equal to 1"),
        ({"training": {"dtype": "half"}}, "training.dtype:", "'half'", "'float32' or 'float64'"),
        (
            {"training": {"loss": "hinge"}},
            "training.loss.kind:",
            "'hinge'",
            "'cross_entropy', 'focal', 'mse', 'mae', 'huber' or 'poisson'",
        ),
        ({"training": {"optimizer": "adamm"}}, "training.optimizer:", "'adamm'", "adam, adamax, adamw"),
        ({"training": {"optimizer": {"lr": -1}}}, "training.optimizer:", "lr=-1", "learning rate"),
        ({"training": {"optimizer": {"lr": "fast"}}}, "training.optimizer:", "lr='fast'", "float"),
        ({"training": {"scheduler": "StepLR"}}, "training.scheduler:", "StepLR()", "step_size"),
        ({"strategy": "fedavgg"}, "strategy.kind:", "'fedavgg'", "fedavg"),
        ({"stopping": {"monitor": "auc"}}, "stopping.monitor", "'auc'", "did you mean 'auroc'?"),
        ({"participation": {"fraction": 0}}, "participation.fraction:", "0", "greater than 0"),
        ({"output": {"model": "first"}}, "output.model:", "'first'", "'swa' or 'ema'"),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(content, key, given, allowed):
    message = refusal(**content)
    assert key in message
    assert given in message
    assert allowed in message


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"rounds": True}, "rounds"),
        ({"model": {"kind": "mlp", "hidden": [True, 3]}}, "hidden"),
        ({"model": {"kind": "mlp", "dropout": False}}, "dropout"),
        ({"participation": {"minimum": True}}, "minimum"),
        ({"stopping": {"patience": False}}, "patience"),
        ({"training": {"loss": {"kind": "cross_entropy", "class_weights": [True, 2]}}}, "class_weights"),
    ],
)
def test_true_is_not_taken_for_one(content, key):
    assert f"{key}: true and false are not allowed here" in refusal(**content)


def test_true_and_false_are_taken_where_they_are_meant():
    made = Experiment.parse(
        {
            "data": {"target": "y"},
            "split": {"kind": "ratio", "stratify": False},
            "training": {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}},
        }
    )
    assert made.split.stratify is False
    assert made.training.optimizer.options()["nesterov"] is True


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
        (data(sequence="ecg", missing_values=-9), "in time series write NaN"),
        (data(sequence="ecg", missing_values={"ecg": -9}), "in time series write NaN"),
        (data(split_column="part"), "go together"),
        ({"split": {"kind": "given"}}, "go together"),
        ({"split": {"kind": "given", "folds": 5}} | data(split_column=["one", "two"]), "goes with one"),
        ({"split": {"kind": "given"}} | data(split_column=["one", "one"]), "named twice in split_column"),
        ({"split": {"kind": "given"}} | data(split_column="part", features=["part"]), "'part' is the split_column"),
        ({"split": {"kind": "leave_one_site_out"}, "mode": "local"}, "mode federated or centralised"),
        ({"training": {"local_epochs": 1, "local_steps": 1}}, "local_epochs or local_steps"),
        ({"training": {"loss": "mse"}}, "training.loss.kind is mse"),
        ({"problem": "regression", "training": {"loss": "cross_entropy"}}, "training.loss.kind is cross_entropy"),
        (
            {"problem": "regression", "model": "logistic"},
            "is not for regression, which takes glm or linear or mlp",
        ),
        ({"problem": "regression"} | data(positive="> 0"), "not regression"),
        ({"problem": "regression", "stopping": {"monitor": "auroc"}}, "does not measure"),
        (
            {"problem": "regression", "training": {"loss": {"kind": "mse", "class_weights": "balanced"}}},
            "class_weights is for classification",
        ),
        ({"training": {"batch_size": None, "accumulate": 2}}, "with batch_size null all rows are in one batch"),
        ({"training": {"dtype": "float64", "precision": "mixed"}}, "precision mixed is for dtype float32"),
        ({"start": {"partial": True}}, "partial is about weights"),
        ({"start": "image:../../data.safetensors"}, "without folders"),
        ({"start": "image:weights.pt"}, "the name of a .safetensors file"),
        ({"problem": "survival"}, "data.target is a column; problem survival takes {duration: column, event: column}"),
        (data(target=SURVIVAL), "data.target is {duration: column, event: column}; problem classification takes a col"),
        (data(target={"duration": "t", "event": "t"}) | {"problem": "survival"}, "both column 't'"),
        (data(target=SURVIVAL, features=["died"]) | {"problem": "survival"}, "'died' is the target.event"),
        (data(target=SURVIVAL) | {"problem": "survival", "model": "logistic"}, "takes cox or linear or mlp"),
        (data(target=SURVIVAL) | {"problem": "survival", "training": {"loss": "mse"}}, "none: the problem"),
        (data(target=SURVIVAL) | {"problem": {"kind": "survival", "intervals": 1}}, "from 2 to 50"),
        (data(target=SURVIVAL) | {"problem": {"kind": "survival", "intervals": [9, 3]}}, "increasing"),
        (data(target=SURVIVAL) | {"problem": {"kind": "survival", "method": "weibull"}}, "'cox' or 'discrete_time'"),
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
        {"sites": 2, "alpha": 1},
        {"kind": "balanced", "sites": 2, "rows": 0},
        {"kind": "size_skew", "sites": 2, "growth": "cubic"},
        {"kind": "inner_dirichlet"},
        {"kind": "inner_dirichlet", "sizes": [1, 2], "sites": 3},
        {"kind": "per_class", "percentages": [50, 30]},
        {"kind": "counts", "counts": {}},
        {"kind": "counts", "counts": {"0": [1, 2], "1": [1]}},
        {"kind": "counts", "counts": {"0": [1, 0], "1": [1, 0]}},
        {"kind": "natural"},
        {"kind": "natural", "by": "hospital", "sites": 3},
        {"kind": "continuous", "sites": 3},
        {"kind": "slices", "lists": {"all": {}}, "sites": {}},
        {"kind": "slices", "lists": {"all": {}}, "sites": {"a": [{"list": "none"}]}},
        {"kind": "slices", "lists": {"all": {}}, "sites": {"a": [{"list": "all", "start": 5, "stop": 5}]}},
        {"kind": "slices", "lists": {"all": {"where": {"y": "about 3"}}}, "sites": {"a": [{"list": "all"}]}},
        {
            "kind": "slices",
            "lists": {"all": {}},
            "sites": {"a": [{"list": "all", "part": "test"}], "b": [{"list": "all"}]},
        },
    ],
)
def test_a_partition_that_says_too_little_or_too_much_is_refused(partition):
    assert "sites.partition" in refusal(sites={"source": "builtin:wine", "partition": partition})


def test_a_wrong_partition_is_told_by_its_key():
    wrong = {"kind": "sizes", "sizes": [1, -1]}
    assert "sites.partition.sizes.1: must be greater than 0" in refusal(
        sites={"source": "builtin:wine", "partition": wrong}
    )
    unknown = {"kind": "dirichelt", "sites": 3}
    assert (
        "sites.partition.kind: unknown value 'dirichelt' (did you mean 'dirichlet'?); allowed: iid, sizes"
        in refusal(sites={"source": "builtin:wine", "partition": unknown})
    )


def test_a_partition_without_a_kind_is_iid():
    experiment = parsed(sites={"source": "builtin:wine", "partition": {"sites": 3}})
    assert experiment.sites.partition.kind == "iid"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_may_be_infinite_or_nan(value):
    # One that slipped through would fail on the way to the sites, where JSON has no word for it.
    assert "finite" in refusal(training={"optimizer": {"kind": "sgd", "momentum": value}})
    assert "finite" in refusal(data={"target": "num", "missing": {"kind": "constant", "value": value}})
    assert "stopping.min_delta" in refusal(stopping={"min_delta": value})


def test_the_target_is_not_the_group_too():
    with pytest.raises(ExperimentError, match="column 'patient' is the target and cannot be the group"):
        Experiment.parse({"data": {"target": "patient", "group": "patient"}})
