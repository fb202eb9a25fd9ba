"""`v6-algorithm tune` on this machine, and the network's function `tune` through vantage6's mock client."""

from __future__ import annotations

import csv
import json

import pytest
import yaml
from typer.testing import CliRunner

import v6_algorithm
from v6_algorithm.researcher.cli import app

CONTENT = {
    "name": "small",
    "sites": {"source": "builtin:breast_cancer", "partition": {"kind": "iid", "sites": 2}},
    "data": {"target": "target"},
    "model": "linear",
    "rounds": 2,
    "tune": {"space": {"training.optimizer.lr": [1e-6, 0.01]}},
}


@pytest.fixture
def go(tmp_path):
    """Run the command on a file of this content; return its exit code, its output and the folder."""

    def run(*options, **changes):
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump({key: value for key, value in (CONTENT | changes).items() if value is not None}))
        done = CliRunner().invoke(app, ["tune", str(file), "--out", str(tmp_path / "out"), *options])
        return done.exit_code, done.output, tmp_path / "out"

    return run


def test_it_ends_with_the_files_of_run_and_the_settings(go):
    code, output, folder = go()
    assert code == 0, output
    assert "setting 1/2, 2 rounds: training.optimizer.lr 1e-06: validation loss" in output
    assert "chosen: setting 2, training.optimizer.lr 0.01" in output
    result = json.loads((folder / "result.json").read_text())
    assert result["tuning"]["chosen"] == 2
    assert result["experiment"]["sites"]["partition"]["sites"] == 2
    rows = list(csv.DictReader((folder / "tuning.csv").open()))
    assert [(row["training.optimizer.lr"], row["chosen"]) for row in rows] == [("1e-06", "False"), ("0.01", "True")]
    assert (folder / "model.safetensors").exists()


def test_settings_are_given_on_the_command_line_too(go):
    code, output, folder = go("--try", "model=[linear, {kind: mlp, hidden: [4]}]", "--halve", rounds=4)
    assert code == 0, output
    trials = json.loads((folder / "result.json").read_text())["tuning"]["trials"]
    assert [trial["setting"]["model"] for trial in trials[:2]] == ["linear", {"kind": "mlp", "hidden": [4]}]
    assert {len(trial["rounds"]) for trial in trials} == {1, 2}


def test_values_may_be_a_list_with_commas(go):
    code, _, folder = go("--try", "training.batch_size=8,16", tune=None)
    assert code == 0
    trials = json.loads((folder / "result.json").read_text())["tuning"]["trials"]
    assert [trial["setting"] for trial in trials] == [{"training.batch_size": 8}, {"training.batch_size": 16}]


@pytest.mark.parametrize(
    ("options", "changes", "says"),
    [
        ([], {"tune": None}, "tune: is required; name what to try"),
        (["--try", "model"], {}, "--try model: must be KEY.PATH=A,B"),
        (["--try", "model=[a"], {}, "--try model=[a: the value is not valid YAML"),
        (["--try", "rounds=1,2"], {}, "rounds cannot be tuned; allowed: model"),
        (["--draws", "0"], {}, "tune.draws: must be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(go, options, changes, says):
    code, output, folder = go(*options, **changes)
    assert code == 2
    assert says in " ".join(output.split())
    assert not folder.exists()


def test_the_networks_function_searches_through_the_mock_client(tables):
    tools = pytest.importorskip("vantage6.algorithm.tools.mock_client")
    client = tools.MockAlgorithmClient(
        datasets=[[{"database": table.frame}] for table in tables.values()], module="v6_algorithm"
    )
    experiment = {"data": {"target": "y"}, "model": "linear", "rounds": 2, "tune": CONTENT["tune"]}
    result = v6_algorithm.tune(mock_client=client, experiment=experiment)
    assert [len(trial["scores"]) for trial in result["tuning"]["trials"]] == [1, 1]
    assert result["metrics"]["test"]["pooled"]["n"] > 0
    json.dumps(result, allow_nan=False)


def test_the_log_of_a_task_tells_each_setting(tables, capsys):
    tools = pytest.importorskip("vantage6.algorithm.tools.mock_client")
    client = tools.MockAlgorithmClient(
        datasets=[[{"database": table.frame}] for table in tables.values()], module="v6_algorithm"
    )
    experiment = {"data": {"target": "y"}, "model": "linear", "rounds": 1, "tune": CONTENT["tune"]}
    v6_algorithm.tune(mock_client=client, experiment=experiment)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("setting 2/2, 1 round: training.optimizer.lr 0.01: validation loss ") for line in lines)
    assert any(line.startswith("chosen: setting ") for line in lines)
