"""What becomes of a run when a container or a node ends in the middle of a round, or does not start."""

from __future__ import annotations

import pytest
from docker_cli import docker
from training import TOLERANCE, asked, files, largest_difference, patients_experiment, rows_of, train, train_here
from v6config import Site
from v6network import Network, Run
from v6process import wait_for

from v6_algorithm.engines.vantage6.runs import subtask_name

pytestmark = pytest.mark.slow


def training_container(network: Network, task: int, site: str, round: int) -> str:
    """Wait for a site's container of a round, and return its id while it runs."""
    found: list[str] = []

    def runs() -> bool:
        for child in network.subtasks(task):
            if child["name"] == subtask_name("RPC_train", round, site):
                (run,) = network.client.run.from_task(child["id"])["data"]
                labels = [f"label=node={network.name}-{site}", f"label=run_id={run['id']}"]
                found[:] = docker("ps", "--quiet", *(f"--filter={label}" for label in labels)).split()
        return bool(found)

    wait_for(runs, f"the container of {site} in round {round}", timeout_s=300, poll_s=0.1)
    return found[0]


@pytest.fixture(scope="module")
def disturbed(docker_network) -> Run:
    """A run in which b's container is killed in round 2, c's node stops in round 3, and a's loses power in round 4."""
    # Without resident trainers a round's container lives long enough to be met; with: test_resident_containers.py.
    experiment = patients_experiment(rounds=5, participation={"minimum": 2, "deadline_s": 600}, resident=False)
    task = docker_network.create("master", experiment=experiment)
    docker("kill", training_container(docker_network, task, "b", round=2))

    training_container(docker_network, task, "c", round=3)
    docker_network.stop_node("c")
    docker_network.start_node("c")

    container = training_container(docker_network, task, "a", round=4)
    docker_network.stop_node("a", gracefully=False)
    docker("rm", "--force", container)  # the engine goes down with the machine
    docker_network.start_node("a")

    run = docker_network.wait(task, timeout_s=1200)["hub"]
    assert run.status == "completed", run.log[-2000:]
    return run


def starts(network: Network, run: Run, site: str, round: int) -> int:
    """How often a site's node started what it was asked in a round."""
    (task,) = [
        child["id"] for child in network.subtasks(run.task) if child["name"] == subtask_name("RPC_train", round, site)
    ]
    return network.node_log(site).count(f"Starting task {task} ")


def call(run: Run, round: int) -> dict:
    (found,) = [entry for entry in run.result["participation"] if (entry["call"], entry["round"]) == ("train", round)]
    return found


def test_a_container_that_is_killed_costs_its_site_one_round(disturbed):
    assert call(disturbed, 2)["answered"] == ["a", "c"]
    assert call(disturbed, 2)["missing"]["b"].startswith("crashed: the algorithm container crashed")
    assert call(disturbed, 3)["answered"] == ["a", "b", "c"]


def test_a_node_that_is_stopped_and_started_again_in_a_round_still_answers_in_it(disturbed, docker_network):
    assert call(disturbed, 3)["answered"] == ["a", "b", "c"]
    assert starts(docker_network, disturbed, "c", 3) == 2


def test_a_node_that_loses_power_in_a_round_still_answers_in_it(disturbed, docker_network):
    assert call(disturbed, 4)["answered"] == ["a", "b", "c"]
    assert starts(docker_network, disturbed, "a", 4) == 2


def test_a_run_that_was_disturbed_comes_to_its_end(disturbed):
    assert (disturbed.result["status"], disturbed.result["rounds_run"]) == ("completed", 5)
    assert sorted(disturbed.result["sites"]) == ["a", "b", "c"]


def test_the_hubs_node_started_again_in_the_middle_of_a_run_goes_on_with_it(docker_network):
    experiment = patients_experiment(participation={"minimum": 3, "deadline_s": 600})
    task = docker_network.create("master", experiment=experiment)
    wait_for(
        lambda: any(method == "train" for _, method, _, _ in asked(docker_network, task)), "round 1", timeout_s=300
    )
    docker_network.stop_node("hub")
    docker_network.start_node("hub")
    run = docker_network.wait(task, timeout_s=1200)["hub"]
    assert run.status == "completed", run.log[-2000:]
    # `master` is run again in the same volume: it goes on from its journal, and takes over what it had asked.
    assert [(method, round) for _, method, round, _ in asked(docker_network, task)].count(("train", 1)) == 3
    here = train_here(files(docker_network, "abc"), experiment)
    assert rows_of(run.result) == rows_of(here)
    assert largest_difference(here, run.result) <= TOLERANCE


def test_a_gpu_node_without_a_gpu_is_named_and_the_others_go_on(docker_network):
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this machine gives its containers a GPU")
    own = docker_network.sites["c"]
    with docker_network.changed({"c": Site(own.databases, gpu=True)}):
        result = train(docker_network, patients_experiment(rounds=1))
    assert sorted(result["sites"]) == ["a", "b"]
    assert "the node could not start the container" in result["participation"][0]["missing"]["c"]
