"""Nodes of the default policy on a real network: `master`'s chain is answered, a request by hand is not."""

from __future__ import annotations

import pytest
from training import patients_experiment, train
from v6config import Site

from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

DATA_SITES = "abc"


@pytest.fixture(scope="module")
def standard(three_sites):
    """The three sites' nodes with nothing but the preset."""
    sites = {name: Site(three_sites.sites[name].databases, {"V6_ALGORITHM_POLICY": "standard"}) for name in DATA_SITES}
    with three_sites.changed(sites):
        yield three_sites


def test_a_run_of_masters_is_answered_by_nodes_of_the_default_policy(standard):
    result = train(standard, patients_experiment(rounds=2))
    assert result["status"] == "completed"
    assert sorted(result["sites"]) == list(DATA_SITES)
    assert {site["policy"]["preset"] for site in result["sites"].values()} == {"standard"}
    assert all(site["policy"]["differences_over_tasks"] for site in result["sites"].values())


def test_a_request_by_hand_is_refused_by_name(standard):
    content = Experiment.parse(patients_experiment(rounds=2)).for_sites()
    request = wire.message(site="a", round=0, attempt=1, experiment=content, sites=3, step="schema")
    (run,) = standard.wait(standard.create("RPC_prepare", at=["a"], request=request)).values()
    assert (run.result["status"], run.result["kind"]) == ("error", "refused")
    assert run.result["message"].endswith("(V6_ALGORITHM_REQUEST_CHAIN)")
    assert "posted by a user or another program" in run.result["message"]


def test_a_typing_error_in_a_nodes_configuration_stops_that_node_by_its_name(standard):
    typo = Site(standard.sites["a"].databases, {"V6_ALGORITHM_MINIMUM_CELLSIZE": "10"})
    with standard.changed({"a": typo}):
        result = train(standard, patients_experiment(rounds=1))
    assert "V6_ALGORITHM_MINIMUM_CELLSIZE of this node is no rule" in result["participation"][0]["missing"]["a"]
    assert sorted(result["sites"]) == ["b", "c"]
