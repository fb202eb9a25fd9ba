"""The protocol's model: rounds, faults of every kind, kills and resumes in any order, against what must come of them.

Sites give numbers, the coordinator's books say who counted, and the sum is over exactly those: no reply twice, none of
another round, attempt or site, nothing of a round that was cut short.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.rounds.stragglers import Stragglers
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Missing, Replies, Site
from v6_algorithm.experiment import Experiment

SITES = ["a", "b", "c", "d"]
EXPERIMENT = Experiment.parse({"data": {"target": "y"}})
GOOD = ["ok", "twice"]
FATES = [*GOOD, "stale round", "other attempt", "other site", "no json", "not finite", "refused", "crashed", "late"]


class Killed(BaseException):
    pass


def reply(request, value, **changes):
    head = {key: request[key] for key in ("schema", "site", "round", "attempt")}
    return json.dumps({**head, "status": "ok", "value": value, **changes})


class Network:
    """Answers as fate has it, in some order, and may lose the process after some arrivals."""

    def __init__(self):
        self.fates, self.order, self.dies_after = {}, SITES, None
        self.asked = 0

    def sites(self):
        return [Site(name, number) for number, name in enumerate(SITES)]

    def overdue(self, site):
        return self.fates.get(site) == "late"

    def belated(self):
        return ()

    def call(self, method, requests, *, deadline_s):
        self.asked += 1

        def arrivals():
            given = [arrival for site in self.order if site in requests for arrival in self._give(site, requests[site])]
            for number, arrival in enumerate(given):
                if number == self.dies_after:
                    raise Killed
                yield arrival

        return Replies(requests, arrivals(), {})

    def _give(self, site, request):
        value, fate = value_of(site, request["round"]), self.fates.get(site, "ok")
        texts = {
            "ok": [reply(request, value)],
            "twice": [reply(request, value), reply(request, value)],
            "stale round": [reply(request, 10**6, round=request["round"] - 1)],
            "other attempt": [reply(request, 10**6, attempt=2)],
            "other site": [reply(request, 10**6, site="e")],
            "no json": ["<h1>Bad Gateway</h1>"],
            "not finite": [reply(request, float("nan"))],
            "refused": [reply(request, 10**6, status="error", kind="refused", message="no")],
        }
        if fate in ("crashed", "late"):
            return [Arrival(site, None, Missing(fate, "lost"))]
        return [Arrival(site, text) for text in texts[fate]]


def value_of(site, round):
    return (SITES.index(site) + 1) * 10**round


class Rounds(RuleBasedStateMachine):
    """A coordinator that adds up what sites give; a checkpoint after each round."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.network = Network()
        # What must come of it: the sites that counted in each round that is over.
        self.counted = []
        self.start()

    def teardown(self):
        self.folder.cleanup()

    def start(self):
        """Start the process: go on from the checkpoint where there is one."""
        self.caller = Caller(self.network, EXPERIMENT, lambda event: None)
        self.stragglers = Stragglers(self.caller.overdue)
        self.total = self.round = 0
        self.checkpoints = Checkpoints(Path(self.folder.name, "checkpoint.safetensors"))
        if (saved := self.checkpoints.load(EXPERIMENT)) is not None:
            state = saved["state"]
            self.total, self.round = state["total"], state["round"]
            self.caller.load_state_dict(state["calls"])
            self.stragglers.load_state_dict(state["stragglers"])

    @rule(
        fates=st.fixed_dictionaries({site: st.sampled_from(FATES) for site in SITES}),
        order=st.permutations(SITES),
        dies_after=st.none() | st.integers(0, 5),
    )
    def one_round(self, fates, order, dies_after):
        self.network.fates, self.network.order, self.network.dies_after = fates, order, dies_after
        number = self.round + 1
        awake = [site for site in SITES if not self.stragglers.rests(site, number)] or SITES
        try:
            replies = self.caller.call("RPC_train", number, {site: {} for site in awake})
            for _, answer in replies:
                self.total += answer["value"]
        except Killed:
            self.start()
            return
        self.stragglers.book(replies, number)
        self.round = number
        good = [site for site in awake if fates[site] in GOOD]
        assert sorted(replies.answered) == sorted(good)
        assert set(replies.missing) == set(awake) - set(good)
        self.counted.append(good)
        self.save()

    def save(self):
        state = {"total": self.total, "round": self.round, "calls": self.caller.state_dict()}
        self.checkpoints.save(EXPERIMENT, state | {"stragglers": self.stragglers.state_dict()})

    @rule()
    def killed_between_rounds(self):
        self.start()

    @rule(length=st.integers(0, 40))
    def killed_while_the_checkpoint_is_written(self, length):
        part = self.checkpoints.path.with_name("checkpoint.safetensors.part")
        part.write_bytes(b"x" * length)
        self.start()

    @invariant()
    def the_sum_is_over_who_is_named_each_once(self):
        named = [sorted(entry["answered"]) for entry in self.caller.state_dict()["participation"]]
        assert named == [sorted(sites) for sites in self.counted]
        assert [entry["round"] for entry in self.caller.participation] == list(range(1, self.round + 1))
        wanted = sum(value_of(site, round) for round, sites in enumerate(self.counted, start=1) for site in sites)
        assert self.total == wanted


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


def test_the_model_sees_a_reply_of_another_round():
    """The machine can fail: a coordinator that took what is stale would be found out."""
    request = wire.message(site="a", round=2, attempt=1)
    replies = Replies({"a": request}, iter([Arrival("a", reply(request, 1, round=1))]), {})
    assert list(replies) == []
    assert replies.missing["a"].kind == "wrong"
