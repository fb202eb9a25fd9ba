"""A node that the server calls offline is not waited for in the preparation, where its site may join later."""

from __future__ import annotations

import pytest
from loopback import LoopbackProxy, numbered

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.vantage6 import subtasks
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import FederationError

HOUR_S = 3600
BERLIN = 4
AWAY = "(its run is pending; its node seems to be offline)"


@pytest.fixture
def train(tables, make_experiment, monkeypatch):
    """Return a function that runs an experiment while nobody begins what berlin is asked; gives result and proxy."""
    monkeypatch.setattr(subtasks, "OFFLINE_S", 0.05)
    organizations = numbered(tables)

    def go(offline=(BERLIN,), **changes):
        def outcome(organization, call):
            return "pending" if organization == BERLIN else None

        with LoopbackProxy(organizations, outcome=outcome) as proxy:
            proxy.offline = set(offline)
            experiment = make_experiment(rounds=2, **changes)
            return run(Vantage6Federation(proxy.client(), poll_s=0.01), experiment), proxy

    return go


@pytest.mark.timeout(300)
def test_the_preparation_does_not_wait_an_hour_for_a_node_that_is_offline(train):
    result, proxy = train(participation={"deadline_s": HOUR_S})
    assert (result["status"], result["rounds_run"]) == ("completed", 2)
    assert sorted(result["sites"]) == ["amsterdam", "cairo"]
    first = result["participation"][0]
    assert (first["call"], first["answered"]) == ("prepare", ["amsterdam", "cairo"])
    assert first["missing"]["berlin"].startswith("late: no answer within ")
    assert first["missing"]["berlin"].endswith(AWAY)
    # It owes that answer, so that it joins when it has given it, and is asked nothing before.
    assert proxy.calls[BERLIN] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"offline": ()},
        {"participation": {"join": False}},
        {"split": "leave_one_site_out", "participation": {"minimum": 1}},
        {"participation": {"minimum": 3}},
    ],
    ids=["a node that is online", "nobody may join", "folds are hospitals", "the others are too few"],
)
def test_the_others_are_waited_for_until_the_deadline(train, changes):
    participation = {"deadline_s": 0.6, **changes.pop("participation", {})}
    try:
        result, _ = train(participation=participation, **changes)
        told = result["participation"][0]["missing"]["berlin"]
    except FederationError as error:
        assert participation.get("minimum") == 3
        told = str(error)
    assert f"late: no answer within 0.6 s {AWAY}" in told


def test_a_server_that_says_nothing_of_a_node_does_not_call_it_offline():
    class Client:
        class run:
            @staticmethod
            def from_task(task):
                raise ConnectionError

    assert not subtasks.OfflineNodes(Client()).are_all([1])
