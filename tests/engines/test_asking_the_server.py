"""How often and how patiently the server is asked, and what is left on disk for whom."""

from __future__ import annotations

import io
import os
import stat
import urllib.error

import pytest
from loopback import LoopbackProxy, numbered

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines import entry, provenance
from v6_algorithm.engines.resident import protocol
from v6_algorithm.engines.resident.asking import Residents
from v6_algorithm.engines.resident.protocol import lock
from v6_algorithm.engines.simulation.simulate import _contexts, source_of
from v6_algorithm.engines.vantage6 import asked_once
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange.protocol import Site
from v6_algorithm.experiment import Source
from v6_algorithm.site.policy import Policy


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_server_is_asked_three_times_with_growing_pauses(monkeypatch, failures):
    pauses, asked = [], []

    def opened(request, timeout):
        asked.append((request.full_url, request.get_header("Authorization"), timeout))
        if len(asked) <= failures:
            raise urllib.error.URLError("away")
        return io.BytesIO(b'{"id": 3}')

    monkeypatch.setattr(provenance.urllib.request, "urlopen", opened)
    monkeypatch.setattr(provenance.time, "sleep", pauses.append)
    ask = provenance.asking({"HOST": "http://proxy", "PORT": "80", "API_PATH": "/api"}, "token")
    if failures == 3:
        with pytest.raises(OSError, match="away"):
            ask("run", {"task_id": 3})
    else:
        assert ask("run", {"task_id": 3}) == {"id": 3}
    assert asked == [("http://proxy:80/api/run?task_id=3", "Bearer token", 30)] * min(failures + 1, 3)
    assert pauses == [1, 2][: min(failures, 2)]
    with pytest.raises(ValueError, match="no address"):
        provenance.asking({}, "token")("run", {})


def test_a_trainers_place_is_its_owners_alone_and_one_process_has_it(tmp_path):
    place = tmp_path / "place"
    held = lock(str(place))
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (file,) = place.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lock(str(place)) is None
    os.close(held)
    again = lock(str(place))
    assert again is not None
    os.close(again)


def test_a_trainer_is_of_its_code_version_and_settings(tmp_path, monkeypatch):
    """A change of any of them is another trainer's; what else lies there is not."""
    package = tmp_path / "package"
    (package / "engines" / "resident" / "__pycache__").mkdir(parents=True)
    (package / "engines" / "code.py").write_text("1")
    (package / "VERSION").write_text("1")
    monkeypatch.setattr(protocol, "__file__", str(package / "engines" / "resident" / "protocol.py"))
    seen = {protocol.surroundings({"A": "1"})}
    assert seen == {protocol.surroundings({"A": "1"})}
    seen |= {protocol.surroundings({"A": "2"}), protocol.surroundings({"A": "1", "B": ""})}
    for number, name in enumerate(("VERSION", "engines/code.py", "engines/more.py"), 3):
        (package / name).write_text("other")
        seen.add(protocol.surroundings({"A": "1"}))
        assert len(seen) == number + 1
    for name in ("notes.txt", "engines/resident/__pycache__/code.py"):
        (package / name).write_text("other")
        assert protocol.surroundings({"A": "1"}) in seen
    assert protocol.surroundings({"A": "1"} | dict.fromkeys(protocol._OF_ONE_RUN, "x")) in seen


def test_each_site_has_a_folder_of_its_number_by_name(make_experiment, tables, tmp_path):
    contexts, temporary = _contexts(make_experiment(), dict(reversed(tables.items())), Policy(), tmp_path)
    assert temporary is None
    assert list(contexts) == sorted(tables)
    assert [context.rounds_folder for context in contexts.values()] == [tmp_path / str(number) for number in range(3)]
    nowhere, temporary = _contexts(make_experiment(), tables, Policy(), None)
    assert {context.rounds_folder for context in nowhere.values()} == {None}
    assert temporary is None
    pooled, _ = _contexts(make_experiment(mode="centralised"), tables, Policy(), tmp_path)
    (context,) = pooled.values()
    assert (context.rounds_folder, list(context.sources)) == (tmp_path / "0", sorted(tables))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_a_ledger_that_must_last_is_each_sites_own(make_experiment, tables, tmp_path, folder, named):
    rules = Policy(require_ledger=True, ledger_folder=str(tmp_path / "owners") if named else None)
    contexts, temporary = _contexts(make_experiment(), tables, rules, tmp_path if folder else None)
    ledgers = [context.policy.ledger_folder for context in contexts.values()]
    if named:
        assert ledgers == [str(tmp_path / "owners")] * 3
        assert temporary is None
        return
    assert (temporary is None) == folder
    below = tmp_path if temporary is None else temporary.name
    assert ledgers == [f"{below}/{number}/ledger" for number in range(3)]


def test_a_folder_holds_the_one_table_and_may_be_of_a_type_that_is_named(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "rows.csv").write_text("a,y\n1,2\n")
    plain = source_of("sites.a", Source(uri="site"), tmp_path)
    assert (plain.uri, plain.type) == (str(tmp_path / "site" / "rows.csv"), TableSource(plain.uri).type)
    typed = source_of("sites.a", Source(uri="site", type="parquet"), tmp_path)
    assert typed.type == "parquet"
    (tmp_path / "pair").mkdir()
    for name in ("X.npy", "y.npy"):
        (tmp_path / "pair" / name).write_bytes(b"")
    assert source_of("sites.a", Source(uri="pair"), tmp_path).type == "npz"
    with pytest.raises(ExperimentError, match=r"sites\.a: there is no file nowhere"):
        source_of("sites.a", Source(uri="nowhere"), tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(ExperimentError, match="is a folder; with images it must be a table"):
        source_of("sites.a", Source(uri="site", images="images"), tmp_path)


class Client:
    """vantage6's client, of whose answers each site has one of its own."""

    def __init__(self, answers, status="active"):
        self.answers, self.status, self.asked = answers, status, []
        self.task = self

    def create(self, input_, organizations, name, description):
        self.asked.append((name, organizations[0], input_["kwargs"]["request"]))
        answer = self.answers[organizations[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def request(self, path):
        number = int(path.split("/")[1])
        return {"status": self.status if number == 70 else "completed"}


def test_trainers_are_asked_to_stay_ten_minutes_beyond_a_call_and_told_to_end():
    sites = [Site("a", 7), Site("b", 8), Site("c", 9), Site("d", 10)]
    client = Client({7: {"id": 70}, 8: {"msg": "no " + "x" * 300}, 9: ConnectionError("away"), 10: {"id": 80}})
    trainers = Residents(client, sites)
    told = trainers.start(1800.0)
    assert told == [
        f"site 'b' was not asked for a resident trainer: no {'x' * 197}",
        "site 'c' was not asked for a resident trainer: ConnectionError",
    ]
    assert sorted((name, number) for name, number, _ in client.asked) == [
        (f"resident trainer at {site.name}", site.id) for site in sites
    ]
    for _, _, request in client.asked:
        assert (request["idle_s"], request["round"], request["attempt"]) == (2400.0, 0, 1)
    client.asked.clear()
    trainers.end()
    # One goes on, one has ended, two were never there.
    ((name, number, request),) = client.asked
    assert (name, number, request["end"], request["round"]) == ("end at a", 7, True, 0)
    trainers.end()
    assert len(client.asked) == 1


@pytest.mark.parametrize("status", ["completed", None])
def test_nobody_is_told_to_end_who_has(status):
    client = Client({7: {"id": 70}}, status)
    trainers = Residents(client, [Site("a", 7)])
    trainers.start(5.0)
    trainers.end()
    assert len(client.asked) == 1
    Residents(client, []).end()
    nobody = Residents(Client({7: None}), [Site("a", 7)])
    assert nobody.start(5.0) == ["site 'a' was not asked for a resident trainer: no answer from the server"]


def test_earlier_tasks_are_whole_numbers_from_1():
    assert [entry._tasks(given) for given in (None, [], 1, [1, 7])] == [[], [], [1], [1, 7]]
    for wrong in (0, [0], [3, -1], [True], ["7"], [1.0]):
        with pytest.raises(ExperimentError, match="resume: must be ids of tasks, whole numbers from 1"):
            entry._tasks(wrong)


def test_names_of_images_are_found_in_a_request_that_is_not_checked():
    image = {"files": "{id}.png", "column": "scan"}
    assert entry._names_of_files({"experiment": {"data": {"image": image}}}) == ("{id}.png", "scan")
    for wrong in (
        {},
        {"experiment": 3},
        {"experiment": {"data": {"image": {"files": 3}}}},
        {"experiment": {"data": []}},
    ):
        assert entry._names_of_files(wrong) is None


def test_a_round_is_told_with_what_it_says_of_training_and_of_which_model(capsys, monkeypatch):
    monkeypatch.setattr(entry, "scores_line", lambda event: "")

    def told(**event):
        entry._say({"event": "round", "round": 3, "rounds": 9, "missing": {}} | event)
        return capsys.readouterr().out.splitlines()[-1]

    both = {"train_loss": 0.25, "validation_loss": 0.5, "validation_auroc": 0.75}
    assert told(metrics=both, validated_round=2) == (
        "round 3/9: train loss 0.25; model of round 2: validation loss 0.5, auroc 0.75"
    )
    # The last model, validated in a call of its own.
    assert told(metrics=both, validated_round=3) == "round 3/9: model of round 3: validation loss 0.5, auroc 0.75"
    assert told(metrics={"train_loss": 0.25}, validated_round=None, epsilon=1.23456, missing={"b": "late"}) == (
        "round 3/9: train loss 0.25; epsilon 1.235; missing b (late)"
    )
    entry._say({"event": "reply", "round": 3, "site": "a", "metrics": {"train_loss": 1.0}, "seconds": None})
    entry._say({"event": "reply", "round": 3, "site": "a", "metrics": {"train_loss": 1.0}, "seconds": 2.34})
    assert capsys.readouterr().out.splitlines() == ["round 3: a: train loss 1", "round 3: a: train loss 1 (2.3 s)"]
    entry._say({"event": "prepared", "sites": ["a", "b"], "done": 2, "rounds": 9})
    assert capsys.readouterr().out.splitlines() == ["prepared: 2 sites take part: a, b", "goes on after round 2/9"]


class Asked:
    """vantage6's client as far as `keep_answers` goes: what it was asked, and what it says."""

    def __init__(self, **answers):
        self.answers, self.log = answers, []

    def request(self, endpoint, *args, **kwargs):
        self.log.append((endpoint, args, kwargs))
        return self.answers.get(endpoint.replace("/", "_"), {"msg": "Request failed"})

    def check_if_blob_store_enabled(self):
        self.log.append("own")
        return True


def test_keys_and_the_storage_are_asked_for_once_a_minute(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(asked_once.time, "monotonic", lambda: now[0])
    client = Asked(organization_2={"public_key": "k"}, blobstream_status={"blob_store_enabled": False})
    asked_once.keep_answers(client)
    for _ in range(3):
        assert client.request("organization/2") == {"public_key": "k"}
        assert client.check_if_blob_store_enabled() is False
    assert [endpoint for endpoint, *_ in client.log] == ["organization/2", "blobstream/status"]
    client.answers = {"organization_2": {"public_key": "new"}, "blobstream_status": {"blob_store_enabled": True}}
    now[0] += 59.9
    assert client.request("organization/2") == {"public_key": "k"}
    now[0] += 0.1
    assert client.request(endpoint="organization/2") == {"public_key": "new"}
    assert client.check_if_blob_store_enabled() is True


def test_errors_and_other_requests_are_not_kept():
    client = Asked(organization_2={"msg": "Request failed"}, organization={"data": []})
    asked_once.keep_answers(client)
    for _ in range(2):
        assert client.request("organization/2") == {"msg": "Request failed"}
        assert client.request("organization") == {"data": []}
        assert client.request("organization/2", params={"page": 1}, method="patch") == {"msg": "Request failed"}
        # What the client itself makes of a server that does not say.
        assert client.check_if_blob_store_enabled() is True
    assert len(client.log) == 10
    client.answers = None
    assert client.check_if_blob_store_enabled() is True
    assert client.log[2] == ("organization/2", (), {"params": {"page": 1}, "method": "patch"})


def test_a_run_asks_for_each_organisations_key_once(tables, make_experiment):
    with LoopbackProxy(numbered(tables)) as proxy:
        run(Vantage6Federation(proxy.client(), poll_s=0.01), make_experiment(rounds=3, resident=False))
        assert {proxy.requests[str(number)] for number in proxy.organizations} == {1}
        assert proxy.requests["create"] >= 5 * len(tables)
