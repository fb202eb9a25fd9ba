"""Losses, predictions and learning of the problems on tables."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from v6_algorithm.data.sources import TableSource
from v6_algorithm.experiment import Experiment
from v6_algorithm.preparation import Setup
from v6_algorithm.problems import create_problem


def problem_of(classes, kind="classification", weights=None, **changes):
    experiment = Experiment.parse({"data": {"target": "y"}, "problem": kind} | changes)
    return create_problem(experiment, Setup(["a"], {}, classes, weights))


def test_binary_loss_and_probabilities_are_those_of_two_softmax_outputs():
    problem, output, target = problem_of([0, 1]), torch.tensor([[-1.5], [0.0], [2.5]]), torch.tensor([1, 0, 1])
    two = torch.cat([torch.zeros(3, 1), output], dim=1)
    torch.testing.assert_close(
        problem.row_loss(output, target, 0), functional.cross_entropy(two, target, reduction="none")
    )
    torch.testing.assert_close(problem.prediction(output), torch.softmax(two.double(), dim=1))


def test_cross_entropy_gets_logits_not_softmax():
    """seeds.md 1.7: softmax before cross_entropy, which made HRC's gradients vanish."""
    problem = problem_of(["a", "b", "c"])
    network = problem.build_networks()["model"]
    assert not any(isinstance(module, torch.nn.Softmax) for module in network.modules())
    confident = torch.tensor([[20.0, 0.0, 0.0]])
    assert problem.row_loss(confident, torch.tensor([0]), 0).item() < 1e-6


def test_class_weights_multiply_the_loss_of_their_class():
    output, target = torch.tensor([[0.3], [-0.2]]), torch.tensor([0, 1])
    plain = problem_of([0, 1]).row_loss(output, target, 0)
    weighted = problem_of([0, 1], weights=[[2.0, 5.0]]).row_loss(output, target, 0)
    torch.testing.assert_close(weighted, plain * torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize(
    ("loss", "wanted"), [(None, [0.25, 9.0]), ("mae", [0.5, 3.0]), ({"kind": "huber", "delta": 2.0}, [0.125, 4.0])]
)
def test_regression_losses(loss, wanted):
    problem = problem_of(None, "regression", training={"loss": loss})
    found = problem.row_loss(torch.tensor([[1.5], [4.0]]), torch.tensor([1.0, 1.0]), 0)
    assert found.tolist() == wanted


@pytest.mark.parametrize("norm", ["none", "layer", "group", "batch"])
def test_multi_class_learns_on_sites_with_skewed_labels(run_locally, make_experiment, norm):
    pytest.importorskip("sklearn")
    from v6_algorithm.federation.simulate import tables_of

    experiment = make_experiment(
        sites={"source": "builtin:wine", "partition": {"kind": "dirichlet", "sites": 3, "alpha": 1.0}},
        data={"target": "target"},
        model={"kind": "mlp", "hidden": [16], "norm": norm},
        rounds=15,
    )
    result = run_locally(experiment, tables_of(experiment, None))
    assert result["metrics"]["test"]["pooled"]["accuracy"] > 0.85


def test_regression_learns(run_locally, make_experiment):
    generator = np.random.default_rng(0)
    sites = {}
    for name, rows in (("one", 80), ("two", 50)):
        import pandas as pd

        frame = pd.DataFrame(generator.normal(size=(rows, 3)), columns=["a", "b", "c"])
        frame["y"] = 3 * frame["a"] - frame["b"] + 50
        sites[name] = TableSource(frame=frame)
    experiment = make_experiment(
        problem="regression", model="linear", rounds=40,
        training={"local_epochs": 2, "optimizer": {"kind": "sgd", "lr": 0.05}},
        stopping={"monitor": "r2", "patience": None},
    )  # fmt: skip
    assert run_locally(experiment, sites)["metrics"]["test"]["pooled"]["r2"] > 0.99


def test_balanced_class_weights_come_from_the_whole_federation(run_locally, make_experiment, tables):
    """A site's own counts would give each site another loss, and their mean would be no loss of the pooled rows."""
    loss = {"kind": "cross_entropy", "class_weights": "balanced"}
    result = run_locally(make_experiment(training={"loss": loss}), tables)
    assert result["status"] == "completed"
