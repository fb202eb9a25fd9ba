"""The resident trainer without processes: what it answers couriers, what it remembers, when it sees that it is over."""

from __future__ import annotations

import socket
import urllib.error

import pytest

from v6_algorithm.engines import entry, provenance
from v6_algorithm.engines.resident import courier, protocol, trainer
from v6_algorithm.errors import PolicyError


@pytest.fixture
def made(monkeypatch):
    """Return a trainer whose site answers with what it was given."""
    monkeypatch.setattr(
        entry, "run_site", lambda method, *_, **given: {"method": method, "memory": id(given["memory"])}
    )
    return trainer.Trainer(socket.socket(), "surroundings", {})


def asked(**changes):
    return {"protocol": protocol.PROTOCOL, "surroundings": "surroundings", "method": "train", "token": "token",
            "request": {"experiment": {"name": "one"}}} | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"protocol": protocol.PROTOCOL + 1}, "another version or other settings"),
        ({"surroundings": "others"}, "another version or other settings"),
        ({"method": "publish"}, "does not know what was asked"), ({"request": "text"}, "does not know what was asked"),
    ],
)  # fmt: skip
def test_what_it_was_not_started_for_is_refused(made, changes, refused):
    assert refused in made._answer(asked(**changes))["refused"]
    for method in ("summary", "prepare", "train", "evaluate"):
        assert made._answer(asked(method=method))["reply"]["method"] == method


def test_its_memory_is_one_experiments(made):
    first = made._answer(asked())["reply"]["memory"]
    assert made._answer(asked(request={"experiment": {"name": "one"}, "round": 2}))["reply"]["memory"] == first
    kept = made._memory
    made._answer(asked(request={"experiment": {"name": "two"}}))
    assert made._memory is not kept


def test_a_failure_is_named_and_an_absent_server_is_no_failure(made, monkeypatch):
    def fail(error):
        def run_site(*_, **__):
            raise error

        monkeypatch.setattr(entry, "run_site", run_site)
        return made._answer(asked())["refused"]

    assert fail(KeyError("patient 7")) == "KeyError"
    assert fail(trainer._ServerAwayError()) == "it cannot ask the server who sent the request"


@pytest.mark.parametrize(
    ("message", "ends"),
    [
        ({"protocol": protocol.PROTOCOL, "end": True}, True), ({"protocol": protocol.PROTOCOL, "end": 1}, False),
        ({"protocol": protocol.PROTOCOL + 1, "end": True}, False), (asked(), False),
    ],
)  # fmt: skip
def test_it_ends_on_the_word_of_its_own_version(made, message, ends):
    near, far = socket.socketpair()
    with near, far:
        protocol.send(near, message)
        assert made._visit(far) is ends
        said = protocol.receive(near)
    assert (said == {"ends": True}) is ends
    assert ends or "refused" in said or "reply" in said


def test_a_courier_of_another_user_or_that_is_gone_is_not_answered(made, monkeypatch):
    near, far = socket.socketpair()
    with near, far:
        near.close()
        assert made._visit(far) is False
    near, far = socket.socketpair()
    monkeypatch.setattr(protocol.os, "geteuid", lambda: 12345678)
    with near, far:
        protocol.send(near, {"protocol": protocol.PROTOCOL, "end": True})
        assert made._visit(far) is False
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            near.recv(1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(60, 60.0), (0.5, 0.5), (10**9, trainer.LONGEST_IDLE_S), (0, 3600.0), (-1, 3600.0), (True, 3600.0), ("9", 3600.0)],
)
def test_idle_seconds_are_a_number_above_0(value, seconds):
    assert trainer._seconds(value) == seconds


def served(made, monkeypatch, over, now, idle_s):
    """Serve a listener at which nobody knocks."""

    class Silent:
        def settimeout(self, seconds):
            pass

        def accept(self):
            raise TimeoutError

    made._listener = Silent()
    made._prepare = lambda: None
    if over:
        made._over.set()
    ticks = iter(now)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: next(ticks))
    return made.serve(idle_s)


def test_it_ends_when_nobody_asked_for_longer_than_it_may_idle(made, monkeypatch):
    assert served(made, monkeypatch, False, [100.0, 105.0, 110.0, 110.5], 10.0) == "nobody asked for 10 s"
    assert served(made, monkeypatch, True, [100.0], 10.0) == "the task that asked for it is over"
    made._prepare = lambda: "data: none"
    assert made.serve(1.0) == "data: none"


class Server:
    """What the server says of tasks, in turn."""

    def __init__(self, *answers):
        self.answers, self.paths = list(answers), []

    def __call__(self, path, parameters):
        self.paths.append(path)
        answer = self.answers.pop(0) if self.answers else PolicyError("asked too often")
        if isinstance(answer, Exception):
            raise answer
        return answer


def watched(made, monkeypatch, server, known=True):
    monkeypatch.setattr(courier, "_token", lambda: "token" if known else None)
    monkeypatch.setattr(provenance, "asking", lambda environment, given: server)
    monkeypatch.setattr(provenance, "own_identity", lambda given: {"task": 5, "image": "image"})
    monkeypatch.setattr(trainer, "_PARENT_S", 0.0)
    made._watch_parent()
    return made._over.is_set()


PARENT = {"parent": {"id": 4}}


def test_it_is_over_when_the_task_that_asked_is(made, monkeypatch):
    server = Server(PARENT, {"status": "active"}, OSError(), None, {"status": None}, {"status": "completed"})
    assert watched(made, monkeypatch, server)
    assert server.paths == ["task/5", *["task/4/status"] * 5]


@pytest.mark.parametrize(
    "answers", [[None], [{"parent": None}], [{}], [PARENT, {"status": "pending"}], [OSError(), PARENT, {"status": 3}]]
)
def test_it_is_not_over_for_all_it_knows(made, monkeypatch, answers):
    assert not watched(made, monkeypatch, Server(*answers))
    server = Server(*answers)
    assert not watched(made, monkeypatch, server, known=False)
    assert server.paths == []


def test_who_sent_a_request_is_asked_anew_and_other_tasks_facts_once(made, monkeypatch):
    server = Server("own", "parent", "own again")
    monkeypatch.setattr(provenance, "asking", lambda environment, given: server)
    monkeypatch.setattr(provenance, "own_identity", lambda given: {"task": 5, "image": "image"})
    heard = []
    monkeypatch.setattr(
        provenance, "check_chain", lambda ask, task, image: heard.extend([ask("task/5", {}), ask("task/4", {"a": 1})])
    )
    made._provenance("token")()
    made._provenance("token")()
    assert heard == ["own", "parent", "own again", "parent"]
    assert server.paths == ["task/5", "task/4", "task/5"]


@pytest.mark.parametrize(
    ("trouble", "raised"),
    [(OSError(), trainer._ServerAwayError), (urllib.error.HTTPError("url", 403, "", None, None), PolicyError)],
)
def test_a_server_that_is_away_is_told_from_one_that_says_no(made, monkeypatch, trouble, raised):
    monkeypatch.setattr(provenance, "asking", lambda environment, given: Server(trouble))
    monkeypatch.setattr(provenance, "own_identity", lambda given: {"task": 5, "image": "image"})

    def check(ask, task, image):
        try:
            ask("task/5", {})
        except OSError as error:
            raise PolicyError("who sent it is not known") from error

    monkeypatch.setattr(provenance, "check_chain", check)
    with pytest.raises(raised):
        made._provenance("token")()
