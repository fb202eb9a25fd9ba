"""What becomes of a run when a container or a node ends in the middle of a round, or does not start."""

from __future__ import annotations

import pytest
from docker_cli import docker
from training import TOLERANCE, files, largest_difference, patients_experiment, train, train_here
from v6config import Site
from v6network import Network
from v6process import wait_for

EXPERIMENT = patients_experiment(rounds=3, participation={"minimum": 2, "deadline_s": 300})

pytestmark = pytest.mark.slow


def training_container(network: Network, task: int, site: str, round: int) -> str:
    """Wait for a site's container of a round, and return its id while it runs."""
    found: list[str] = []

    def runs() -> bool:
        for child in network.subtasks(task):
            if child["name"] == f"RPC_train round {round}":
                for run in network.client.run.from_task(child["id"])["data"]:
                    if run["organization"]["id"] == network.organizations[site]:
                        labels = [f"label=node={network.name}-{site}", f"label=run_id={run['id']}"]
                        found[:] = docker("ps", "--quiet", *(f"--filter={label}" for label in labels)).split()
        return bool(found)

    wait_for(runs, f"the container of {site} in round {round}", timeout_s=300, poll_s=0.1)
    return found[0]


def calls(result: dict, call: str) -> dict[int, dict]:
    return {entry["round"]: entry for entry in result["participation"] if entry["call"] == call}


def test_a_container_that_is_killed_costs_its_site_one_round(docker_network):
    task = docker_network.create("master", experiment=EXPERIMENT)
    docker("kill", training_container(docker_network, task, "b", round=2))
    run = docker_network.wait(task, timeout_s=900)["hub"]
    assert run.status == "completed", run.log[-2000:]
    rounds = calls(run.result, "train")
    assert rounds[2]["answered"] == ["a", "c"]
    assert rounds[2]["missing"]["b"].startswith("crashed: the algorithm container crashed")
    assert rounds[3]["answered"] == ["a", "b", "c"]
    assert (run.result["status"], run.result["rounds_run"]) == ("completed", 3)


@pytest.mark.parametrize("gracefully", [True, False], ids=["stopped", "lost power"])
def test_a_node_that_is_started_again_in_the_middle_of_a_round_loses_nothing(docker_network, gracefully):
    task = docker_network.create("master", experiment=EXPERIMENT)
    container = training_container(docker_network, task, "b", round=2)
    docker_network.stop_node("b", gracefully)
    if not gracefully:
        docker("rm", "--force", container)  # the engine went down with the machine
    docker_network.start_node("b")
    run = docker_network.wait(task, timeout_s=900)["hub"]
    assert run.status == "completed", run.log[-2000:]
    assert all(entry["answered"] == ["a", "b", "c"] for entry in calls(run.result, "train").values())
    # The run that was executed twice answered as if it had been executed once.
    here = train_here(files(docker_network, "abc"), EXPERIMENT)
    assert run.result["sites"] == here["sites"]
    assert largest_difference(here, run.result) <= TOLERANCE


def test_the_hubs_node_started_again_in_the_middle_of_a_run_begins_it_anew(docker_network):
    task = docker_network.create("master", experiment=EXPERIMENT)
    training_container(docker_network, task, "b", round=2)
    docker_network.stop_node("hub")
    docker_network.start_node("hub")
    run = docker_network.wait(task, timeout_s=900)["hub"]
    assert run.status == "completed", run.log[-2000:]
    assert largest_difference(train_here(files(docker_network, "abc"), EXPERIMENT), run.result) <= TOLERANCE
    assert len({child["id"] for child in docker_network.subtasks(task)}) > 3 * (2 + EXPERIMENT["rounds"])


def test_a_gpu_node_without_a_gpu_is_named_and_the_others_go_on(docker_network):
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this machine gives its containers a GPU")
    own = docker_network.sites["c"]
    with docker_network.changed({"c": Site(own.databases, gpu=True)}):
        result = train(docker_network, {**EXPERIMENT, "rounds": 1})
    assert sorted(result["sites"]) == ["a", "b"]
    assert "the node could not start the container" in result["participation"][0]["missing"]["c"]
