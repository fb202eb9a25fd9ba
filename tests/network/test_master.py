"""v6_algorithm on a real server and real nodes: what comes back, and what becomes of a site that is away or refuses."""

from __future__ import annotations

import pytest
from v6network import Network

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
    return network.run("master", experiment={**EXPERIMENT, **changes}, organizations=DATA_SITES, timeout_s=240)


def test_master_trains_over_all_sites(three_sites):
    result = train(three_sites)
    assert result["rounds_run"] == 2
    assert {name: site["n"]["train"] for name, site in result["sites"].items()} == {"a": 24, "b": 30, "c": 36}
    assert not any(call["missing"] for call in result["participation"])


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
