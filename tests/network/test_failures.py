"""Sites that are away, leave, come back or refuse: the run ends as its quorum says, and the result names what happened.

Networks of processes: what Docker adds to it is in containers/test_container_failures.py.
"""

from __future__ import annotations

import re

import pytest
from training import asked, patients_experiment, slowest_call_s, train
from v6config import Site
from v6network import SELF_TEST_IMAGE, Network, Run
from v6process import wait_for

from v6_algorithm.engines.vantage6.runs import subtask_name

DATA_SITES = ["a", "b", "c"]
LEAST_DEADLINE_S = 20.0
# A site that works is this much quicker than the deadline, however busy the machine is.
MARGIN = 8

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def short(three_sites) -> dict:
    """`participation` of a run that must wait for its deadline, which is a short one for this machine."""
    deadline_s = max(LEAST_DEADLINE_S, MARGIN * slowest_call_s(three_sites))
    return {"minimum": 2, "deadline_s": round(deadline_s)}


def trainings(network: Network, task: int) -> dict[int, dict[str, str]]:
    """Status of each site's run, by round, as far as the master has come."""
    rounds: dict[int, dict[str, str]] = {}
    for child, method, number, _ in asked(network, task):
        if method == "train":
            rounds.setdefault(number, {}).update(network.statuses(child))
    return rounds


def wait_for_round(network: Network, task: int, number: int) -> None:
    """Wait until site a was asked to train in this round, as it is in every one."""
    wait_for(lambda: "a" in trainings(network, task).get(number, {}), f"round {number}", timeout_s=600)


def story(result: dict, site: str) -> list[str]:
    """What became of a site in each round: "answered", or the kind of the reason it is missing for."""
    rounds = [entry for entry in result["participation"] if entry["call"] == "train"]
    return [entry["missing"].get(site, "answered").partition(":")[0] for entry in rounds]


def test_a_site_that_is_offline_from_the_start_is_named_and_the_others_train(three_sites):
    """The deadline is an hour; a node that the server calls offline is not waited for that long."""
    three_sites.stop_node("b")
    try:
        participation = {"minimum": 2, "deadline_s": 3600}
        result = train(three_sites, patients_experiment(participation=participation))
    finally:
        three_sites.start_node("b")
    assert (result["status"], result["rounds_run"]) == ("completed", 2)
    assert sorted(result["sites"]) == ["a", "c"]
    reason = result["participation"][0]["missing"]["b"]
    assert reason.startswith("late: no answer within")
    assert "its node seems to be offline" in reason
    assert story(result, "a") == story(result, "c") == ["answered"] * 2


def test_a_site_that_leaves_in_a_round_and_comes_back_rests_and_is_asked_again(three_sites, short):
    task = three_sites.create("master", experiment=patients_experiment(rounds=6, participation=short))
    wait_for_round(three_sites, task, 2)
    three_sites.stop_node("b", gracefully=False)
    last = max(trainings(three_sites, task))
    # Late in that round or, if its answer was quicker than we, in the next.
    wait_for_round(three_sites, task, last + 2)
    three_sites.start_node("b")
    run = three_sites.wait(task, timeout_s=900)["hub"]
    assert run.status == "completed", run.log[-2000:]
    assert (run.result["status"], run.result["rounds_run"]) == ("completed", 6)
    told = story(run.result, "b")
    late = told.index("late")
    assert told == [*["answered"] * late, "late", "resting", *["answered"] * (4 - late)]
    assert story(run.result, "a") == story(run.result, "c") == ["answered"] * 6
    # What it was asked before it left is done when it is back, too late to count.
    (asked,) = [
        child["id"] for child in three_sites.subtasks(task) if child["name"] == subtask_name("RPC_train", late + 1, "b")
    ]
    assert three_sites.wait(asked)["b"].status == "completed"


def test_a_run_that_loses_its_quorum_stops_and_keeps_what_was_done(three_sites, short):
    task = three_sites.create("master", experiment=patients_experiment(rounds=6, participation=short))
    wait_for_round(three_sites, task, 3)
    for name in "bc":
        three_sites.stop_node(name, gracefully=False)
    try:
        run = three_sites.wait(task, timeout_s=900)["hub"]
    finally:
        three_sites.start_nodes("bc")
    assert run.status == "completed", run.log[-2000:]
    assert run.result["status"] == "stopped"
    assert 2 <= run.result["rounds_run"] < 6
    assert run.result["parameters"]
    because = run.result["stopped_because"]
    # The second to leave may have answered a round that the first missed: then the first rests in the next.
    assert re.search(r"1 of [23] sites answered, 2 are needed", because), because
    away = [re.search(rf"{name}: (late|resting)", because) for name in "bc"]
    assert all(away), because
    assert "late" in {match[1] for match in away if match}


REFUSED = "refused: the node's policy does not allow this image or user"


def train_while_a_refuses(network: Network, minimum: int) -> Run:
    """The hub's run of an experiment for this quorum, while site a allows another image only."""
    refusing = Site(network.sites["a"].databases, policies={"allowed_algorithms": [SELF_TEST_IMAGE]})
    experiment = patients_experiment(rounds=1, participation={"minimum": minimum, "deadline_s": 300})
    with network.changed({"a": refusing}):
        return network.wait(network.create("master", experiment=experiment), timeout_s=900)["hub"]


def test_a_node_whose_policy_refuses_the_image_is_named_and_the_others_train(three_sites):
    run = train_while_a_refuses(three_sites, minimum=2)
    assert run.result["status"] == "completed"
    assert run.result["participation"][0]["missing"]["a"] == REFUSED
    assert sorted(run.result["sites"]) == ["b", "c"]


def test_too_few_sites_before_the_first_round_is_an_error_that_names_them(three_sites):
    run = train_while_a_refuses(three_sites, minimum=3)
    assert (run.status, run.result) == ("crashed", None)
    assert "preparation: 2 of 4 sites answered, 3 are needed (participation.minimum)" in run.log
    assert f"a: {REFUSED}" in run.log
    assert "hub: absent" in run.log


def test_a_site_under_its_minimum_of_rows_and_its_other_rules_are_told(three_sites):
    guards = {
        "a": {"V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS": 45},
        "b": {"V6_ALGORITHM_ALLOWED_COLUMNS_REGEX": "^(age|dose|outcome)$"},
        "c": {"V6_ALGORITHM_MINIMUM_ORGANIZATIONS": 2},
    }
    sites = {name: Site(three_sites.sites[name].databases, guards[name]) for name in DATA_SITES}
    with three_sites.changed(sites):
        result = train(three_sites, patients_experiment(rounds=1))
    assert result["participation"][0]["missing"]["a"] == "refused: this node has fewer rows than its minimum of 45"
    assert sorted(result["sites"]) == ["b", "c"]
    assert result["status"] == "completed"
