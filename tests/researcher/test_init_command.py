"""`init` writes an experiment that runs, says what it decided, and asks for what it cannot see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import v6_algorithm.api as v6
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.cli import app, check


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def hospitals(tmp_path, monkeypatch):
    """Two tables with an identifier, a patient's number that occurs twice, text, and a column that one lacks."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for number, name in enumerate(("north", "south")):
        x = generator.normal(size=(60, 2))
        frame = pd.DataFrame(x, columns=["age", "bmi: now"]).assign(
            record=range(1000 * number, 1000 * number + 60),
            patient_id=np.repeat(range(30), 2) + 100 * number,
            sex=np.where(x[:, 0] > 0, "f", "m"),
            comment=[f"text {number} {i}" for i in range(60)],
            outcome=(x[:, 0] > 0).astype(int),
            months=np.abs(x[:, 1]) + 0.1,
        )
        frame = frame.assign(only_here=1.5) if number else frame
        frame.to_csv(f"{name}.csv", index=False)
    return tmp_path


def test_the_file_runs_as_it_is(hospitals):
    done = call("init", "north.csv", "south.csv")
    assert done.exit_code == 0, done.output
    experiment = Experiment.load(hospitals / "experiment.yaml")
    assert experiment.data.target == "outcome"
    assert experiment.data.categorical == ["sex"]
    assert experiment.data.group == "patient_id"
    assert sorted(experiment.data.exclude) == ["comment", "only_here", "record"]
    assert "not used: only_here (1 of 2 sites lack it)" in done.output
    run = call("run", "experiment.yaml", "--set", "rounds=2", "--out", "result")
    assert run.exit_code == 0, run.output
    assert (hospitals / "result" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--target", "outcome"), "classification"),
        (("--target", "months"), "regression"),
        (("--target", "outcome", "--duration", "months"), "survival"),
    ],
)
def test_the_kind_of_problem_is_seen_from_the_target(hospitals, arguments, problem):
    assert call("init", "north.csv", "south.csv", *arguments).exit_code == 0
    assert Experiment.load(hospitals / "experiment.yaml").problem.kind == problem
    run = call("run", "experiment.yaml", "--set", "rounds=1", "--out", "result")
    assert run.exit_code == 0, run.output


def test_a_target_that_cannot_be_seen_is_asked_for(hospitals):
    for name in ("north", "south"):
        pd.read_csv(f"{name}.csv").rename(columns={"outcome": "ill"}).to_csv(f"{name}.csv", index=False)
    done = call("init", "north.csv", "south.csv")
    assert done.exit_code == 2
    assert "--target: is required; the tables have: age, bmi: now" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv",), "there is no file none.csv"),
        (("north.csv", "south.csv", "--target", "only_here"), "is not in the table of north"),
        (("north.csv", "--target", "comment"), "text with 60 values is no class"),
    ],
)
def test_what_cannot_be_is_named(hospitals, arguments, message):
    done = call("init", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_file_that_is_there_stays(hospitals):
    (hospitals / "experiment.yaml").write_text("mine")
    done = call("init", "north.csv", "south.csv")
    assert done.exit_code == 2
    assert "is there already" in done.output
    assert (hospitals / "experiment.yaml").read_text() == "mine"
    assert call("init", "north.csv", "south.csv", "--force").exit_code == 0


@pytest.mark.slow
def test_report_makes_a_page_anew_and_compares_runs(hospitals):
    call("init", "north.csv", "south.csv")
    for name, rounds in (("one", 1), ("two", 2)):
        call("run", "experiment.yaml", "--set", f"rounds={rounds}", "--out", name)
    (hospitals / "one" / "report.html").unlink()
    assert call("report", "one").exit_code == 0
    assert "<html" in (hospitals / "one" / "report.html").read_text()
    done = call("report", "one", "two", "--out", "both.html")
    assert done.exit_code == 0
    page = (hospitals / "both.html").read_text()
    for text in (
        "Comparison",
        ">one<",
        ">two<",
        "AUROC",
        "by site",
        ">north<",
        "Over the rounds",
        '<th scope="row">rounds</th><td>1</td><td>2</td>',
    ):
        assert text in page
    assert "one" in done.output
    assert "AUROC" in done.output
    assert '"two"' in call("report", "one", "two", "--json").output
    assert "nowhere: there is no file or folder of that name" in call("report", "nowhere").output


@pytest.fixture
def network(hospitals, monkeypatch):
    """What the hospitals' nodes would answer to `describe`, and who was asked."""
    asked = []

    def ask_network(method, key, experiment, at):
        rest = (at.collaboration, at.organizations, at.hub, at.databases, at.private_key)
        asked.append((method, at.address, at.username, at.image, rest))
        return v6.describe(experiment, {name: f"{name}.csv" for name in ("north", "south")}).content

    monkeypatch.setattr(check, "ask_network", ask_network)
    return asked


AT = ("--server", "http://localhost:1/api", "--username", "ada", "--image", "v6")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--target", "outcome"), "classification"),
        (("--target", "months"), "regression"),
        (("--target", "outcome", "--duration", "months"), "survival"),
    ],
)
def test_a_network_is_asked_and_the_file_runs_there_as_it_is(hospitals, network, arguments, problem):
    done = call("init", *AT, *arguments)
    assert done.exit_code == 0, done.output
    assert [asked[:4] for asked in network] == [("describe", "http://localhost:1/api", "ada", "v6")]
    experiment = Experiment.load(hospitals / "experiment.yaml")
    assert (experiment.problem.kind, experiment.sites, experiment.data.group) == (problem, None, "patient_id")
    assert {"comment", "only_here", "record", "sex"} <= set(experiment.data.exclude)
    assert "sex (text; with few values, name it under categorical" in done.output
    assert "next: v6-algorithm submit experiment.yaml" in done.output
    keys = {**experiment.model_dump(mode="json", exclude_unset=True), "rounds": 1}
    result = v6.run(keys, {name: f"{name}.csv" for name in ("north", "south")})
    assert result.content["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (AT, "--target: is required with --server"),
        ((*AT, "north.csv"), "give no files with it"),
        ((), "give a table of each hospital, or --server"),
        (("--server", "http://localhost:1/api", "--target", "outcome"), "--username, --image: missing"),
        ((*AT, "--target", "only_here"), "is not in the table of north"),
    ],
)
def test_what_a_network_needs_is_named(hospitals, network, arguments, message):
    done = call("init", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
