"""How large messages may be, how long their other side is waited for, and what is remembered of those before."""

from __future__ import annotations

import os
import urllib.error
from types import SimpleNamespace

import pytest

from v6_algorithm.engines.resident import courier, protocol, trainer
from v6_algorithm.engines.simulation import message_sizes, parcels, simulate, workers
from v6_algorithm.engines.vantage6 import journal, published, results
from v6_algorithm.errors import ExperimentError, UnreachableError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import CheckedState

# A model of 2 GiB in base64, and 64 MiB.
LARGEST = 2_863_311_530 + 67_108_864


def connection(content: bytes, asked: list[int]):
    left = bytearray(content)

    def recv(most):
        asked.append(most)
        piece = bytes(left[:most])
        del left[:most]
        return piece

    return SimpleNamespace(recv=recv)


# -- courier and trainer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "wrong"), [(LARGEST, "closed before"), (LARGEST + 1, f"over the cap of {LARGEST}")])
def test_a_message_is_a_model_of_two_gibibytes_in_base64_at_most(length, wrong):
    """A length that is only claimed takes no memory: it is read a mebibyte at a time."""
    asked = []
    with pytest.raises(protocol.ProtocolError, match=wrong):
        protocol.receive(connection(length.to_bytes(8, "big") + b"{}", asked))
    assert asked == ([8, 2**20, 2**20] if length == LARGEST else [8])

    class Text(str):
        def encode(self):
            return Bytes(b"{}")

    class Bytes(bytes):
        def __len__(self):
            return length

    sent = []
    if length == LARGEST:
        protocol.send_text(SimpleNamespace(sendall=sent.append), Text())
        assert sent == [length.to_bytes(8, "big"), b"{}"]
    else:
        with pytest.raises(protocol.ProtocolError, match=wrong):
            protocol.send_text(SimpleNamespace(sendall=sent.append), Text())
        assert sent == []


@pytest.mark.parametrize("length", [-1, LARGEST + 1, True, 2.0, "3", None])
def test_a_parts_length_is_a_whole_number_up_to_a_message(length):
    with pytest.raises(protocol.ProtocolError, match=f"whole number from 0 to {LARGEST}"):
        next(protocol.receive_bytes(connection(b"x" * 9, []), length))


def test_a_part_is_received_to_its_last_byte_and_no_further():
    asked = []
    there = connection(b"x" * (2**20 + 5) + b"rest", asked)
    assert [len(piece) for piece in protocol.receive_bytes(there, 2**20 + 5)] == [2**20, 5]
    assert asked == [2**20, 5]
    assert list(protocol.receive_bytes(there, 0)) == []
    assert list(protocol.receive_bytes(connection(b"x", []), 1)) == [b"x"]
    with pytest.raises(protocol.ProtocolError, match="closed before"):
        list(protocol.receive_bytes(there, 5))


@pytest.mark.parametrize(
    ("word", "off"),
    [(None, False), ("true", False), (" On ", False), ("YES", False), ("1", False), ("false", True), ("", True),
     ("maybe", True), ("0", True)],
)  # fmt: skip
def test_a_word_that_is_no_yes_is_no_trainer(word, off):
    assert protocol.switched_off({} if word is None else {protocol.SWITCH: word}) is off


def test_a_job_without_a_volume_has_no_meeting_place():
    assert protocol.meeting_place({"TEMPORARY_FOLDER": "/volume"}) == "/volume/v6_algorithm-resident"
    assert protocol.meeting_place({"TEMPORARY_FOLDER": ""}) is None
    assert protocol.meeting_place({}) is None


def test_an_hour_is_waited_for_an_answer_and_a_minute_for_the_word_to_end(monkeypatch, tmp_path):
    waited = []

    def connect(place, seconds):
        waited.append(seconds)
        raise ConnectionRefusedError

    monkeypatch.setattr(protocol, "meeting_place", lambda environment: str(tmp_path))
    monkeypatch.setattr(protocol, "switched_off", lambda environment: False)
    monkeypatch.setattr(protocol, "connect", connect)
    assert courier.ask("train", {}) == (None, "no resident trainer: ConnectionRefusedError")
    assert courier.end() is False
    assert waited == [3600, 60]


def test_a_trainer_idles_for_a_day_at_most_and_an_hour_where_nobody_says():
    assert [trainer._seconds(value) for value in (86_399, 86_401, None)] == [86_399, 86_400, 3600]


# -- published models and results --------------------------------------------------------------------------------------

PROXY = {"HOST": "http://proxy", "PORT": "80", "API_PATH": "/api"}


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_published_model_is_fetched_three_times_with_growing_pauses(monkeypatch, failures):
    asked, pauses = [], []

    def ask(url, token, timeout):
        asked.append((url, timeout))
        if len(asked) <= failures:
            raise OSError
        return {"results": [{"result": "model"}]}

    monkeypatch.setattr(
        published, "_is_there", lambda base, token, task: (base, token, task) == ("http://proxy:80/api", "t", 5)
    )
    monkeypatch.setattr(published, "_ask", ask)
    monkeypatch.setattr(published.time, "sleep", pauses.append)
    assert published.fetch(PROXY, "t", 5) == ("model" if failures < 3 else None)
    assert asked == [("http://proxy:80/api/task/5?include=results", 600)] * min(failures + 1, 3)
    assert pauses == [1, 2, 3][:failures]
    assert published.fetch(PROXY, "t", 6) is None
    assert published.fetch({}, "t", 5) is None


@pytest.mark.parametrize("status", ["pending", None])
def test_a_model_that_does_not_come_is_waited_for_five_minutes(monkeypatch, status):
    now, asked = [50.0], []

    def ask(url, token, timeout):
        asked.append((now[0], url, timeout))
        if status is None:
            raise urllib.error.HTTPError(url, 500, "", None, None)
        return {"status": status}

    def sleep(seconds):
        now[0] = round(now[0] + seconds, 6)

    monkeypatch.setattr(published, "_ask", ask)
    monkeypatch.setattr(published, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert published._is_there("base", "t", 5) is False
    assert (asked[0], asked[1][0]) == ((50.0, "base/task/5/status", 30), 50.1)
    assert now[0] == 350.0
    asked.clear()
    monkeypatch.setattr(published, "_ask", lambda *given: asked.append(given) or {"status": "completed"})
    now[0] = 50.0
    assert published._is_there("base", "t", 5) is True


@pytest.mark.parametrize("code", [403, 404, 499])
def test_a_server_that_says_no_is_not_waited_for(monkeypatch, code):
    def ask(url, token, timeout):
        raise urllib.error.HTTPError(url, code, "", None, None)

    monkeypatch.setattr(published, "_ask", ask)
    monkeypatch.setattr(published.time, "sleep", lambda seconds: pytest.fail("it waits"))
    assert published._is_there("base", "t", 5) is False


@pytest.mark.parametrize("clear", [True, False])
def test_a_result_is_asked_for_as_part_of_its_task_where_it_is_in_the_clear(monkeypatch, clear):
    opened = []

    def urlopen(request, timeout):
        opened.append((request.full_url, timeout))
        raise OSError

    monkeypatch.setattr(results.urllib.request, "urlopen", urlopen)
    client = SimpleNamespace(generate_path_to=lambda path, _: f"http://proxy/{path}", headers={})
    with pytest.raises(OSError, match=r"^$"):
        results.fetch(client, 5, clear=clear)
    assert opened == [("http://proxy/task/5?include=results" if clear else "http://proxy/result?task_id=5", 600)]
    client.generate_path_to = lambda path, _: f"file:///{path}"
    with pytest.raises(results.UnreadableError):
        results.fetch(client, 5, clear=clear)


# -- workers -----------------------------------------------------------------------------------------------------------


def test_workers_keep_the_newest_256_settings_and_are_sent_an_older_one_again():
    writing, reading = parcels.Requests(), parcels.ReadRequests()
    settings = [{"seed": number} for number in range(257)]

    def passed(content):
        parcel = writing.write(0, {"call": 1}, {"a": {"experiment": content, "round": 2}})
        _, requests = reading.read(parcel)
        assert requests == {"a": {"experiment": content, "round": 2}}
        return b'"fresh":{}' in parcel[0]

    assert [passed(content) for content in settings] == [False] * 257
    assert passed(settings[256]), "it is there"
    assert passed(settings[1])
    assert passed({"seed": 256}), "another object that says the same is the same"
    assert not passed(settings[0]), "it was the 257th"
    assert len(reading._known) == 256


def test_what_a_worker_does_not_get_is_not_written():
    made = parcels.Requests()
    shared = {"seed": 1}
    (first,) = made.write(0, {}, {"a": {"setup": shared}, "b": {"setup": shared}})
    assert first.count(b'"seed"') == 1
    (other,) = made.write(1, {}, {"c": {"setup": shared}})
    assert other.count(b'"seed"') == 1, "another worker has not got it"
    (again,) = made.write(1, {}, {"c": {"setup": shared}})
    assert b'"seed"' not in again


@pytest.mark.parametrize(
    ("reasons", "together", "alone"),
    [({}, None, []), ({0: None}, None, []), ({0: "", 1: None}, True, []), ({0: "", 1: "gone"}, True, ["gone"]),
     ({0: "gone", 1: "gone"}, False, ["gone"])],
)  # fmt: skip
def test_how_sites_of_workers_were_trained_is_told_of_those_that_said_so(reasons, together, alone):
    made = object.__new__(workers.WorkerFederation)
    made._about, made._way, made._worker_of, made._gone = {"engine": "local"}, "fast", {"a": 0, "b": 1, "c": 1}, {}
    made._alone, made._quicker = reasons, {"fused optimiser": None}
    how = made.how()
    assert (how["engine"], how["way"], how["workers"], how["together"]) == ("local", "fast", 2, together)
    assert "workers_lost" not in how
    assert all(reason in str(how) for reason in alone)
    made._gone = {1: "process 5 ended"}
    assert made.how()["workers_lost"] == ["process 5 ended"]
    made._way = "exact"
    assert "together" not in made.how()


@pytest.mark.parametrize(
    ("number", "sites", "mode", "wrong"),
    [(1, 1, "federated", None), (3, 3, "federated", None), (0, 3, "federated", "whole numbers from 1"),
     (-1, 3, "federated", "whole numbers from 1"), (4, 3, "federated", "there are 3 sites.*allowed: 1 to 3"),
     (2, 1, "centralised", "mode centralised has one site")],
)  # fmt: skip
def test_there_are_no_more_workers_than_sites(number, sites, mode, wrong):
    given = Experiment.parse({"data": {"target": "y"}, "model": "linear", "mode": mode, "training": {"device": "cpu"}})
    if wrong is None:
        assert simulate.check_workers(number, given, sites) == number
        return
    with pytest.raises(ExperimentError, match=wrong):
        simulate.check_workers(number, given, sites)


@pytest.mark.parametrize(
    ("worker", "text"),
    [(0, "worker 1 of 2 (x) ended; it held 1 site"), (1, "worker 2 of 2 (x) ended; it held 3 sites")],
)
def test_what_a_lost_worker_held_is_said(worker, text):
    assert workers.lost(worker, [1, 3], "x", "ended") == text


def test_threads_are_few_while_workers_begin_and_as_they_were_afterwards(monkeypatch):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names[1:]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(names[0], "5")
    with workers._few_threads(2):
        assert [os.environ[name] for name in names] == ["5", "2", "2"]
    assert [os.environ.get(name) for name in names] == ["5", None, None]


def test_workers_that_do_not_end_by_a_word_get_a_signal_and_then_a_harder_one(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Process:
        def __init__(self, ends):
            self.ends, self.exitcode = ends, None

        def join(self, seconds=None):
            if seconds is not None and self.exitcode is None:
                told.append((self.ends, "join", seconds))
                now[0] += seconds
            if self.ends == "word":
                self.exitcode = 0

        def terminate(self):
            told.append((self.ends, "terminate"))
            self.exitcode = -15 if self.ends == "terminate" else None

        def kill(self):
            told.append((self.ends, "kill"))
            self.exitcode = -9

    words = []
    outbox = SimpleNamespace(put=words.append)
    workers._end([Process("word"), Process("terminate"), Process("kill")], [outbox] * 3)
    assert words == [None] * 3
    assert told == [
        ("word", "join", 0.5), ("terminate", "join", 0), ("kill", "join", 0),
        ("terminate", "terminate"), ("kill", "terminate"), ("kill", "join", 0.5), ("kill", "kill"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("item", "kind"),
    [({"fold": 1}, (1, True, (), 1, None)), ({"fold": 0, "epochs": 4}, (0, True, (), 2, 4)),
     ({"fold": 1, "train": False, "evaluate": ["test"]}, (1, False, ("test",), 3, None))],
)  # fmt: skip
def test_requests_are_of_one_kind_where_sites_do_the_same(item, kind):
    assert message_sizes.kind_of({"folds": [item]}) == (kind,)
    assert message_sizes.kind_of({}) == ()


def test_messages_that_are_handed_over_are_as_long_as_their_text_would_be():
    sizes, sent = message_sizes.MessageSizes(), {}
    requests = {name: {"site": name, "round": 2, "folds": [{"fold": 0}]} for name in ("a", "berlin", 'a"')}
    replies = Replies(requests, iter(()), sent)
    sizes.book("train", ["a"], replies, dict)
    assert replies.bytes_received == {}, "of a reply that never passed as text"
    sizes.passed("train", requests["a"], 100)
    assert sizes.last_passed is requests["a"]
    sizes.book("train", requests, replies, dict)
    assert replies.bytes_sent == {name: len(wire.to_text(request)) for name, request in requests.items()}
    assert replies.bytes_received == {"a": 100, "berlin": 105, 'a"': 102}
    sizes.book("evaluate", ["a"], other := Replies(requests, iter(()), {}), dict)
    assert other.bytes_received == {}


def test_of_compressed_updates_the_first_reply_is_measured():
    sizes = message_sizes.MessageSizes()
    item = {"fold": 0, "strategy": {"compress": "ab"}}
    requests = {name: {"site": name, "round": 2, "folds": [item]} for name in ("a", "berlin")}
    sizes.passed("train", {"site": "a", "folds": [{"fold": 0}]}, 9000)
    reply = {"site": "a", "status": "ok", "folds": [{"fold": 0, "metrics": {"validation": {"a": CheckedState(n=3)}}}]}
    replies = Replies(requests, iter(()), {})
    sizes.book("train", requests, replies, lambda: {"a": reply})
    length = len(wire.to_text(reply))
    assert replies.bytes_received == {"a": length, "berlin": length + 5}


# -- journal -----------------------------------------------------------------------------------------------------------


def test_the_server_is_asked_for_subtasks_by_a_container_that_had_begun_and_for_earlier_tasks(tmp_path):
    said, sought = [], []

    def take_over(since, task=None):
        sought.append((since, task))
        if task == 9:
            raise UnreachableError("away")
        return 2

    federation = SimpleNamespace(state_dict=dict, take_over=take_over, load_state_dict=lambda state: 17)
    given = Experiment.parse({"data": {"target": "y"}, "model": "linear"})

    def begin(folder, *earlier):
        said.clear()
        sought.clear()
        return journal.Journal(folder, federation, given, said.append).begin(earlier)

    assert begin(tmp_path) is None
    assert (sought, said) == ([], []), "a first start"
    assert begin(tmp_path, 4, 9) is None
    assert sought == [(0, None), (0, 4), (0, 9)]
    assert said == [
        "the container was run again; nothing was trained yet", "away; the sites are asked anew",
        "4 answers of sites, given before or on their way, are taken over",
    ]  # fmt: skip
    assert begin(None) is None
    assert (sought, said) == ([], [])
    journal.Journal(tmp_path, federation, given, said.append).finish({"status": "completed", "rounds_run": 3})
    assert begin(tmp_path) == {"status": "completed", "rounds_run": 3}
    assert sought == []
