"""`--json`: every command has it, and its whole standard output is one JSON document."""

from __future__ import annotations

import json

import pytest
from hospitals import command, tables, write
from typer.main import get_command

from v6_algorithm.researcher.cli import app, terminal


def every(group, lead=""):
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from every(each, f"{name} ")
        else:
            yield f"{lead}{name}", each


def test_every_command_has_json():
    without = [name for name, each in every(get_command(app)) if not any("--json" in p.opts for p in each.params)]
    assert without == []


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    write(folder, rounds=1)
    rows = tables()["berlin"]
    rows.to_csv(folder / "known.csv", index=False)
    rows.drop(columns="y").to_csv(folder / "new.csv", index=False)
    done = command("run", folder / "experiment.yaml", "--out", folder / "run", "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def test_a_run_prints_its_headlines_and_where_the_rest_is(here):
    folder, document = here
    assert (document["status"], document["folder"]) == ("completed", str(folder / "run"))
    assert document["metrics"] == json.loads((folder / "run" / "metrics.json").read_text())
    assert "report.html" in document["files"]
    assert document["notes"] == json.loads((folder / "run" / "result.json").read_text())["notes"]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["validate", "experiment.yaml"], "features"),
        (["check", "experiment.yaml"], "sites"),
        (["describe", "experiment.yaml"], "columns"),
        (["approve", "experiment.yaml"], "hash"),
        (["evaluate", "run", "--data", "known.csv"], "metrics"),
        (["predict", "run", "new.csv"], "predictions"),
        (["report", "run"], "page"),
        (["init", "known.csv", "--target", "y", "--name", "drafted"], "problem"),
        (["partition", "known.csv", "--sites", "2", "--out", "parts"], "tables"),
    ],
)
def test_what_others_print_is_one_document(here, monkeypatch, arguments, key):
    monkeypatch.chdir(here[0])
    done = command(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[key]
    assert not terminal.out.quiet, "the next command in this process shows its lines again"


def test_after_an_error_there_is_no_document(here, monkeypatch):
    monkeypatch.chdir(here[0])
    done = command("run", "experiment.yaml", "--set", "rounds=-1", "--json")
    # This runner mixes the two streams; the error is on the other one.
    assert (done.exit_code, done.output.startswith("error: experiment.yaml: rounds")) == (2, True)
    assert "{" not in done.output
