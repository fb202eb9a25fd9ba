"""The local loop: batches, schedules, determinism, divergence."""

import os

import pytest
import torch

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Experiment, Training
from v6_algorithm.learning.metrics import compute
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.device import Device, deterministic
from v6_algorithm.learning.training.loop import Rows, batches, evaluate, train
from v6_algorithm.learning.training.state import build_networks, build_shapes, load_state, spec_of, state_of


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


# -- accumulation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [48, 37, 33, 5], ids=lambda count: f"{count} rows")
def test_accumulated_batches_take_the_step_of_one_large_batch(count):
    """seeds.md 2.10: coinstac-dinunet sums over its local iterations instead of averaging.

    48 rows are full steps; 37 and 33 end with a smaller last batch, of 5 rows and of one; 5 are less than one batch.
    """
    sgd = {"optimizer": {"kind": "sgd", "lr": 0.5}, "dtype": "float64", "local_epochs": 3}
    problem = problem_of(training={**sgd, "batch_size": 8, "accumulate": 4})
    large = problem_of(training={**sgd, "batch_size": 32})
    rows = rows_of(count)
    doubled = Rows(rows.inputs.double(), rows.target, rows.member)
    states = []
    for made in (problem, large):
        networks = build_networks(made)
        sums = train(made, networks, doubled, torch.arange(count), site="here", round=1, fold=0)
        states.append((state_of(networks), sums))
    for name, tensor in states[0][0].items():
        torch.testing.assert_close(tensor, states[1][0][name], rtol=0, atol=1e-13)
    assert states[0][1].steps == states[1][1].steps
    assert states[0][1].rows == states[1][1].rows == 3 * count
    assert states[0][1].loss == pytest.approx(states[1][1].loss, abs=1e-9)


def test_local_steps_count_steps_and_not_the_batches_that_they_accumulate():
    _, sums = trained(problem_of(training={"batch_size": 4, "accumulate": 3, "local_steps": 7}))
    assert sums.steps == 7
    assert sums.rows == 37 + 36  # an epoch of 12, 12, 12 and 1 rows, and three more full steps


def test_batch_norm_gets_no_batch_of_one_row_when_accumulating():
    model = {"kind": "mlp", "hidden": [6], "norm": "batch"}
    _, sums = trained(problem_of(model=model, training={"batch_size": 8, "accumulate": 2}), count=33)
    assert sums.rows == 33


# -- device, precision, determinism --------------------------------------------------------------------------------


def on(training, count=37):
    problem = problem_of(training=training, model={"kind": "mlp", "hidden": [64]})
    networks = build_networks(problem)
    seen = []
    networks["model"][0].register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    device = Device.choose(problem.experiment.training)
    sums = train(problem, networks, rows_of(count), torch.arange(count), site="here", round=1, fold=0, device=device)
    states = evaluate(problem, networks, rows_of(count), torch.arange(count), ["here"], fold=0, device=device)
    return networks, sums, states, seen


def test_mixed_precision_trains_in_bfloat16_and_keeps_and_measures_in_float32():
    full, full_sums, _, full_seen = on({"device": "cpu"})
    mixed, mixed_sums, _, seen = on({"device": "cpu", "precision": "mixed"})
    assert set(full_seen) == {torch.float32}
    assert seen[:-1] == [torch.bfloat16] * (len(seen) - 1)
    assert seen[-1] == torch.float32, "the evaluation"
    assert {tensor.dtype for tensor in state_of(mixed).values()} == {torch.float32}
    assert differ(state_of(full), state_of(mixed))
    assert mixed_sums.loss == pytest.approx(full_sums.loss, rel=0.02)


def test_the_device_of_choice_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Device.choose(Training(precision="mixed")).to_json() == {"name": "cpu", "precision": "mixed"}
    with pytest.raises(SiteError, match="this site has no CUDA device; allowed: auto, cpu") as error:
        Device.choose(Training(device="cuda"))
    assert error.value.kind == "request"


def test_a_gpu_without_bfloat16_trains_in_full_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    told = Device.choose(Training(precision="mixed")).to_json()
    assert told == {"name": "cuda (Tesla T4)", "precision": "full"}
    assert Device.choose(Training(device="cpu")).kind == "cpu"


def test_deterministic_algorithms_are_asked_for_within_the_training_only():
    seen = []

    class Watching(torch.nn.Linear):
        def forward(self, rows):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().forward(rows)

    for wanted in (True, False):
        problem = problem_of(training={"deterministic": wanted})
        networks = {"model": Watching(3, 1)}
        train(problem, networks, rows_of(), torch.arange(37), site="here", round=1, fold=0)
        assert set(seen) == {wanted}
        assert not torch.are_deterministic_algorithms_enabled()
        seen.clear()


def test_an_operation_without_a_deterministic_form_is_refused_in_words():
    class Random(torch.nn.Linear):
        def forward(self, rows):
            # What torch says for such operations; which they are hangs on the device and the version.
            raise RuntimeError("scatter_add_cuda does not have a deterministic implementation, but you set …")

    problem = problem_of(training={"deterministic": True})
    with pytest.raises(SiteError, match="needs an operation that is not deterministic on this device"):
        train(problem, {"model": Random(3, 1)}, rows_of(), torch.arange(37), site="here", round=1, fold=0)
    assert not torch.are_deterministic_algorithms_enabled()


def test_on_a_gpu_products_can_be_deterministic_whatever_the_process_did_before(monkeypatch):
    """Torch looks for the variable at the first product only, which may be of another request."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for before, after in ((None, ":4096:8"), (":16:8", ":16:8")):
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        if before:
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
        Device.choose(Training(device="cpu"))
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before
        Device.choose(Training())
        with deterministic(True):
            pass
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == after


def test_who_used_a_gpu_before_is_told_what_to_set():
    text = "it uses CuBLAS … To enable deterministic behavior in this case, … CUBLAS_WORKSPACE_CONFIG=:4096:8 or …"
    with (
        pytest.raises(SiteError, match="before CUBLAS_WORKSPACE_CONFIG was set; set it to :4096:8"),
        deterministic(True),
    ):
        raise RuntimeError(text)


def test_the_size_of_evaluation_batches_changes_no_metric():
    _, _, at_once, _ = on({})
    _, _, in_pieces, seen = on({"evaluation_batch_size": 5})
    assert len(seen) == 2 + 8
    assert compute(in_pieces["here"]) == pytest.approx(compute(at_once["here"]), abs=1e-6)
