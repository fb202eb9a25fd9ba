"""MOON's contrastive loss against a computation by hand, and where the features that it compares come from."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.models.sequences import RecurrentNetwork
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.device import Device
from v6_algorithm.learning.training.loop import Rows, train
from v6_algorithm.learning.training.objectives import contrastive_loss, create_objective, head_of, with_features
from v6_algorithm.learning.training.state import build_networks, spec_of, state_of

DOUBLE = {"dtype": "float64", "optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": None, "local_steps": 1}


def problem_of(model=None, training=DOUBLE, **changes):
    content = {"data": {"target": "y"}, "model": {"kind": "mlp", "hidden": [5], "activation": "tanh"} | (model or {})}
    return create_problem(
        Experiment.parse(content | {"training": training} | changes), Setup(["a", "b", "c"], {}, [0, 1])
    )


def rows_of(count=12, dtype=torch.float64):
    inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return Rows(inputs, (inputs[:, 0] > 0).long(), torch.zeros(count, dtype=torch.long))


def other_model(problem, seed=3):
    """Return a state of the problem's networks that is not their start."""
    generator, state = torch.Generator().manual_seed(seed), state_of(build_networks(problem))
    return {
        name: tensor + torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }


def contrast(problem, mu=1.0, tau=0.5, own=None):
    own = other_model(problem) if own is None else own
    return {"contrast": {"mu": mu, "tau": tau, "own": wire.pack(own)}}


def trained(problem, message, rows=None, networks=None, device=Device(), round=2):
    networks, rows = networks or build_networks(problem), rows or rows_of()
    objective = create_objective(message, spec_of(networks))
    part = torch.arange(len(rows.target))
    sums = train(problem, networks, rows, part, site="here", round=round, fold=0, objective=objective, device=device)
    return state_of(networks), sums


def differ(one, two):
    return any(not torch.equal(one[name], two[name]) for name in one)


# -- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.01, 0.5, 3.0])
def test_the_contrastive_loss_is_the_papers(tau):
    z, received, own = np.random.default_rng(0).normal(size=(3, 7, 4))
    found = contrastive_loss(*map(torch.from_numpy, (z, received, own)), tau)

    def cosine(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)

    for row, loss in enumerate(found.tolist()):
        towards = math.exp(cosine(z[row], received[row]) / tau)
        away = math.exp(cosine(z[row], own[row]) / tau)
        assert loss == pytest.approx(-math.log(towards / (towards + away)), rel=1e-9, abs=1e-14)


def test_the_contrastive_loss_of_equal_models_is_log_two():
    z, other = torch.rand(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(contrastive_loss(z, other, other, 0.5), torch.full((6,), math.log(2)).double())


def test_the_contrastive_loss_stays_finite_where_the_papers_exponentials_do_not():
    z = torch.ones(1, 2, dtype=torch.float64)
    assert contrastive_loss(z, -z, z, 1e-4).item() == pytest.approx(2 / 1e-4)


# -- the training --------------------------------------------------------------------------------------------------


def test_one_step_follows_the_gradient_of_the_loss_and_mu_times_the_contrast():
    problem, mu, tau, rows = problem_of(), 1.7, 0.4, rows_of()
    own, networks = other_model(problem), build_networks(problem)
    model = networks["model"]

    def features(state):
        # Linear, LayerNorm, tanh; the last layer makes one logit of that.
        hidden = nn.functional.linear(rows.inputs, state["model.0.weight"], state["model.0.bias"])
        return torch.tanh(nn.functional.layer_norm(hidden, (5,), state["model.1.weight"], state["model.1.bias"]))

    start = {name: tensor.clone() for name, tensor in state_of(networks).items()}
    z, received, last = features({f"model.{k}": v for k, v in model.named_parameters()}), features(start), features(own)

    def cosine(one, other):
        return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))

    towards, away = (torch.exp(cosine(z, reference) / tau) for reference in (received, last))
    loss = problem.row_loss(problem.forward(networks, rows.inputs), rows.target, 0).mean()
    loss = loss - mu * torch.log(towards / (towards + away)).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    wanted = {
        f"model.{name}": start[f"model.{name}"] - 0.1 * gradient
        for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True)
    }
    found, _ = trained(problem, contrast(problem, mu, tau, own))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-13)


def test_the_models_that_are_compared_with_stay_as_they_are_while_the_site_trains():
    problem = problem_of(training=DOUBLE | {"local_steps": 5})
    networks = build_networks(problem)
    objective = create_objective(contrast(problem, own=other_model(problem)), spec_of(networks))
    start = {name: tensor.clone() for name, tensor in state_of(networks).items()}
    train(problem, networks, rows_of(), torch.arange(12), site="here", round=2, fold=0, objective=objective)
    received, own = objective._references
    assert differ(state_of(networks), start)
    assert not differ(state_of(received), start)
    assert not differ(state_of(own), other_model(problem))


def test_the_told_loss_is_that_of_the_task():
    problem = problem_of()
    _, plain = trained(problem, {})
    _, pulled = trained(problem, contrast(problem, mu=100.0))
    assert pulled == plain


@pytest.mark.parametrize("model", [{"dropout": 0.4}, {"norm": "batch"}], ids=str)
def test_a_vanishing_mu_is_plain_training_so_no_batch_is_counted_and_no_dropout_drawn_twice(model):
    problem = problem_of(model, DOUBLE | {"local_steps": 6, "batch_size": 5})
    plain, sums = trained(problem, {})
    nearly, same = trained(problem, contrast(problem, mu=1e-13))
    assert sums.steps == same.steps
    for name, tensor in plain.items():
        torch.testing.assert_close(nearly[name], tensor, rtol=0, atol=1e-11)


def test_accumulated_batches_take_the_step_of_one_large_batch_with_the_contrast_too():
    states = []
    for batches in ({"batch_size": 4, "accumulate": 3}, {"batch_size": 12}):
        problem = problem_of(training=DOUBLE | batches | {"local_steps": 3})
        states.append(trained(problem, contrast(problem))[0])
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=1e-13)


def test_the_contrast_works_in_mixed_precision_and_is_reckoned_in_full():
    problem = problem_of(training={"precision": "mixed", "device": "cpu"})
    rows, networks = rows_of(dtype=torch.float32), build_networks(problem)
    device = Device.choose(problem.experiment.training)
    with device.forward():
        output, features = with_features(problem, networks, rows.inputs)
    assert (output.dtype, features.dtype) == (torch.bfloat16, torch.float32)
    plain, _ = trained(problem, {}, rows, device=device)
    assert differ(plain, trained(problem, contrast(problem), rows, device=device)[0])


# -- features ------------------------------------------------------------------------------------------------------


def test_features_are_what_the_last_layer_is_given_and_no_hook_is_left_behind():
    problem = problem_of({"hidden": [6, 4]})
    networks, inputs = build_networks(problem), rows_of().inputs
    output, features = with_features(problem, networks, inputs)
    assert features.shape == (12, 4)
    torch.testing.assert_close(networks["model"][-1](features), output)
    assert not any(module._forward_pre_hooks for module in networks["model"].modules())


def test_features_of_a_recurrent_network_are_its_mean_over_time():
    model = {"kind": "gru", "hidden": 4, "window": 5, "head": [3]}
    problem = create_problem(
        Experiment.parse(
            {"data": {"target": "y", "sequence": "x"}, "problem": "sequence_classification", "model": model}
        ),
        Setup(["a", "b"], {}, [0, 1]),
    )
    networks = build_networks(problem)
    network = networks["model"]
    assert isinstance(network, RecurrentNetwork)
    inputs = torch.randn(6, 20, 2)
    _, features = with_features(problem, networks, inputs)
    states, _ = network.recurrent(inputs.unfold(1, 5, 5).flatten(2))
    torch.testing.assert_close(features, states.mean(dim=1))


def test_networks_that_do_not_say_what_their_features_are_are_refused_in_words():
    problem = problem_of(strategy="moon")
    for network in (nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1)), nn.Sequential(nn.Linear(3, 4), nn.ReLU())):
        with pytest.raises(SiteError, match="problem classification with these networks does not say") as refused:
            head_of(problem, {"model": network})
        assert refused.value.kind == "request"


def test_a_head_that_is_not_called_once_is_refused_in_words():
    class Twice(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs) + super().forward(inputs)

    with pytest.raises(SiteError, match="is a layer that is called 2 times for a batch") as refused:
        with_features(problem_of(), {"model": Twice(nn.Linear(3, 4), nn.Linear(4, 1))}, torch.rand(2, 3))
    assert refused.value.kind == "request"


# -- the message ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mu": 0}, "the mu of the strategy's contrast must be a finite number above 0"),
        ({"mu": True}, "the mu of"),
        ({"mu": float("nan")}, "the mu of"),
        ({"tau": "warm"}, "the tau of the strategy's contrast must be a finite number above 0"),
        ({"tau": -0.5}, "the tau of"),
        ({"tau": float("inf")}, "the tau of"),
        ({"gift": 1}, "must have mu, tau and own, and no more"),
        ({"own": 3}, "must be base64 text"),
    ],
)
def test_a_malformed_contrast_is_refused(change, reason):
    problem = problem_of()
    message = {"contrast": contrast(problem)["contrast"] | change}
    with pytest.raises(WireError, match=reason):
        create_objective(message, spec_of(build_networks(problem)))


@pytest.mark.parametrize("content", [None, [], {}, {"mu": 1.0, "tau": 0.5}])
def test_a_contrast_without_its_parts_is_refused(content):
    with pytest.raises(WireError, match="must have mu, tau and own"):
        create_objective({"contrast": content}, {})


def test_an_own_model_that_does_not_fit_is_refused():
    problem = problem_of({"norm": "batch"})
    good = other_model(problem)
    for own, reason in (
        ({name: tensor for name, tensor in good.items() if "running" not in name}, r"running_mean' is missing"),
        (good | {"model.3.bias": torch.zeros(2, dtype=torch.float64)}, r"model\.3\.bias' has shape"),
        (good | {"model.3.bias": torch.full((1,), torch.nan, dtype=torch.float64)}, "non-finite"),
    ):
        with pytest.raises(WireError, match=reason):
            create_objective(contrast(problem, own=own), spec_of(build_networks(problem)))
