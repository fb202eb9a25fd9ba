"""How patient the engines are: tries, seconds, requests at once, and what is taken at the very end."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from v6_algorithm.engines import known_models
from v6_algorithm.engines.resident import courier, protocol, trainer
from v6_algorithm.engines.resident.asking import Residents
from v6_algorithm.engines.simulation import local, workers
from v6_algorithm.engines.vantage6 import children, journal, subtasks, v4
from v6_algorithm.engines.vantage6.children import Children
from v6_algorithm.engines.vantage6.subtasks import Creation, OfflineNodes, Unread
from v6_algorithm.errors import UnreachableError
from v6_algorithm.exchange import frames
from v6_algorithm.exchange.protocol import Missing, Replies, Site


def creation():
    return Creation("RPC_train", {"round": 1, "site": "a"}, 3, "question")


# -- subtasks --------------------------------------------------------------------------------------------------------


def test_a_refusal_of_a_subtask_is_final_at_the_third_and_a_passing_failure_never_is():
    made = object.__new__(v4.Vantage6Federation)
    made._poll_s, made._newest, sought = 0.0, 7, []
    made.take_over = sought.append
    refused = creation()
    told = [made._take_creation(refused, {"msg": "no such image"}) for _ in range(3)]
    assert told[:2] == [None, None]
    assert told[2].kind == "unreachable"
    assert "no such image" in str(told[2])
    assert sought == []
    again = creation()
    for words in ("the server does not answer (OSError)", "Request failed", "no answer from the server") * 2:
        assert made._take_creation(again, {"msg": words}) is None
    # It may be that the subtask was created all the same.
    assert sought == [7] * 6
    assert made._take_creation(again, {"id": "31"}) is None
    assert again.task == 31
    gone = Missing("crashed", "the algorithm container crashed")
    assert made._take_creation(creation(), gone) is gone


@pytest.mark.parametrize("status", ["active", "completed", None])
def test_a_late_site_is_overdue_while_its_subtask_is_open(monkeypatch, status):
    made = object.__new__(v4.Vantage6Federation)
    made._owed = {"a": (5, "RPC_train", {})}
    monkeypatch.setattr(made, "_status", lambda task: status, raising=False)
    assert made.overdue("a") is (status != "completed")
    assert made.overdue("b") is False


def test_a_completed_run_without_a_result_is_looked_at_three_times_and_an_outage_for_two_minutes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(subtasks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    unread = Unread()
    told = [unread.give_up("a", "it has none") for _ in range(3)]
    assert told[:2] == [None, None]
    assert told[2].missing.kind == "wrong"
    assert unread.give_up("b", "OSError") is None
    now[0] += 119.9
    assert unread.give_up("b", "OSError") is None
    now[0] += 0.1
    assert unread.give_up("b", "OSError").missing.kind == "unreachable"


def test_nodes_are_offline_when_the_server_has_said_so_of_all_for_ninety_seconds(monkeypatch):
    now, states = [0.0], {1: "offline", 2: "online"}
    monkeypatch.setattr(subtasks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    runs = SimpleNamespace(from_task=lambda task: [{"node": {"status": states[task]}}])
    nodes = OfflineNodes(SimpleNamespace(run=runs))

    def at(seconds):
        now[0] = seconds
        return nodes.are_all([1, 2])

    assert not at(0)
    assert not at(100), "one of them is there"
    states[2] = "offline"
    assert not at(110)
    assert not at(199.9)
    assert at(200)
    states[1] = "online"
    assert not at(210)
    states[1] = "offline"
    assert not at(220), "it is counted anew"
    assert not at(309)
    assert at(310)


def test_subtasks_are_listed_page_by_page_and_asked_for_eight_times(monkeypatch):
    pauses, asked = [], []
    monkeypatch.setattr(children.time, "sleep", pauses.append)
    pages = {1: [{"id": number} for number in range(50)], 2: [{"id": 50}]}

    def request(path, params):
        asked.append((path, params))
        return {"data": pages[params["page"]]}

    assert [item["id"] for item in Children(SimpleNamespace(request=request))._list(4)] == list(range(51))
    assert asked == [("task", {"parent_id": 4, "page": page, "per_page": 50}) for page in (1, 2)]
    assert pauses == []
    with pytest.raises(UnreachableError, match="does not list the subtasks"):
        Children(SimpleNamespace(request=lambda path, params: {"msg": "no"})).find(4)
    assert pauses == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("took", "elapsed", "pause"),
    [
        # Ten seconds from the end that the last call foretells: as often as is asked for.
        (30.0, 20.0, 0.5), (30.0, 40.0, 0.5), (30.0, 10.0, 1.0),
        # Near to it a fifth, far from it twenty times of it.
        (30.0, 30.0, 0.1), (30.0, 29.0, 0.1), (1000.0, 0.0, 10.0), (400.0, 220.0, 9.0),
        # The end of a long call is known to a twentieth of it.
        (400.0, 400.0, 1.0), (0.0, 40.0, 2.0), (0.0, 0.0, 0.1),
    ],
)  # fmt: skip
def test_a_call_is_looked_at_more_often_the_nearer_its_end(took, elapsed, pause):
    made = object.__new__(v4.Vantage6Federation)
    made._poll_s, made._took = 0.5, {"RPC_train": took} if took else {}
    assert made._pause_s("RPC_train", elapsed) == pytest.approx(pause)


@pytest.mark.parametrize(("characters", "at_once"), [(2**24, 8), (2**25, 4), (2**26, 2), (2**26 + 1, 1), (2**28, 1)])
def test_subtasks_are_created_side_by_side_up_to_128_million_characters(monkeypatch, characters, at_once):
    workers = []

    class Pool:
        def __init__(self, number):
            workers.append(number)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def map(self, work, items):
            return map(work, items)

    monkeypatch.setattr(v4, "ThreadPoolExecutor", Pool)
    made = object.__new__(v4.Vantage6Federation)
    made._newest, made._real, made._children = 0, True, SimpleNamespace(take=lambda question: None)
    monkeypatch.setattr(made, "_ask", lambda given: {"id": 3}, raising=False)
    sites = {str(number): Creation("RPC_train", {}, number, "", characters) for number in range(12)}
    assert made._create_at_once(sites) == dict.fromkeys(sites)
    assert (workers or [1]) == [at_once]


@pytest.mark.parametrize(("letters", "lost"), [(2000, True), (2001, False)])
def test_a_reply_that_lacks_a_model_is_a_short_error(letters, lost):
    made, told = object.__new__(v4.Vantage6Federation), []
    made._naming = SimpleNamespace(lost=told.append)
    text = f'{{"kind": "{v4.known_models.UNKNOWN}", "message": ""}}'
    text = text.replace('""}', f'"{"x" * (letters - len(text))}"}}')
    assert len(text) == letters
    assert made._lacks_model(v4.Arrival("a", text)) is lost
    assert told == (["a"] if lost else [])
    assert made._lacks_model(v4.Arrival("a", text.replace("kind", "mind"))) is False
    assert made._lacks_model(v4.Arrival("a", f'["{v4.known_models.UNKNOWN}"]')) is False
    made._naming = None
    assert made._lacks_model(v4.Arrival("a", text)) is False


def test_a_result_that_is_no_answer_of_one_site_is_none():
    made = object.__new__(v4.Vantage6Federation)
    made._real, made._in_memory = False, threading.Lock()

    def result(given):
        made._client = SimpleNamespace(result=SimpleNamespace(from_task=lambda task: given))
        return made._result(3)

    assert result([{"status": "ok"}]) == '{"status": "ok"}'
    for nothing in ([], [None], [{}, {}], {"msg": "no"}, None):
        assert result(nothing) is None


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("text", ["model", None])
def test_frames_are_asked_for_once_a_result_was_read_that_is_not_encrypted(monkeypatch, clear, text):
    made = object.__new__(v4.Vantage6Federation)
    made._real, made._takes_frames, made._client = True, False, "client"
    made._publisher = SimpleNamespace(in_the_clear=lambda: clear)
    monkeypatch.setattr(v4.results, "fetch", lambda client, task, clear: text)
    assert made._result(3) == text
    assert made._takes_frames is (clear and text is not None)


# -- the resident trainer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sites", "asked"), [(8, True), (9, False)])
def test_eight_sites_are_asked_for_a_trainer_at_once(sites, asked):
    """Each waits until all have come: nine never meet."""
    meeting = threading.Barrier(sites)

    def create(**_):
        meeting.wait(20 if asked else 0.05)
        return {"id": 5}

    trainers = Residents(SimpleNamespace(task=SimpleNamespace(create=create)), [Site(f"s{n}", n) for n in range(sites)])
    assert (trainers.start(5.0) == []) is asked


@pytest.mark.parametrize("given", ["data", "mock_data", "no place", None])
def test_who_is_handed_tables_or_has_no_place_does_not_serve(monkeypatch, given, tmp_path):
    monkeypatch.setattr(protocol, "meeting_place", lambda environment: None if given == "no place" else str(tmp_path))
    monkeypatch.setattr(protocol, "switched_off", lambda environment: False)
    monkeypatch.setattr(protocol, "lock", lambda place: None)
    tables = {given: ["table"]} if given in ("data", "mock_data") else {}
    said = trainer.reside(tables.get("data"), {"site": "a", "round": 0}, tables.get("mock_data"))
    assert (said["site"], said["round"], said["status"]) == ("a", 0, "ok")
    alone = "another one serves this job"
    assert said["ended"] == (
        alone if given is None else "containers of this job share no folder, or tables are handed to them"
    )
    if given is None:
        # The request may be the only thing that is passed.
        assert trainer.reside({"site": "a"}, None)["ended"] == alone


def test_a_courier_has_a_minute_to_ask_and_ten_to_take_the_answer(monkeypatch):
    given = []
    monkeypatch.setattr(protocol, "same_user", lambda connection: True)
    monkeypatch.setattr(protocol, "receive", lambda connection: {"protocol": protocol.PROTOCOL, "end": True})
    monkeypatch.setattr(protocol, "send_text", lambda connection, text: given.append(text))
    made = trainer.Trainer(None, "surroundings", {})
    assert made._visit(SimpleNamespace(settimeout=given.append))
    assert given == [60.0, 600.0, '{"ends": true}']


@pytest.mark.parametrize(
    ("asked", "mock", "wanted"), [(True, None, True), (False, None, False), (1, None, False), (True, ["t"], False)]
)
def test_a_reply_goes_in_a_frame_where_the_request_asks_for_one(monkeypatch, tmp_path, asked, mock, wanted):
    """Of vantage6's mock there is no output file to write it to."""
    from v6_algorithm.engines import entry

    monkeypatch.setenv("OUTPUT_FILE", str(tmp_path / "output"))
    made, heard = [], []
    monkeypatch.setattr(courier.frames, "Frame", lambda output: made.append(output) or SimpleNamespace(sizes=[]))
    monkeypatch.setattr(courier, "ask", lambda method, request, frame: ({"status": "ok"}, None))
    monkeypatch.setattr(entry, "run_site", lambda method, data, request, mock, note: heard.append(request) or {})
    courier.answer("train", None, {"round": 3, frames.ASKED: asked}, mock)
    assert made == ([str(tmp_path / "output")] if wanted else [])
    assert heard == ([{"round": 3}] if mock else [])


# -- sites of this process -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [0.0, 0.5])
def test_a_joint_answer_is_taken_at_the_deadline_and_not_after_it(monkeypatch, late_s):
    now = [100.0]
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now[0]))
    made = object.__new__(local.LocalFederation)
    made._way, made._contexts, made._shared = "fast", {}, {}
    made._sizes = SimpleNamespace(book=lambda *_: None)
    made._open = lambda *_: None

    class Both(local.Joint):
        def __init__(self):
            pass

        def split(self):
            return {"a": {"status": "ok"}}

    def together(*_):
        now[0] += 2.0 + late_s
        return Both()

    monkeypatch.setattr(local, "answer_together", together)
    requests = {"a": {"round": 2}}
    ((arrival,),) = made.answers("train", requests, 2.0, Replies(requests, iter(()), {}), (), whole=True)
    assert (arrival.joint is not None) is (late_s == 0)
    assert (arrival.missing is not None and arrival.missing.kind == "late") is (late_s > 0)


# -- workers, folders, models ----------------------------------------------------------------------------------------


def test_sites_without_a_size_are_dealt_one_to_each_worker(monkeypatch):
    sizes = {"a": 0, "b": 0, "c": 0, "d": 0, "large": 9}
    monkeypatch.setattr(workers, "_size", lambda source: sizes[source])
    contexts = {name: SimpleNamespace(sources={"x": name}) for name in sizes}
    assert [list(dealt) for dealt in workers.deal(contexts, 3)] == [["large"], ["a", "c"], ["b", "d"]]
    sizes |= {"a": 5, "b": 4, "c": 3, "d": 2}
    assert [list(dealt) for dealt in workers.deal(contexts, 2)] == [["c", "large"], ["a", "b", "d"]]


@pytest.mark.parametrize(("task", "name"), [(7, "7"), (None, "task")])
def test_a_journal_is_in_the_folder_of_its_task(monkeypatch, tmp_path, task, name):
    monkeypatch.setattr(journal.session, "journal_place", lambda: tmp_path / "session")
    assert journal.journal_folder(task) == tmp_path / "session" / name
    monkeypatch.setattr(journal.session, "journal_place", lambda: None)
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    monkeypatch.delenv("TOKEN_FILE", raising=False)
    assert journal.journal_folder(task) is None
    monkeypatch.setenv("TOKEN_FILE", "token")
    assert journal.journal_folder(task) == tmp_path / "v6_algorithm-master" / name
    monkeypatch.delenv("TEMPORARY_FOLDER")
    assert journal.journal_folder(task) is None


def test_a_site_keeps_32_models_of_512_million_characters_and_the_newest_whatever_its_size():
    assert known_models.kept([(str(number), 1) for number in range(40)]) == [str(number) for number in range(32)]
    half = 2**28
    assert known_models.kept([("a", half), ("b", half), ("c", 1)]) == ["a", "b"]
    assert known_models.kept([("a", half), ("b", half + 1), ("c", 1)]) == ["a"]
    assert known_models.kept([("a", 2**30), ("b", 1)]) == ["a"]
    assert known_models.kept([]) == []


def test_a_model_that_is_named_again_is_the_newest_even_of_files_of_later_dates(tmp_path):
    for name, seconds in (("a", 1), ("b", 2), ("c", 2**33)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (seconds, seconds))
    known_models._mark_newest(tmp_path, "a")
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "a"
    known_models._mark_newest(tmp_path / "gone", "a")
