"""Layers that step in the backward pass against the optimiser's own steps: equal to 1e-6 of a tensor's largest."""

import pytest
import torch
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training import stepping_layers
from v6_algorithm.learning.training.learner import fused_steps
from v6_algorithm.learning.training.loop import Rows, train
from v6_algorithm.learning.training.objectives import Corrected, LocalObjective, OneGradient
from v6_algorithm.learning.training.state import build_networks, load_state, state_of

SGD = {"kind": "sgd", "lr": 0.1}
CASES = {
    "sgd": (SGD, {}, None, True),
    "weight decay": ({**SGD, "weight_decay": 0.1}, {}, None, True),
    "maximize": ({"kind": "sgd", "lr": 0.001, "maximize": True}, {}, None, True),
    "damped": ({**SGD, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}, {}, None, True),
    "nesterov": ({**SGD, "momentum": 0.9, "nesterov": True}, {}, None, True),
    "adam": ({"kind": "adam", "lr": 0.001}, {"freeze": ["model.0.*"]}, None, True),
    "fedprox and scaffold": (SGD, {}, "corrected", True),
    "one gradient": (SGD, {"batch_size": None}, "gradient", False),
    "accumulated": (SGD, {"accumulate": 2}, None, True),
    "no fused step": ({"kind": "rmsprop", "lr": 0.001}, {}, None, False),
}  # fmt: skip


@pytest.mark.parametrize(("optimizer", "changes", "asked", "told"), CASES.values(), ids=CASES)
def test_layers_that_step_in_the_backward_pass_learn_what_the_optimiser_teaches(
    monkeypatch, optimizer, changes, asked, told
):
    monkeypatch.setattr(stepping_layers, "_LARGE", 16)
    model = {"kind": "mlp", "hidden": [8, 6], "norm": "none"}
    training = {"batch_size": 8, "optimizer": optimizer, "local_epochs": 2} | changes
    experiment = Experiment.parse({"data": {"target": "y"}, "model": model, "training": training})
    problem = create_problem(experiment, Setup(["a", "b", "c"], {}, ["0", "1", "2"]))
    networks = build_networks(problem)
    start = {name: tensor.clone() for name, tensor in state_of(networks).items()}
    frozen = [name for name in start if changes.get("freeze") and name.startswith("model.0.")]
    inputs = torch.randn(37, 3, generator=torch.Generator().manual_seed(0))
    rows = Rows(inputs, (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1), torch.zeros(37, dtype=torch.long))

    def learned(names):
        load_state(networks, {name: tensor.clone() for name, tensor in start.items()})
        objective = {
            None: LocalObjective,
            "corrected": lambda: Corrected(0.5, {name: 0.1 * start[name] for name in start}, set(start)),
            "gradient": lambda: OneGradient(set(start)),
        }[asked]()
        with fused_steps(names):
            sums = train(
                problem, networks, rows, torch.arange(37), site="a", round=3, fold=0, frozen=frozen,
                objective=objective, epochs=1 if asked == "gradient" else None,
            )  # fmt: skip
        return objective.outgoing(state_of(networks)), sums

    names: set[str] = set()
    quick, sums = learned(names)
    monkeypatch.setattr(stepping_layers, "_KINDS", ())
    plain, plain_sums = learned(set())
    assert names == ({stepping_layers.IN_BACKWARD} if told else set())
    assert sums.loss == pytest.approx(plain_sums.loss, rel=1e-6)
    for name, tensor in plain.items():
        assert (quick[name] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), name
        assert torch.equal(tensor, start[name]) == (name in frozen)
    assert not any("forward" in vars(module) for module in networks["model"].modules())


def test_a_layer_that_is_used_twice_or_shares_its_weights_steps_along_the_sum(monkeypatch):
    monkeypatch.setattr(stepping_layers, "_LARGE", 16)
    tied, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = tied.weight
    assert stepping_layers.large_layers({"model": nn.Sequential(tied, other)}) == []
    twice = nn.Linear(4, 4)
    assert stepping_layers.large_layers({"model": nn.Sequential(twice, nn.ReLU(), twice)}) == [twice]
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    twice(twice(inputs)).sum().backward()
    expected, before = twice.weight.grad.clone(), twice.weight.detach().clone()
    twice.zero_grad()
    experiment = Experiment.parse({"data": {"target": "y"}, "training": {"optimizer": SGD}})
    problem = create_problem(experiment, Setup(["a"], {}, ["0", "1"]))
    with fused_steps():
        layers = stepping_layers.SteppingLayers(
            {"model": twice}, list(twice.parameters()), problem.experiment.training,
            stepping_layers.TrainingContext(0, "a", 1, 0), LocalObjective(),
        )  # fmt: skip
    with layers.at_work(1):
        twice(twice(inputs)).sum().backward()
    assert torch.equal(twice.weight.detach(), before)
    assert torch.allclose(twice.weight.grad, expected, rtol=1e-6)


def test_a_model_that_was_looked_at_when_it_was_kept_is_not_read_once_more(monkeypatch):
    tensors = {"a": torch.ones(3), "b": torch.full((2,), float("inf"))}
    spec = {name: wire.TensorSpec(tuple(tensor.shape), "float32") for name, tensor in tensors.items()}
    good = wire.hold({"a": tensors["a"]}, {"a": spec["a"]})
    bad = wire.hold(tensors, spec)
    with pytest.raises(WireError, match="'b' holds non-finite"):
        wire.unpack(bad, spec)
    monkeypatch.setattr("v6_algorithm.exchange.wire.packed.check", None)
    assert wire.unpack(good, {"a": spec["a"]})["a"].tolist() == [1, 1, 1]
