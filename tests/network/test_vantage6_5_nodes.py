"""v6_algorithm on a real HQ of vantage6 5 and three real nodes: what comes back is what a run here gives.

What only a cluster can show stays unseen: network policies, image pulls, GPUs, and jobs that Kubernetes kills.
"""

from __future__ import annotations

import json

import pytest
from conftest import patients
from figures import PROCESSES
from hq_network import command_line, run_script
from training import patients_experiment

CENTRAL = "central_compute"


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    return patients(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="module")
def network(hq_network, sites):
    """Nodes of one consortium: with secret folds a run here would have others."""
    environment = {"V6_ALGORITHM_POLICY": "trusted"}
    tables = {name: [str(site.databases["default"]), "csv"] for name, site in sites.items()}
    return hq_network(
        {name: {"databases": {"default": table}, "environment": environment} for name, table in tables.items()}
    )


@pytest.fixture(scope="module")
def frame(network):
    """The dataframe of all sites; extracted once, as for every later task of a session."""
    made = network.do("extract", name="patients", label="default")
    assert set(made["runs"].values()) == {"completed"}, made["log"][-3000:]
    return made["dataframe"]


def master(network, frame, experiment, **more):
    names = {str(number): name for name, number in network.about["organizations"].items()}
    arguments = {"experiment": experiment, "names": names}
    return network.do(
        "task", method="master", arguments=arguments, dataframe=frame, action=CENTRAL, sites=["a"], **more
    )


def here(sites, experiment, names, folder):
    tables = {name: [str(sites[name].databases["default"]), "csv"] for name in names}
    request = {"sites": tables, "arguments": {"experiment": experiment}, "method": "master"}
    return run_script("here_run.py", request, folder)


def test_master_over_hq_and_nodes_gives_the_bits_of_a_local_run(network, frame, sites, figures, tmp_path):
    experiment = patients_experiment(participation={"minimum": 3, "deadline_s": 600})
    over = master(network, frame, experiment)
    assert over["runs"] == {"a": "completed"}, over["log"][-3000:]
    (result,) = over["results"]
    ours = here(sites, experiment, ["a", "b", "c"], tmp_path)
    for key in ("rounds_run", "best_round", "sites", "history", "metrics", "parameters"):
        assert result[key] == ours[key], key
    assert not any(call["missing"] for call in result["participation"])
    figures.note(f"vantage6 5, {PROCESSES}: {result['rounds_run']} rounds (s)", PROCESSES, f"{over['seconds']:.0f}")


def test_a_request_that_master_did_not_write_is_refused(network, frame):
    over = network.do(
        "task", method="RPC_train", arguments={"request": {}}, dataframe=frame, action="federated_compute", sites=["a"]
    )
    assert over["runs"] == {"a": "crashed"}
    assert "names no job; task `master`" in over["log"]


def test_a_column_that_no_site_has_is_named(network, frame):
    experiment = patients_experiment(data={"target": "outcome", "features": ["age", "height"]})
    over = master(network, frame, experiment)
    assert over["runs"] == {"a": "crashed"}
    assert "height" in over["log"]


def test_extraction_by_another_step_is_refused(network, frame):
    over = network.do("task", method="extract", arguments={}, dataframe=frame, action="federated_compute", sites=["a"])
    assert over["runs"] == {"a": "crashed"}
    assert "data extraction" in str(over)


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("experiment") / "patients.yaml"
    file.write_text(json.dumps(patients_experiment(participation={"minimum": 3, "deadline_s": 600})))
    return file


def test_submit_extracts_once_trains_and_writes_the_files(network, experiment_file, tmp_path):
    first = submit(network, "submit", experiment_file, "--out", tmp_path / "first")
    assert "extracted now from database default" in first
    assert (tmp_path / "first" / "model.safetensors").is_file()
    looked = submit(network, "submit", experiment_file, "--out", tmp_path / "second", "--set", "rounds=1")
    assert "as extracted before" in looked


def submit(network, *arguments):
    """Run a command of `v6-algorithm` at the network's HQ as its researcher."""
    environment = {
        "V6_AUTH": f"http://127.0.0.1:{network.about['keycloak']}",
        "V6_CLIENT_SECRET": network.about["secret"],
        "V6_SERVER": f"http://127.0.0.1:{network.about['hq']}/hq",
        "V6_USERNAME": "researcher",
        "V6_IMAGE": "local",
    }
    done = command_line(list(map(str, arguments)), environment)
    assert network.about["secret"] not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_check_asks_every_site_over_hq(network, experiment_file, tmp_path):
    said = submit(network, "check", experiment_file, "--out", tmp_path / "check.json")
    report = json.loads((tmp_path / "check.json").read_text())
    assert [site["rows"] for site in report["sites"].values()] == [40, 50, 60], report
    assert "nothing would go wrong" in said


def test_a_task_whose_master_was_killed_is_gone_on_with(network, experiment_file, sites, tmp_path):
    submit(network, "submit", experiment_file, "--set", "rounds=4", "--detach")
    # Preparation is six subtasks, a round three: the second is under way.
    killed = network.do("kill_job", method="master", children=11)
    assert list(killed["runs"].values()) != ["completed"]
    said = submit(network, "resume", killed["task"], "--out", tmp_path / "gone_on")
    assert "are taken over" in said
    result = json.loads((tmp_path / "gone_on" / "result.json").read_text())
    names = {str(number): name for name, number in network.about["organizations"].items()}
    assert sorted(result["sites"]) == sorted(names.values())
    experiment = patients_experiment(rounds=4, participation={"minimum": 3, "deadline_s": 600})
    ours = here(sites, experiment, ["a", "b", "c"], tmp_path)
    for key in ("rounds_run", "best_round", "history", "metrics", "parameters"):
        assert result[key] == ours[key], key


def test_a_site_that_crashes_is_named_and_the_rest_finish(network, frame):
    experiment = patients_experiment(participation={"minimum": 2, "deadline_s": 600})
    over = master(network, frame, experiment, kill=["RPC_train", "b"])
    (result,) = over["results"]
    assert (result["status"], result["rounds_run"]) == ("completed", experiment["rounds"])
    crashed = [call["missing"] for call in result["participation"] if call["missing"]]
    assert [list(missing) for missing in crashed] == [["b"]], crashed
    assert crashed[0]["b"].startswith("crashed")


def test_a_node_that_goes_away_is_late_and_the_rest_finish(network, frame, sites, tmp_path):
    network.do("stop_node", site="c")
    experiment = patients_experiment(participation={"minimum": 2, "deadline_s": 60})
    over = master(network, frame, experiment)
    (result,) = over["results"]
    assert result["status"] == "completed"
    assert list(result["participation"][0]["missing"]) == ["c"]
    ours = here(sites, experiment, ["a", "b"], tmp_path)
    assert result["parameters"] == ours["parameters"]


def test_a_lost_quorum_ends_the_run_and_says_why(network, frame):
    """The node of c is away since the test before."""
    over = master(network, frame, patients_experiment(participation={"minimum": 3, "deadline_s": 30}))
    assert over["runs"] == {"a": "crashed"}
    assert "of 3 sites answered, 3 are needed (participation.minimum)" in over["log"]


def test_an_extraction_waits_for_no_node_that_is_away(network, experiment_file, tmp_path):
    changes = ("data.separator=','", "rounds=1", "participation.minimum=2", "participation.deadline_s=600")
    options = [part for change in changes for part in ("--set", change)]
    said = submit(network, "submit", experiment_file, *options, "--out", tmp_path / "without")
    assert "c extracted nothing from 'default': its node is offline" in said
    result = json.loads((tmp_path / "without" / "result.json").read_text())
    assert sorted(result["sites"]) == ["a", "b"]
    assert "site 'c' took no part" in said
