"""A command that writes refuses, before it reads or asks anything, what an earlier one left there, unless --force."""

from __future__ import annotations

import numpy as np
import pytest
from hospitals import command
from safetensors.numpy import save_file
from typer.main import get_command

from v6_algorithm.researcher.cli import app
from v6_algorithm.researcher.external.local_layers import forget_layers
from v6_algorithm.researcher.report import write_artifacts
from v6_algorithm.site.state.local_models import MARK

AT = ("--server", "http://localhost:1", "--username", "ada")
# What is there already, and the command that would write over it. Nothing else that they name is there.
COMMANDS = {
    "run": ("o/result.json", ["run", "e.yaml", "--out", "o"]),
    "run --test": ("o/result.json", ["run", "e.yaml", "--test", "r", "--out", "o"]),
    "tune": ("o/result.json", ["tune", "e.yaml", "--out", "o"]),
    "submit": ("o/result.json", ["submit", "e.yaml", *AT, "--image", "v6", "--out", "o"]),
    "watch": ("o/result.json", ["watch", "1", *AT, "--out", "o"]),
    "resume": ("o/result.json", ["resume", "1", *AT, "--out", "o"]),
    "evaluate": ("o/result.json", ["evaluate", "r", "--data", "d.csv", "--out", "o"]),
    "describe": ("o/summary.json", ["describe", "e.yaml", "--out", "o"]),
    "partition": ("o/experiment.yaml", ["partition", "d.csv", "--sites", "2", "--out", "o"]),
    "split-columns": ("o.csv", ["split-columns", "d.csv", "s.json", "--out", "o.csv"]),
    "predict": ("o.csv", ["predict", "r", "d.csv", "--out", "o.csv"]),
    "export": ("o/model.json", ["export", "r", "o"]),
    "report": ("o.html", ["report", "r", "--out", "o.html"]),
    "check": ("o.json", ["check", "e.yaml", "--out", "o.json"]),
}
# Synthetic images are never written over; nor is a model card. A package has a mark of its own.
OTHERS = {"generate"}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_there_stays_unless_force(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    there, arguments = COMMANDS[name]
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    refused = command(*arguments)
    text = " ".join(refused.output.split())
    assert (refused.exit_code, "already" in text, "--force writes over it" in text) == (2, True, True), text
    assert (tmp_path / there).read_text() == "mine"
    forced = command(*arguments, "--force")
    assert "--force" not in forced.output, "it goes on, to what else is missing"
    assert forced.exit_code != 0


def test_every_command_with_a_place_to_write_has_force():
    commands = {name: each for name, each in get_command(app).commands.items() if not hasattr(each, "commands")}
    writing = {
        name for name, each in commands.items() if any(p.name in ("out", "out_dir", "out_file") for p in each.params)
    }
    missing = {name for name in writing if not any(p.name == "force" for p in commands[name].params)}
    assert missing == OTHERS


def test_a_run_leaves_nothing_of_the_run_that_it_takes_the_place_of(tmp_path):
    """A run that stopped without a model beside the model of the run before would be taken for its own."""
    for name in ("result.json", "model.safetensors", "coefficients.csv", "history.csv", "notes.txt"):
        (tmp_path / name).write_text("of before")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "round-7.png").write_text("of before")
    write_artifacts({"name": "a", "status": "evaluated", "metrics": {}, "notes": [], "experiment": {}}, tmp_path)
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.read_text() == "of before"}
    assert kept == {"notes.txt"}


def test_files_of_the_researchers_stay_where_no_run_was(tmp_path):
    """A folder of somebody's work that is named as --out, with files that a run would call the same."""
    mine = [tmp_path / "coefficients.csv", tmp_path / "layers" / "soil.txt", tmp_path / "layers" / "net.safetensors"]
    (tmp_path / "layers").mkdir()
    for path in mine[:2]:
        path.write_text("mine")
    save_file({"weight": np.zeros(2)}, mine[2])
    left = tmp_path / "layers" / "heart-1a2b" / "a-fold-0-private.safetensors"
    left.parent.mkdir()
    save_file({"weight": np.zeros(2)}, left, {MARK: "private", "site": "a", "fold": "0"})
    forget_layers(tmp_path)
    write_artifacts({"name": "a", "status": "evaluated", "metrics": {}, "notes": [], "experiment": {}}, tmp_path)
    assert all(path.is_file() for path in mine)
    assert not left.parent.exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_name_that_no_file_can_have_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    there, arguments = COMMANDS[name]
    out = there.partition("/")[0]
    refused = command(*("n" * 300 if each == out else each for each in arguments))
    assert refused.exit_code == 2, refused.output
    assert "cannot be written: File name too long" in " ".join(refused.output.split())
