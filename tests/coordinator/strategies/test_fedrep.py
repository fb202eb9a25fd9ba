"""FedRep: each round trains the site's own layers first, on the received others, and then these alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.training import loop
from v6_algorithm.learning.training.state import state_of
from v6_algorithm.site import SiteContext, handle

HEAD = {"model.2.weight", "model.2.bias"}
TRAINING = {"batch_size": None, "local_epochs": 2, "optimizer": {"kind": "sgd", "lr": 0.1}, "dtype": "float64"}
FEDREP = {"private": {"include": ["head"], "epochs": 3}}


def frames():
    """Three hospitals that call the same two groups of patients by opposite names."""
    found = {}
    for number, name in enumerate(("amsterdam", "berlin", "cairo")):
        generator = np.random.default_rng(number)
        values = generator.normal(size=(60 + 10 * number, 4))
        group = values[:, 0] * values[:, 1] > 0
        frame = pd.DataFrame(values, columns=list("abcd"))
        found[name] = frame.assign(y=(group == bool(number % 2)).astype(int))
    return found


def experiment_of(**changes):
    content = {
        "data": {"target": "y"},
        "model": {"kind": "mlp", "hidden": [8], "norm": "none", "activation": "tanh"},
        "training": TRAINING,
        "strategy": FEDREP,
        "rounds": 3,
        "stopping": {"patience": None},
        "output": {"model": "last"},
    }
    return Experiment.parse(content | changes)


def finished(experiment, folder=None):
    sites = {
        name: SiteContext({name: TableSource(frame=frame)}, state=folder / name if folder else None)
        for name, frame in frames().items()
    }
    result = run(LocalFederation(sites), experiment)
    assert result["status"] == "completed"
    return result


def test_the_own_layers_move_first_and_the_shared_ones_then(monkeypatch):
    moved, plain = [], loop.train

    def watch(problem, networks, *arguments, **options):
        before = {name: tensor.clone() for name, tensor in state_of(networks).items()}
        sums = plain(problem, networks, *arguments, **options)
        changed = {name for name, tensor in state_of(networks).items() if not torch.equal(tensor, before[name])}
        moved.append((options["round"], options["site"], changed, sums.steps))
        return sums

    monkeypatch.setattr(loop, "train", watch)
    finished(experiment_of())
    body = {"model.0.weight", "model.0.bias"}
    assert [step[2:] for step in moved] == [(HEAD, 3), (body, 2)] * 9


def test_a_round_is_the_papers_by_hand(monkeypatch):
    """Collins et al., algorithm 1: the head by gradient steps on the received body, then the body on the new head."""
    found = {}

    def listen(method, request, context, **options):
        reply = handle(method, request, context, **options)
        if method == "train":
            found[request["site"], request["round"]] = request, reply, context
        return reply

    monkeypatch.setattr(local, "handle", listen)
    finished(experiment_of(rounds=2))
    (_, first, _), (request, second, context) = found["berlin", 1], found["berlin", 2]
    rows = next(value for key, value in context.memory.items() if key[0] == "rows")
    (table,) = (value for value in context.memory.values() if hasattr(value, "folds"))
    part = table.folds[0]["train"]
    inputs, target = rows.inputs[part], rows.target[part].double()
    kept = next(value for key, value in context.memory.items() if str(key[1]).startswith("private-"))
    model = {**wire.unpack(request["folds"][0]["parameters"]), **kept[1]}
    weights = {name: tensor.clone().requires_grad_() for name, tensor in model.items()}

    def descend(names, steps):
        for _ in range(steps):
            hidden = torch.tanh(inputs @ weights["model.0.weight"].T + weights["model.0.bias"])
            output = hidden @ weights["model.2.weight"].T + weights["model.2.bias"]
            loss = functional.binary_cross_entropy_with_logits(output[:, 0], target)
            gradients = torch.autograd.grad(loss, [weights[name] for name in names])
            with torch.no_grad():
                for name, gradient in zip(names, gradients, strict=True):
                    weights[name] -= 0.1 * gradient

    descend(["model.2.weight", "model.2.bias"], 3)
    descend(["model.0.weight", "model.0.bias"], 2)
    for name, tensor in wire.unpack(second["folds"][0]["parameters"]).items():
        torch.testing.assert_close(tensor, weights[name].detach(), rtol=0, atol=1e-12)
    for name, tensor in kept[2].items():
        torch.testing.assert_close(tensor, weights[name].detach(), rtol=0, atol=1e-12)
    assert not set(wire.unpack(first["folds"][0]["parameters"])) & HEAD


def test_a_site_with_a_folder_learns_as_one_with_memory(tmp_path):
    one, other = finished(experiment_of()), finished(experiment_of(), tmp_path)
    assert one["parameters"] == other["parameters"]
    assert one["metrics"] == other["metrics"]


@pytest.mark.slow
def test_own_heads_help_where_labels_mean_different_things():
    changes = {"rounds": 40, "training": {"batch_size": 16, "optimizer": {"kind": "adam", "lr": 0.02}}}
    own, common = (
        finished(experiment_of(strategy=strategy, **changes))["metrics"]["test"]["pooled"]["auroc"]
        for strategy in (FEDREP, "fedavg")
    )
    assert own > common + 0.2


@pytest.mark.parametrize("kind", ["fedprox", "scaffold", "fednova", "fedadam"])
def test_it_goes_with_other_strategies_which_see_the_shared_steps_only(kind):
    result = finished(experiment_of(strategy={"kind": kind, **FEDREP}))
    assert not set(wire.unpack(result["parameters"])) & HEAD
    losses = result["history"]["train_loss"]
    assert losses[-1] < losses[0]


def test_frozen_layers_stay_frozen_in_both_parts():
    frozen = experiment_of(training={**TRAINING, "freeze": "model.0.bias"})
    result = finished(frozen)
    parameters = wire.unpack(result["parameters"])
    assert not parameters["model.0.bias"].equal(wire.unpack(finished(experiment_of())["parameters"])["model.0.bias"])
    assert parameters["model.0.bias"].equal(
        wire.unpack(finished(frozen.model_copy(update={"rounds": 1}))["parameters"])["model.0.bias"]
    )


def test_own_layers_that_are_all_frozen_are_refused():
    with pytest.raises(ExperimentError, match=r"names all of strategy\.private, whose epochs would train nothing"):
        finished(experiment_of(training={"freeze": "head"}))


@pytest.mark.parametrize("epochs", [0, True, 1.5])
def test_epochs_that_are_no_number_of_passes_are_refused(epochs):
    with pytest.raises(ExperimentError, match="epochs"):
        experiment_of(strategy={"private": {"include": "head", "epochs": epochs}})
