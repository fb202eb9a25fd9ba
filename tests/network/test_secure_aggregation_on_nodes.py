"""Secure aggregation over a real server and nodes: a run's bits here, one killed in mid-round, one that asks for it."""

from __future__ import annotations

import pytest
from training import (
    TOLERANCE,
    asked,
    files,
    largest_difference,
    patients_experiment,
    slowest_call_s,
    train,
    train_here,
)
from v6config import Site
from v6process import wait_for

DATA_SITES = ["a", "b", "c"]
SECURE = {"secure_aggregation": {"threshold": 2}}

pytestmark = pytest.mark.slow


def test_secure_aggregation_over_real_nodes_gives_the_bits_of_a_local_run(three_sites, figures):
    experiment = patients_experiment(privacy=SECURE)
    result = train(three_sites, experiment)
    here = train_here(files(three_sites, DATA_SITES), experiment)
    assert result["status"] == "completed"
    assert list(result["secure_aggregation"]["sites"]) == DATA_SITES
    assert largest_difference(result, here) <= TOLERANCE
    assert result["history"]["train_loss"] == pytest.approx(here["history"]["train_loss"], abs=TOLERANCE)
    figures.remark_on_calls("secure aggregation", result)


def test_a_node_that_is_killed_in_mid_round_is_left_out_of_the_sum_and_named(three_sites):
    deadline_s = round(max(20.0, 8 * slowest_call_s(three_sites)))
    participation = {"minimum": 2, "deadline_s": deadline_s}
    task = three_sites.create(
        "master", experiment=patients_experiment(rounds=4, privacy=SECURE, participation=participation)
    )

    def training(number: int) -> bool:
        return any(method == "train" and round_of == number for _, method, round_of, _ in asked(three_sites, task))

    wait_for(lambda: training(2), "round 2", timeout_s=600)
    three_sites.stop_node("b", gracefully=False)
    try:
        run = three_sites.wait(task, timeout_s=900)["hub"]
    finally:
        three_sites.start_node("b")
    assert run.status == "completed", run.log[-2000:]
    result = run.result
    assert (result["status"], result["rounds_run"]) == ("completed", 4)
    missed = [entry for entry in result["participation"] if "b" in entry["missing"]]
    assert missed
    assert missed[0]["round"] in (2, 3)
    assert missed[0]["missing"]["b"].startswith("late: no answer within")
    assert all(entry["answered"] == ["a", "c"] for entry in missed)


def test_a_node_that_asks_for_it_refuses_a_run_in_the_clear_by_name(three_sites):
    rule = {"V6_ALGORITHM_POLICY": "trusted", "V6_ALGORITHM_SECURE_AGGREGATION_FROM_SITES": "3"}
    with three_sites.changed({"b": Site(three_sites.sites["b"].databases, rule)}):
        result = train(three_sites, patients_experiment(rounds=1, participation={"minimum": 2}))
    told = [entry["missing"]["b"] for entry in result["participation"] if "b" in entry["missing"]]
    assert told
    assert all("V6_ALGORITHM_SECURE_AGGREGATION_FROM_SITES" in reason for reason in told)
    assert sorted(result["sites"]) == ["a", "c"]
