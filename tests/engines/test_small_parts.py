"""Small parts of the engines: sizes and ends of workers, which requests go as text, subtasks that were not created."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from v6_algorithm.coordinator.strategies.robust.geometric import _weighted_median
from v6_algorithm.coordinator.strategies.robust.updates import weights_for
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines import entry
from v6_algorithm.engines.resident import courier, protocol
from v6_algorithm.engines.simulation import workers
from v6_algorithm.engines.simulation.local import texts_of
from v6_algorithm.engines.vantage6 import published, v4
from v6_algorithm.engines.vantage6.subtasks import Creation
from v6_algorithm.exchange.protocol import Missing
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.state.kept_terms import KeptTerm
from v6_algorithm.site.together.run import reason_of_site


def test_a_table_is_as_large_as_its_numbers_or_its_file(tmp_path):
    assert workers._size(TableSource(frame=pd.DataFrame({"a": [1, 2, 3], "b": [0, 0, 0]}))) == 48
    (tmp_path / "table.csv").write_text("a\n1\n", encoding="utf-8")
    assert workers._size(TableSource(str(tmp_path / "table.csv"))) == 4
    assert workers._size(TableSource(str(tmp_path / "gone.csv"))) == 0


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 6)
    assert [workers.threads_of(number) for number in (1, 2, 4, 6, 7)] == [6, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (None, "ended"), (0, "ended with exit code 0"), (3, "ended with exit code 3"), (-15, "was ended by SIGTERM"),
        (-9, "was ended by SIGKILL, as where memory runs out"), (-63, "was ended by signal 63"),
    ],
)  # fmt: skip
def test_how_a_worker_ended_is_said(code, how):
    if code is not None and -code in {*map(int, signal.Signals)}:
        assert signal.Signals(-code).name in how
    crew = object.__new__(workers.Processes)
    crew._processes = [SimpleNamespace(pid=17, exitcode=code, join=lambda patience: None)]
    crew._sites = [["a", "b"]]
    text = crew._how_ended(0)
    assert "process 17" in text
    assert how in text
    assert ("exit code" in how) == ("exit code" in text)


@pytest.mark.parametrize(
    ("way", "method", "rounds", "told"),
    [
        ("wire", "train", (5, 5), {"a", "b"}), ("exact", "prepare", (5, 5), {"a", "b"}),
        ("exact", "train", (1, 1), {"a", "b"}), ("exact", "train", (2, 2), set()), ("fast", "train", (0, 2), set()),
        ("fast", "evaluate", (2, 2), {"a"}),
    ],
)  # fmt: skip
def test_which_sites_are_asked_in_text(way, method, rounds, told):
    requests = {site: {"round": number} for site, number in zip("ab", rounds, strict=True)}
    assert texts_of(way, method, requests) == told
    assert texts_of(way, method, {}) == set()
    hidden = {site: request | {"secure_aggregation": {}} for site, request in requests.items()}
    assert texts_of(way, method, hidden) == {"a", "b"}


class Federation(v4.Vantage6Federation):
    """Of a server that takes no subtask of sites that are away."""

    def __init__(self, known):
        self._newest, self._real, self._poll_s = 0, True, 0.0
        self._children = SimpleNamespace(take=known.get)
        self.asked = []

    def _ask(self, creation):
        self.asked.append(creation.question)
        return {"id": 30 + len(self.asked)} if creation.question != "away" else Missing("unreachable", "away")


def creation(question, characters=10):
    return Creation("RPC_train", {"round": 1, "site": question}, 3, question, characters)


@pytest.mark.parametrize("characters", [10, v4._CHARACTERS_AT_ONCE])
def test_subtasks_are_created_or_taken_and_the_newest_is_known(characters):
    made = Federation({"known": 21})
    assert made._create_at_once({}) == {}
    assert made._newest == 0
    away = {"x": creation("away", characters)}
    assert str(made._create_at_once(away)["x"]).endswith("away")
    assert made._newest == 0
    several = {name: creation(name, characters) for name in ("known", "b", "c")}
    assert made._create_at_once(several) == {"known": None, "b": None, "c": None}
    assert several["known"].task == 21
    assert sorted([several["b"].task, several["c"].task]) == [32, 33]
    assert made._newest == 33
    made._create_at_once({"known": creation("known")})
    assert made._newest == 33


@pytest.mark.parametrize(
    ("strategy", "hides", "keeps"),
    [("scaffold", True, True), ("feddyn", True, True), ("fedavg", True, False), ("scaffold", False, False),
     ("fedavg", False, False)],
)  # fmt: skip
def test_a_site_keeps_a_term_where_sums_hide_it_and_the_strategy_has_one(monkeypatch, strategy, hides, keeps):
    monkeypatch.setattr(KeptTerm, "__init__", lambda self, *given: None)
    privacy = SimpleNamespace(secure_aggregation={} if hides else None)
    given = SimpleNamespace(experiment=SimpleNamespace(privacy=privacy, strategy=SimpleNamespace(kind=strategy)))
    assert (KeptTerm.of(given) is not None) == keeps


@pytest.mark.parametrize(
    ("deadline", "waited"),
    [(30, 30.0), (0.5, 0.5), (9_999_999, 9_999_999.0), (10**7, None), (0, None), (-1, None), (True, None), ("9", None)],
)
def test_a_courier_waits_as_long_as_master_does(deadline, waited):
    request = {"experiment": {"participation": {"deadline_s": deadline}}}
    assert courier._deadline(request) == (courier._DEADLINE_S if waited is None else waited)
    assert courier._deadline({"experiment": 3}) == courier._DEADLINE_S


def test_a_containers_age_is_that_of_its_process(monkeypatch):
    monkeypatch.delenv("INPUT_FILE", raising=False)
    assert courier._age_of_process() is None
    code = "from v6_algorithm.engines.resident.courier import _age_of_process as age; print(age())"
    start = time.monotonic()
    environment = os.environ | {"INPUT_FILE": "there"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    # The system counts in hundredths.
    assert 0 <= float(done.stdout) <= time.monotonic() - start + 0.02
    monkeypatch.setenv("INPUT_FILE", "there")
    age = courier._age_of_process()
    time.sleep(0.03)
    assert 0 < age < courier._age_of_process() < age + 60


# -- strategies that bear attacks ------------------------------------------------------------------------------------


def test_the_median_distance_has_more_than_half_of_the_weight_within_it():
    distances, ones = torch.tensor([5.0, 1.0, 3.0]), torch.ones(3)
    assert _weighted_median(distances, ones) == 3
    assert _weighted_median(distances, torch.tensor([5.0, 1.0, 1.0])) == 5
    assert _weighted_median(distances, torch.tensor([1.0, 5.0, 1.0])) == 1
    assert _weighted_median(torch.tensor([1.0, 2.0]), torch.ones(2)) == 2


def test_weights_of_updates_may_be_any_shares():
    updates = torch.zeros(2, 3)
    assert weights_for(updates, None).tolist() == [1, 1]
    assert weights_for(updates, torch.tensor([0.25, 0.0])).tolist() == [0.25, 0]
    for wrong in ([0.0, 0.0], [1.0], [1.0, -0.1]):
        with pytest.raises(ValueError, match="none negative and not all zero"):
            weights_for(updates, torch.tensor(wrong))


# -- the network -----------------------------------------------------------------------------------------------------


class Waiting(v4.Vantage6Federation):
    """Waits for a site's subtask whose status is what `says` gives, by a clock that goes on when somebody sleeps."""

    def __init__(self, says, monkeypatch):
        self.says, self.now = says, 0.0
        self._sent_ahead, self._took, self._owed, self._naming = [], {}, {}, None
        self._client, self._real, self._newest, self._children = None, False, 0, None
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(v4, "time", clock)

    def sleep(self, seconds):
        self.now += seconds

    def _pause_s(self, method, elapsed_s):
        return 10.0

    def _status(self, task_id):
        return self.says(self.now)

    def wait(self):
        asked = v4._Asked("RPC_train", {"a": {}}, {"a": 1}, tasks={"a": 5}, create_s={"a": 0.0}, begun=True)
        (arrival,) = self._answer(asked, 30.0)
        return arrival


def test_a_server_that_is_silent_at_the_deadline_is_waited_for_two_minutes_longer(monkeypatch):
    made = Waiting(lambda now: None, monkeypatch)
    assert "the server does not say how its run is" in str(made.wait().missing)
    assert made.now == 30 + 120
    made = Waiting(lambda now: "active" if now > 60 else None, monkeypatch)
    arrival = made.wait()
    assert (arrival.missing.kind, made.now) == ("late", 70)
    assert "its run is active)" in str(arrival.missing)
    made = Waiting(lambda now: "pending", monkeypatch)
    assert "its node seems to be offline" in str(made.wait().missing)
    assert made.now == 40, "what is there at the deadline is taken"
    assert set(made._owed) == {"a"}


@pytest.mark.parametrize(("wanted", "real"), [(True, True), (True, False), (False, True)])
def test_models_go_by_name_where_trainers_are_wanted_and_there_is_a_server(monkeypatch, wanted, real):
    monkeypatch.setattr(v4, "residents", lambda *_, **__: nullcontext())
    made = object.__new__(v4.Vantage6Federation)
    closed = []
    made._client, made._sites, made._real, made._naming = None, [], real, None
    made._publisher = SimpleNamespace(close=lambda: closed.append(True))
    with made.residents(wanted, 10.0):
        assert (made._naming is not None) == (wanted and real)
    assert made._naming is None
    assert closed == [True]


def test_a_published_model_is_fetched_with_the_token_that_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr(published, "fetch", lambda environment, token, task: f"{token} {task}")
    monkeypatch.delenv("TOKEN_FILE", raising=False)
    assert entry._fetch(7, "given") == "given 7"
    assert entry._fetch(7, None) is None
    (tmp_path / "token").write_text(" own \n", encoding="utf-8")
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    assert entry._fetch(7, None) == "own 7"
    assert entry._fetch(7, "given") == "given 7"


@pytest.mark.parametrize("letters", [10, 120])
def test_a_meeting_place_of_any_length_leaves_no_file_open(tmp_path, letters):
    place = str(tmp_path / ("x" * letters))
    os.mkdir(place, 0o700)
    before = len(os.listdir("/proc/self/fd"))
    listener = protocol.listen(place)
    with listener, protocol.connect(place, 5.0) as near:
        far, _ = listener.accept()
        with far:
            protocol.send(near, {"word": 1})
            assert protocol.receive(far) == {"word": 1}
            assert protocol.same_user(far)
    protocol.leave(place)
    assert os.listdir(place) == []
    protocol.leave(place)
    with pytest.raises(OSError, match=r".*"):
        protocol.connect(place, 1.0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_trainer_without_a_reply_is_as_good_as_none(monkeypatch, tmp_path):
    monkeypatch.setattr(protocol, "meeting_place", lambda environment: str(tmp_path))
    monkeypatch.setattr(protocol, "switched_off", lambda environment: False)
    monkeypatch.setattr(protocol, "surroundings", lambda environment: "surroundings")
    said = {}
    monkeypatch.setattr(protocol, "connect", lambda place, seconds: nullcontext())
    monkeypatch.setattr(protocol, "send", lambda trainer, content: None)
    monkeypatch.setattr(protocol, "receive", lambda trainer: said)
    said["reply"] = {"schema": 1, "status": "ok"}
    assert courier.ask("train", {}) == ({"schema": 1, "status": "ok"}, None)
    for reply in ({"schema": 1}, {"status": "ok"}, "text", None):
        said["reply"] = reply
        assert courier.ask("train", {}) == (None, "no resident trainer: no reply")
    said["refused"] = "why " + "x" * 300
    assert courier.ask("train", {})[1] == "no resident trainer: why " + "x" * 196
    said["ends"] = True
    assert courier.end() is True
    said["ends"] = 0
    assert courier.end() is False
    monkeypatch.setattr(protocol, "meeting_place", lambda environment: str(tmp_path / "gone"))
    assert courier.end() is False
    assert courier.ask("train", {}) == (None, None)
    monkeypatch.setattr(protocol, "meeting_place", lambda environment: None)
    assert courier.end() is False
    assert courier.ask("train", {}) == (None, None)


def test_a_courier_says_what_its_trainer_answered_and_what_it_took(monkeypatch, capsys):
    monkeypatch.delenv("INPUT_FILE", raising=False)
    ticks = iter([10.0, 14.0] * 2)
    monkeypatch.setattr(courier.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(
        courier, "ask", lambda method, request, frame: ({"round": 3, "timing": {"train_s": 1.5}} | outcome, None)
    )
    outcome = {"status": "ok"}
    assert courier.answer("train", {"round": 3}, None, None)["timing"] == {"train_s": 1.5, "handover_s": 2.5}
    outcome = {"status": "error", "kind": "data", "message": "no rows"}
    courier.answer("train", None, {"round": 3}, None)
    said = capsys.readouterr().out.splitlines()
    assert said == ["train round 3: ok (resident trainer)", "train round 3: data: no rows (resident trainer)"]


def test_the_seconds_of_asking_are_added_up_and_what_fails_is_told_apart(monkeypatch):
    made = object.__new__(v4.Vantage6Federation)
    asked = creation("a")

    def ask(real, create):
        ticks = iter([100.0, 102.5])
        monkeypatch.setattr(v4, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        made._real, made._create = real, create
        return made._ask(asked)

    def fail(error):
        def create(given):
            raise error

        return create

    assert ask(True, lambda given: {"id": 3}) == {"id": 3}
    assert ask(True, fail(OSError()))["msg"].endswith("(OSError)")
    assert ask(False, fail(KeyError("x"))).reason.endswith(": KeyError")
    assert ask(False, fail(SystemExit())).kind == "crashed"
    assert asked.seconds == 10.0


def test_sites_whose_rules_keep_books_or_that_hold_several_tables_go_alone():
    def reason(tables=1, **rules):
        return reason_of_site(SiteContext({f"t{number}": None for number in range(tables)}, Policy(**rules)))

    assert reason() is None
    assert reason(2) == "the site holds several hospitals' tables"
    for rules in ({"request_order": True}, {"refuse_differences": True}, {"maximum_share_of_sums": 0.5}):
        assert reason(**rules) == "the node's rules keep a book of every request"
    assert reason(refuse_isolated_rows=True) == "the node's rules try to read rows out of each update"
    assert reason(maximum_seconds=9) == "the node's rules stop a request that takes long"
