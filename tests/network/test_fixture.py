"""The network itself, with a tiny algorithm: when one of these fails, look here before looking at v6_algorithm."""

from __future__ import annotations

import time

import pytest
from v6config import Site
from v6network import ABSENT_IMAGE, SELF_TEST_IMAGE, Network
from v6process import wait_for
from vantage6.common.task_status import TaskStatus

COUNT = {"image": SELF_TEST_IMAGE}


def count_everywhere(network: Network, names: str) -> dict:
    sites = {network.organizations[name]: name for name in names}
    answers = network.run("master", sites=list(sites), timeout_s=90, **COUNT)
    return {sites[int(site)]: answer for site, answer in answers.items()}


def test_master_at_the_hub_reaches_every_site_through_subtasks(three_sites):
    assert {name: answer["rows"] for name, answer in count_everywhere(three_sites, "abc").items()} == {
        "a": 40,
        "b": 50,
        "c": 60,
    }


def test_the_temporary_folder_lasts_for_one_job_at_one_site(three_sites):
    first, second = (count_everywhere(three_sites, "ab") for _ in range(2))
    assert {answer["calls"] for answer in [*first.values(), *second.values()]} == {1}


def test_a_crash_at_one_site_is_told_with_its_log(three_sites):
    runs = three_sites.wait(three_sites.create("crash", at=["a"], **COUNT))
    assert runs["a"].status == TaskStatus.CRASHED
    assert "told to crash" in runs["a"].log
    assert runs["a"].result is None


def test_an_unknown_image_does_not_start(three_sites):
    runs = three_sites.wait(three_sites.create("count", at=["a"], image=ABSENT_IMAGE))
    assert runs["a"].status == TaskStatus.NO_DOCKER_IMAGE


def test_a_task_can_be_killed(three_sites):
    task = three_sites.create("sleep", at=["b"], seconds=60, **COUNT)
    wait_for(lambda: three_sites.statuses(task)["b"] == TaskStatus.ACTIVE, "the task to start")
    three_sites.client.task.kill(task)
    assert three_sites.wait(task, timeout_s=20)["b"].status == TaskStatus.KILLED


def test_a_node_that_was_offline_runs_its_task_when_it_is_back(three_sites):
    three_sites.stop_node("c")
    task = three_sites.create("count", at=["c"], **COUNT)
    time.sleep(1)
    assert three_sites.statuses(task) == {"c": TaskStatus.PENDING}
    three_sites.start_node("c")
    assert three_sites.wait(task)["c"].result["rows"] == 60


def test_a_run_starts_over_when_its_machine_lost_power(three_sites):
    task = three_sites.create("sleep", at=["c"], seconds=3, **COUNT)
    wait_for(lambda: three_sites.statuses(task)["c"] == TaskStatus.ACTIVE, "the task to start")
    three_sites.stop_node("c", gracefully=False)
    three_sites.start_node("c")
    assert three_sites.wait(task)["c"].result == {"slept": 3}
    assert three_sites.node_log("c").count(f"Starting task {task} ") == 2


def test_a_node_has_its_owners_guards_policies_and_folders(make_network, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "patients.csv").write_text("age\n50\n60\n")
    guards = {"V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS": 25}
    policies = {"allowed_algorithms": [SELF_TEST_IMAGE]}
    network = make_network(
        {
            "a": Site({"default": tmp_path / "patients.csv", "images": tmp_path / "images"}, guards, policies),
            "b": Site({"default": tmp_path / "patients.csv"}, online=False),
        },
        encrypted=True,
    )
    assert network.run("count", at=["a"], **COUNT) == {"rows": 2, "calls": 1, "type": "csv", "guard": "25"}
    assert network.wait(network.create("count", at=["a"]))["a"].status == TaskStatus.NOT_ALLOWED
    assert not network.is_online("b")


def test_a_network_says_what_it_waited_for_in_vain(three_sites):
    with pytest.raises(TimeoutError, match=r"waited 0\.1 s for nothing"):
        wait_for(lambda: False, "nothing", timeout_s=0.1, poll_s=0.05)
