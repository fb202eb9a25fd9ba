"""A model that is published once: left in the job's volume, returned by a subtask, fetched by the sites."""

from __future__ import annotations

import base64
import urllib.error
from types import SimpleNamespace

import pytest

from v6_algorithm.engines.vantage6 import published

NAME, OTHER = "0a" * 32, "1b" * 32
TEXT = base64.b64encode(b"a safetensors file").decode()
PROXY = {"HOST": "http://proxy", "PORT": "80", "API_PATH": "/api"}


@pytest.fixture
def volume(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    return tmp_path / "v6_algorithm-published"


class Client:
    """vantage6's client of a container, in a collaboration whose subtasks are where `status` says."""

    organization_id, collaboration_id = 7, 3

    def __init__(self, encrypted=False, created=True):
        self.encrypted, self.created, self.status, self.asked = encrypted, created, {}, []
        self.task = SimpleNamespace(create=self.create)

    def create(self, **asked):
        self.asked.append(asked)
        if self.created is not True:
            return self.created
        number = 100 + len(self.asked)
        self.status[number] = "pending"
        return {"id": number}

    def request(self, path):
        if path.startswith("collaboration"):
            assert path == "collaboration/3"
            return {"encrypted": self.encrypted}
        answer = self.status[int(path.split("/")[1])]
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer} if isinstance(answer, str) else answer


def test_a_model_is_left_in_the_volume_and_becomes_a_container_s_output_there(volume, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_FILE", str(tmp_path / "output"))
    client = Client()
    publisher = published.Publisher(client)
    publisher.publish(NAME, TEXT)
    assert publisher.tasks == {NAME: 101}
    (asked,) = client.asked
    assert (asked["organizations"], asked["input_"]["method"]) == ([7], "RPC_publish")
    request = asked["input_"]["kwargs"]["request"]
    with pytest.raises(SystemExit) as ended:
        published.publish(request)
    assert ended.value.code == 0
    assert (tmp_path / "output").read_bytes() == b"a safetensors file"
    assert volume.stat().st_mode & 0o777 == 0o700
    publisher.publish(NAME, TEXT)
    assert len(client.asked) == 1, "once"
    publisher.close()
    assert list(volume.iterdir()) == []
    assert published.publish(request)["status"] == "error"


@pytest.mark.parametrize(
    "request_", [None, {}, {"model": 3}, {"model": "../etc"}, {"model": NAME[:-1]}, {"model": OTHER}]
)
def test_what_is_not_published_is_not_returned(volume, request_):
    reply = published.publish(request_)
    assert (reply["status"], reply["message"]) == ("error", "no model is published here under that name")


def test_without_a_volume_or_in_an_encrypted_collaboration_nothing_is_published(volume, monkeypatch):
    for client in (
        Client(encrypted=True),
        Client(encrypted=1),
        Client(encrypted=None),
        Client(created=None),
        Client(created={}),
    ):
        publisher = published.Publisher(client)
        publisher.publish(NAME, TEXT)
        assert publisher.tasks == {}
        assert not volume.exists() or not list(volume.iterdir())
        asked = len(client.asked)
        publisher.publish(OTHER, TEXT)
        assert len(client.asked) == asked, "what failed is not tried again"
    client = Client(encrypted=0)
    publisher = published.Publisher(client)
    publisher.publish(NAME, TEXT)
    assert list(publisher.tasks) == [NAME]
    monkeypatch.delenv("TEMPORARY_FOLDER")
    publisher = published.Publisher(Client())
    publisher.publish(NAME, TEXT)
    assert publisher.tasks == {}


def test_files_go_when_their_subtask_has_ended_and_a_failure_ends_it(volume):
    client = Client()
    publisher = published.Publisher(client)
    publisher.publish(NAME, TEXT)
    for status in ("pending", "initializing", "active", "awaiting", ValueError("away"), {"status": None}, None):
        client.status[101] = status
        publisher._tidy()
        assert [path.name for path in volume.iterdir()] == [NAME], status
    client.status[101] = "completed"
    publisher.publish(OTHER, TEXT)
    assert [path.name for path in volume.iterdir()] == [OTHER]
    assert publisher.tasks == {NAME: 101, OTHER: 102}
    client.status[102] = "failed"
    publisher.publish("2c" * 32, TEXT)
    assert list(volume.iterdir()) == []
    assert publisher.tasks == {NAME: 101}, "what was returned can still be fetched"
    assert len(client.asked) == 2


@pytest.fixture
def server(monkeypatch):
    """Answers of a server, one for each look; the clock goes on by a second each time somebody waits."""
    made = SimpleNamespace(answers=[], asked=[], slept=[], now=0.0)

    def ask(url, token, timeout_s):
        made.asked.append(url)
        answer = made.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(seconds):
        made.slept.append(seconds)
        made.now += max(seconds, 1.0)

    monkeypatch.setattr(published, "_ask", ask)
    monkeypatch.setattr(published, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: made.now))
    return made


RESULT = {"id": 12, "results": [{"result": TEXT}]}


def refused(code):
    return urllib.error.HTTPError("url", code, "", None, None)


def test_a_site_waits_for_the_model_and_fetches_it(server):
    server.answers = [{"status": "pending"}, OSError(), refused(502), {"status": "active"}, {"status": None},
                      {"status": "completed"}, RESULT]  # fmt: skip
    assert published.fetch(PROXY, "token", 12) == TEXT
    assert server.asked[0] == "http://proxy:80/api/task/12/status"
    assert server.asked[-1] == "http://proxy:80/api/task/12?include=results"
    assert server.slept == [0.1] * 5


@pytest.mark.parametrize(
    "answers",
    [
        [{"status": "failed"}], [refused(404)], [refused(499)], [ValueError()], [["no dictionary"]],
        [{"status": "completed"}, {"results": []}], [{"status": "completed"}, {"data": [{"result": TEXT}]}],
        [{"status": "completed"}, {"results": [{"result": None}]}], [{"status": "pending"}] * 301,
        [{"status": "completed"}, OSError(), OSError(), OSError()],
    ],
)  # fmt: skip
def test_where_no_model_is_to_be_had_there_is_none(server, answers):
    server.answers = list(answers)
    assert published.fetch(PROXY, "token", 12) is None
    assert len(server.answers) <= 1


def test_a_result_that_does_not_come_at_once_is_asked_for_three_times(server):
    server.answers = [{"status": "completed"}, OSError(), OSError(), RESULT]
    assert published.fetch(PROXY, "token", 12) == TEXT
    assert server.slept == [1, 2]
    server.answers = [refused(500), {"status": "completed"}, RESULT]
    assert published.fetch(PROXY, "token", 12) == TEXT


def test_nothing_is_fetched_from_what_is_no_server(server):
    assert published.fetch({"HOST": "file:///etc"}, "token", 12) is None
    assert server.asked == []
