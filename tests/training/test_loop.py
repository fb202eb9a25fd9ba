"""The local loop: batches, schedules, determinism, divergence."""

import pytest
import torch

from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Experiment
from v6_algorithm.preparation import Setup
from v6_algorithm.problems import create_problem
from v6_algorithm.training.loop import Rows, batches, train
from v6_algorithm.training.state import build_networks, build_shapes, load_state, spec_of, state_of


def problem_of(**changes):
    experiment = Experiment.parse({"data": {"target": "y"}, "model": {"kind": "mlp", "hidden": [6]}} | changes)
    return create_problem(experiment, Setup(["a", "b", "c"], {}, [0, 1]))


def rows_of(count=37):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 3, generator=generator)
    return Rows(inputs, (inputs[:, 0] > 0).long(), torch.zeros(count, dtype=torch.long))


def trained(problem, *, round=1, fold=0, site="here", count=37):
    networks = build_networks(problem)
    sums = train(problem, networks, rows_of(count), torch.arange(count), site=site, round=round, fold=fold)
    return state_of(networks), sums


def differ(one, two):
    return any(not torch.equal(one[name], two[name]) for name in one)


def test_an_epoch_visits_every_row_once_and_is_shuffled():
    """seeds.md 2.10: coinstac-dinunet never shuffled its distributed training data."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.cat(list(batches(37, 8, generator))) for _ in range(2))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(37))
    assert first.tolist() != second.tolist() != list(range(37))


def test_a_last_batch_of_one_row_joins_the_one_before_where_batch_norm_needs_two():
    generator = torch.Generator()
    assert [len(batch) for batch in batches(17, 8, generator, at_least=2)] == [8, 9]
    assert [len(batch) for batch in batches(17, 8, generator)] == [8, 8, 1]
    model = {"kind": "mlp", "hidden": [6], "norm": "batch"}
    _, sums = trained(problem_of(model=model, training={"batch_size": 8}), count=17)
    assert sums.rows == 17


@pytest.mark.parametrize(("training", "steps"), [({"local_steps": 7}, 7), ({"local_epochs": 3}, 15), ({}, 5)])
def test_local_work_is_counted_in_steps_or_epochs(training, steps):
    _, sums = trained(problem_of(training={"batch_size": 8, **training}))
    assert sums.steps == steps


def test_the_same_round_repeated_is_the_same_and_others_differ():
    problem = problem_of(model={"kind": "mlp", "hidden": [6], "dropout": 0.3})
    base, _ = trained(problem)
    assert not differ(base, trained(problem)[0])
    for changed in ({"round": 2}, {"fold": 1}, {"site": "there"}):
        assert differ(base, trained(problem, **changed)[0])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    trained(problem_of())
    assert torch.equal(torch.rand(3), wanted)


def test_a_scheduler_steps_once_a_round_and_is_really_obeyed():
    """seeds.md 3.5: the server's schedule was sent, and the clients ignored it."""
    optimizer = {"kind": "sgd", "lr": 0.1}
    halving = {"optimizer": optimizer, "scheduler": {"kind": "StepLR", "step_size": 1, "gamma": 0.5}}
    third, _ = trained(problem_of(training=halving), round=3)
    quarter, _ = trained(problem_of(training={"optimizer": {**optimizer, "lr": 0.025}}), round=3)
    assert not differ(third, quarter)


def test_divergence_is_an_error_that_names_the_learning_rate():
    with pytest.raises(SiteError, match=r"diverged in round 1.*given: 1e\+30") as error:
        trained(problem_of(training={"optimizer": {"kind": "sgd", "lr": 1e30}, "local_epochs": 5}))
    assert error.value.kind == "diverged"


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "radam", "rprop", "adadelta"])
def test_any_torch_optimiser_lowers_the_loss(name):
    lr = {"adadelta": 1.0, "sgd": 0.1}.get(name, 0.01)
    training = {"optimizer": {"kind": name, "lr": lr}, "batch_size": None}
    before = trained(problem_of(training={**training, "local_steps": 1}))[1]
    after = trained(problem_of(training={**training, "local_steps": 30}))[1]
    assert after.loss / after.rows < before.loss / before.rows


@pytest.mark.parametrize("norm", ["none", "layer", "group", "batch"])
def test_a_state_survives_the_way_into_networks_built_without_numbers(norm):
    problem = problem_of(model={"kind": "mlp", "hidden": [6], "norm": norm})
    state, _ = trained(problem)
    networks = build_shapes(problem)
    assert spec_of(networks) == spec_of(build_networks(problem))
    load_state(networks, {name: tensor.clone() for name, tensor in state.items()})
    assert not differ(state, state_of(networks))
    train(problem, networks, rows_of(), torch.arange(37), site="here", round=2, fold=0)
    assert differ(state, state_of(networks))


def test_batch_norm_buffers_and_counters_are_told_apart_from_parameters():
    spec = spec_of(build_networks(problem_of(model={"kind": "mlp", "hidden": [6], "norm": "batch"})))
    kinds = {name.removeprefix("model.1."): item.kind for name, item in spec.items() if name.startswith("model.1.")}
    assert kinds == {
        "weight": "parameter",
        "bias": "parameter",
        "running_mean": "buffer",
        "running_var": "buffer",
        "num_batches_tracked": "counter",
    }
