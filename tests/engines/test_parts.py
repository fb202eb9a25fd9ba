"""Small parts of the engines by themselves: what is asked again, read back, known to be a folder or a session."""

from __future__ import annotations

from itertools import pairwise

import pytest

from v6_algorithm.engines import children, extraction, runs, session
from v6_algorithm.engines.children import Children
from v6_algorithm.engines.journal import Journal
from v6_algorithm.errors import CheckpointError, ExperimentError, UnreachableError
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
