"""The strategy section: what its kinds take, and which combinations are refused, with the reason."""

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.strategy.kinds import STRATEGIES

SGD = {"optimizer": {"kind": "sgd", "lr": 0.1}}
NESTEROV = {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}
SMALLEST = {"data": {"target": "num"}, "training": SGD}


def parsed(strategy, **changes):
    return Experiment.parse(SMALLEST | {"strategy": strategy} | changes)


def refusal(strategy, **changes):
    with pytest.raises(ExperimentError) as refused:
        parsed(strategy, **changes)
    return str(refused.value)


@pytest.mark.parametrize("kind", [kind for kind in STRATEGIES if kind not in ("fedopt", "newton")])
def test_every_kind_is_one_word_and_resolves_to_itself(kind):
    experiment = parsed(kind)
    assert experiment.strategy.kind == kind
    assert Experiment.parse(experiment.resolved()) == experiment


def test_fedopt_says_what_it_needs():
    assert "strategy: strategy fedopt needs `server`, a torch optimiser, such as {kind: adam, lr: 0.01}" in refusal(
        "fedopt"
    )
    assert parsed({"kind": "fedopt", "server": "adam"}).strategy.server.kind == "adam"


@pytest.mark.parametrize(
    ("strategy", "changes", "reason"),
    [
        ({"kind": "fedavgm", "server": "adam"}, {}, "server does not go with strategy fedavgm: fedavgm is a step of"),
        ({"kind": "cyclic", "weighting": "uniform"}, {}, "weighting does not go with strategy cyclic: nothing is"),
        ({"kind": "cyclic", "combine": "median"}, {}, "combine does not go with strategy cyclic: nothing is averaged"),
        ({"kind": "scaffold", "combine": "median"}, {}, "combine does not go with strategy scaffold: scaffold is"),
        ({"kind": "scaffold", "clip": 1}, {}, "clip does not go with strategy scaffold: what scaffold keeps of a site"),
        ({"kind": "scaffold", "weighting": "steps"}, {}, "strategy.weighting: must be 'samples' or 'uniform'"),
        ({"kind": "qfedavg", "weighting": "uniform"}, {}, "weighting does not go with strategy qfedavg: qfedavg"),
        ({"kind": "fedsgd", "server": "adam"}, {}, "server does not go with strategy fedsgd: training.optimizer is"),
        ({"combine": "median", "weighting": "steps"}, {}, "weighting does not go with combine median"),
        ("scaffold", {"training": {}}, "strategy scaffold needs training.optimizer sgd"),
        ("fednova", {"training": {"optimizer": NESTEROV}}, "with momentum if wanted but neither nesterov"),
        ("fedsgd", {"training": SGD | {"local_epochs": 2}}, "training.local_steps must be 1"),
        ("dsgd", {"training": SGD | {"local_steps": 5}}, "strategy dsgd sends one gradient a round"),
        ("qfedavg", {"training": {"optimizer": "adadelta"}}, "strategy qfedavg needs `lipschitz`"),
        ("qfedavg", {"problem": "regression", "training": SGD | {"loss": "poisson"}}, "poisson can be negative"),
        ({"kind": "fedprox", "mu": -1}, {}, "strategy.mu: must be greater than or equal to 0 (given: -1)"),
        ({"kind": "moon", "tau": 0}, {}, "strategy.tau: must be greater than 0 (given: 0)"),
        ({"kind": "moon", "mu": -1}, {}, "strategy.mu: must be greater than or equal to 0 (given: -1)"),
        ({"kind": "moon", "compress": "int8"}, {}, "compress does not go with strategy moon: what moon keeps of a"),
        ({"compress_down": "int8"}, {}, "strategy.compress_down: must be 'float16' or 'bfloat16' (given: 'int8')"),
        ("moon", {"model": "linear"}, "strategy moon compares what a hidden layer makes of a row, and model.kind"),
        ("moon", {"model": "logistic"}, "and model.kind logistic has none; allowed: an mlp with `hidden` layers"),
        ("moon", {"model": {"kind": "mlp", "hidden": []}}, "and model.kind mlp with hidden [] has none"),
        ({"kind": "fedadam", "beta1": 1}, {}, "strategy.beta1: must be less than 1 (given: 1)"),
        ({"kind": "fedprox", "adaptiv": True}, {}, "strategy: unknown key 'adaptiv' (did you mean 'adaptive'?)"),
        ({"clip": 0}, {}, "strategy.clip: must be greater than 0 (given: 0)"),
        ({"server": {"kind": "adm"}}, {}, "strategy.server: unknown optimizer 'adm' (did you mean 'adam'?)"),
        ({"combine": "mode"}, {}, "strategy.combine.kind: must be 'mean', 'median', 'trimmed_mean'"),
        ("fedadm", {}, "strategy.kind: unknown value 'fedadm' (did you mean 'fedadam'?); allowed: "),
    ],
)  # fmt: skip
def test_a_combination_that_makes_no_sense_is_refused_with_the_reason(strategy, changes, reason):
    assert reason in refusal(strategy, **changes)


@pytest.mark.parametrize("kind", ["fedsgd", "dsgd"])
def test_a_round_of_fedsgd_is_one_step_unless_the_file_says_otherwise(kind):
    assert parsed(kind).training.local_steps == 1
    assert parsed(kind).training.local_epochs is None
    assert parsed({"kind": kind}, training=SGD | {"local_steps": 1}).training.local_steps == 1


def test_stages_of_the_pipeline_go_together():
    strategy = {"kind": "fedprox", "mu": 0.1, "clip": 1, "combine": "median", "server": {"kind": "sgd", "lr": 0.5}}
    assert parsed(strategy).strategy.clip == 1


@pytest.mark.parametrize(
    ("strategy", "wrong"),
    [
        ({"kind": "fedadam", "lr": 1e39}, "lr is larger than 3e+38"),
        ({"kind": "fedyogi", "tau": 1e300}, "tau is larger than 3e+38"),
        ({"kind": "fedprox", "mu": 1e300}, "mu is larger than 3e+38"),
        ({"kind": "feddyn", "alpha": 1e300}, "alpha is larger than 3e+38"),
        ({"kind": "fedadam", "lr": float("nan")}, "lr: must be a finite number"),
        ({"kind": "fedadagrad", "beta1": -0.1}, "beta1: must be greater than or equal to 0"),
        ({"kind": "fedopt", "server": {"kind": "adam", "betas": [-1, 0.9]}}, "Invalid beta parameter at index 0"),
        ({"kind": "fedopt", "server": {"kind": "adam", "lr": 1e39}}, "lr: a number larger than 3e+38"),
    ],
)
def test_options_of_a_server_that_no_step_survives_are_refused(strategy, wrong):
    """They ended a run in its first round as OverflowError or RuntimeError, or trained nothing."""
    with pytest.raises(ExperimentError, match=wrong.replace("+", r"\+")):
        Experiment.parse({"data": {"target": "y"}, "strategy": strategy})
