"""`v6-algorithm resume TASK`: a new task goes on from what the sites answered to one that was cut short."""

from __future__ import annotations

import base64
import itertools
import json
import types

import pytest
from hospitals import command, read_result, tables, write
from loopback import LoopbackProxy

from v6_algorithm.engines import entry
from v6_algorithm.errors import ServerError
from v6_algorithm.researcher.cli import connection, following
from v6_algorithm.researcher.server import Collaboration, Organization
from v6_algorithm.researcher.task import Task

AT = ("--server", "http://localhost:1", "--username", "ada")
EXPERIMENT = {
    "name": "heart",
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [4]},
    "rounds": 4,
    "strategy": "fedyogi",
    "participation": {"poll_s": 0.01},
}


class Killed(BaseException):
    pass


class Network:
    """A server whose task 1000 was cut short, and which runs what is sent over vantage6's real `AlgorithmClient`."""

    def __init__(self, killed_at=None, status="crashed", encrypted=False):
        organizations = {number: (name, frame) for number, (name, frame) in enumerate(tables().items(), start=3)}
        self.proxy, self.sent, self.encrypted = LoopbackProxy(organizations), [], encrypted
        self.organization, self.address = "hub", "http://localhost:1"
        self.arguments = {"experiment": EXPERIMENT, "organizations": None}
        self.status = status
        with self.proxy:
            client = self.proxy.client()
            create, number = client.task.create, itertools.count(1)

            def counting(**options):
                if next(number) == killed_at:
                    raise Killed
                return create(**options)

            client.task.create = counting
            try:
                self.whole = entry.run_master(client, None, **self.arguments)
            except Killed:
                self.whole = None

    def ask(self, endpoint, params=None, **_):
        if endpoint == "task/1000":
            databases = [{"label": "default", "parameters": '{"query": "SELECT 1"}'}]
            about = {"id": 1000, "name": "heart", "image": "v6@sha256:12", "collaboration": {"id": 1}}
            return {**about, "databases": databases}
        if endpoint == "run" and params["task_id"] == 1000:
            text = json.dumps({"method": "master", "kwargs": self.arguments})
            inputs = "a$b$c" if self.encrypted else base64.b64encode(text.encode()).decode()
            return {"data": [{"status": self.status, "organization": {"id": 3}, "input": inputs}]}
        return {"data": [] if endpoint == "task" else [{"status": "completed", "log": "", "organization": {"id": 3}}]}

    def collaboration(self, wanted):
        assert wanted == "1"
        return Collaboration(1, "heart", False, [Organization(3, "hub", True)])

    def submit(self, collaboration, hub, *, arguments, **sent):
        self.sent.append({**sent, "hub": hub.id, "arguments": arguments})
        proxy = LoopbackProxy(self.proxy.organizations)
        proxy.tasks, proxy.parent = self.proxy.tasks, 2000
        with proxy:
            text = json.dumps(entry.run_master(proxy.client(), None, **arguments))
        self.result = types.SimpleNamespace(from_task=lambda id: {"data": [{"result": text}]})
        return Task(self, self.ask, 2000, "heart")


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(following, "POLL_S", 0)

    def make(*arguments, **options):
        made = Network(*arguments, **options)
        monkeypatch.setattr(connection, "log_in", lambda *_: made)
        return made

    return make


def questions(network):
    """How many questions the sites were asked, of both tasks; a resident trainer is none."""
    return sum(task["name"].startswith("RPC_") for task in network.proxy.tasks.values())


@pytest.mark.slow
def test_a_task_that_crashed_goes_on_in_a_new_one_to_the_same_result(network, tmp_path):
    whole = network().whole
    cut = network(killed_at=14)
    result = command("resume", 1000, *AT, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "task 2000 goes on from task 1000, at hub (online)" in result.output
    again = read_result(tmp_path / "out")
    assert [again[key] for key in ("history", "parameters", "metrics")] == [
        json.loads(json.dumps(whole[key])) for key in ("history", "parameters", "metrics")
    ]
    # Only what was not answered is asked.
    assert questions(cut) == 21
    (sent,) = cut.sent
    assert sent["image"] == "v6@sha256:12"
    assert sent["databases"] == [{"label": "default", "query": "SELECT 1"}]
    assert (sent["hub"], sent["arguments"]["resume"]) == (3, [1000])


@pytest.mark.slow
def test_a_task_that_goes_on_itself_is_followed_to_the_first(network, tmp_path):
    cut = network(killed_at=14)
    cut.arguments["resume"] = 900
    command("resume", 1000, *AT, "--out", tmp_path / "out", "--detach")
    assert cut.sent[0]["arguments"]["resume"] == [900, 1000]


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({"status": "active"}, AT, "task 1000: is active; to see how it goes: v6-algorithm watch 1000"),
        ({"encrypted": True}, AT, "its input is encrypted for the hub's node; give its experiment with --file"),
        ({}, (), "task 1000: give --server and --username, as for `submit`"),
        ({}, (*AT, "--set", "seed=1"), "--set: goes with --file"),
    ],
)
def test_what_cannot_be_gone_on_with_is_named_and_nothing_is_sent(network, options, arguments, words):
    cut = network(killed_at=2, **options)
    result = command("resume", 1000, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not cut.sent


@pytest.mark.slow
def test_in_an_encrypted_collaboration_the_file_tells_the_experiment(network, tmp_path):
    cut = network(killed_at=14, encrypted=True)
    file = write(tmp_path, **EXPERIMENT, training={})
    result = command("resume", 1000, *AT, "--file", file, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert cut.sent[0]["arguments"]["resume"] == [1000]
    assert questions(cut) == 21


def test_a_folder_goes_on_as_it_was_begun(tmp_path):
    result = command("resume", tmp_path, "--set", "seed=1")
    assert (result.exit_code, "--set: goes with a task" in result.output) == (2, True)


@pytest.mark.slow
def test_a_log_in_that_has_ended_tells_how_to_come_back_to_the_task(network, tmp_path, monkeypatch):
    """A server that was restarted without `jwt_secret_key` knows nobody's log-in any more; the task goes on."""
    network(killed_at=14)

    def ended(self):
        raise ServerError("the session has ended; log in again")

    monkeypatch.setattr(Task, "look", ended)
    result = command("resume", 1000, *AT, "--out", tmp_path / "out")
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert "error: task 2000 goes on, but the session has ended; log in again: v6-algorithm watch 2000" in told
