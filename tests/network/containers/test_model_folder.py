"""What stays at a hospital of a model: a container writes it into a folder of the host, where its owner uses it."""

from __future__ import annotations

import os

import pandas as pd
import pytest
from training import patients_experiment
from typer.testing import CliRunner
from v6config import Site

import v6_algorithm.api as v6
from v6_algorithm.researcher.cli import app

NOBODY = 65534

pytestmark = pytest.mark.slow


def test_a_hospital_finds_its_layers_in_its_folder_and_predicts_with_them(docker_network, tmp_path):
    (folder := tmp_path / "models").mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    table = docker_network.sites["b"].databases["default"]
    experiment = patients_experiment(
        rounds=1,
        model={"kind": "mlp", "hidden": [8], "norm": "batch"},
        strategy={"kind": "fedavg", "private": "norm"},
        participation={"minimum": 3, "deadline_s": 120},
    )
    with docker_network.changed({"b": Site({"default": table}, models=folder)}):
        result = docker_network.run("master", experiment=experiment, timeout_s=600)
    (layers,) = folder.rglob("*.safetensors")
    assert layers.name.startswith("b-")
    assert (layers.stat().st_uid, layers.parent.stat().st_uid, layers.stat().st_mode & 0o777) == (NOBODY, NOBODY, 0o600)
    v6.Result(result).save(tmp_path / "run")
    new = tmp_path / "new.csv"
    pd.read_csv(table).drop(columns="outcome").to_csv(new, index=False)
    words = ["predict", str(tmp_path / "run" / "model.safetensors"), str(new), "--layers", str(layers)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output.count("\n") >= 50
