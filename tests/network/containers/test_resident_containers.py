"""Resident trainers on nodes that use Docker: the bits of a run without, whatever happens to them, and no orphans."""

from __future__ import annotations

import pytest
from docker_cli import docker
from training import TOLERANCE, files, largest_difference, patients_experiment, rows_of, train, train_here
from v6network import Network, Run
from v6process import wait_for

from v6_algorithm.engines.vantage6.runs import ALIVE, subtask_name

pytestmark = pytest.mark.slow
EXPERIMENT = patients_experiment(rounds=6, participation={"minimum": 3, "deadline_s": 600})


def child(network: Network, task: int, name: str) -> int:
    """Wait until `master` has created the subtask of that name, and return its id."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [task["id"] for task in network.subtasks(task) if task["name"] == name]
        return bool(found)

    wait_for(there, name, timeout_s=300, poll_s=0.2)
    return found[0]


def trainer_container(network: Network, task: int, site: str) -> str:
    """Return the id of a site's resident trainer, while it runs."""
    (run,) = network.client.run.from_task(child(network, task, f"resident trainer at {site}"))["data"]
    labels = [f"label=node={network.name}-{site}", f"label=run_id={run['id']}"]
    return docker("ps", "--quiet", *(f"--filter={label}" for label in labels)).strip()


def logs(network: Network, task: int, site: str) -> list[str]:
    """Return what the couriers of a site's rounds wrote, by round."""
    found = []
    for number in range(1, EXPERIMENT["rounds"] + 1):
        (run,) = network.client.run.from_task(child(network, task, subtask_name("RPC_train", number, site)))["data"]
        found.append(next(line for line in run["log"].splitlines() if line.startswith("train round")))
    return found


def trainers_alive(network: Network, task: int) -> list[str]:
    return [
        own["name"]
        for own in network.subtasks(task)
        if own["name"].startswith("resident trainer") and set(network.statuses(own["id"]).values()) & set(ALIVE)
    ]


@pytest.fixture(scope="module")
def expected(docker_network):
    return train_here(files(docker_network, "abc"), EXPERIMENT)


@pytest.fixture(scope="module")
def disturbed(docker_network) -> Run:
    """A run in which b's trainer is killed in round 2, and c's node is stopped and started in round 3."""
    task = docker_network.create("master", experiment=EXPERIMENT)
    child(docker_network, task, subtask_name("RPC_train", 2, "b"))
    docker("kill", trainer_container(docker_network, task, "b"))
    child(docker_network, task, subtask_name("RPC_train", 3, "c"))
    docker_network.stop_node("c")
    docker_network.start_node("c")
    run = docker_network.wait(task, timeout_s=900)["hub"]
    assert run.status == "completed", run.log[-2000:]
    return run


def test_every_round_is_answered_whatever_happens_to_a_trainer(disturbed, expected):
    assert not any(call["missing"] for call in disturbed.result["participation"][1:])
    assert rows_of(disturbed.result) == rows_of(expected)
    assert disturbed.result["history"] == expected["history"]
    assert largest_difference(expected, disturbed.result) <= TOLERANCE


def test_a_courier_says_who_did_the_work(disturbed, docker_network):
    assert all(line.endswith("ok (resident trainer)") for line in logs(docker_network, disturbed.task, "a"))
    assert "ok (no resident trainer: ConnectionRefusedError)" in logs(docker_network, disturbed.task, "b")[-1]
    # The node of c ran its trainer again.
    assert logs(docker_network, disturbed.task, "c")[-1].endswith("ok (resident trainer)")


def test_trainers_end_with_a_run_and_with_a_run_that_is_killed(disturbed, docker_network):
    wait_for(lambda: not trainers_alive(docker_network, disturbed.task), "the trainers to end", timeout_s=60)
    task = docker_network.create("master", experiment=EXPERIMENT)
    child(docker_network, task, subtask_name("RPC_train", 2, "a"))
    assert len(trainers_alive(docker_network, task)) >= 3
    master = docker("ps", "--quiet", f"--filter=label=node={docker_network.name}-hub").split()
    docker("kill", *master)
    wait_for(lambda: not trainers_alive(docker_network, task), "the trainers to see that", timeout_s=60)


def test_a_run_without_them_gives_the_same_bits(docker_network):
    experiment = EXPERIMENT | {"rounds": 2, "resident": False}
    result, expected = train(docker_network, experiment), train_here(files(docker_network, "abc"), experiment)
    assert result["history"] == expected["history"]
    assert result["metrics"] == expected["metrics"]
    assert largest_difference(expected, result) <= TOLERANCE
