"""What a run's log says, where trainers stay, pauses and threads of subtasks, and what is left for a second start."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from test_small_parts import Waiting, creation

from v6_algorithm.engines import entry
from v6_algorithm.engines.resident import asking, courier, protocol
from v6_algorithm.engines.simulation import workers
from v6_algorithm.engines.vantage6 import journal, runs, subtasks, v4
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import frames
from v6_algorithm.learning.training import images, learner
from v6_algorithm.site.together.quicker import CHANNELS_LAST, FUSED, quicker


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"event": "trial", "text": "trial 1 of 3"}, "trial 1 of 3"),
        ({"event": "chosen", "text": "lr 0.1"}, "lr 0.1"),
        ({"event": "note", "text": "b is away"}, "b is away"),
        ({"event": "tested"}, "tested"),
        ({"event": "another", "text": "of no reader of logs"}, None),
    ],
)
def test_what_is_tried_chosen_and_noted_is_in_the_tasks_log(capsys, event, line):
    entry._say(event)
    assert capsys.readouterr().out.splitlines() == ([] if line is None else [line])


@pytest.mark.parametrize(
    ("wanted", "client", "asked"),
    [
        (True, SimpleNamespace(request=None), ["start", "in the run", "end"]),
        (False, SimpleNamespace(request=None), ["in the run"]),
        (True, SimpleNamespace(), ["in the run"]),
    ],
    ids=["wanted", "not wanted", "no real network"],
)
def test_trainers_stay_where_they_are_wanted_and_there_is_a_network(monkeypatch, wanted, client, asked):
    heard, said = [], []

    class Trainers:
        def __init__(self, client, sites):
            pass

        def start(self, deadline_s):
            heard.append("start")
            return ["c was not asked"]

        def end(self):
            heard.append("end")

    monkeypatch.setattr(asking, "Residents", Trainers)
    with asking.residents(client, [], wanted=wanted, deadline_s=1.0, say=said.append):
        heard.append("in the run")
    assert heard == asked
    assert said == ["c was not asked"] * heard.count("start")


def test_messages_that_come_in_pieces_do_not_run_into_each_other():
    """A socket gives what is there, up to what is asked for."""
    sent = bytearray()
    for word in ("first", "second"):
        protocol.send(SimpleNamespace(sendall=sent.extend), {"word": word})

    def recv(most):
        piece = bytes(sent[: min(most, 5)])
        del sent[: len(piece)]
        return piece

    assert [protocol.receive(SimpleNamespace(recv=recv)) for _ in range(2)] == [{"word": "first"}, {"word": "second"}]


@pytest.mark.parametrize("ways", [[], [FUSED], [CHANNELS_LAST], [FUSED, CHANNELS_LAST]])
def test_sites_take_the_quicker_steps_that_are_told_and_no_others(monkeypatch, ways):
    taken = []
    for module, name in ((learner, "fused_steps"), (images, "channels_last")):
        monkeypatch.setattr(module, name, lambda *told, way=name: taken.append(way) or nullcontext())
    monkeypatch.setattr("v6_algorithm.site.together.quicker.quicker_steps", lambda shared: ways)
    with quicker({}):
        assert taken == [{FUSED: "fused_steps", CHANNELS_LAST: "channels_last"}[way] for way in ways]


def test_a_client_without_a_server_is_asked_from_one_thread(monkeypatch):
    """vantage6's mock client has its sites' tables and answers in it, with no lock around them."""
    made, threads = Waiting(lambda now: "completed", monkeypatch), []

    def answers(task):
        threads.append(threading.get_ident())
        return [{"status": "ok"}]

    made._client, made._in_memory = SimpleNamespace(result=SimpleNamespace(from_task=answers)), nullcontext()
    assert made.wait().text == '{"status": "ok"}'
    assert threads == [threading.get_ident()]


def test_how_long_a_call_took_is_counted_from_its_beginning(monkeypatch):
    made = Waiting(lambda now: "active" if now < 1030 else "completed", monkeypatch)
    made.now, made._fetches = 1000.0, False
    monkeypatch.setattr(made, "_collect", lambda site, *_: v4.Arrival(site, "{}"), raising=False)
    made.wait()
    assert made._took == {"RPC_train": 30.0}


def test_a_subtask_that_was_not_created_is_tried_again_after_pauses_that_double(monkeypatch):
    monkeypatch.setattr(subtasks, "time", SimpleNamespace(monotonic=lambda: 100.0))
    again, pauses = creation("a"), []
    for _ in range(6):
        again.failed("away", 1.0)
        pauses.append(again.due - 100.0)
    assert pauses == [1, 2, 4, 8, 15, 15]
    assert (again.attempts, again.trouble) == (6, "away")


def test_sites_of_several_workers_are_together_where_all_or_any_are():
    made = object.__new__(workers.WorkerFederation)
    made._about, made._way, made._worker_of, made._gone, made._quicker = {}, "fast", {"a": 0, "b": 1}, {}, []

    def together(*reasons):
        made._alone = dict(enumerate(reasons))
        return made.how()["together"]

    assert [together("", ""), together("", "one site"), together("one site", "one site")] == [True, True, False]
    assert together(None) is None


def test_a_request_may_stand_in_the_place_of_the_data(monkeypatch):
    """As where the first argument is the only one."""
    heard = []
    monkeypatch.setattr(
        courier, "ask", lambda method, request, frame: heard.append(request) or ({"status": "ok"}, None)
    )
    monkeypatch.setattr(courier, "_left", lambda frame, reply: reply)
    courier.answer("train", {"round": 3, frames.ASKED: True}, None, None)
    assert heard == [{"round": 3}], "whether a frame is asked for is no part of it"
    with pytest.raises(ExperimentError, match="request: is required"):
        entry.run_site("summary", None, None, None)
    reply = entry.run_site("summary", {"schema": 0, "site": "a", "round": 0, "attempt": 1}, None, None, quiet=True)
    assert reply["status"] == "error"


def test_a_result_that_was_kept_is_read_where_it_was_left(tmp_path):
    made = object.__new__(journal.Journal)
    made._folder, made._experiment, said = tmp_path, SimpleNamespace(resolved=lambda: {"rounds": 3}), []
    made._say = said.append
    made.finish({"status": "failed"})
    assert list(tmp_path.iterdir()) == []
    made.finish({"status": "completed", "rounds_run": 3})
    (path,) = tmp_path.iterdir()
    assert path.name == journal._RESULT
    assert made._result_of_before(path) == {"status": "completed", "rounds_run": 3}
    made._experiment = SimpleNamespace(resolved=lambda: {"rounds": 4})
    assert made._result_of_before(path) is None
    assert "another experiment" in said[0]


@pytest.mark.parametrize(("letters", "told"), [(299, 299), (300, 300), (400, 300)])
def test_of_a_failed_runs_log_the_last_line_is_told_up_to_300_characters(letters, told):
    assert runs.last_line("info > Importing module\nbefore\n" + "x" * letters) == "; its log ends with: " + "x" * told
