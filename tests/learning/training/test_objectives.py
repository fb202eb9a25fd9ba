"""What strategies ask of the local training, against gradients by hand in float64."""

import pytest
import torch

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.learning.training.objectives import LocalObjective, create_objective
from v6_algorithm.learning.training.state import spec_of, state_of


def network():
    layer = torch.nn.Linear(1, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(-1.0)
    return {"model": layer}


def train(networks, objective, steps, lr=0.1):
    """Gradient descent on (w + b)², whose gradient is 2(w + b) for both."""
    layer = networks["model"]
    optimiser = torch.optim.SGD(layer.parameters(), lr=lr)
    objective.begin(networks)
    for _ in range(steps):
        optimiser.zero_grad()
        ((layer.weight + layer.bias) ** 2).sum().backward()
        objective.step(optimiser)
    return layer.weight.item(), layer.bias.item()


def by_hand(steps, mu=0.0, added=(0.0, 0.0), lr=0.1):
    w, b = 2.0, -1.0
    for _ in range(steps):
        gradient = 2 * (w + b)
        w, b = (
            w - lr * (gradient + mu * (w - 2.0) + added[0]),
            b - lr * (gradient + mu * (b + 1.0) + added[1]),
        )
    return w, b


def objective_of(networks, **message):
    return create_objective(message, spec_of(networks))


def correction(weight, bias):
    values = {"model.weight": [[weight]], "model.bias": [bias]}
    return wire.pack({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})


def test_nothing_is_asked_and_nothing_is_changed():
    networks = network()
    objective = objective_of(networks)
    assert type(objective) is LocalObjective
    assert train(networks, objective, 3) == by_hand(3)


def test_fedprox_pulls_with_the_gradient_of_the_squared_distance():
    """peers.md trap 1: a norm that is not squared pulls with the same force everywhere; here it fades."""
    networks = network()
    assert train(networks, objective_of(networks, mu=0.7), 5) == pytest.approx(by_hand(5, mu=0.7), abs=1e-14)


def test_fedprox_does_not_pull_in_the_first_step():
    networks = network()
    assert train(networks, objective_of(networks, mu=100.0), 1) == pytest.approx(by_hand(1), abs=1e-15)


def test_fedprox_refers_to_a_copy_of_what_was_received():
    """peers.md trap 1: with the parameters themselves as reference the term is zero for ever."""
    pulled, free = network(), network()
    assert train(pulled, objective_of(pulled, mu=1.0), 3) != train(free, objective_of(free), 3)


def test_a_correction_is_added_to_each_gradient():
    networks = network()
    objective = objective_of(networks, correction=correction(0.3, -0.2), mu=0.5)
    assert train(networks, objective, 4) == pytest.approx(by_hand(4, mu=0.5, added=(0.3, -0.2)), abs=1e-14)


def test_a_parameter_that_is_not_trained_stays():
    networks = network()
    objective = objective_of(networks, correction=correction(0.3, -0.2), mu=0.5)
    networks["model"].bias.requires_grad_(False)
    assert train(networks, objective, 3)[1] == -1.0


def test_one_gradient_is_sent_in_place_of_the_parameters():
    networks = network()
    objective = objective_of(networks, gradient=True)
    assert train(networks, objective, 1) == (2.0, -1.0), "no step is taken"
    sent = objective.outgoing(state_of(networks))
    assert {name: tensor.item() for name, tensor in sent.items()} == {"model.weight": 2.0, "model.bias": 2.0}
    assert list(sent) == list(state_of(networks))


@pytest.mark.parametrize("mu", [-1, "much", True, None, float("inf")])
def test_a_malformed_mu_is_refused(mu):
    with pytest.raises(WireError, match="mu must be a finite number"):
        objective_of(network(), mu=mu)


def test_what_is_no_mapping_is_refused():
    with pytest.raises(WireError, match="must be a mapping"):
        create_objective(["mu"], {})


def test_a_correction_that_does_not_fit_the_model_is_refused():
    with pytest.raises(WireError, match=r"model\.bias' is missing"):
        objective_of(network(), correction=wire.pack({"model.weight": torch.zeros(1, 1, dtype=torch.float64)}))
