"""`submit` and `watch` with a table of the researcher's: it stays here, and the model that comes back is measured."""

from __future__ import annotations

import json
import types

import pytest
from hospitals import command, read_result, table, tables, write
from loopback import LoopbackProxy

import v6_algorithm
from v6_algorithm.researcher.cli import connection, following
from v6_algorithm.researcher.external import CentralTable
from v6_algorithm.researcher.server import Collaboration, Organization
from v6_algorithm.researcher.task import Task

AT = ("--server", "http://localhost:1", "--username", "anna")


class Network:
    """A server at which every task has ended, with the result of a run over vantage6's real `AlgorithmClient`."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.organization, self.address = "hub", "http://localhost:1"
        organizations = {number: (name, frame) for number, (name, frame) in enumerate(tables().items(), start=3)}
        experiment = {
            "data": {"target": "y"},
            "rounds": 2,
            "model": {"kind": "mlp", "hidden": [4]},
            "participation": {"poll_s": 0.01},
        }
        with LoopbackProxy(organizations) as proxy:
            text = json.dumps(v6_algorithm.master(proxy.client(), experiment))
        self.result = types.SimpleNamespace(from_task=lambda id: {"data": [{"result": text}]})

    def ask(self, endpoint: str, **_: object) -> dict:
        ended = {"status": "completed", "log": "", "organization": {"id": 1}}
        return {"data": [] if endpoint == "task" else [ended]}

    def collaboration(self, name: str | None) -> Collaboration:
        return Collaboration(1, "heart", False, [Organization(1, "hub", True), Organization(2, "berlin", True)])

    def submit(self, *_: object, **sent: object) -> Task:
        self.sent.append(sent)
        return self.task(7)

    def task(self, number: int) -> Task:
        task = Task(self, self.ask, number, "heart")
        task.image = "registry.example.org/v6@sha256:00"
        return task


@pytest.fixture(scope="module")
def ran() -> Network:
    return Network()


@pytest.fixture
def network(ran, tmp_path, monkeypatch) -> Network:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "log_in", lambda *_: ran)
    monkeypatch.setattr(following, "POLL_S", 0)
    monkeypatch.setattr(ran, "sent", [])
    table(70, 9).to_csv(tmp_path / "mine.csv", index=False)
    return ran


def test_submit_measures_the_model_that_came_back_and_sends_nothing_of_the_table(tmp_path, network):
    file = write(tmp_path, central="mine.csv")
    done = command("submit", file, "--image", "v6", *AT, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "mine" not in json.dumps(network.sent[0]["arguments"])
    result = read_result(tmp_path / "out")
    assert result["metrics"]["central"]["pooled"]["n"] == 70
    assert result["experiment"]["central"]["uri"] == "mine.csv"
    assert "central: mine.csv" in " ".join(done.output.split())


def test_watch_measures_it_later(tmp_path, network):
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--central", "mine.csv")
    assert done.exit_code == 0, done.output
    assert read_result(tmp_path / "out")["software"]["image"] == "registry.example.org/v6@sha256:00"
    command("evaluate", tmp_path / "out", "--data", "mine.csv", "--out", tmp_path / "again")
    first, again = (read_result(tmp_path / name)["metrics"]["central"] for name in ("out", "again"))
    assert first == again


@pytest.mark.parametrize("word", ["submit", "watch"])
def test_a_central_table_that_is_not_there_is_told_before_anything_is_sent(tmp_path, network, monkeypatch, word):
    monkeypatch.setattr(connection, "log_in", lambda *_: pytest.fail("logged in"))
    what = (write(tmp_path, central="no.csv"), "--image", "v6") if word == "submit" else (7, "--central", "no.csv")
    done = command(word, *what, *AT)
    assert done.exit_code == 2
    assert "central: there is no file no.csv" in done.output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("row 17 is SECRET"), "central: could not be measured (RuntimeError)"),
        (KeyboardInterrupt(), "central: interrupted from the keyboard"),
    ],
)
def test_whatever_happens_while_it_is_measured_the_result_is_kept(tmp_path, network, monkeypatch, error, message):
    def fail(self, model):
        raise error

    monkeypatch.setattr(CentralTable, "measure", fail)
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--central", "mine.csv")
    assert done.exit_code == 3
    assert f"the rest is kept, but {message}" in done.output
    assert "SECRET" not in done.output
    assert read_result(tmp_path / "out")["metrics"]["test"]
