"""Sites trained as one stack against each of them trained by itself: equal to 1e-6 of a tensor's largest number."""

import pytest
import torch

from v6_algorithm.data.preparation import Setup
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.cross_entropy import formula_of
from v6_algorithm.learning.training.learner import TrainingContext, fused_steps
from v6_algorithm.learning.training.loop import Rows, train
from v6_algorithm.learning.training.objectives import LocalObjective
from v6_algorithm.learning.training.state import build_networks, load_state, state_of
from v6_algorithm.learning.training.together import SiteRows, is_plain, train_together

COUNTS = [37, 20, 5, 37]
SGD = {"kind": "sgd", "lr": 0.1}


OPTIMISERS = [
    (SGD, {}),
    ({**SGD, "momentum": 0.9}, {"freeze": ["model.0.*"]}),
    ({"kind": "adam", "lr": 0.001}, {}),
    ({"kind": "adamw", "lr": 0.001}, {"local_epochs": 2}),
]
NETWORKS = [("none", "relu", 3), ("none", "gelu", 3), ("none", "relu", 2)]


@pytest.mark.parametrize(
    ("optimizer", "changes", "norm", "activation", "classes"),
    [
        *((*optimiser, *network) for optimiser in OPTIMISERS for network in NETWORKS),
        # Of 37 rows the last batch of 4 has one, which joins the one before.
        (SGD, {"batch_size": 4, "local_epochs": 2}, "batch", "relu", 3),
        ({**SGD, "momentum": 0.9}, {"freeze": ["model.0.*", "model.1.*"]}, "batch", "tanh", 3),
    ],
)
def test_a_stack_of_sites_learns_what_each_learns_by_itself(optimizer, changes, norm, activation, classes):
    model = {"kind": "mlp", "hidden": [8, 6], "norm": norm, "activation": activation}
    training = {"batch_size": 8, "optimizer": optimizer, "local_epochs": 1} | changes
    experiment = Experiment.parse({"data": {"target": "y"}, "model": model, "training": training})
    problem = create_problem(experiment, Setup(["a", "b", "c"], {}, [str(label) for label in range(classes)]))
    networks = build_networks(problem)
    assert is_plain([*networks["model"]]) == (activation == "relu" and norm == "none")
    start = {name: tensor.clone() for name, tensor in state_of(networks).items()}
    inputs = torch.randn(sum(COUNTS), 3, generator=torch.Generator().manual_seed(0))
    target = ((inputs.sum(1) > 0).long() + (inputs[:, 0] > 1)).clamp(max=classes - 1)
    frozen = [name for name in start if name.startswith(tuple(path[:-1] for path in changes.get("freeze", ())))]
    places = [slice(sum(COUNTS[:site]), sum(COUNTS[: site + 1])) for site in range(len(COUNTS))]
    sites = [
        SiteRows(place.start, count, str(site), experiment.seed, LocalObjective())
        for site, (place, count) in enumerate(zip(places, COUNTS, strict=True))
    ]
    with fused_steps():
        context = TrainingContext(experiment.seed, "0", 1, 0, frozen=frozenset(frozen))
        stacked = train_together(problem, networks, start, inputs, target, sites, context)
    states = {
        number: wire.Stacked(stack, layer) for stack, numbers in stacked.stacks for layer, number in enumerate(numbers)
    }
    for site, (place, count) in enumerate(zip(places, COUNTS, strict=True)):
        load_state(networks, {name: tensor.clone() for name, tensor in start.items()})
        rows = Rows(inputs[place], target[place], torch.zeros(count, dtype=torch.long))
        sums = train(
            problem, networks, rows, torch.arange(count), site=str(site), round=1, fold=0, frozen=frozen
        )  # fmt: skip
        assert (stacked.seen[site], stacked.steps[site]) == (sums.rows, sums.steps)
        assert stacked.losses[site] == pytest.approx(sums.loss, rel=1e-6)
        for name, tensor in state_of(networks).items():
            assert (states[site][name] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), name
            # A bias before BatchNorm has no gradient but rounding.
            moves = norm == "none" or not name.endswith("bias")
            assert torch.equal(tensor, start[name]) == (name in frozen) or not moves


@pytest.mark.parametrize(
    ("changes", "weights", "has_formula"),
    [({}, None, True), ({"loss": {"kind": "focal", "gamma": 1.0}}, None, False), ({}, [[1.0, 2.0, 3.0]], False)],
)
def test_only_the_plain_cross_entropy_has_its_slope_by_formula(changes, weights, has_formula):
    experiment = Experiment.parse({"data": {"target": "y"}, "training": {"local_epochs": 1} | changes})
    problem = create_problem(experiment, Setup(["a"], {}, ["0", "1", "2"], class_weights=weights))
    formula = formula_of(problem)
    assert (formula is not None) == has_formula
    derived = type("Other", (type(problem),), {"row_loss": lambda self, output, target, fold: output[:, 0]})
    assert formula_of(derived(experiment, problem.setup)) is None
    if formula is None:
        return
    output, target = torch.randn(6, 3).requires_grad_(), torch.tensor([0, 1, 2, 2, 1, 0])
    parts = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0, 0.5])[:, None]
    rows, slope = formula(output, target, parts)
    expected = problem.row_loss(output, target, 0)
    (by_graph,) = torch.autograd.grad((expected * parts[:, 0]).sum(), output)
    assert torch.allclose(rows, expected, rtol=1e-6)
    assert torch.allclose(slope, by_graph, atol=1e-7)
