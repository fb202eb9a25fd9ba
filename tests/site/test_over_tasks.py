"""What a node remembers from task to task where its owner names no folder: of which rows it told, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from v6_algorithm.engines import entry
from v6_algorithm.exchange import wire
from v6_algorithm.researcher.doctor import attacks
from v6_algorithm.researcher.doctor.attacks import Hospital, Refused, made_up_rows
from v6_algorithm.researcher.doctor.rules import rules
from v6_algorithm.site.policy import Policy

FEW = "differs from an earlier answer of this node by few rows"


def task(tmp_path, number, rows=96, preset="standard", **rule):
    """Return the node as task `number` meets it, with so many rows."""
    policy = Policy.of(preset, **rule)
    folder = tmp_path / f"job-{number}"
    return Hospital(made_up_rows(200).head(rows), attacks.FEATURES, "ill", "name", policy, folder, tmp_path / "node")


def prepare(node, **changes):
    node.prepare(node.experiment(**changes), replace(node.setup(5), preparation=None))


def test_a_table_that_grew_by_one_patient_between_two_tasks_is_refused_and_by_many_answered(tmp_path):
    """Also to the very same experiment."""
    prepare(task(tmp_path, 0))
    prepare(task(tmp_path, 1))
    with pytest.raises(Refused, match=f"the rows {FEW}"):
        prepare(task(tmp_path, 2, rows=97))
    # Enough that each label, too, has a cell more.
    prepare(task(tmp_path, 3, rows=120))
    with pytest.raises(Refused, match=FEW):
        prepare(task(tmp_path, 4, rows=119))


def test_budgets_and_the_secret_of_splits_begin_anew_with_each_task(tmp_path):
    split = {"kind": "kfold", "folds": 5, "repeats": 6, "stratify": False}
    for number in range(4):
        prepare(task(tmp_path, number), split=split, seed=number)
    assert '"secret"' not in (tmp_path / "node" / "guard.json").read_text()
    lasting = str(tmp_path / "ledger")
    prepare(task(tmp_path, 5, ledger_folder=lasting), split=split, seed=0)
    with pytest.raises(Refused, match="independent sums"):
        prepare(task(tmp_path, 6, ledger_folder=lasting), split=split, seed=1)


def test_a_trusted_node_keeps_nothing_on_the_nodes_volume(tmp_path):
    prepare(task(tmp_path, 0, preset="trusted"))
    prepare(task(tmp_path, 1, preset="trusted", rows=97))
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize("run", ["task-000000007", "elsewhere"])
def test_a_container_of_a_node_remembers_on_the_volume_of_all_its_runs(run, tmp_path, monkeypatch):
    """vantage6 4 mounts one volume into all containers of a node; a run's files are in a folder of it."""
    node = Hospital(made_up_rows(96), attacks.FEATURES, "ill", "name", Policy.of("standard"), tmp_path)
    node.frame.to_csv(tmp_path / "ward.csv", index=False)
    (tmp_path / "mnt" / run).mkdir(parents=True)
    monkeypatch.delenv("V6_ALGORITHM_POLICY")
    for name, value in {
        "USER_REQUESTED_DATABASE_LABELS": "ward",
        "WARD_DATABASE_URI": str(tmp_path / "ward.csv"),
        "WARD_DATABASE_TYPE": "csv",
        "TOKEN_FILE": str(tmp_path / "mnt" / run / "token"),
    }.items():
        monkeypatch.setenv(name, value)

    def ask(job, threshold):
        monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / job))
        data = {"target": "ill", "features": attacks.FEATURES, "where": {"age": f"> {threshold!r}"}}
        setup = replace(node.setup(1), preparation=None).to_json()
        for body in ({"step": "schema"}, {"step": "statistics", "setup": setup}):
            body |= {"experiment": node.experiment(data=data).for_sites(), "sites": 3}
            request = wire.message(site="hospital", round=0, attempt=1, **body)
            reply = entry.run_site("prepare", None, request, None, lambda: None)
            if body["step"] == "schema":
                assert reply["policy"]["differences_over_tasks"] is (run != "elsewhere")
        return reply

    ages = sorted(node.frame["age"])
    assert ask("first", ages[40])["status"] == "ok"
    second = ask("second", ages[41])
    if run == "elsewhere":
        assert second["status"] == "ok"
        return
    assert FEW in second["message"]
    (kept,) = (tmp_path / "mnt" / "v6_algorithm").glob("*.json")
    assert (kept.stat().st_mode & 0o777) == 0o600


def test_the_self_test_tries_to_write_to_the_ledgers_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("v6_algorithm.researcher.doctor.rules.ATTACKS", [])

    def found(folder):
        environment = {"V6_ALGORITHM_POLICY": "strict", "V6_ALGORITHM_LEDGER_FOLDER": str(folder)}
        (finding,) = (finding for finding in rules(environment) if finding.name == "ledger folder")
        return finding.status, finding.message

    assert found(tmp_path / "new") == ("ok", f"V6_ALGORITHM_LEDGER_FOLDER = {tmp_path / 'new'} can be written to")
    assert not list(tmp_path.iterdir())
    assert found("/proc/sys")[0] == "problem"
    assert "is not on this machine" in found("/mnt/no-such-label")[1]
