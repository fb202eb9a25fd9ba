"""Numbers are learned in the federation's standard deviations, and measured and predicted in their own units."""

import base64
import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems.tabular import number_loss

FINITE = st.floats(-1e3, 1e3)
SCALED = {"target": "age", "target_scaling": "standard"}


def clinic(rows, seed, mean=55.0):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["age"] = mean + 10 * frame["a"] - 4 * frame["b"] + generator.normal(0, 2, rows)
    frame["visits"] = generator.poisson(3, rows)
    frame["sex"] = np.where(frame["c"] > 0, "f", "m")
    frame["part"] = np.resize(["train", "train", "train", "validation", "test"], rows)
    return frame


FRAMES = {"one": clinic(80, 1), "two": clinic(50, 2, mean=70.0), "three": clinic(40, 3, mean=40.0)}


def sources(frames=FRAMES):
    return {name: TableSource(frame=frame) for name, frame in frames.items()}


def experiment(**changes):
    data = {"split_column": "part", "features": ["a", "b", "c"]} | changes.pop("data", SCALED)
    return Experiment.parse(
        {
            "data": data,
            "problem": "regression",
            "model": "linear",
            "split": "given",
            "rounds": 3,
            "training": {"dtype": "float64", "batch_size": None, "optimizer": {"kind": "sgd", "lr": 0.3}},
        }
        | changes
    )


def header(result):
    content = base64.b64decode(result["parameters"])
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["v6_algorithm"]
    return safetensors.numpy.load(content), json.loads(about)["preparation"]


def of_part(part, frames=FRAMES):
    return pd.concat([frame[frame["part"] == part] for frame in frames.values()])


# -- which numbers -------------------------------------------------------------------------------------------------


def test_mean_and_sd_are_those_of_the_pooled_training_rows(run_locally):
    result = run_locally(experiment(), sources())
    train = of_part("train")["age"]
    scale = result["preparation"]["target_scaling"]["age"]
    assert scale == pytest.approx({"mean": train.mean(), "sd": train.std(ddof=0)}, rel=1e-12)


def test_each_fold_has_the_numbers_of_its_own_training_rows(run_locally):
    frames = {
        name: frame.assign(
            first=np.resize(["train", "train", "test"], len(frame)),
            second=np.resize(["test", "train", "train"], len(frame)),
        )
        for name, frame in FRAMES.items()
    }
    result = run_locally(experiment(data=SCALED | {"split_column": ["first", "second"]}, rounds=1), sources(frames))
    _, preparations = header(result)
    for fold, column in enumerate(["first", "second"]):
        train = pd.concat([frame[frame[column] == "train"] for frame in frames.values()])["age"]
        wanted = {"mean": train.mean(), "sd": train.std(ddof=0)}
        assert preparations[f"fold-{fold}"]["target_scaling"]["age"] == pytest.approx(wanted, rel=1e-12)


def test_one_federated_step_is_the_step_on_the_pooled_rows(run_locally):
    results = [run_locally(experiment(rounds=5, mode=mode), sources()) for mode in ("federated", "centralised")]
    one, other = (wire.unpack(result["parameters"]) for result in results)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-9)
    metrics = [result["metrics"]["test"]["pooled"] for result in results]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-9)


def test_nothing_of_the_target_is_asked_for_without_it(spied):
    spy, result = spied(experiment(data={"target": "age"}, rounds=1), sites=sources())
    assert "target_scaling" not in result["preparation"]
    assert all(request["setup"]["target_scales"] is None for call in spy.of("RPC_train") for request in call.values())


# -- units ---------------------------------------------------------------------------------------------------------


def test_the_returned_model_predicts_in_units_of_the_target_as_the_page_says(run_locally):
    result = run_locally(experiment(rounds=8), sources())
    weights, prepared = header(result)
    rows, scale = of_part("test"), prepared["target_scaling"]["age"]
    inputs = (rows[prepared["features"]].to_numpy() - prepared["shift"]) / prepared["scale"]
    age = scale["mean"] + scale["sd"] * (inputs @ weights["model.weight"][0] + weights["model.bias"])
    error = rows["age"].to_numpy() - age
    metrics = result["metrics"]["test"]["pooled"]
    assert metrics["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
    assert metrics["mse"] == pytest.approx((error**2).mean(), rel=1e-9)
    assert metrics["r2"] == pytest.approx(1 - (error**2).sum() / ((rows["age"] - rows["age"].mean()) ** 2).sum())
    assert metrics["loss"] == pytest.approx(metrics["mse"] / scale["sd"] ** 2, rel=1e-9)
    assert metrics["r2"] > 0.5


@given(output=FINITE, target=FINITE, mean=FINITE, sd=st.floats(0.01, 100), delta=st.floats(0.1, 50))
def test_the_loss_is_that_of_the_prediction_in_standard_deviations(output, target, mean, sd, delta):
    one, wanted = torch.tensor([output], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    for kind, power in (("mse", 2), ("mae", 1), ("huber", 2)):
        scaled = number_loss(kind, one, wanted, delta, (mean, sd))
        plain = number_loss(kind, one * sd + mean, wanted, delta)
        torch.testing.assert_close(scaled * sd**power, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "mae", {"kind": "huber", "delta": 5.0}])
@pytest.mark.slow
def test_adam_learns_ages_in_rounds_in_which_it_does_not_come_near_them_unscaled(run_locally, loss):
    training = {"batch_size": 8, "loss": loss, "optimizer": {"kind": "adam", "lr": 0.02}}
    scaled, plain = (
        run_locally(experiment(data=data, training=training, rounds=8), sources())["metrics"]["test"]["pooled"]["r2"]
        for data in (SCALED, {"target": "age"})
    )
    assert scaled > 0.4
    assert plain < 0


def test_a_constant_target_is_shifted_not_divided_by_nothing(run_locally):
    result = run_locally(experiment(), sources({name: frame.assign(age=50.0) for name, frame in FRAMES.items()}))
    assert result["preparation"]["target_scaling"]["age"] == {"mean": 50.0, "sd": 1.0}
    assert result["metrics"]["test"]["pooled"]["mae"] < 1


# -- several targets -----------------------------------------------------------------------------------------------

SEVERAL = {
    "targets": {"sex": "classification", "age": "regression", "visits": {"kind": "regression", "loss": "poisson"}},
    "target_scaling": "standard",
}


@pytest.mark.slow
def test_of_several_targets_numbers_are_scaled_and_counts_and_classes_are_not(run_locally):
    frames = {name: frame.assign(age=frame["age"].where(frame.index % 4 > 0)) for name, frame in FRAMES.items()}
    result = run_locally(experiment(data=SEVERAL, problem="multitask", rounds=25), sources(frames))
    train = of_part("train", frames)["age"].dropna()
    scales = result["preparation"]["target_scaling"]
    assert set(scales) == {"age"}
    assert scales["age"] == pytest.approx({"mean": train.mean(), "sd": train.std(ddof=0)}, rel=1e-12)
    metrics = result["metrics"]["test"]["pooled"]
    assert metrics["age.r2"] > 0.5
    assert metrics["visits.mae"] < 3
    assert metrics["sex.auroc"] > 0.8


def test_a_site_with_two_values_of_a_target_tells_no_statistic_of_them(run_locally):
    few = FRAMES["three"].assign(age=FRAMES["three"]["age"].where(FRAMES["three"].index < 2))
    frames = FRAMES | {"three": few}
    result = run_locally(experiment(data=SEVERAL, problem="multitask", rounds=1), sources(frames))
    train = of_part("train", {name: frames[name] for name in ("one", "two")})["age"]
    wanted = {"mean": train.mean(), "sd": train.std(ddof=0)}
    assert result["preparation"]["target_scaling"]["age"] == pytest.approx(wanted, rel=1e-12)


# -- what does not go together -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"target": "visits", "target_scaling": "standard"}, "training": {"loss": "poisson"}},
         "target_scaling standard makes numbers that are no counts, which training.loss poisson needs"),
        ({"problem": "classification"}, "target_scaling standard is for regression and multitask; classification"),
        ({"data": {"targets": {"sex": "classification", "visits": {"kind": "regression", "loss": "poisson"}},
                   "target_scaling": "standard"}, "problem": "multitask"}, "data.targets has none"),
        ({"data": {"target": "age", "target_scaling": "minmax"}}, "data.target_scaling"),
    ],
)  # fmt: skip
def test_scaling_of_what_is_no_such_number_is_refused(changes, message):
    with pytest.raises(ExperimentError, match=message):
        experiment(**changes)


# -- going on ------------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_keeps_the_scale_of_its_model(spied):
    _, before = spied(experiment(rounds=2), sites=sources())
    older = {name: frame.assign(age=frame["age"] + 20) for name, frame in FRAMES.items()}
    _, result = spied(experiment(rounds=1, start="runs/before"), sites=sources(older), weights=before["parameters"])
    assert result["preparation"]["target_scaling"] == before["preparation"]["target_scaling"]


def test_a_model_that_was_learned_otherwise_is_refused(spied):
    _, before = spied(experiment(data={"target": "age"}, rounds=1), sites=sources())
    with pytest.raises(ExperimentError, match=r"start.weights: the earlier run had data.target_scaling 'none'"):
        spied(experiment(rounds=1, start="runs/before"), sites=sources(), weights=before["parameters"])


@pytest.mark.parametrize("scale", [None, {"mean": 50.0}, {"mean": 50.0, "sd": 0.0}, {"mean": "x", "sd": 1.0}])
def test_a_header_without_a_usable_scale_is_refused(spied, scale):
    _, before = spied(experiment(rounds=1), sites=sources())
    about = json.loads(wire.read_metadata(before["parameters"])["v6_algorithm"])
    about["preparation"]["target_scaling"] = {"age": scale}
    changed = wire.pack(wire.unpack(before["parameters"]), {"v6_algorithm": json.dumps(about)})
    with pytest.raises(ExperimentError, match="does not tell mean and sd of target 'age'"):
        spied(experiment(rounds=1, start="runs/before"), sites=sources(), weights=changed)


def test_a_file_from_before_there_was_target_scaling_is_one_without(spied):
    plain = {"target": "age"}
    _, before = spied(experiment(data=plain, rounds=1), sites=sources())
    about = json.loads(wire.read_metadata(before["parameters"])["v6_algorithm"])
    del about["data"]["target_scaling"]
    old = wire.pack(wire.unpack(before["parameters"]), {"v6_algorithm": json.dumps(about)})
    _, result = spied(experiment(data=plain, rounds=1, start="runs/before"), sites=sources(), weights=old)
    assert result["status"] == "completed"
