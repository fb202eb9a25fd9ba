"""The researcher's own table: measured with the returned model as at a site, and nothing of it travels."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import command, make_table, read_result, table, write
from spying import Spy

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.external import CentralTable, ReturnedModel
from v6_algorithm.researcher.external.predict import predict

SIZES = {"amsterdam": 60, "berlin": 45, "cairo": 40}
SURVIVAL = {"duration": "days", "event": "died"}
KINDS = {
    "classification": {
        "data": {"target": "y", "features": ["a", "b", "c"], "categorical": ["ward"], "missing": "median"},
        "training": {"loss": {"kind": "cross_entropy", "class_weights": "balanced"}},
        "evaluation": {"specificity": [0.8], "subgroups": ["ward"]},
    },
    "three classes": {"data": {"target": "ward", "features": ["a", "b"], "scaling": "robust"}},
    "scaled by site": {
        "data": {"target": "y", "features": ["a", "b"], "scaling": {"kind": "standard", "scope": "site"}}
    },
    "harmonised": {
        "data": {
            "target": "y",
            "features": ["a", "b", "c"],
            "categorical": ["ward"],
            "harmonisation": {"kind": "combat", "covariates": ["ward", "days"]},
        }
    },
    "regression": {
        "data": {"target": "a", "features": ["b", "c"], "target_scaling": "standard", "missing": "drop"},
        "problem": "regression",
    },
    "counts": {
        "data": {"target": "visits", "features": ["a", "b"]},
        "problem": "regression",
        "training": {"loss": "poisson"},
    },
    "discrete time": {
        "data": {"target": SURVIVAL, "features": ["a", "b"]},
        "problem": {"kind": "survival", "method": "discrete_time", "intervals": 4},
    },
    "cox": {"data": {"target": SURVIVAL, "features": ["a", "b"]}, "problem": "survival", "model": "linear"},
    "several targets": {
        "data": {
            "targets": {"ward": "classification", "c": "regression"},
            "features": ["a", "b"],
            "target_scaling": "standard",
        },
        "problem": "multitask",
    },
    "sequences": {
        "data": {"target": "y", "sequence": "series"},
        "evaluation": {"subgroups": ["ward"]},
        "problem": "sequence_classification",
        "model": {"kind": "gru", "hidden": 4},
    },
    "images": {
        "data": {"target": "y", "image": {"column": "scan", "tolerance": 0.1}},
        "problem": "image_classification",
        "model": {"kind": "cnn", "widths": [4]},
        "training": {"loss": "focal", "augmentation": [{"kind": "crop", "size": 4}]},
        "evaluation": {"subgroups": ["ward"]},
    },
}


def hospital(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(seed, 1 + seed, size=(rows, 3)), columns=["a", "b", "c"])
    signal = frame["a"] - frame["b"]
    frame.loc[::9, "b"] = np.nan
    return frame.assign(
        y=np.where(signal > signal.median(), "yes", "no"),
        days=generator.exponential(300, rows).round() + 1,
        died=generator.integers(0, 2, rows),
        visits=generator.poisson(3, rows),
        series=list(generator.normal(size=(rows, 6, 2)).tolist()),
        ward=generator.choice(["north", "south", "west"], rows),
        scan=[f"{row % 5 if row % 20 else 9}.npy" for row in range(rows)],
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(5):
        np.save(folder / f"{number}.npy", generator.integers(0, 255, (6, 5, 3), dtype=np.uint8))
    return {
        name: TableSource(frame=hospital(rows, seed), base=folder) for seed, (name, rows) in enumerate(SIZES.items())
    }


def experiment_of(**changes) -> Experiment:
    content = {"model": {"kind": "mlp", "hidden": [4]}, "rounds": 2, **changes}
    return Experiment.parse(content)


def go(experiment, sources):
    return run(local_federation(experiment, sources), experiment)


def measured(result, source):
    return CentralTable(source).measure(ReturnedModel.of(result["parameters"], "the model"))


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == (None if other[name] is None else pytest.approx(other[name], rel=1e-6, abs=1e-6)), name


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "images")) for kind in KINDS])
def test_a_folds_model_on_the_table_that_it_left_out_is_what_that_site_measured(sources, kind):
    """From the model file alone: fill values, scales, harmonisation, classes, weights of classes, survival curves."""
    experiment = experiment_of(split="leave_one_site_out", **KINDS[kind])
    result = go(experiment, sources)
    for fold in result["folds"]:
        name = fold["test_site"]
        central = measured(result, sources[name]).by_model[f"fold-{fold['fold']}"]
        same(central, fold["metrics"]["test"]["sites"][name])
        assert central["n"] > 0


def test_one_model_has_pooled_metrics_and_those_of_the_site_central(sources):
    result = go(experiment_of(**KINDS["classification"]), sources)
    found = measured(result, TableSource(frame=hospital(80, 7)))
    assert found.metrics["pooled"] == found.metrics["sites"]["central"]
    assert found.metrics["pooled"]["n"] == 80
    assert set(found.metrics) == {"pooled", "sites"}
    assert set(found.subgroups["ward"]) == {"north", "south", "west"}
    assert sum(own["n"] for own in found.subgroups["ward"].values()) == 80
    assert sum(map(sum, found.diagnostics["confusion"]["y"]["pooled"])) == 80


def test_of_folds_there_are_mean_and_deviation_over_their_models(sources):
    changes = KINDS["three classes"] | {"split": {"kind": "kfold", "folds": 3}}
    result = go(experiment_of(**changes), sources)
    found = measured(result, TableSource(frame=hospital(50, 7)))
    losses = [metrics["loss"] for metrics in found.by_model.values()]
    assert len(losses) == 3
    assert found.metrics["pooled"]["loss"] == pytest.approx(np.mean(losses))
    assert found.metrics["mean_over_folds"]["loss"] == pytest.approx(np.mean(losses))
    assert found.metrics["sd_over_folds"]["loss"] == pytest.approx(np.std(losses, ddof=1))
    assert found.metrics["pooled"]["n"] == 50
    assert found.diagnostics == {}
    found.add_to(result)
    assert [fold["metrics"]["central"]["pooled"]["loss"] for fold in result["folds"]] == losses


@pytest.mark.parametrize("split", [{"kind": "ratio"}, {"kind": "kfold", "folds": 3}], ids=["ratio", "kfold"])
def test_where_each_site_trains_alone_each_sites_model_is_measured(sources, split):
    result = go(experiment_of(mode="local", split=split, data={"target": "y", "features": ["a", "c"]}), sources)
    found = measured(result, TableSource(frame=hospital(50, 7)))
    assert set(found.metrics["sites"]) == set(SIZES)
    losses = [metrics["loss"] for metrics in found.metrics["sites"].values()]
    assert found.metrics["pooled"]["loss"] == pytest.approx(np.mean(losses))
    assert found.metrics["mean_over_sites"]["loss"] == pytest.approx(np.mean(losses))
    assert ("sd_over_folds" in found.metrics) == (split["kind"] == "kfold")
    assert len(found.by_model) == (9 if split["kind"] == "kfold" else 3)


def test_group_split_column_and_load_limit_are_not_needed_to_measure(sources):
    data = {"target": "y", "features": ["a"], "group": "ward", "load_limit": 30}
    result = go(experiment_of(data=data), sources)
    frame = hospital(50, 7)[["a", "y"]]
    assert measured(result, TableSource(frame=frame)).metrics["pooled"]["n"] == 50


def test_a_table_is_read_once_however_many_models_are_measured(sources, monkeypatch):
    result = go(experiment_of(split={"kind": "kfold", "folds": 3}, **KINDS["three classes"]), sources)
    reads = []
    read = TableSource.read
    monkeypatch.setattr(TableSource, "read", lambda self, *a, **k: reads.append(self) or read(self, *a, **k))
    measured(result, TableSource(frame=hospital(50, 7)))
    assert len(reads) == 2, "once to see what is in it, once to encode it"


# -- what cannot be measured ---------------------------------------------------------------------------------------


def refused(result, frame) -> str:
    with pytest.raises(ExperimentError) as caught:
        measured(result, TableSource(frame=frame))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture(scope="module")
def trained(sources):
    return go(experiment_of(**KINDS["classification"]), sources)


def test_a_prediction_is_made_in_pieces_where_a_gpus_memory_runs_out(trained, monkeypatch):
    model, table = ReturnedModel.of(trained["parameters"], "the model"), TableSource(frame=hospital(40, 7))
    expected, forward = predict(model, table), torch.nn.Sequential.forward

    def limited(network, rows, most=7):
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(network, rows)

    monkeypatch.setattr(torch.nn.Sequential, "forward", limited)
    pd.testing.assert_frame_equal(predict(model, table), expected)
    monkeypatch.setattr(torch.nn.Sequential, "forward", lambda network, rows: limited(network, rows, 0))
    with pytest.raises(ExperimentError, match="does not hold 1 row at once"):
        predict(model, table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="b"), "central: column 'b', an input of the model, is not there"),
        (lambda frame: frame.drop(columns="ward"), "central: column 'ward'"),
        (lambda frame: frame.drop(columns="y"), "central: column 'y' (data.target) is not there"),
        (lambda frame: frame.assign(b="tall"), "central: column 'b' holds text where the model's input is numbers"),
        (lambda frame: frame.assign(y="maybe"), "central: column 'y' has 1 class that the model does not know"),
        (lambda frame: frame.assign(y=None), "central: column 'y' (data.target) is empty"),
        (lambda frame: frame.iloc[:0], "central: the table is empty"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_a_sentence(trained, change, message):
    told = refused(trained, change(hospital(40, 7)))
    assert told.startswith(message)
    assert "maybe" not in told


def test_images_of_another_size_and_series_of_another_length_are_refused(sources, tmp_path):
    result = go(experiment_of(**KINDS["images"]), sources)
    np.save(tmp_path / "0.npy", np.zeros((9, 9, 3), dtype=np.uint8))
    frame = hospital(20, 7).assign(scan="0.npy")
    with pytest.raises(ExperimentError, match=r"its images are 3x9x9 .* the model's are 3x6x5"):
        measured(result, TableSource(frame=frame, base=tmp_path))
    result = go(experiment_of(**KINDS["sequences"]), sources)
    short = hospital(20, 7).assign(series=[[[1.0, 2.0]] * 3] * 20)
    assert "shortest time series has 3 times, the model needs 6" in refused(result, short)
    narrow = hospital(20, 7).assign(series=[[[1.0]] * 6] * 20)
    assert "have 1 channels, the model's have 2" in refused(result, narrow)


def test_a_category_that_no_site_had_and_rows_without_a_target_are_noted(trained):
    frame = hospital(40, 7)
    frame.loc[:9, "ward"] = "annex"
    frame.loc[35:, "y"] = None
    found = measured(trained, TableSource(frame=frame))
    assert found.metrics["pooled"]["n"] == 35
    assert any("column 'ward' has values that no site had" in note for note in found.notes)
    assert any("5 rows have no target" in note for note in found.notes)


def test_one_class_only_gives_no_auroc_and_says_so(trained):
    frame = hospital(40, 7)
    found = measured(trained, TableSource(frame=frame[frame["y"] == "yes"]))
    assert found.metrics["pooled"]["auroc"] is None
    assert any("only one class present" in note for note in found.notes)


def test_a_model_whose_layers_stayed_at_the_sites_is_refused(sources):
    changes = {"data": {"target": "y", "features": ["a"]}, "strategy": {"private": "norm"}}
    model = {"kind": "mlp", "hidden": [4], "norm": "batch"}
    result = go(experiment_of(model=model, **changes), sources)
    assert "(strategy.private) stayed at the sites" in refused(result, hospital(20, 7))
    with pytest.raises(ExperimentError, match=r"central and strategy\.private do not go together"):
        experiment_of(model=model, central="mine.csv", **changes)


def test_tensors_from_elsewhere_are_refused(sources):
    import torch

    packed = wire.pack({"model.weight": torch.zeros(1, 2)})
    with pytest.raises(ExperimentError, match="does not say how its inputs are prepared"):
        ReturnedModel.of(packed, "weights.safetensors")


@pytest.mark.parametrize("lost", ["preparation", "data", "model"])
def test_a_header_that_says_too_little_is_refused(trained, lost):
    parameters = trained["parameters"]
    about = json.loads(wire.read_metadata(parameters)["v6_algorithm"])
    del about[lost]
    packed = wire.pack(wire.unpack(parameters), {"v6_algorithm": json.dumps(about)})
    with pytest.raises(ExperimentError):
        ReturnedModel.of(packed, "old.safetensors")


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(70, 9).assign(sex=["f", "m"] * 35).to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path


def test_run_measures_on_central_and_shows_it_beside_the_sites(here):
    done = command("run", write(here, central="mine.csv"), "--out", here / "out", "--baselines")
    assert done.exit_code == 0, done.output
    result = read_result(here / "out")
    assert result["metrics"]["central"]["pooled"]["n"] == 70
    assert result["experiment"]["central"]["uri"] == "mine.csv"
    assert {name: "central" in own["metrics"] for name, own in result["baselines"].items()} == {
        "centralised": True,
        "local": True,
    }
    assert "parameters" not in result["baselines"]["local"]
    assert "central: mine.csv" in " ".join(done.output.split())
    rows = (here / "out" / "metrics.csv").read_text()
    assert "federated,central,pooled,,auroc" in rows
    assert "local,central,site,berlin,auroc" in rows
    assert json.loads((here / "out" / "metrics.json").read_text())["central"]["pooled"]["n"] == 70
    assert "Central evaluation" in (here / "out" / "report.html").read_text()
    assert set(result["sites"]) == {"amsterdam", "berlin", "cairo"}


def test_evaluate_gives_the_numbers_of_the_run_from_the_model_file_alone(here):
    command("run", write(here, central="mine.csv"), "--out", here / "out")
    expected = read_result(here / "out")["metrics"]["central"]
    for model in ("out", "out/result.json", "out/model.safetensors"):
        done = command("evaluate", here / model, "--data", "mine.csv", "--out", here / "later", "--force")
        assert done.exit_code == 0, done.output
        assert read_result(here / "later")["metrics"]["central"] == expected
    files = {path.name for path in (here / "later").iterdir()}
    assert files == {"result.json", "metrics.csv", "metrics.json", "report.html"}


def test_evaluate_tells_groups_that_it_is_asked_for(here):
    command("run", write(here), "--out", here / "out")
    asked = ["--subgroup", "sex", "--subgroup", "c:0"]
    done = command("evaluate", here / "out", "--data", "mine.csv", *asked, "--out", here / "later")
    assert done.exit_code == 0, done.output
    assert set(read_result(here / "later")["subgroups"]["central"]["c"]) == {"under 0", "0 and over"}
    assert "sex (central): AUROC from" in done.output
    assert "central,sex,f,auroc" in (here / "later" / "subgroups.csv").read_text()
    assert command("evaluate", here / "out", "--data", "mine.csv").exit_code == 0, "it is not asked for where to write"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out", "--data", "nobody.csv"], "--data: there is no file nobody.csv"),
        (["nowhere", "--data", "mine.csv"], "nowhere: there is no such file or folder"),
        (
            ["out", "--data", "mine.csv", "--subgroup", "age"],
            "--data: column 'age' (evaluation.subgroups) is not there",
        ),
        (["out", "--data", "mine.csv", "--subgroup", "c:low"], "--subgroup c:low: must be COLUMN, or COLUMN:CUT,CUT"),
        (["out", "--data", "mine.csv", "--subgroup", "c"], "--data: column 'c' (evaluation.subgroups) holds numbers"),
        (["out", "--data", "empty.csv"], "--data: the file empty.csv is empty"),
    ],
)
def test_evaluate_refuses_in_a_sentence(here, arguments, message):
    command("run", write(here, rounds=1), "--out", here / "out")
    (here / "empty.csv").write_text("")
    done = command("evaluate", *arguments)
    assert done.exit_code == 2, done.output
    assert f"error: {message}" in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("central", "message"),
    [
        ("nobody.csv", "central: there is no file nobody.csv"),
        ({"uri": "mine.csv", "colour": "red"}, "central: unknown key 'colour'"),
        ("other.csv", "central: column 'y' (data.target) is not there"),
    ],
)
@pytest.mark.parametrize("word", ["run", "validate"])
def test_a_central_table_that_is_wrong_is_told_before_anything_is_trained(here, central, message, word):
    (here / "other.csv").write_text("a,b,c\n1,2,3\n")
    done = command(word, write(here, central=central), *(["--out", here / "out"] if word == "run" else []))
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not (here / "out").exists()


def test_a_central_table_that_lacks_a_feature_costs_nothing_of_the_run(here):
    """Which columns are features the sites agree on; the researcher's table is not asked."""
    table(40, 9).drop(columns="b").to_csv(here / "mine.csv", index=False)
    done = command("run", write(here, central="mine.csv"), "--out", here / "out")
    assert done.exit_code == 3
    assert "the rest is kept, but central: column 'b', an input of the model, is not there" in done.output
    assert read_result(here / "out")["metrics"]["test"]["pooled"]["auroc"] is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "given", "data": {"target": "y", "split_column": "part"}},
        {"split": {"kind": "kfold", "folds": 3}, "data": {"target": "y", "group": "c"}, "mode": "local"},
        {"mode": "centralised"},
    ],
    ids=["given", "local folds", "centralised"],
)
def test_a_central_table_needs_no_columns_that_say_how_rows_are_split(here, changes):
    parts = ["train", "train", "test", "validation"]
    files = {name: table(48, seed).assign(part=parts * 12) for seed, name in enumerate(SIZES)}
    table(40, 9).to_csv(here / "mine.csv", index=False)
    file = write(here, files, central="mine.csv", rounds=1, **{"data": {"target": "y"}} | changes)
    done = command("run", file, "--out", here / "out")
    assert done.exit_code == 0, done.output
    assert read_result(here / "out")["metrics"]["central"]["pooled"]["n"] == 40


def test_nothing_of_the_central_table_is_asked_of_a_site_or_told_to_one(sources):
    """seeds.md 3.7 (5): a server that needed patients' images to evaluate."""
    experiment = experiment_of(data={"target": "y", "features": ["a"]}, central="SECRET-4711.csv")
    spy = Spy(local_federation(experiment, sources))
    run(spy, experiment)
    assert "SECRET-4711" not in json.dumps([*spy.requests, *(reply for _, _, reply in spy.replies)])
    assert "central" not in json.dumps(experiment.for_task())


def test_classes_of_central_may_be_fewer_than_the_models():
    sources = {name: TableSource(frame=make_table(60, seed, classes=3)) for seed, name in enumerate(SIZES)}
    result = go(experiment_of(data={"target": "y"}), sources)
    frame = make_table(60, 7, classes=3)
    assert measured(result, TableSource(frame=frame[frame["y"] < 2])).metrics["pooled"]["n"] == 40
