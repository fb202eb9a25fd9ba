"""Frozen layers: what does not move, over training steps and over whole runs."""

import json

import pytest
import torch

from v6_algorithm.data.preparation import Setup
from v6_algorithm.engines.simulation import local
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment, Training
from v6_algorithm.experiment.strategy.kinds import STRATEGIES
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.loop import Rows, train
from v6_algorithm.learning.training.patterns import frozen_names
from v6_algorithm.learning.training.state import build_networks, state_of
from v6_algorithm.site import handle

BODY = {"include": ["model.*"], "exclude": ["head"]}
MODEL = {"kind": "mlp", "hidden": [6], "norm": "batch"}


def rows_of(count=37):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 3, generator=generator)
    return Rows(inputs, (inputs[:, 0] > 0).long(), torch.zeros(count, dtype=torch.long))


def trained(freeze, optimizer, round=1):
    experiment = Experiment.parse(
        {"data": {"target": "y"}, "model": MODEL, "training": {"optimizer": optimizer, "freeze": freeze}}
    )
    problem = create_problem(experiment, Setup(["a", "b", "c"], {}, [0, 1]))
    networks = build_networks(problem)
    before = {name: tensor.clone() for name, tensor in state_of(networks).items()}
    frozen = frozen_names(networks, experiment.training.freeze, round)
    train(problem, networks, rows_of(), torch.arange(37), site="here", round=round, fold=0, frozen=frozen)
    moved = {name for name, tensor in state_of(networks).items() if not torch.equal(tensor, before[name])}
    return moved, set(before), networks


@pytest.mark.parametrize(
    "optimizer",
    [
        {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        {"kind": "adamw", "lr": 0.01, "weight_decay": 0.5},
        {"kind": "rprop"},
    ],
    ids=str,
)
def test_frozen_tensors_do_not_move_whatever_the_optimiser_does_and_all_others_do(optimizer):
    moved, names, _ = trained(BODY, optimizer)
    assert moved == {"model.3.weight", "model.3.bias"}
    moved, names, _ = trained(None, optimizer)
    assert moved == names


def test_frozen_batch_norm_keeps_its_statistics():
    moved, names, networks = trained("norm", {"kind": "sgd", "lr": 0.1})
    assert moved == {name for name in names if not name.startswith("model.1.")}
    assert networks["model"][0].training, "the others are in training mode"
    # Its weights alone may be frozen; then the statistics go on.
    moved, _, _ = trained("model.1.weight", {"kind": "sgd", "lr": 0.1})
    assert "model.1.running_mean" in moved
    assert "model.1.weight" not in moved


def test_networks_can_be_trained_whole_afterwards():
    _, _, networks = trained(BODY, {"kind": "sgd", "lr": 0.1})
    assert all(parameter.requires_grad for parameter in networks["model"].parameters())


def test_layers_thaw_after_their_rounds():
    freeze = {**BODY, "rounds": 2}
    for number, moves in ((1, False), (2, False), (3, True)):
        moved, _, _ = trained(freeze, {"kind": "sgd", "lr": 0.1}, number)
        assert ("model.0.weight" in moved) == moves


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("bn", "training.freeze: 'bn' fits no tensor of the model; allowed: norm, head, a class of layers (Batch"),
        ("model.*", "training.freeze: names all of the model's parameters; some must be left to be trained"),
        ({"include": ["head"], "exclude": ["Linear"]}, "training.freeze: names no tensor of the model"),
    ],
)  # fmt: skip
def test_a_pattern_without_effect_or_that_leaves_nothing_to_train_ends_a_run_before_training(
    run_locally, tables, make_experiment, freeze, message
):
    with pytest.raises(ExperimentError) as refused:
        run_locally(make_experiment(model=MODEL, training={"freeze": freeze}), tables)
    assert message in str(refused.value)


@pytest.mark.parametrize("given", [[], {"include": [], "rounds": 1}, {"include": "head", "rounds": 0}, {"rounds": 2}])
def test_what_says_nothing_is_refused_by_its_key(make_experiment, given):
    with pytest.raises(ExperimentError, match=r"training\.freeze"):
        make_experiment(training={"freeze": given})


def test_one_pattern_or_a_list_stands_for_the_section():
    assert Training.model_validate({"freeze": "norm"}).freeze.include == ["norm"]
    assert Training.model_validate({"freeze": ["norm", "head"]}).freeze.include == ["norm", "head"]


# -- over whole runs -----------------------------------------------------------------------------------------------


def listen(monkeypatch):
    heard = []

    def answer(method, request, context, **options):
        reply = handle(method, request, context, **options)
        heard.append((method, json.loads(wire.to_text(request)), json.loads(wire.to_text(reply))))
        return reply

    monkeypatch.setattr(local, "handle", answer)
    return heard


SERVERS = {
    "fedopt": {"server": {"kind": "adamw", "lr": 0.1, "weight_decay": 0.5}},
    "fedavg": {"compress": [{"kind": "topk", "fraction": 0.5}]},
    "fedprox": {"combine": "median"},
    "fedavgm": {"clip": 0.1},
}
SGD = {"kind": "sgd", "lr": 0.1, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def earlier():
    """The parameters of an earlier run: made by the first test that needs them."""
    return {}


@pytest.mark.parametrize("rounds", [None, 2], ids=["always", "two rounds"])
@pytest.mark.parametrize("kind", [kind for kind in STRATEGIES if kind not in ("dsgd", "newton")])
def test_with_every_strategy_frozen_layers_are_returned_as_they_were_sent(
    run_locally, tables, make_experiment, earlier, kind, rounds
):
    model = {"kind": "mlp", "hidden": [6]}
    if not earlier:
        earlier |= run_locally(make_experiment(model=model, rounds=1), tables)
    result = run_locally(
        make_experiment(
            model=model,
            rounds=2,
            training={"optimizer": SGD, "freeze": {**BODY, "rounds": rounds}},
            strategy={"kind": kind, **SERVERS.get(kind, {})},
            start={"weights": "before.json", "partial": True},
            output={"model": "last"},
        ),
        tables,
        weights=earlier["parameters"],
    )
    start, end = wire.unpack(earlier["parameters"]), wire.unpack(result["parameters"])
    for name in start:
        assert torch.equal(start[name], end[name]) == (not name.startswith("model.3.")), name


def test_what_never_thaws_travels_back_once_at_most(run_locally, tables, make_experiment, monkeypatch):
    heard = listen(monkeypatch)
    run_locally(make_experiment(model=MODEL, rounds=3, training={"freeze": BODY}), tables)
    sent = {
        (request["site"], request["round"]): set(wire.unpack(reply["folds"][0]["parameters"]))
        for method, request, reply in heard
        if method == "train"
    }
    whole = sent["berlin", 1]
    assert "model.0.weight" in whole, "in the first round the model is the seed's, which only the sites know"
    assert {number: names for (site, number), names in sent.items() if site == "berlin"} == {
        1: whole,
        2: {"model.3.weight", "model.3.bias"},
        3: {"model.3.weight", "model.3.bias"},
    }


@pytest.mark.parametrize("server", [{"kind": "adamw", "lr": 0.1, "weight_decay": 0.5}, {"kind": "rprop"}], ids=str)
def test_a_servers_decay_leaves_alone_what_thaws_later(run_locally, tables, make_experiment, monkeypatch, server):
    heard = listen(monkeypatch)
    run_locally(
        make_experiment(
            model=MODEL,
            rounds=4,
            training={"freeze": {**BODY, "rounds": 2}},
            strategy={"kind": "fedopt", "server": server},
        ),
        tables,
    )
    models = [
        wire.unpack(request["folds"][0]["parameters"])
        for method, request, _ in heard
        if method == "train" and request["site"] == "berlin" and request["round"] > 1
    ]
    assert torch.equal(models[0]["model.0.weight"], models[1]["model.0.weight"])
    assert torch.equal(models[0]["model.1.running_mean"], models[1]["model.1.running_mean"])
    assert not torch.equal(models[1]["model.0.weight"], models[2]["model.0.weight"])


def test_private_layers_and_frozen_ones_leave_something_to_share(run_locally, tables, make_experiment):
    with pytest.raises(ExperimentError, match=r"names all parameters that strategy\.private leaves"):
        run_locally(make_experiment(training={"freeze": BODY}, strategy={"private": "head"}), tables)
