"""Losses, predictions and learning of the problems on tables."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import create_problem


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


def test_poisson_loss_and_prediction_have_a_log_link():
    problem = problem_of(None, "regression", training={"loss": "poisson"})
    output, target = torch.tensor([[0.5], [-1.0]]), torch.tensor([2.0, 0.0])
    wanted = -torch.distributions.Poisson(torch.exp(output[:, 0])).log_prob(target) - torch.lgamma(target + 1)
    torch.testing.assert_close(problem.row_loss(output, target, 0), wanted)
    torch.testing.assert_close(problem.prediction(output), torch.exp(output[:, 0].double()))


def counts(values):
    return {
        name: TableSource(frame=pd.DataFrame({"a": np.linspace(-1, 1, 60), "y": values})) for name in ("one", "two")
    }


def test_poisson_learns_rates(run_locally, make_experiment):
    generator = np.random.default_rng(0)
    experiment = make_experiment(
        problem="regression", model="linear", rounds=30, stopping={"monitor": "loss", "patience": None},
        training={"loss": "poisson", "local_epochs": 2, "optimizer": {"kind": "sgd", "lr": 0.05}},
    )  # fmt: skip
    result = run_locally(experiment, counts(generator.poisson(np.exp(1 + 2 * np.linspace(-1, 1, 60)))))
    assert result["metrics"]["test"]["pooled"]["r2"] > 0.6


@pytest.mark.parametrize("value", [-4711, 0.4711])
def test_poisson_refuses_what_is_no_count_without_its_value(run_locally, make_experiment, value):
    experiment = make_experiment(problem="regression", training={"loss": "poisson"})
    with pytest.raises(ExperimentError, match="loss poisson needs whole numbers from 0") as refused:
        run_locally(experiment, counts(np.r_[np.arange(59), value]))
    assert "4711" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "layer", "group", "batch"])
def test_multi_class_learns_on_sites_with_skewed_labels(run_locally, make_experiment, norm):
    pytest.importorskip("sklearn")
    from v6_algorithm.engines.simulation.simulate import tables_of

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
