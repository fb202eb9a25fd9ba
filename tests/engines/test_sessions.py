"""Containers of vantage6 5: their session's folder, dataframes that name files, sites that HQ takes no task for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from v6_algorithm.engines.vantage6 import extraction, session, v5
from v6_algorithm.engines.vantage6.subtasks import Creation
from v6_algorithm.engines.vantage6.v5 import SessionFederation
from v6_algorithm.errors import DataError, ExperimentError, SiteError
from v6_algorithm.exchange.protocol import Missing


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Return the session's folder, as a container of a node sees it."""
    for name in ("CONTAINER_TOKEN", "USER_REQUESTED_DATAFRAMES", "DATABASE_URI", "TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FUNCTION_ACTION", "compute")
    monkeypatch.setenv("SESSION_FOLDER", str(tmp_path))
    return tmp_path


def test_only_a_central_container_of_a_session_has_a_place_for_its_journal(there, monkeypatch):
    assert session.journal_place() is None
    monkeypatch.setenv("CONTAINER_TOKEN", "token")
    assert session.journal_place() == there / "v6_algorithm" / "master"
    monkeypatch.delenv("SESSION_FOLDER")
    assert session.journal_place() is None


def test_what_a_site_keeps_is_kept_for_each_job(there):
    request = {"job": 0, "round": 3}
    assert session.split_job(request) == ({"round": 3}, there / "v6_algorithm" / "job-0")
    assert session.split_job({"job": 12})[1].name == "job-12"
    assert request == {"job": 0, "round": 3}
    for wrong in ({}, {"job": -1}, {"job": "1"}, {"job": True}, {"job": 1.0}, {"job": None}):
        with pytest.raises(ExperimentError, match="names no job"):
            session.split_job(wrong)


def dataframe(there, name="frame", attrs=None):
    frame = pd.DataFrame({"a": [1, 2]})
    frame.attrs = attrs or {}
    pq.write_table(extraction._arrow(frame), there / f"{name}.parquet")
    return frame


@pytest.mark.parametrize(("asked", "number"), [("", 0), ("a;b", 2), ("a,b", 2), (";,", 0)])
def test_a_task_asks_for_one_dataframe(there, monkeypatch, asked, number):
    monkeypatch.setenv("USER_REQUESTED_DATAFRAMES", asked)
    with pytest.raises(DataError, match=f"must ask for one dataframe of its session; it asks for {number}"):
        session.source_of_session()


def test_a_dataframe_is_read_where_it_is_and_its_files_beside_it(there, monkeypatch):
    monkeypatch.setenv("USER_REQUESTED_DATAFRAMES", "frame;")
    with pytest.raises(SiteError, match="no dataframe 'frame'"):
        session.source_of_session()
    dataframe(there)
    source = session.source_of_session()
    assert (source.uri, source.type, source.folder) == (str(there / "frame.parquet"), "parquet", there)
    ours = there / "v6_algorithm"
    (ours / "files-7").mkdir(parents=True)
    dataframe(there, attrs={session.FOLDER: "files-7"})
    assert session.source_of_session().folder == ours / "files-7"
    np.savez(ours / "series.npz", x=np.zeros((2, 3)))
    dataframe(there, attrs={session.FILE: "series.npz"})
    source = session.source_of_session()
    assert (source.uri, source.type) == (str(ours / "series.npz"), "npz")
    (there / "secret.npz").write_bytes(b"")
    for name in ("../secret.npz", "gone.npz", str(there / "secret.npz")):
        dataframe(there, attrs={session.FILE: name})
        with pytest.raises(DataError, match="names files that its session does not have"):
            session.source_of_session()


def test_what_an_extraction_names_is_copied_beside_the_dataframes(there, monkeypatch, tmp_path_factory):
    place = tmp_path_factory.mktemp("database")
    (place / "one.png").write_bytes(b"picture")
    assert extraction._copied_folder(place) == "files-step"
    monkeypatch.setenv("TASK_ID", "7")
    assert extraction._copied_folder(place) == "files-7"
    assert (there / "v6_algorithm" / "files-7" / "one.png").read_bytes() == b"picture"
    np.savez(place / "series.npz", x=np.zeros((5, 3)), y=np.zeros(5))
    table = extraction._copied_file(place / "series.npz", True)
    assert table.column("row").to_pylist() == [0, 1, 2, 3, 4]
    assert (there / "v6_algorithm" / "series-7.npz").read_bytes() == (place / "series.npz").read_bytes()
    pq.write_table(table, there / "frame.parquet")
    monkeypatch.setenv("USER_REQUESTED_DATAFRAMES", "frame")
    assert session.source_of_session().type == "npz"
    with pytest.raises(DataError, match="MockNetwork passes dataframes only"):
        extraction._copied_file(place / "series.npz", False)


def test_a_column_of_several_types_is_text_with_its_empty_cells_empty(capsys):
    frame = pd.DataFrame({"mixed": [1, "two", None, float("nan")], "plain": [1, 2, 3, 4]})
    table = extraction._arrow(frame)
    assert table.column("mixed").to_pylist() == ["1", "two", None, None]
    assert table.column("plain").to_pylist() == [1, 2, 3, 4]
    assert "1 columns hold values of several types" in capsys.readouterr().out
    extraction._arrow(frame[["plain"]])
    assert capsys.readouterr().out == ""
    with pytest.raises(DataError, match="column 'a' is there twice"):
        extraction._arrow(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_step_names_one_database(there, monkeypatch):
    with pytest.raises(DataError, match="must name one database"):
        extraction._database(None, None, None, None, {}, None)
    monkeypatch.setenv("DATABASE_URI", str(there / "table.csv"))
    assert extraction._database(None, None, None, None, {}, None).uri == str(there / "table.csv")
    assert extraction._database(None, None, None, None, {}, (there / "other.csv", "csv")).type == "csv"
    with pytest.raises(DataError, match="must name one database"):
        extraction._database(None, None, None, None, {}, (3, None))


# -- the network -----------------------------------------------------------------------------------------------------


class Client:
    """HQ, of which `statuses` says what is known of tasks, and `runs` of their runs."""

    def __init__(self):
        self.created, self.statuses, self.runs = [], {}, {}
        self.task = SimpleNamespace(create=self.create)
        self.run = SimpleNamespace(from_task=lambda number: [{"status": self.runs[number]}])

    def create(self, **asked):
        self.created.append(asked)
        return {"id": 5} if len(self.created) == 1 else None

    def request(self, path):
        return {"status": self.statuses[int(path.split("/")[1])]}


class Federation(SessionFederation):
    """Of a client that has no token."""

    task = None

    def __init__(self, client, task, newest):
        self._client, self.task, self._newest, self._real, self._poll_s = client, task, newest, True, 0.0


def federation(client, task=None, newest=0):
    return Federation(client, task, newest)


def creation(attempts=0):
    made = Creation("RPC_train", {"round": 2, "site": "a"}, 9, "question")
    made.attempts = attempts
    return made


@pytest.mark.parametrize(("task", "job"), [(None, 0), (31, 31)])
def test_a_request_names_the_job(task, job):
    client = Client()
    made = federation(client, task)
    assert made._create(creation()) == {"id": 5}
    (asked,) = client.created
    assert asked["arguments"] == {"request": {"round": 2, "site": "a", "job": job}}
    assert (asked["method"], asked["organizations"]) == ("RPC_train", [9])
    assert made._create(creation()) == {"msg": "no answer from the server"}


def test_a_site_is_given_up_after_three_refusals_where_hq_answers_otherwise():
    client = Client()
    client.statuses = {8: "active"}

    def outcome(before, newest=8):
        return federation(client, newest=newest)._take_creation(creation(before), {"msg": "no answer from the server"})

    assert outcome(0) is None
    assert outcome(1) is None
    given_up = outcome(2)
    assert given_up.kind == "unreachable"
    assert "was not extracted into this session" in str(given_up)
    assert outcome(2, newest=0) is None, "nobody's subtask was taken"
    assert outcome(2, newest=99) is None, "HQ does not answer"
    taken = creation(7)
    assert federation(client, newest=8)._take_creation(taken, {"id": 12}) is None
    assert taken.task == 12
    away = Missing("unreachable", "away")
    assert federation(client, newest=8)._take_creation(creation(9), away) is away


def test_how_a_task_failed_its_run_says():
    client = Client()
    client.statuses, client.runs = {1: "failed", 2: "failed", 3: "completed"}, {1: "not allowed", 3: "crashed"}
    made = federation(client)
    assert [made._status(number) for number in (1, 2, 3, 4)] == ["not allowed", "failed", "completed", None]


def test_there_is_no_client_without_a_token(there):
    with pytest.raises(ExperimentError, match="client: there is none"):
        v5.container_client()
