"""Requests come from `master`'s chain only: what the server says of task and parent decides; its silence refuses."""

from __future__ import annotations

import base64
import json

import pytest

import v6_algorithm.engines.entry as entry
from v6_algorithm.engines.provenance import check_chain, own_identity
from v6_algorithm.errors import PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

IMAGE = "registry/v6-algorithm@sha256:1"
# As vantage6 4.15 answers: references are records with an id; the person's task has no parent.
TASK = {"id": 7, "parent": {"id": 3}, "image": IMAGE, "job_id": 1, "init_org": {"id": 2}}
PARENT = {"id": 3, "parent": None, "image": IMAGE, "job_id": 1, "init_org": {"id": 9}}
RUNS = {"data": [{"id": 11, "organization": {"id": 2}}]}


def server(task=TASK, parent=PARENT, runs=RUNS):
    answers = {"task/7": task, "task/3": parent, "run": runs}
    return lambda path, parameters: answers[path]


def test_a_request_of_masters_is_let_in():
    check_chain(server(), 7, IMAGE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": {**TASK, "parent": None}}, "posted by a user or another program"),
        ({"task": {**TASK, "parent": {}}}, "posted by a user or another program"),
        ({"parent": {**PARENT, "parent": {"id": 1}}}, "itself sent by a task"),
        ({"parent": {**PARENT, "image": "evil:1"}}, "runs another image"),
        ({"task": {**TASK, "image": "evil:1"}, "parent": {**PARENT, "image": "evil:1"}}, "runs another image"),
        ({"parent": {**PARENT, "job_id": 2}}, "of another job"),
        ({"task": {**TASK, "init_org": {"id": 4}}}, "another organisation than the one at which its task runs"),
        ({"runs": {"data": []}}, "not run at one organisation alone"),
        ({"runs": {"data": RUNS["data"] * 2}}, "not run at one organisation alone"),
        ({"runs": {"data": [{"id": 1}]}}, "another organisation"),
        ({"task": {"msg": "no such task"}}, "the server did not say"),
        ({"parent": None}, "the server did not say"),
        ({"runs": {"msg": "Connection error"}}, "the server did not say"),
    ],
)
def test_every_other_request_is_refused(changes, reason):
    with pytest.raises(PolicyError, match=reason):
        check_chain(server(**changes), 7, IMAGE)


def test_a_server_that_does_not_answer_refuses():
    def down(path, parameters):
        raise ConnectionError("secret address")

    with pytest.raises(PolicyError, match=r"did not say who sent the request \(ConnectionError\)") as refused:
        check_chain(down, 7, IMAGE)
    assert "secret address" not in str(refused.value)


def token(content):
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, content, {})
    )


def test_a_container_reads_its_task_from_its_token():
    identity = {"task_id": 7, "image": IMAGE, "node_id": 1}
    assert own_identity(token({"sub": identity})) == {"task": 7, "image": IMAGE}
    assert own_identity(token({"sub": json.dumps(identity)})) == {"task": 7, "image": IMAGE}


@pytest.mark.parametrize("text", ["", "a.b.c", "no token", token({"sub": {}}), token({}), token({"sub": "text"})])
def test_what_is_no_token_of_a_container_refuses(text):
    with pytest.raises(PolicyError, match="does not say which task"):
        own_identity(text)


@pytest.fixture
def request_of_a_run(tmp_path, monkeypatch):
    """A request to a node of the default policy, in its environment."""
    from hospitals import tables

    tables()["berlin"].to_csv(tmp_path / "ward.csv", index=False)
    monkeypatch.delenv("V6_ALGORITHM_POLICY")
    for name, value in {
        "USER_REQUESTED_DATABASE_LABELS": "ward",
        "WARD_DATABASE_URI": str(tmp_path / "ward.csv"),
        "WARD_DATABASE_TYPE": "csv",
        "TEMPORARY_FOLDER": str(tmp_path / "tmp"),
    }.items():
        monkeypatch.setenv(name, value)
    experiment = Experiment.parse({"data": {"target": "y"}}).for_sites()
    return wire.message(site="berlin", round=0, attempt=1, experiment=experiment, sites=3, step="schema")


def test_a_node_of_the_default_policy_asks_who_asks(request_of_a_run):
    reply = entry.run_site("prepare", None, request_of_a_run, None, lambda: check_chain(server(), 7, IMAGE))
    assert (reply["status"], reply["policy"]["preset"]) == ("ok", "standard")
    forged = server(task={**TASK, "parent": None})
    reply = entry.run_site("prepare", None, request_of_a_run, None, lambda: check_chain(forged, 7, IMAGE))
    assert (reply["status"], reply["kind"]) == ("error", "refused")
    assert "V6_ALGORITHM_REQUEST_CHAIN" in reply["message"]


@pytest.mark.parametrize("preset", ["standard", "strict"])
def test_outside_a_container_nobody_can_say_who_asks(request_of_a_run, monkeypatch, preset):
    monkeypatch.setenv("V6_ALGORITHM_POLICY", preset)
    reply = entry.run_site("prepare", None, request_of_a_run, None)
    assert "no container of a vantage6 node" in reply["message"]


def test_a_node_asks_the_server_through_its_proxy(request_of_a_run, monkeypatch, tmp_path):
    """A server in this process that answers as vantage6 does, and knows the token."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            path = self.path.removeprefix("/api/").partition("?")[0]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(server()(path, {})).encode())

        def log_message(self, *arguments):
            pass

    proxy = HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    own = token({"sub": {"task_id": 7, "image": IMAGE}})
    (tmp_path / "token").write_text(own)
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("HOST", "http://127.0.0.1")
    monkeypatch.setenv("PORT", str(proxy.server_port))
    monkeypatch.setenv("API_PATH", "/api")
    try:
        reply = entry.run_site("prepare", None, request_of_a_run, None)
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert reply["status"] == "ok"
    assert [path for path, _ in asked] == ["/api/task/7", "/api/task/3", "/api/run?task_id=3"]
    assert {authorization for _, authorization in asked} == {f"Bearer {own}"}


@pytest.mark.parametrize("variable", ["V6_ALGORITHM_MINIMUM_CELLSIZE", "V6_ALGORITHM_MINIMUM_CELL_SIZE"])
def test_a_typing_error_in_the_configuration_stops_every_answer_by_its_name(request_of_a_run, monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    reply = entry.run_site("prepare", None, request_of_a_run, None, lambda: None)
    assert (reply["kind"], variable in reply["message"]) == ("refused", True)
