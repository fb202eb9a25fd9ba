"""Small parts of the engines by themselves: what is asked again, read back, known to be a folder or a session."""

from __future__ import annotations

import base64
import json
import threading
import time
from itertools import pairwise

import pytest

from v6_algorithm.engines import entry as entry_module
from v6_algorithm.engines import known_models
from v6_algorithm.engines.provenance import own_identity
from v6_algorithm.engines.resident.asking import Residents
from v6_algorithm.engines.simulation.local import texts_of
from v6_algorithm.engines.vantage6 import children, extraction, runs, session, v4
from v6_algorithm.engines.vantage6.children import Children
from v6_algorithm.engines.vantage6.journal import Journal
from v6_algorithm.engines.vantage6.subtasks import READS, Unread
from v6_algorithm.engines.vantage6.v4 import _LONGEST_ERROR, Vantage6Federation, _Asked
from v6_algorithm.errors import CheckpointError, ExperimentError, UnreachableError
from v6_algorithm.exchange.protocol import Arrival, Missing, Site
from v6_algorithm.experiment import Experiment


class Server:
    """Lists no subtasks: it fails so often, then answers."""

    def __init__(self, failures):
        self.failures, self.asked = failures, 0

    def request(self, _path, params):
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError
        return {"data": []}


def test_a_server_that_fails_is_asked_again_after_growing_pauses_and_not_after_the_last(monkeypatch):
    pauses = []
    monkeypatch.setattr(children.time, "sleep", pauses.append)
    gone = Server(10**6)
    with pytest.raises(UnreachableError, match="does not list"):
        Children(gone).find(1)
    assert len(pauses) == gone.asked - 1 > 0
    assert 120 <= sum(pauses) < 150, "two minutes in all, as the comment beside the tries says"
    assert [after / before for before, after in pairwise(pauses)] == [2] * (len(pauses) - 1)
    assert Children(Server(gone.asked - 1)).find(1) == 0


def test_a_line_of_scores_is_read_back_and_no_other_is():
    event = {
        "event": "round", "round": 7, "validated_round": 6, "metrics": ["train_loss", "validation_auroc"],
        "scores": {"pooled": {"train_loss": 0.5, "validation_auroc": 0.75}, "sites": {"a": {"train_loss": 0.25}}},
    }  # fmt: skip
    line = runs.scores_line(event)
    found = runs.read_scores_line(line)
    assert (found["round"], found["validated_round"]) == (7, 6)
    assert found["scores"]["pooled"] == {"train_loss": 0.5, "validation_auroc": 0.75}
    assert found["scores"]["sites"]["a"]["train_loss"] == 0.25
    assert runs.read_scores_line(line[:-1]) is None
    assert runs.read_scores_line("round 7 of 10") is None


def test_a_journal_that_cannot_be_read_begins_anew_with_every_subtask_there_is(tmp_path):
    class Federation:
        since = None

        def state_dict(self):
            return {}

        def take_over(self, since, _task):
            Federation.since = since
            return 0

    said = []
    experiment = Experiment.parse({"data": {"target": "y"}, "model": {"kind": "mlp"}})
    journal = Journal(tmp_path, Federation(), experiment, said.append)
    journal.begin()
    assert Federation.since is None, "nobody is asked at a first start"

    def broken(_experiment):
        raise CheckpointError("the checkpoint is damaged")

    journal.checkpoints.load = broken
    journal.begin()
    assert Federation.since == 0
    assert "begins anew" in said[0]


@pytest.mark.parametrize(
    ("keys", "is_one"),
    [("", False), ("FUNCTION_ACTION", False), ("SESSION_FOLDER", False), ("FUNCTION_ACTION SESSION_FOLDER", True)],
)
def test_only_a_container_that_knows_step_and_folder_is_one_of_a_session(keys, is_one):
    assert session.is_session(dict.fromkeys(keys.split(), "x")) is is_one


def test_a_log_in_goes_into_addresses_only_and_only_where_the_node_has_one(monkeypatch):
    monkeypatch.delenv("DB_PARAM_USERNAME", raising=False)
    address = "postgresql://host/hospital"
    assert extraction._with_log_in(address) == address
    monkeypatch.setenv("DB_PARAM_USERNAME", "reader")
    monkeypatch.setenv("DB_PARAM_PASSWORD", "p@ss")
    assert extraction._with_log_in(address) == "postgresql://reader:p%40ss@host/hospital"
    assert extraction._with_log_in("/data/table.csv") == "/data/table.csv"


def test_a_folder_is_a_place_on_disk_and_no_address(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URI", str(tmp_path))
    assert extraction._is_folder(None)
    assert extraction._is_folder((tmp_path, None))
    assert not extraction._is_folder((f"file://{tmp_path}", None))
    assert not extraction._is_folder((tmp_path / "table.csv", None))
    assert not extraction._is_folder(("postgresql://host/hospital", None))


def test_extraction_is_a_step_of_its_own_or_the_mock_networks(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text("a,y\n1,0\n2,1\n", encoding="utf-8")
    monkeypatch.delenv("FUNCTION_ACTION", raising=False)
    with pytest.raises(ExperimentError, match="a data extraction step of vantage6 5"):
        extraction.run_extract()
    table = extraction.run_extract(mock_uri=str(tmp_path / "table.csv"), mock_type="csv")
    assert table.column_names == ["a", "y"]
    assert table.num_rows == 2


@pytest.mark.parametrize("image", ["a", "ab", "abc", "abcd"])
def test_a_token_is_read_whatever_its_length(image):
    """base64 in a token has no padding."""
    content = json.dumps({"sub": {"task_id": 7, "image": image}}).encode()
    token = f"head.{base64.urlsafe_b64encode(content).decode().rstrip('=')}.signature"
    assert own_identity(token) == {"task": 7, "image": image}


def test_a_run_without_a_result_is_looked_at_three_times():
    unread = Unread()
    looks = [unread.give_up("a", "it has none") for _ in range(READS)]
    assert looks[:-1] == [None] * (READS - 1)
    assert "without a readable result" in str(looks[-1].missing)
    assert unread.give_up("b", "it has none") is None


@pytest.mark.parametrize(("elapsed", "pauses"), [(0.0, 0.2), (1.0, 0.2), (10.0, 1.0), (50.0, 5.0), (1e4, 20.0)])
def test_the_pause_between_two_looks_follows_the_last_call(elapsed, pauses):
    federation = object.__new__(Vantage6Federation)
    federation._poll_s, federation._took = 2.0, {"train": elapsed}
    assert federation._pause_s("train", 0.0) == pytest.approx(2 * pauses)
    assert federation._pause_s("evaluate", elapsed) == pytest.approx(2 * pauses)


@pytest.mark.parametrize(
    ("status", "kind"), [("not allowed", "refused"), ("failed", "crashed"), ("crashed", "crashed")]
)
def test_a_run_that_a_node_does_not_allow_is_refused_and_any_other_that_ends_badly_has_crashed(status, kind):
    federation = object.__new__(Vantage6Federation)
    federation._client = None
    arrival = federation._collect("a", 1, status, Unread())
    assert (arrival.site, arrival.text, arrival.missing.kind) == ("a", None, kind)


@pytest.mark.parametrize("names", [("task",), ("organization",), ()])
def test_half_a_client_is_none(names):
    client = type("Half", (), dict.fromkeys(names))()
    with pytest.raises(ExperimentError, match="client: a Half is none"):
        entry_module._by_position(client, None, {})


def test_the_word_to_end_goes_to_trainers_that_go_on_and_to_no_other():
    class Client:
        def __init__(self):
            self.task, self.ended, self.number = self, [], 0

        def create(self, *, input_, organizations, **_):
            if input_["kwargs"]["request"].get("end"):
                self.ended += organizations
            elif organizations == [3]:
                return {"msg": "no such organization"}
            self.number += 1
            return {"id": organizations[0] * 10}

        def request(self, path):
            return {"status": "completed" if path == "task/20/status" else "active"}

    client = Client()
    residents = Residents(client, [Site(name, number) for number, name in enumerate("abcd", start=1)])
    (sentence,) = residents.start(1.0)
    assert "site 'c' was not asked" in sentence
    residents.end()
    assert sorted(client.ended) == [1, 4]


def test_the_nearer_the_end_that_the_last_call_foretells_the_shorter_the_pause():
    federation = object.__new__(Vantage6Federation)
    federation._poll_s, federation._took = 0.5, {"train": 30.0}
    pauses = [federation._pause_s("train", elapsed) for elapsed in (0.0, 20.0, 29.0, 30.0, 31.0, 60.0)]
    assert pauses == pytest.approx([1.5, 0.5, 0.1, 0.1, 0.1, 1.5])


class SlowAnswers:
    """A server with one subtask a site, all completed, that say their results only when two are asked for at once."""

    def __init__(self, trouble=False):
        self.task, self.organization, self.result = self, self, self
        self.asked, self.trouble = threading.Barrier(2), trouble

    def list(self):
        return [{"id": number, "name": name} for number, name in enumerate("ab", start=1)]

    def create(self, *, organizations, **_):
        return {"id": organizations[0]}

    def request(self, path, **_):
        return {"status": "completed"}

    def generate_path_to(self, *_):
        return ""

    def from_task(self, task):
        self.asked.wait(20)
        if self.trouble:
            self.trouble = False
            raise OSError
        return [{"task": task}]


@pytest.mark.parametrize("trouble", [False, True])
def test_answers_are_fetched_side_by_side_and_each_comes_once(monkeypatch, trouble):
    """With each waiting for the other, one after the other would never end; what fails on the way is fetched again."""
    client = SlowAnswers()
    monkeypatch.setattr(v4.results, "fetch", lambda client, task, clear: json.dumps(client.from_task(task)[0]))
    federation = Vantage6Federation(client, poll_s=0.05)
    if trouble:
        # The second fetch of the one that failed has no partner.
        client.trouble, client.asked = True, threading.Barrier(1)
    requests = {site: {"round": 1, "site": site} for site in "ab"}
    replies = list(federation._answer(_Asked("train", requests, {}), 30.0))
    assert sorted((arrival.site, arrival.text) for arrival in replies) == [("a", '{"task": 1}'), ("b", '{"task": 2}')]


def test_an_answer_on_its_way_at_the_deadline_is_taken():
    client = SlowAnswers()
    client.asked = threading.Barrier(1)
    fetch = client.from_task
    client.from_task = lambda task: time.sleep(0.3) or fetch(task)
    federation = Vantage6Federation(client, poll_s=0.05)
    replies = list(federation._answer(_Asked("train", {"a": {"round": 1, "site": "a"}}, {}), 0.1))
    assert [(arrival.site, arrival.missing) for arrival in replies] == [("a", None)]


def test_subtasks_that_fill_a_page_are_looked_for_on_the_next_too():
    class Pages:
        organization_id = 5

        def request(self, _path, params):
            numbers = range((params["page"] - 1) * params["per_page"], children._PAGE + 1)
            items = [
                {"id": n, "description": children.describe(str(n)), "status": "completed", "init_org": {"id": 5}}
                for n in numbers[: params["per_page"]]
            ]
            return {"data": items}

    assert Children(Pages()).find(1, since=-1) == children._PAGE + 1


def test_answers_that_cannot_be_listed_are_none_that_are_taken_over():
    class Federation:
        def state_dict(self):
            return {}

        def take_over(self, _since, _task):
            raise UnreachableError("the server does not list the subtasks")

    said = []
    experiment = Experiment.parse({"data": {"target": "y"}, "model": {"kind": "mlp"}})
    Journal(None, Federation(), experiment, said.append).begin(earlier_tasks=[3])
    assert said == ["the server does not list the subtasks; the sites are asked anew"]


@pytest.mark.parametrize(
    ("way", "number", "method", "is_text"),
    [
        ("wire", 5, "train", True), ("exact", 1, "train", True), ("fast", 2, "train", False),
        ("exact", 2, "train", False), ("fast", 2, "prepare", True),
    ],
)  # fmt: skip
def test_all_messages_are_text_by_wire_and_else_those_of_round_1(way, number, method, is_text):
    request = {"round": number}
    assert texts_of(way, method, {"a": request}) == ({"a"} if is_text else set())
    assert texts_of(way, method, {"a": request | {"secure_aggregation": {}}}) == {"a"}


def test_a_site_that_lost_a_model_is_told_from_one_that_answers():
    class Naming:
        lost_at = ()

        def lost(self, site):
            self.lost_at += (site,)

    federation = object.__new__(Vantage6Federation)
    unknown = json.dumps({"status": "error", "kind": known_models.UNKNOWN})
    federation._naming = None
    assert not federation._lacks_model(Arrival("a", unknown))
    federation._naming = Naming()
    assert federation._lacks_model(Arrival("a", unknown))
    assert not federation._lacks_model(Arrival("b", json.dumps({"status": "ok", "note": known_models.UNKNOWN})))
    assert not federation._lacks_model(Arrival("c", None, Missing("late", "no answer")))
    assert federation._naming.lost_at == ("a",)
    # A longer reply is no error, and is not read a second time.
    longest = unknown[:-1] + " " * (_LONGEST_ERROR - len(unknown)) + "}"
    assert federation._lacks_model(Arrival("a", longest))
    assert not federation._lacks_model(Arrival("a", longest[:-1] + " }"))


def test_a_mock_network_is_trusted_and_a_node_standard_where_nobody_says(monkeypatch, tmp_path):
    (tmp_path / "table.csv").write_text("a,y\n1,0\n", encoding="utf-8")
    asked = []
    read = extraction.Policy.from_environment

    def noting(*, default, **options):
        asked.append(default)
        return read(default=default, **options)

    monkeypatch.setattr(extraction.Policy, "from_environment", noting)
    monkeypatch.setenv("FUNCTION_ACTION", "data_extraction")
    monkeypatch.setenv("DATABASE_URI", str(tmp_path / "table.csv"))
    monkeypatch.setenv("DATABASE_TYPE", "csv")
    extraction.run_extract()
    extraction.run_extract(mock_uri=str(tmp_path / "table.csv"), mock_type="csv")
    assert asked == ["standard", "trusted"]


def test_fifty_megabytes_a_round_are_much_for_sqlite_and_less_are_not():
    """A model of 9 bytes is 16 in the server's database, and goes to each site and comes back."""
    much = 50_000_000 * 9 // 32
    assert "SQLite" in entry_module._space_line(much, 1)
    assert "SQLite" not in entry_module._space_line(much - 1, 1)
    assert entry_module._space_line(much // 10 - 1, 1) is None
    assert "5 MB" in entry_module._space_line(much // 10, 1)


def test_without_files_to_read_into_answers_come_to_memory_one_at_a_time():
    """vantage6 5's client and the mock hold a whole answer: the next is read when the one before was used."""
    client = SlowAnswers()
    client.asked, read = threading.Barrier(1), []
    fetch = client.from_task
    client.from_task = lambda task: read.append(task) or fetch(task)
    federation = Vantage6Federation(client, poll_s=0.05)
    federation._fetches = False
    requests = {site: {"round": 1, "site": site} for site in "ab"}
    for number, _ in enumerate(federation._answer(_Asked("train", requests, {}), 30.0), start=1):
        assert len(read) == number
