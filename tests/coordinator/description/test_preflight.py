"""`check` asks every site what would go wrong, trains nothing, and goes on past a site that does not fit."""

from __future__ import annotations

import json

import pytest
from hospitals import command, tables, write
from spying import Spy

from v6_algorithm.coordinator.description.preflight import LEFT_OUT, STOPS, WARNING, preflight
from v6_algorithm.coordinator.master import check
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

CONTENT = {"data": {"target": "y", "features": ["a", "b"]}, "model": {"kind": "mlp", "hidden": [4]}, "rounds": 3}


def look(frames=None, policy=None, tamper=None, **changes):
    experiment = Experiment.parse(CONTENT | changes)
    sources = {name: TableSource(frame=frame) for name, frame in {**tables(), **(frames or {})}.items()}
    rules = own_policy(policy) if policy else None
    spy = Spy(local_federation(experiment, sources, rules), tamper)
    return preflight(spy, experiment), spy


def findings(report, effect):
    return [(finding["site"], finding["what"]) for finding in report["findings"] if finding["effect"] == effect]


def test_where_all_is_well_it_says_so_and_nothing_was_trained():
    report, spy = look()
    assert (report["exit_code"], report["findings"]) == (0, [])
    assert {method for method, _ in spy.requests} == {"RPC_prepare"}
    amsterdam = report["sites"]["amsterdam"]
    assert (amsterdam["rows"], amsterdam["classes"], amsterdam["policy"]["preset"]) == (48, ["0", "1"], "trusted")
    assert amsterdam["machine"]["disk_bytes"] > 0


def test_a_site_that_does_not_fit_does_not_keep_the_others_from_being_asked():
    """Berlin's table has no target, a fourth hospital has one class: both are told in one go."""
    report, _ = look({"berlin": tables()["berlin"].drop(columns="y"), "delft": tables()["cairo"].assign(y=1)})
    ((site, what),) = findings(report, STOPS)
    assert site == "berlin"
    assert "column 'y' (data.target) is not there" in what
    assert findings(report, WARNING) == [("delft", "has no rows of 1 of the classes: 0")]
    assert report["exit_code"] == 2


def test_with_unfit_leave_out_it_says_that_the_site_would_be_left_out():
    report, _ = look({"berlin": tables()["berlin"].drop(columns="y")}, participation={"unfit": "leave_out"})
    assert [site for site, _ in findings(report, LEFT_OUT)] == ["berlin"]
    assert not findings(report, STOPS)
    assert report["exit_code"] == 3


def test_a_rule_that_would_refuse_the_first_round_is_told_now():
    """It is looked at in training only, long after the preparation has gone well."""
    report, _ = look(policy="standard", training={"batch_size": 2})
    refused = findings(report, LEFT_OUT)
    assert [site for site, _ in refused] == ["amsterdam", "berlin", "cairo"]
    assert all("V6_ALGORITHM_MINIMUM_BATCH_SIZE" in what for _, what in refused)
    assert "0 of 3 sites could take part" in findings(report, STOPS)[0][1]
    assert report["exit_code"] == 3


def test_another_version_a_small_disk_and_a_silent_node_are_named():
    def tamper(method, site, number, reply):
        if site == "cairo":
            return "unreachable"
        if site == "berlin" and "machine" in reply:
            reply["software"]["torch"] = "1.0"
            reply["machine"] |= {"disk_bytes": 10**6, "memory_bytes": 10**8}
        return reply

    report, _ = look(tamper=tamper)
    assert findings(report, LEFT_OUT) == [("cairo", "unreachable: lost on the way")]
    warned = findings(report, WARNING)
    assert any(
        site is None and "torch is not the same everywhere" in what and "1.0 at berlin" in what for site, what in warned
    )
    assert any(site == "berlin" and "1 MB of disk" in what for site, what in warned)
    assert any(site == "berlin" and "0.1 GB of memory" in what for site, what in warned)
    assert report["exit_code"] == 3


def test_what_a_site_says_of_its_machine_is_checked():
    def tamper(method, site, number, reply):
        if site == "berlin" and "machine" in reply:
            reply["machine"]["cores"] = "many"
        return reply

    report, _ = look(tamper=tamper)
    assert findings(report, LEFT_OUT) == [("berlin", "wrong: what it says of its software and machine is malformed")]


@pytest.mark.parametrize("privacy", [{"secure_aggregation": {"threshold": 2}}])
def test_under_secure_aggregation_no_sums_are_asked_for(privacy):
    report, spy = look(privacy=privacy)
    assert report["exit_code"] == 0
    assert [next(iter(requests.values()))["step"] for requests in spy.of("RPC_prepare")] == ["preflight", "schema"]
    assert any("secure aggregation" in note for note in report["notes"])


def test_the_command_prints_tables_writes_json_and_ends_with_the_exit_code(tmp_path):
    file = write(tmp_path, {"berlin": tables()["berlin"].drop(columns="y")})
    done = command("check", file, "--out", tmp_path / "report.json")
    assert done.exit_code == 2
    assert "what would go wrong" in done.output
    assert "stops the run" in done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["findings"][0]["site"] == "berlin"
    assert command("check", write(tmp_path)).exit_code == 0


def test_options_of_a_network_without_a_server_are_refused(tmp_path):
    done = command("check", write(tmp_path), "--hub", "amsterdam")
    assert done.exit_code == 2
    assert "--hub: goes with --server" in done.output


def test_a_threshold_that_no_sum_would_be_opened_by_is_told_before_training():
    report, _ = look(privacy={"secure_aggregation": {"threshold": 9}})
    ((site, what),) = findings(report, STOPS)
    assert (site, report["exit_code"]) == (None, 2)
    assert what.startswith("privacy.secure_aggregation.threshold: 9 is 9 of 3 sites; allowed: 2 to 3")
    experiment = Experiment.parse(CONTENT | {"privacy": {"secure_aggregation": {"threshold": 9}}})
    sources = {name: TableSource(frame=frame) for name, frame in tables().items()}
    with pytest.raises(ExperimentError, match=r"secure_aggregation\.threshold: 9 is 9 of 3 sites"):
        check(local_federation(experiment, sources), experiment)
