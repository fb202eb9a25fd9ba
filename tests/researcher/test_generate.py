"""Images from a run's model: the command, the table that it writes, and what it refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from hospitals import command
from pictures import gan, hospital

from v6_algorithm.researcher.generate import TrainedGenerator, read_generator

image = pytest.importorskip("PIL.Image")


def trained(folder, **changes):
    content = gan(rounds=1) | changes
    content["sites"] = {name: str(folder / name) for name in ("amsterdam", "berlin")}
    (folder / "e.yaml").write_text(yaml.safe_dump(content))
    done = command("run", folder / "e.yaml", "--out", folder / "run", "--quiet", "--force")
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generating")
    for seed, name in enumerate(("amsterdam", "berlin")):
        hospital(folder / name, 90, seed)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    data = {"target": "kind", "group": "patient", "image": {"column": "file"}}
    return trained(folder, data=data)


def generate(*arguments):
    done = command("generate", *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def table(folder):
    with (folder / "generated.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_and_a_table_of_them_are_written(run, tmp_path):
    shown = generate(run, "--n", 70, "--out", tmp_path)
    rows = table(tmp_path)
    assert list(rows[0]) == ["file", "kind", "patient", "synthetic"]
    assert len(rows) == 70
    assert all(np.asarray(image.open(tmp_path / row["file"])).shape == (16, 16, 3) for row in rows)
    assert {row["synthetic"] for row in rows} == {"1"}
    assert len({row["patient"] for row in rows}) == 70, "no two of one patient"
    assert "wrote 70 images: 35 cross, 35 disc, and generated.csv" in shown.replace("\n", " ")


def test_metrics_of_one_class_are_not_spoken_of_where_none_is_measured(run):
    from v6_algorithm.researcher.report.facts import facts

    result = json.loads((run / "result.json").read_text())
    assert len(result["preparation"]["classes"]) == 2
    assert not [note for note in result["notes"] if "are of class" in note]
    assert "Metrics of one class" not in facts(result)


def test_without_a_class_they_are_as_often_as_in_training(folder, run):
    maker = read_generator(run)
    assert maker.shares == [0.5, 0.5]
    uneven = type(maker)(maker.experiment, maker.problem, maker.networks, ["a", "b", "c"], [0.7, 0.2, 0.101])
    for n in (1, 3, 10, 64):
        counts = np.bincount(uneven.labels(None, n), minlength=3)
        assert counts.sum() == n
        assert np.abs(counts - n * np.array([0.7, 0.2, 0.1])).max() <= 1


def test_of_one_class_all_are(run, tmp_path):
    generate(run, "--class", "disc", "--n", 3, "--out", tmp_path)
    assert [row["kind"] for row in table(tmp_path)] == ["disc"] * 3


def content(folder):
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_the_same_seed_makes_the_same_images_and_another_one_others(run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate(run, "--n", 4, "--seed", seed, "--out", tmp_path / name)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")
    both = [{row["patient"] for row in table(tmp_path / name)} for name in "ac"]
    assert not both[0] & both[1], "images of two seeds can be sites of one run"


@pytest.mark.parametrize("what", ["result.json", "model.safetensors"])
def test_the_result_and_the_model_alone_make_the_same_images(run, tmp_path, what):
    shutil.copy(run / what, tmp_path / what)
    for name, source in (("a", run), ("b", tmp_path / what)):
        generate(source, "--n", 2, "--out", tmp_path / name)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def refused(*arguments):
    done = command("generate", *arguments)
    assert done.exit_code == 2, done.output
    return done.output.replace("\n", " ")


def test_a_class_that_is_not_known_is_refused_with_those_that_are(run, tmp_path):
    assert "--class square: the model has no such class; allowed: cross, disc" in refused(run, "--class", "square")


def test_images_do_not_take_the_place_of_others(run, tmp_path):
    generate(run, "--class", "disc", "--n", 2, "--out", tmp_path)
    before = content(tmp_path)
    assert "has synthetic images already" in refused(run, "--class", "cross", "--n", 2, "--out", tmp_path)
    assert content(tmp_path) == before


def test_what_is_no_generator_is_refused(folder, run, tmp_path):
    assert "is a folder without model.safetensors" in refused(tmp_path)
    assert "must be a .safetensors file" in refused(folder / "e.yaml")
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    assert "not valid base64 safetensors" in refused(tmp_path)
    result = json.loads((run / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(result | {"parameters": None}))
    assert "not the result of a run that has a model" in refused(tmp_path / "result.json")
    import safetensors.torch
    import torch

    safetensors.torch.save_file({"ema.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert "no header of a run" in refused(tmp_path / "other.safetensors")


def test_a_model_that_predicts_is_refused_by_its_problem(tmp_path):
    from hospitals import write

    assert command("run", write(tmp_path, rounds=1), "--out", tmp_path / "run", "--quiet").exit_code == 0
    assert "is a model of problem classification, which makes no images; allowed: gan" in refused(tmp_path / "run")


@pytest.mark.slow
def test_models_of_several_folds_are_refused(folder):
    run = trained(folder, split={"kind": "kfold", "folds": 3})
    assert "holds 3 models, of folds or sites; allowed: one" in refused(run)


@pytest.mark.slow
def test_without_the_discriminators_that_stayed_at_the_sites_images_are_made_too(folder, tmp_path):
    run = trained(folder, strategy={"kind": "fedavg", "private": "discriminator.*"})
    generate(run, "--n", 2, "--out", tmp_path)
    assert len(table(tmp_path)) == 2
    run = trained(folder, strategy={"kind": "fedavg", "private": "ema.*"})
    assert "is missing" in refused(run)


@pytest.mark.slow
def test_an_unconditional_generators_images_have_no_class(folder, tmp_path):
    run = trained(folder, problem={"kind": "gan", "latent": 8, "conditional": False})
    generate(run, "--n", 3, "--out", tmp_path)
    assert list(table(tmp_path)[0]) == ["file", "synthetic"]
    assert "allowed: none, for it was trained with problem.conditional: false" in refused(run, "--class", "disc")


@pytest.mark.slow
def test_where_the_target_is_made_by_a_condition_the_tables_cells_fulfil_it_or_do_not(folder, tmp_path):
    data = {"target": "kind", "positive": "== disc", "image": {"column": "file"}, "synthetic": "made"}
    for name in ("amsterdam", "berlin"):
        path = folder / name / "table.csv"
        path.write_text(
            "\n".join([f"{line},{'made' if not i else 0}" for i, line in enumerate(path.read_text().split())])
        )
    run = trained(folder, data=data)
    generate(run, "--n", 4, "--out", tmp_path)
    assert [row["kind"] for row in table(tmp_path)] == ["not disc", "not disc", "disc", "disc"]
    assert "made" in table(tmp_path)[0]


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("value", ["3", "0.5"])
def test_cells_of_a_numeric_condition_are_read_back_as_their_class(run, operator, value):
    import pandas as pd

    from v6_algorithm.data.targets import TargetColumn, labels_of
    from v6_algorithm.researcher.generate import _cell

    maker = read_generator(run)
    condition = f"{operator} {value}"
    data = maker.experiment.data.model_copy(update={"positive": condition})
    conditioned = TrainedGenerator(
        maker.experiment.model_copy(update={"data": data}), maker.problem, maker.networks, ["0", "1"], [0.5, 0.5]
    )
    cells = pd.Series([_cell(conditioned, 0), _cell(conditioned, 1)])
    assert labels_of(cells, TargetColumn("kind", "target", "class", condition)) == [0, 1]
