"""Runs in which much goes wrong come to what a run without faults comes to, over the same participants."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tools.faults import HARMLESS, RUN_FAULTS, SITE_FAULTS, FaultPlan, damaged
from tools.soak import experiment, hospitals, soak
from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation


def test_a_short_soak_loses_nothing(tmp_path):
    done = soak(8, 4, seed=3, folder=tmp_path, rate=0.4)
    assert done.differences == []
    assert done.rounds == 8
    assert sum(done.faults.values()) > 8


@pytest.mark.slow
def test_200_rounds_of_8_sites_meet_every_fault_and_come_to_the_same_bits(tmp_path):
    done = soak(200, 8, seed=1, folder=tmp_path)
    assert done.differences == []
    assert done.rounds == 200
    assert set(done.faults) == {*SITE_FAULTS, *RUN_FAULTS}
    assert done.starts > 3
    # Every answer that met harm is in the table with a reason; the rest of the table are sites that were not asked.
    asked = sum(count for reason, count in done.dropped.items() if reason not in ("resting", "quarantined"))
    assert asked >= sum(count for kind, count in done.faults.items() if kind in SITE_FAULTS and kind != "slow") * 0.8
    assert {"late", "crashed", "unreachable", "a second answer", "an answer that nobody asked for"} <= set(done.dropped)


def test_the_soak_sees_an_answer_that_counted_and_should_not(tmp_path, monkeypatch):
    """It can fail: where a reply of another round is taken, model and table are not those of the run without faults."""
    from v6_algorithm.exchange import wire

    taken = Counter()

    def careless(text, request):
        reply = json.loads(text)
        taken.update(["stale"] if reply["round"] != request["round"] else [])
        return reply | {"round": request["round"]}

    only = FaultPlan.at_site
    monkeypatch.setattr(FaultPlan, "in_run", lambda self, round: None)
    monkeypatch.setattr(
        FaultPlan,
        "at_site",
        lambda self, *place: "stale" if only(self, *place) in {*SITE_FAULTS} - {*HARMLESS} else None,
    )
    monkeypatch.setattr(wire, "read_reply", careless)
    done = soak(4, 4, seed=3, folder=tmp_path, rate=0.4)
    assert taken["stale"]
    assert any("counted, which met 'stale'" in difference for difference in done.differences)


def test_a_plan_is_its_seed_alone():
    plans = [FaultPlan(seed, 0.5) for seed in (1, 1, 2)]
    drawn = [[plan.at_site(round, site, "x") for round in range(20) for site in range(5)] for plan in plans]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("kind", ["cut", "error page", "not a number", "other shape", "stale", "out of memory"])
def test_what_damages_a_reply_makes_it_unusable(kind):
    asked = experiment(1, 0)
    texts = {}

    class Listening:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def call(self, method, requests, *, deadline_s):
            replies = self.inner.call(method, requests, deadline_s=deadline_s)
            if method == "RPC_train":
                inner = replies.arrivals

                def arrivals():
                    for arrival in inner:
                        texts[arrival.site] = arrival.text
                        if arrival.site == "site02":
                            arrival.text = damaged(arrival.text, kind)
                        yield arrival

                replies.arrivals = arrivals()
            return replies

    result = run(Listening(local_federation(asked, hospitals(3))), asked)
    (entry,) = [entry for entry in result["participation"] if entry["call"] == "train"]
    assert entry["answered"] == ["site00", "site01"]
    assert texts["site02"] != damaged(texts["site02"], kind)
