"""Secure aggregation with algorithms in containers: a node killed in mid-round."""

from __future__ import annotations

import pytest
from docker_cli import docker
from test_container_failures import training_container
from training import asked, patients_experiment
from v6process import wait_for

SECURE = {"secure_aggregation": {"threshold": 2}}

pytestmark = pytest.mark.slow


def test_a_node_that_loses_power_in_mid_round_is_left_out_of_the_sum_and_named(docker_network, figures):
    """The others keep their control variates in their job's folders, and the sums go on without it."""
    experiment = patients_experiment(
        rounds=4,
        privacy=SECURE,
        strategy="scaffold",
        training={"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16},
        participation={"minimum": 2, "deadline_s": 60},
        resident=False,
    )
    task = docker_network.create("master", experiment=experiment)
    container = training_container(docker_network, task, "b", round=2)
    docker_network.stop_node("b", gracefully=False)
    docker("rm", "--force", container)
    wait_for(lambda: any(number == 3 for _, _, number, _ in asked(docker_network, task)), "round 3", timeout_s=600)
    docker_network.start_node("b")
    run = docker_network.wait(task, timeout_s=900)["hub"]
    assert run.status == "completed", run.log[-2000:]
    result = run.result
    assert (result["status"], result["rounds_run"]) == ("completed", 4)
    missed = [entry for entry in result["participation"] if entry["call"] == "train" and "b" in entry["missing"]]
    assert [entry["round"] for entry in missed][:1] == [2]
    assert all(entry["answered"] == ["a", "c"] for entry in missed if entry["round"] == 2)
    figures.remark_on_calls("secure aggregation in containers", result)
