"""`strategy.compress_down`: sites train a rounded model, and what they make of it moves the whole one."""

import pytest
import torch
from spying import Spy, lose

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import read_sent
from v6_algorithm.site.policy import Policy

STAY = {"patience": None}
NORMS = {"kind": "mlp", "hidden": [8], "norm": "batch"}


def down(rounding="float16", **strategy):
    return {"strategy": {"kind": "fedavg", "compress_down": rounding} | strategy, "stopping": STAY}


def items(spy, method="RPC_train"):
    """The item of every request, by site, call after call."""
    return [{site: request["folds"][0] for site, request in asked.items()} for asked in spy.of(method)]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sites_are_sent_parameters_of_two_bytes_and_the_rest_whole(spied, make_experiment, kind):
    spy, result = spied(make_experiment(rounds=3, model=NORMS, **down(kind)))
    first, second, third = (one["berlin"] for one in items(spy))
    assert first["parameters"] is None
    assert "rounded" not in first
    for item in (second, third):
        assert item["rounded"] == kind
        for name, tensor in wire.unpack(item["parameters"]).items():
            whole = "running_" in name or "num_batches" in name
            assert (str(tensor.dtype) == f"torch.{kind}") != whole
    (last,) = items(spy, "RPC_evaluate")
    measured = wire.unpack(last["berlin"]["parameters"])
    assert "rounded" not in last["berlin"]
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in measured.values())
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in wire.unpack(result["parameters"]).values())


def test_an_update_counts_from_the_model_that_was_sent_and_moves_the_one_before_rounding(spied, make_experiment):
    """x <- x + mean of (y - rounded x); what is sent next is the nearest to that."""
    spy, result = spied(make_experiment(rounds=4, output={"model": "last"}, **down("bfloat16")))
    rows = {site: reply["folds"][0]["rows"] for method, site, reply in spy.replies if method == "RPC_train"}
    whole = mean(spy, rows, 1)
    for number in (2, 3, 4):
        item = items(spy)[number - 1]["cairo"]
        short = wire.unpack(item["parameters"])
        trained = mean(spy, rows, number)
        for name in whole:
            assert torch.equal(short[name], whole[name].float().bfloat16())
            whole[name] = (whole[name].float().double() + trained[name] - short[name].double()).float().double()
    for name, tensor in wire.unpack(result["parameters"]).items():
        torch.testing.assert_close(tensor.double(), whole[name], rtol=0, atol=1e-6)
        assert not torch.equal(tensor, tensor.bfloat16().float())


def mean(spy, rows, number):
    """The mean of what the sites sent in a round, float64 by name."""
    sums = {}
    for method, site, reply in spy.replies:
        if method == "RPC_train" and reply["round"] == number:
            for name, tensor in wire.unpack(reply["folds"][0]["parameters"]).items():
                sums[name] = sums.get(name, 0) + rows[site] / sum(rows.values()) * tensor.double()
    return sums


@pytest.mark.slow
def test_steps_smaller_than_the_rounding_add_up(make_experiment, run_locally, tables):
    """Of 20 rounds whose steps are shorter than the distance of two numbers of 8 bits, else little would be left."""
    training = {"optimizer": {"kind": "sgd", "lr": 1e-4}, "local_steps": 1, "batch_size": None}
    changes = {"training": training, "rounds": 20, "output": {"model": "last"}}
    first, last, other = (
        wire.unpack(run_locally(make_experiment(**changes | more), tables)["parameters"])
        for more in (down(None) | {"rounds": 1}, down(None), down("bfloat16"))
    )
    for name, tensor in last.items():
        went = (tensor - first[name]).norm()
        assert (other[name] - tensor).norm() < 0.05 * went


STRATEGIES = {
    "fedavg": {},
    "clip": {"clip": 0.3},
    "server": {"kind": "fedadam"},
    "median": {"combine": "median"},
    "fedprox": {"kind": "fedprox", "mu": 0.1},
    "fedsgd": {"kind": "fedsgd"},
    "scaffold": {"kind": "scaffold"},
    "fednova": {"kind": "fednova"},
    "feddyn": {"kind": "feddyn"},
    "moon": {"kind": "moon"},
    "cyclic": {"kind": "cyclic"},
    "agnostic": {"kind": "agnostic"},
    "qfedavg": {"kind": "qfedavg"},
    "compressed up": {"compress": "float16"},
    "private": {"private": "norm"},
}


# Two runs each: every day those whose sites or server keep something from round to round, in CI all.
OFTEN = ("fedavg", "server", "scaffold", "feddyn", "moon", "cyclic", "private")


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(strategy, id=name, marks=() if name in OFTEN else pytest.mark.slow)
        for name, strategy in STRATEGIES.items()
    ],
)
def test_each_strategy_comes_near_to_what_it_is_with_whole_models(make_experiment, run_locally, tables, strategy):
    training = {"local_steps": 1} if strategy.get("kind") == "fedsgd" else {"local_epochs": 1}
    training |= {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    # BatchNorm over few rows makes much of small differences.
    model = {"kind": "mlp", "hidden": [8], "norm": "layer" if "private" in strategy else "none"}
    short, whole = (
        run_locally(make_experiment(rounds=3, model=model, training=training, output={"model": "last"},
                                    **down(kind, **strategy)), tables)
        for kind in ("float16", None)
    )  # fmt: skip
    one, other = (wire.unpack(result["parameters"]) for result in (short, whole))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-3)


def test_the_engines_come_to_the_same_bits(tables, make_experiment):
    """The mock passes text and trains one site after another, the local engine passes tensors."""
    experiment = make_experiment(model=NORMS, **down("bfloat16"))
    local = run(local_federation(experiment, tables), experiment)
    mock = run(mock_federation(experiment, tables), experiment)
    for key in ("history", "parameters", "metrics"):
        assert mock[key] == local[key], key


def test_frozen_layers_are_sent_rounded_and_stay_what_they_were(spied, make_experiment):
    spy, result = spied(make_experiment(rounds=3, training={"freeze": "model.0.*"}, **down("bfloat16")))
    start = next(reply["folds"][0]["parameters"] for method, _, reply in spy.replies if method == "RPC_train")
    begun, ended = wire.unpack(start), wire.unpack(result["parameters"])
    assert torch.equal(ended["model.0.weight"], begun["model.0.weight"])
    sent = wire.unpack(items(spy)[2]["berlin"]["parameters"])
    assert sent["model.0.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("changes", [{"pipeline": 1}, {"participation": {"minimum": 2, "late": "stale"}}])
def test_answers_to_an_earlier_model_count_from_that_rounded_one(tables, make_experiment, changes):
    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    models = []
    for kind in ("float16", None):
        experiment = make_experiment(rounds=5, training=training, output={"model": "last"}, **changes, **down(kind))
        tamper = lose("berlin", {3}, "late") if "participation" in changes else None
        spy = Spy(local_federation(experiment, tables), tamper, back={"berlin"})
        models.append(wire.unpack(run(spy, experiment)["parameters"]))
    for name, tensor in models[1].items():
        torch.testing.assert_close(models[0][name], tensor, rtol=0, atol=2e-3)


def test_under_masks_the_sum_counts_from_the_rounded_model(tables, make_experiment):
    """Rounded alike: to what fixed point leaves of it, masks change nothing."""
    hidden = {"privacy": {"secure_aggregation": {"threshold": 2}}}
    results = []
    for changes in ({}, hidden):
        experiment = make_experiment(output={"model": "last"}, **changes, **down("bfloat16"))
        results.append(wire.unpack(run(local_federation(experiment, tables), experiment)["parameters"]))
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["sample", "site"])
def test_differential_privacy_costs_the_same_for_noise_is_added_to_what_a_site_has_made(
    make_experiment, run_locally, tables, unit
):
    private = {"privacy": {"differential_privacy": {"unit": unit, "epsilon": 8, "delta": 1e-3}}}
    short, whole = (run_locally(make_experiment(**private, **down(kind)), tables) for kind in ("float16", None))
    assert short["status"] == "completed"
    assert short["history"]["epsilon"] == whole["history"]["epsilon"]


def test_nobody_is_sent_anything_rounded_where_a_site_trains_alone(make_experiment, run_locally, tables):
    short, whole = (run_locally(make_experiment(mode="local", **down(kind)), tables) for kind in ("float16", None))
    assert short["history"] == whole["history"]


@pytest.mark.parametrize(("output", "pipeline"), [("best", 0), ("last", 0), ("ema", 0), ("best", 1), ("ema", 1)])
def test_a_node_that_watches_the_order_measures_the_models_at_the_end(tables, make_experiment, output, pipeline):
    """They are other texts than those that it was sent in the rounds."""
    experiment = make_experiment(rounds=5, output={"model": output}, pipeline=pipeline, **down())
    policy = Policy.from_environment({"V6_ALGORITHM_POLICY": "trusted", "V6_ALGORITHM_REQUEST_ORDER": "true"})
    result = run(local_federation(experiment, tables, policy), experiment)
    assert all(not entry["missing"] for entry in result["participation"])
    assert set(result["metrics"]["test"]["sites"]) == set(tables)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_number_that_float16_has_not_ends_the_run_naming_tensor_and_remedy(make_experiment, tables):
    training = {"optimizer": {"kind": "sgd", "lr": 1e6}, "local_steps": 2}
    experiment = make_experiment(training=training, model={"kind": "mlp", "hidden": []}, **down())
    result = run(local_federation(experiment, tables), experiment)
    assert result["status"] == "stopped"
    assert "tensor 'model.0." in result["stopped_because"]
    assert "65,504" in result["stopped_because"]
    assert "compress_down: bfloat16" in result["stopped_because"]


def test_a_site_refuses_a_rounding_it_does_not_know():
    spec = {"w": wire.TensorSpec((2,), "float32")}
    for item in (
        {"rounded": "int8", "parameters": wire.pack({"w": torch.zeros(2)})},
        {"rounded": "float16", "parameters": wire.pack({"w": torch.zeros(2)})},
        {"parameters": wire.pack({"w": torch.zeros(2, dtype=torch.float16)})},
    ):
        with pytest.raises(WireError):
            read_sent(item, spec)


def test_newton_is_refused(make_experiment):
    with pytest.raises(ExperimentError, match="compress_down does not go with strategy newton"):
        make_experiment(model={"kind": "glm"}, **down(kind="newton"))
