"""The Python API: sites as frames, files and arrays; own networks; predictions equal to what was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import make_table
from torch import nn

import v6_algorithm.api as v6
from v6_algorithm.coordinator.master import run as run_master
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire

FRAMES = {"a": make_table(60, 1), "b": make_table(40, 2)}
SMALL = {"hidden": [8], "rounds": 3, "batch_size": 8, "seed": 3}


def arrays(rows: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make rows of a shape, whose mean tells the class."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, rows)
    return generator.normal(size=(rows, *shape)).astype(np.float32) + y.reshape(-1, *[1] * len(shape)), y


@pytest.fixture(scope="module")
def result() -> v6.Result:
    return v6.run(v6.Experiment(target="y", **SMALL), FRAMES)


def test_plain_names_and_the_keys_of_a_file_make_the_same_experiment(tmp_path):
    plain = v6.Experiment(target="y", positive="> 0", hidden=[8], rounds=3, optimizer="sgd", learning_rate=0.1)
    keys = v6.Experiment(
        data={"target": "y", "positive": "> 0"},
        model={"hidden": [8]},
        rounds=3,
        training={"optimizer": {"kind": "sgd", "lr": 0.1}},
    )
    file = tmp_path / "e.yaml"
    file.write_text(
        "data: {target: y, positive: '> 0'}\nmodel: {hidden: [8]}\nrounds: 3\n"
        "training: {optimizer: {kind: sgd, lr: 0.1}}\n"
    )
    assert plain.resolved() == keys.resolved() == v6.Experiment.load(file).resolved()
    assert plain.resolved() == v6.Experiment.load(str(file)).resolved()


def test_a_wrong_key_is_one_line_that_names_it():
    with pytest.raises(ExperimentError, match="unknown key 'roundz' \\(did you mean 'rounds'\\?\\)"):
        v6.Experiment(target="y", roundz=3)
    with pytest.raises(ExperimentError, match=r"data\.target: is required"):
        v6.Experiment(data={"positive": "> 0"})
    with pytest.raises(ExperimentError, match=r"data\.target: is required"):
        v6.Experiment(rounds=3)
    with pytest.raises(ExperimentError, match=r"unknown key 'learning_rat' \(did you mean 'learning_rate'\?\)"):
        v6.Experiment(target="y", learning_rat=3)
    with pytest.raises(ExperimentError, match=r"stopping: must be a mapping of keys to values \(given: 3\)"):
        v6.Experiment(target="y", stopping=3)


def test_an_exact_run_gives_the_numbers_of_the_engine():
    from v6_algorithm.data.sources import TableSource

    experiment = v6.Experiment(target="y", **SMALL)
    result = v6.run(experiment, FRAMES, exact=True)
    plain = run_master(
        local_federation(experiment, {name: TableSource(frame=frame) for name, frame in FRAMES.items()}), experiment
    )
    assert result.content["parameters"] == plain["parameters"]
    assert result.content["metrics"] == plain["metrics"]


def test_files_frames_and_arrays_give_one_model(tmp_path):
    x, y = arrays(50, (3,), 1)
    x = x.astype(float).round(3)
    frame = pd.DataFrame(x, columns=["x0", "x1", "x2"]).assign(y=y)
    frame.to_csv(tmp_path / "b.csv", index=False)
    experiment = v6.Experiment(target="y", model={"kind": "logistic"}, rounds=2)
    models = [
        v6.run(experiment, {"a": frame, "b": rows}).content["parameters"]
        for rows in (frame, tmp_path / "b.csv", str(tmp_path / "b.csv"), (x, y), {"uri": str(tmp_path / "b.csv")})
    ]
    assert len(set(models)) == 1


def test_a_result_is_dataframes(result):
    assert result.metrics.loc[("test", "pooled"), "accuracy"] == result.content["metrics"]["test"]["pooled"]["accuracy"]
    assert list(result.history.index) == [1, 2, 3]
    assert "validation_loss" in result.history
    assert result.sites.loc["a", "train"] == 36
    assert set(result.participation["site"]) == {"a", "b"}
    assert result.participation["answered"].all()
    assert "Result of 'experiment': completed after 3 rounds" in repr(result)
    assert "<iframe" in result._repr_html_()
    assert len(result.plot().axes) == 2


def test_a_saved_result_is_loaded_as_it_was(result, tmp_path):
    folder = result.save(tmp_path / "run")
    assert (folder / "report.html").exists()
    again = v6.load(folder)
    pd.testing.assert_frame_equal(again.metrics, result.metrics)
    pd.testing.assert_frame_equal(again.predict(FRAMES["a"]), result.predict(FRAMES["a"]))


def test_predictions_are_what_the_model_is_measured_by(result):
    frame = FRAMES["a"]
    predicted = result.predict(frame.drop(columns="y"))
    measured = result.evaluate(frame).metrics.loc[("central", "pooled")]
    assert list(predicted.columns) == ["p(0)", "p(1)", "prediction"]
    assert np.allclose(predicted[["p(0)", "p(1)"]].sum(axis=1), 1)
    assert (predicted["prediction"].astype(int) == frame["y"]).mean() == pytest.approx(measured["accuracy"])
    brier = ((predicted["p(1)"] - frame["y"]) ** 2).mean()
    assert measured["brier"] == pytest.approx(brier, abs=1e-6)


def test_predictions_keep_the_index_of_the_rows(result):
    frame = FRAMES["a"].set_index(pd.Index([f"patient {i}" for i in range(60)])).iloc[::-1]
    assert list(result.predict(frame).index) == list(frame.index)


def test_a_missing_input_is_named(result):
    column = next(name for name in FRAMES["a"].columns if name != "y")
    with pytest.raises(ExperimentError, match=f"lacks the column '{column}'"):
        result.predict(FRAMES["a"].drop(columns=column))


def test_folds_predict_their_mean():
    result = v6.run(v6.Experiment(target="y", folds=3, **SMALL), FRAMES)
    assert result.history.index.names == ["fold", "round"]
    model = result.model
    assert len(model.setups) == 3
    assert np.allclose(result.predict(FRAMES["a"])[["p(0)", "p(1)"]].sum(axis=1), 1)


def test_regression_survival_and_several_targets_are_predicted():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(80, 3))
    frame = pd.DataFrame(x, columns=["u", "v", "w"]).assign(
        y=10 + 3 * x[:, 0], time=generator.exponential(1, 80) + 0.1, event=generator.integers(0, 2, 80), sex=x[:, 1] > 0
    )
    sites = {"a": frame[:40], "b": frame[40:]}
    number = v6.run(
        v6.Experiment(target="y", features=["u", "v", "w"], problem="regression", model="linear", rounds=2), sites
    )
    assert list(number.predict(frame[["u", "v", "w"]]).columns) == ["prediction"]
    survival = v6.run(
        v6.Experiment(
            data={"target": {"duration": "time", "event": "event"}, "features": ["u", "v", "w"]},
            problem={"kind": "survival"},
            model={"kind": "linear"},
            rounds=2,
        ),
        sites,
    )
    assert "log_risk" in survival.predict(frame[["u", "v", "w"]])


@pytest.mark.parametrize("shape", [(6, 2), (1, 8, 8)])
def test_series_and_images_are_arrays(shape):
    sites = {name: arrays(40, shape, seed) for seed, name in enumerate("ab")}
    model = {"kind": "gru", "hidden": 4} if len(shape) == 2 else {"kind": "cnn", "widths": [4]}
    result = v6.run({"target": "y", "model": model, "rounds": 2}, sites)
    predicted = result.predict(sites["a"][0])
    assert len(predicted) == 40
    assert not predicted.isna().any().any()


# -- a network of one's own ----------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.slow
def test_an_own_network_trains_and_predicts():
    result = v6.run(v6.Experiment(target="y", rounds=12, learning_rate=0.05), FRAMES, model=Net)
    assert result.metrics.loc[("test", "pooled"), "auroc"] > 0.5
    assert len(result.predict(FRAMES["a"])) == 60


def test_an_own_network_that_is_ours_gives_our_bits():
    """What surrounds a network does not change it: the same layers, given or built, end in the same weights."""
    ours = v6.run(v6.Experiment(target="y", model={"kind": "logistic"}, rounds=2), FRAMES)
    own = v6.run(v6.Experiment(target="y", rounds=2), FRAMES, model=lambda inputs, outputs: nn.Linear(inputs, outputs))
    assert own.content["metrics"] == ours.content["metrics"]


class Doubled(nn.Linear):
    """Is a linear layer by its class, and not by what it does."""

    def forward(self, rows):
        return 2 * super().forward(rows)


def hooked(inputs):
    layer = nn.Linear(inputs, 1)
    layer.register_forward_hook(lambda module, given, output: 3 * output)
    return layer


@pytest.mark.parametrize(
    ("make", "because"),
    [
        (lambda inputs: nn.Linear(inputs, 2), "hooks"),
        (lambda inputs: Doubled(inputs, 1), "layer Doubled has no batched form"),
        (lambda inputs: nn.Sequential(hooked(inputs), nn.ReLU(), nn.Linear(1, 1)), "hooks"),
        (lambda inputs: nn.utils.parametrizations.weight_norm(nn.Linear(inputs, 1)), "no batched form"),
        (lambda inputs: nn.Sequential(nn.Linear(inputs, 4), nn.ReLU(), nn.Linear(4, 1)), None),
    ],
    ids=["two outputs", "derived", "a hook", "parametrised", "plain"],
)
def test_sites_with_an_own_network_train_together_only_where_that_is_the_same(make, because):
    """Two outputs for two classes were trained by the first alone, and a derived layer as what it derives from."""
    torch.manual_seed(0)
    network = make(FRAMES["a"].shape[1] - 1)
    experiment = v6.Experiment(target="y", rounds=3)
    fast, exact = (v6.run(experiment, FRAMES, model=network, exact=way).content for way in (False, True))
    assert because in fast["engine"]["because"] if because else fast["engine"]["together"]
    assert fast["history"]["train_loss"] == pytest.approx(exact["history"]["train_loss"], rel=1e-5)
    parameters = [wire.unpack(wire.Packed(result["parameters"])) for result in (fast, exact)]
    for name, tensor in parameters[0].items():
        assert torch.allclose(tensor, parameters[1][name], rtol=1e-5, atol=1e-6), name


def test_two_outputs_for_two_classes_are_a_logit():
    inputs = FRAMES["a"].shape[1] - 1
    torch.manual_seed(0)
    result = v6.run(v6.Experiment(target="y", rounds=2), FRAMES, model=nn.Linear(inputs, 2))
    assert np.allclose(result.predict(FRAMES["a"])[["p(0)", "p(1)"]].sum(axis=1), 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(99, 1), r"does not take inputs of shape \(rows, \d+\)"),
        (lambda inputs, outputs: nn.Linear(inputs, 3), r"gives \(rows, 3\); needed: \(rows, 1\) or \(rows, 2\)"),
        (nn.Flatten(), "has no parameters"),
        (lambda width: nn.Linear(width, 1), "cannot be made with no arguments"),
        (7, "a torch.nn.Module or what makes one is needed"),
    ],
)
def test_an_own_network_that_does_not_fit_is_told_before_training(model, message):
    events = []
    with pytest.raises(ExperimentError, match=message):
        v6.run(v6.Experiment(target="y", rounds=2), FRAMES, model=model, on_event=events.append)
    assert not [event for event in events if event["event"] == "round"]


def test_an_own_loss_and_metric():
    def loss(output, target):
        return nn.functional.smooth_l1_loss(output[:, 0], target.to(output.dtype), reduction="none")

    frames = {name: frame.assign(y=frame["y"] * 2.5) for name, frame in FRAMES.items()}
    result = v6.run(
        v6.Experiment(target="y", problem="regression", model="linear", rounds=2),
        frames,
        loss=loss,
        metrics={"within": lambda prediction, target: np.abs(prediction - target) < 1},
    )
    assert 0 <= result.metrics.loc[("test", "pooled"), "within"] <= 1


def test_what_a_notebook_holds_does_not_go_to_hospitals():
    v6.run(v6.Experiment(target="y", rounds=1), FRAMES, model=Net)
    experiment = v6.Experiment(target="y", model={"kind": "module", "name": "own"})
    with pytest.raises(ExperimentError, match="cannot travel to hospitals"):
        v6.submit(experiment, server="http://127.0.0.1:1", username="ada", image="x")


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ({}, "sites: no site is named; allowed: a mapping of names to rows"),
        ({"a": 7}, "site 'a': a int is not taken"),
        ({"a": "no.csv"}, "site 'a': there is no file no.csv"),
        ({"a": (np.zeros((3, 2)), np.zeros(4))}, "X has 3 rows, y has 4"),
        ({"a": (np.array([["x", "y"]]), np.zeros(1))}, "allowed: numbers"),
    ],
)
def test_sites_that_cannot_be_are_named(sites, message):
    with pytest.raises(ExperimentError, match=message):
        v6.run(v6.Experiment(target="y"), sites)


def test_a_result_as_text_has_the_metrics_that_the_terminal_shows(result):
    """All of them are 42 columns."""
    text = repr(result)
    assert all(name in text for name in ("auroc", "auprc", "accuracy", "f1"))
    assert max(map(len, text.split("\nnote: ")[0].splitlines())) <= 100


def test_what_a_result_cannot_do_is_said(result):
    measured = result.evaluate(FRAMES["a"])
    for asked, message in [
        (measured.plot, "plot: there is no history to draw"),
        (lambda: result.likelihood_ratio(result), "likelihood_ratio: a result has no fit"),
        (lambda: result.evaluate(FRAMES["a"].drop(columns="y")), r"rows: column 'y' \(data.target\) is not there"),
        (lambda: v6.compare(["runs/heart"]), r"compare: a str is not taken; allowed: results, as load\('runs/heart'\)"),
        (lambda: v6.compare([result], part="tst"), "compare: part 'tst' is not known; allowed: test, validation, cent"),
        (lambda: v6.run(v6.Experiment(target="y"), [FRAMES["a"]]), "sites: a list is not taken; allowed: a mapping"),
    ]:
        with pytest.raises(ExperimentError, match=message):
            asked()


def test_results_stand_beside_each_other(result):
    frame = v6.compare({"one": result, "two": result})
    assert list(frame.index) == ["one", "two"]
    assert frame.loc["one", "auroc"] == frame.loc["two", "auroc"]


def test_predict_from_the_command_line(result, tmp_path):
    from typer.testing import CliRunner

    from v6_algorithm.researcher.cli import app

    result.save(tmp_path / "run")
    FRAMES["a"].drop(columns="y").assign(patient=range(60)).to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "predictions.csv"
    arguments = ["predict", str(tmp_path / "run"), str(tmp_path / "new.csv"), "--keep", "patient", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = pd.read_csv(out)
    assert list(written.columns) == ["patient", "p(0)", "p(1)", "prediction"]
    assert np.allclose(written["p(1)"], result.predict(FRAMES["a"])["p(1)"], atol=1e-5)


def test_predictions_say_what_was_filled_and_what_no_site_had():
    frames = {name: frame.assign(ward=["x", "y"] * (len(frame) // 2)) for name, frame in FRAMES.items()}
    result = v6.run(v6.Experiment(target="y", categorical=["ward"], **SMALL), frames)
    new = frames["a"].head(6).copy()
    new["ward"] = ["x", "SECRET", "y", "SECRET", "x", "y"]
    new.loc[new.index[0], result.model.setups[""].features[0]] = np.nan
    with pytest.warns(UserWarning, match="2 rows have a value that no site had"):
        predicted = result.predict(new)
    assert (
        predicted.attrs["notes"][1] == "1 rows have empty cells among the inputs, which the values of the training fill"
    )
    assert "SECRET" not in str(predicted.attrs)


@pytest.mark.parametrize("part", ["loss", "metric 'hit'"])
def test_a_loss_or_metric_that_does_not_take_what_it_gets_is_told_by_shapes(part):
    def wrong(given, target):
        raise IndexError("a value of the table: 4711")

    given = {"loss": wrong} if part == "loss" else {"metrics": {"hit": wrong}}
    with pytest.raises(ExperimentError) as told:
        v6.run(v6.Experiment(target="y", rounds=1, hidden=[4]), FRAMES, **given)
    assert f"{part}: raises IndexError for" in str(told.value)
    assert "4711" not in str(told.value)
