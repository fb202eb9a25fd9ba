"""What of a model stays at the sites (FedBN's layers, personal models) is used there, and by a run's own `predict`."""

from __future__ import annotations

import io
import os

import numpy as np
import pandas as pd
import pytest
from hospitals import command, make_table, read_result, write

import v6_algorithm.api as v6

FEDBN = {"model": {"kind": "mlp", "hidden": [6], "norm": "batch"}, "strategy": {"kind": "fedavg", "private": "norm"}}
PERSONAL = {"personal": {"kind": "fine_tune", "epochs": 3}}
NOBODY = 65534
SITES = {"amsterdam": 1, "berlin": 2, "cairo": 3}


def hospitals(folder, **changes):
    """An experiment whose test rows are known, at sites of other scales, so that each needs layers of its own."""
    tables = {}
    for name, seed in SITES.items():
        table = make_table(80, seed)
        numbers = [column for column in table.columns if column != "y"]
        table[numbers] = table[numbers] * (1 + 4 * seed)
        tables[name] = table.assign(part=np.where(np.arange(80) % 4 == 0, "test", "train"))
    data = {"target": "y", "split_column": "part", "scaling": "none"}
    file = write(folder, tables, data=data, split="given", stopping={"patience": None}, **changes)
    return file, tables


def predictions(*arguments):
    done = command("predict", *arguments)
    assert done.exit_code == 0, done.output
    return pd.read_csv(io.StringIO(done.output))


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "run"), [(FEDBN, "test"), (PERSONAL, "personal")])
def test_predictions_of_a_site_are_those_that_its_test_measured(tmp_path, changes, run):
    file, tables = hospitals(tmp_path, **changes)
    done = command("run", file, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    result = read_result(tmp_path / "run")
    metrics = (result if run == "test" else result["baselines"]["personal"])["metrics"]["test"]
    new = tmp_path / "new.csv"
    for site in SITES:
        rows = tables[site][tables[site]["part"] == "test"]
        rows.drop(columns=["y", "part"]).to_csv(new, index=False)
        predicted = predictions(tmp_path / "run", new, "--site", site)["prediction"].to_numpy()
        assert (predicted == rows["y"].to_numpy()).mean() == pytest.approx(metrics["sites"][site]["accuracy"], abs=1e-9)
    unknown = command("predict", tmp_path / "run", new, "--site", "delft")
    assert "has no model of its own; those that have: amsterdam, berlin, cairo" in " ".join(unknown.output.split())


def test_a_hospital_uses_the_file_of_its_own_node(tmp_path, monkeypatch):
    monkeypatch.setenv("V6_ALGORITHM_MODEL_FOLDER", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    owner = NOBODY if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path / "node", owner, -1)
    file, tables = hospitals(tmp_path, **FEDBN)
    assert command("run", file, "--out", tmp_path / "run").exit_code == 0
    assert not (tmp_path / "run" / "layers").exists(), "the node's owner says where"
    (layers,) = (tmp_path / "node").rglob("berlin-*.safetensors")
    # A container writes as root; what it leaves is the folder's owner's, and nobody else reads it.
    assert (layers.stat().st_uid, layers.parent.stat().st_uid, layers.stat().st_mode & 0o777) == (owner, owner, 0o600)
    new, model = tmp_path / "new.csv", tmp_path / "run" / "model.safetensors"
    tables["berlin"].drop(columns=["y", "part"]).to_csv(new, index=False)
    assert len(predictions(model, new, "--layers", layers)) == 80
    refused = command("predict", model, new)
    assert (refused.exit_code, "its own: --layers FILE" in " ".join(refused.output.split())) == (2, True)
    wrong = command("predict", model, new, "--layers", model)
    assert (wrong.exit_code, "is no file of layers that a node wrote" in " ".join(wrong.output.split())) == (2, True)


def test_without_a_site_the_sites_predictions_are_averaged(tmp_path):
    file, tables = hospitals(tmp_path, **FEDBN)
    assert command("run", file, "--out", tmp_path / "run").exit_code == 0
    tables["cairo"].drop(columns=["y", "part"]).to_csv(tmp_path / "new.csv", index=False)
    of = [predictions(tmp_path / "run", tmp_path / "new.csv", "--site", site)["p(1)"] for site in SITES]
    both = predictions(tmp_path / "run", tmp_path / "new.csv")["p(1)"]
    assert not np.allclose(*of[:2])
    assert np.allclose(both, np.mean(of, axis=0))
    loaded = v6.load(tmp_path / "run").predict(pd.read_csv(tmp_path / "new.csv"), "cairo")
    assert np.allclose(loaded["p(1)"], of[2])
