"""v6_algorithm on a real server and real nodes: what comes back, and what becomes of a site that is away or refuses."""

from __future__ import annotations

import pytest
from figures import PROCESSES
from v6config import Site
from v6network import Network

from v6_algorithm.data.sources import TableSource
from v6_algorithm.experiment import Experiment
from v6_algorithm.federation.simulate import local_federation
from v6_algorithm.master import run

EXPERIMENT = {
    "name": "smoke",
    "data": {"target": "outcome"},
    "problem": {"kind": "classification"},
    "model": {"kind": "mlp", "hidden": [8]},
    "rounds": 2,
    "participation": {"minimum": 2, "deadline_s": 120},
}
DATA_SITES = ["a", "b", "c"]


def train(network: Network, **changes) -> dict:
    return network.run("master", experiment={**EXPERIMENT, **changes}, timeout_s=240)


def run_here(network: Network, **changes) -> dict:
    """The same experiment over the same tables with the local engine."""
    experiment = Experiment.parse({**EXPERIMENT, **changes})
    tables = {name: TableSource(str(network.sites[name].databases["default"])) for name in DATA_SITES}
    return run(local_federation(experiment, tables), experiment)


def test_master_over_real_nodes_gives_the_bits_of_a_local_run(three_sites, figures):
    result, here = train(three_sites), run_here(three_sites)
    for key in ("rounds_run", "best_round", "sites", "history", "metrics", "parameters"):
        assert result[key] == here[key], key
    # The hub has no database: it takes no part, which is told, and is no error.
    assert result["participation"][0]["answered"] == DATA_SITES
    assert result["participation"][0]["missing"] == {"hub": "absent: this node has no database 'default'"}
    assert not any(call["missing"] for call in result["participation"][1:])
    figures.note_rounds(PROCESSES, result)


@pytest.mark.slow
def test_master_goes_on_without_a_site_that_is_away(three_sites):
    three_sites.stop_node("b")
    try:
        result = train(three_sites, participation={"minimum": 2, "deadline_s": 45})
    finally:
        three_sites.start_node("b")
    assert result["rounds_run"] == 2
    assert "b" in result["participation"][0]["missing"]
    assert sorted(result["sites"]) == ["a", "c"]


@pytest.mark.slow
def test_a_nodes_own_rules_keep_it_out_and_are_told(make_network, three_sites):
    guards = {
        "a": {"V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS": 45},
        "b": {"V6_ALGORITHM_ALLOWED_COLUMNS_REGEX": "^(age|dose|outcome)$"},
        "c": {"V6_ALGORITHM_MINIMUM_ORGANIZATIONS": 2},
    }
    sites = {name: Site(three_sites.sites[name].databases, guards=guards[name]) for name in DATA_SITES}
    result = train(make_network(sites), rounds=1)
    assert result["participation"][0]["missing"]["a"] == "refused: this node has fewer rows than its minimum of 45"
    assert sorted(result["sites"]) == ["b", "c"]
    assert result["status"] == "completed"
