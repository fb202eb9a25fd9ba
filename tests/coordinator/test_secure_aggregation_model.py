"""Secure aggregation's phases in any order of faults: keys, masked numbers, shares, kills and resumes.

Coordinator and sites are the real ones, with real rows; only the network between them is made up. What must come of it
is known from the same sites asked in the clear: a sum over exactly those who are named, or a named reason and no sum.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from functools import cache

import pytest
import torch
from hospitals import table
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from spying import Spy

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.secure_aggregation import ALL_SITES
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Missing, Replies, Site
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

ROWS = {"a": 20, "b": 30, "c": 25, "d": 40, "e": 35}
SITES = list(ROWS)
THRESHOLD = 3
CONTENT = {
    "data": {"target": "y", "features": ["a", "b"]},
    "model": "logistic",
    "training": {"optimizer": {"kind": "sgd", "lr": 0.1}},
    "rounds": 1000,
}
MASKED = Experiment.parse(CONTENT | {"privacy": {"secure_aggregation": {"threshold": THRESHOLD}}})
# Of a model in float32, and of five changes in steps of 8 / 2^28.
TOLERANCE = 1e-6
GOOD = ["ok", "twice", "asked twice", "asked again, first answer"]
BAD = ["away", "lost", "late", "late, and back", "of another call", "of another site", "changed", "no json"]


class Killed(BaseException):
    """What SIGKILL is to the coordinator's process."""


def contexts() -> dict[str, SiteContext]:
    return {
        name: SiteContext({name: TableSource(frame=table(rows, seed))}, Policy.of("trusted"), lasting=True)
        for seed, (name, rows) in enumerate(ROWS.items())
    }


@cache
def questions():
    """The bodies of what a run in the clear asks for statistics, and for training in round 2."""
    spy = Spy(LocalFederation(contexts()))
    run(spy, Experiment.parse(CONTENT | {"rounds": 2}))
    head = ("schema", "site", "round", "attempt", "experiment", "sites")
    asked = spy.of("RPC_prepare")[1]["a"], spy.of("RPC_train")[1]["a"]
    statistics, train = ({key: value for key, value in one.items() if key not in head} for one in asked)
    return statistics, train | {"folds": [fold | {"evaluate": []} for fold in train["folds"]]}


@cache
def in_the_clear(round):
    """By site the training rows, the summed loss and how far each parameter moved in a round, (n,) float64."""
    body = questions()[1]
    start = flat(body["folds"][0]["parameters"])
    caller = Caller(LocalFederation(contexts()), Experiment.parse(CONTENT), lambda event: None)
    folds = {site: reply["folds"][0] for site, reply in caller.call("RPC_train", round, dict.fromkeys(SITES, body))}
    return {site: (fold["rows"], fold["loss"]["sum"], flat(fold["parameters"]) - start) for site, fold in folds.items()}


def flat(parameters):
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(wire.unpack(parameters).items())])


def mean_move(sites, round):
    """The mean of the sites' moves in a round, weighted by rows."""
    clear = in_the_clear(round)
    return sum(clear[site][0] * clear[site][2] for site in sites) / sum(clear[site][0] for site in sites)


CHANGED = {
    "keys": lambda reply: reply | {"keys": {}},
    "numbers": lambda reply: reply | {"masked": reply["masked"] | {"context": "0" * 64}},
    "shares": lambda reply: reply | {"shares": "none"},
}


class Network:
    """Brings requests to real sites and answers back as fate has it, and notes which shares each site told.

    `fates` is by phase (`keys`, `numbers`, `shares`) and site; `dies` names a phase and the arrival at which the
    coordinator's process is killed.
    """

    def __init__(self):
        self.contexts = contexts()
        self._sites = LocalFederation(self.contexts)
        self.fates, self.order, self.dies = {}, SITES, None
        self.owing = set()
        # Of the last call in each phase: who was asked. All requests for shares. By site and round the sites over which
        # it opened its sum.
        self.asked, self.requests, self.opened = {}, [], {}
        self._earlier = {}
        # By round, run and call: by peer the sites that told their share of its own seed, or of its seed with another.
        self.told = defaultdict(lambda: {"own": defaultdict(set), "pairs": defaultdict(set)})

    def sites(self):
        return [Site(name, number) for number, name in enumerate(SITES)]

    def overdue(self, site):
        return site in self.owing

    def belated(self):
        return ()

    def call(self, method, requests, *, deadline_s):
        step = next(iter(requests.values())).get("step")
        phase = {"secure_aggregation_keys": "keys", "secure_aggregation_unmask": "shares"}.get(step, "numbers")
        self.asked[phase] = set(requests)

        def arrivals():
            given = [
                arrival
                for site in self.order
                if site in requests
                for arrival in self._answer(phase, site, method, requests[site])
            ]
            for number in range(len(given) + 1):
                if self.dies == (phase, number):
                    raise Killed
                yield from given[number : number + 1]

        return Replies(requests, arrivals(), {})

    def ask(self, site, method, request):
        """Let a site answer, whatever becomes of its answer."""
        replies = self._sites.call(method, {site: request}, deadline_s=1e9)
        reply = dict(replies).get(site)
        if request.get("step") == "secure_aggregation_unmask":
            self.requests.append((site, method, copy.deepcopy(request)))
            told = self.told[request["round"], request["secure_aggregation"]["run"], request["question"]]
            if reply is not None:
                self.opened[site, request["round"]] = set(request["arrived"])
            for peer, shares in (reply or {"shares": {}})["shares"].items():
                for name in shares:
                    told["own" if name == peer else "pairs"][name].add(site)
        return reply, replies.missing.get(site)

    def _answer(self, phase, site, method, request):
        fate = self.fates.get(phase, {}).get(site, "ok")
        self.owing.discard(site)
        if fate == "away":
            return [Arrival(site, None, Missing("unreachable", "its node is offline"))]
        reply, refusal = self.ask(site, method, request)
        if reply is None:
            return [Arrival(site, None, refusal)]
        earlier, self._earlier[phase, site] = self._earlier.get((phase, site)), reply
        text = wire.to_text(reply)
        if fate == "late":
            self.owing.add(site)
        if fate in ("lost", "late", "late, and back"):
            return [Arrival(site, None, Missing("crashed" if fate == "lost" else "late", "not here in time"))]
        if fate == "twice":
            return [Arrival(site, text), Arrival(site, text)]
        if fate == "asked twice":  # its node was started again in between; numbers have other masks
            return [Arrival(site, wire.to_text(self.ask(site, method, request)[0]))]
        if fate == "asked again, first answer":
            return [Arrival(site, text), Arrival(site, wire.to_text(self.ask(site, method, request)[0]))]
        if fate == "of another call":
            return [Arrival(site, wire.to_text(earlier or reply | {"round": reply["round"] + 1}))]
        if fate == "of another site":
            return [Arrival(site, wire.to_text(reply | {"site": next(name for name in SITES if name != site)}))]
        if fate == "changed":
            return [Arrival(site, wire.to_text(CHANGED[phase](reply)))]
        return [Arrival(site, "<h1>Bad Gateway</h1>" if fate == "no json" else text)]


def faults(most):
    return st.dictionaries(st.sampled_from(SITES), st.sampled_from(GOOD + BAD), max_size=most)


class Phases(RuleBasedStateMachine):
    """A coordinator that is started, killed and started again, and asks for one sum after another."""

    def __init__(self):
        super().__init__()
        self.network = Network()
        self.caller = self.saved = None
        self.round = 0

    def good(self, phase):
        """Who was asked in a phase, and whose answer is of use."""
        fates = self.network.fates.get(phase, {})
        return {site for site in self.network.asked[phase] if fates.get(site, "ok") in GOOD}

    def opening(self, number):
        """Who was asked for shares, has not opened this round's sum over others, and whose answer is of use."""
        arrived, opened = self.network.asked["shares"], self.network.opened
        return {site for site in self.good("shares") if opened.get((site, number), arrived) == arrived}

    def check_reason(self, error, phase, words, good):
        """Too few answers are told as such, and by name whose is missing."""
        assert len(good) < THRESHOLD, str(error)
        assert words in str(error)
        assert f"{THRESHOLD} are needed" in str(error)
        for site in self.network.asked[phase] - good:
            assert f"\n  {site}: " in str(error)

    def start(self):
        """Start the process, or do not, where too few sites are there; go on from the checkpoint if there is one."""
        caller = Caller(self.network, MASKED, lambda event: None)
        state = None if self.saved is None else json.loads(self.saved)
        if state is not None:
            caller.load_state_dict(state["calls"])
        try:
            summing = caller.sum_over(SITES if state is None else state["summing"]["sites"], 2)
        except FederationError as error:
            self.check_reason(error, "keys", "gave keys", self.good("keys"))
            return
        assert set(summing.names) == self.good("keys")
        if state is not None:
            summing.load_state_dict(state["summing"])
        else:
            replies = caller.call("RPC_prepare", 0, {ALL_SITES: questions()[0]})
            if (body := self.summed(replies, 0)) is None:
                return
            rows = sum(in_the_clear(1)[site][0] for site in replies.answered)
            assert body["counts"][0][ALL_SITES]["train"] == rows
        self.caller, self.summing = caller, summing
        self.save()

    @rule(
        keys=faults(2),
        numbers=faults(3),
        shares=faults(3),
        order=st.permutations(SITES),
        dies=st.none() | st.tuples(st.sampled_from(["numbers", "shares"]), st.integers(0, 5)),
    )
    def one_round(self, keys, numbers, shares, order, dies):
        """Ask for the next sum, by a process that is started where there is none."""
        self.network.fates = {"keys": keys}
        self.network.order, self.network.dies = order, None
        if self.caller is None:
            self.start()
        if self.caller is None:
            return
        self.network.fates, self.network.dies = {"numbers": numbers, "shares": shares}, dies
        number = self.round + 1
        replies = self.caller.call("RPC_train", number, {ALL_SITES: questions()[1]})
        if (body := self.summed(replies, number)) is None:
            self.caller = None
            return
        (fold,) = body["folds"]
        named, clear = replies.answered, in_the_clear(number)
        assert fold["rows"] == sum(clear[site][0] for site in named)
        assert fold["loss"]["sum"] == pytest.approx(sum(clear[site][1] for site in named), rel=1e-12)
        move = flat(fold["parameters"]) - flat(questions()[1]["folds"][0]["parameters"])
        assert move.tolist() == pytest.approx(mean_move(named, number).tolist(), abs=TOLERANCE)
        self.round = number
        self.save()

    @rule(numbers=faults(3), shares=faults(3), dies=st.none() | st.integers(0, 5))
    def begun_anew(self, numbers, shares, dies):
        """The task is run again before anything was saved: the preparation has its sum too."""
        self.caller = self.saved = None
        self.round = 0
        self.network.fates = {"numbers": numbers, "shares": shares}
        self.network.dies = None if dies is None else ("shares", dies)
        self.start()

    def summed(self, replies, number):
        """Return the sum's body; None where the process was killed, or too few answered, which must be told."""
        self.network.asked.pop("shares", None)
        try:
            ((_, body),) = list(replies)
        except Killed:
            return None
        except FederationError as error:
            if "shares" in self.network.asked:
                self.check_reason(error, "shares", "sites opened the sum", self.opening(number))
            else:
                self.check_reason(error, "numbers", "sites gave masked numbers", self.good("numbers"))
            return None
        assert set(replies.answered) == self.good("numbers") == self.network.asked["shares"]
        assert len(replies.answered) == len(set(replies.answered)) >= THRESHOLD
        assert set(replies.answered) | set(replies.missing) >= self.network.asked["numbers"]
        assert not set(replies.answered) & set(replies.missing)
        assert len(self.opening(number)) >= THRESHOLD
        return body

    def save(self):
        self.saved = json.dumps({"calls": self.caller.state_dict(), "summing": self.summing.state_dict()})

    @rule()
    def killed_between_rounds(self):
        self.caller = None

    @rule(which=st.integers(0, 9), left_out=st.none() | st.integers(0, 4))
    def an_old_question_for_shares_comes_again(self, which, left_out):
        """As it was, as by a node that starts again; or over fewer sites, as by somebody who wants a difference."""
        if not self.network.requests:
            return
        site, method, request = copy.deepcopy(self.network.requests[-1 - which % len(self.network.requests)])
        if left_out is not None:
            gone = request["arrived"].pop(left_out % len(request["arrived"]))
            del request["letters"][gone]
        self.network.ask(site, method, request)

    @invariant()
    def no_site_tells_both_kinds_of_shares_of_a_peer(self):
        for told in self.network.told.values():
            assert all(not told["own"][peer] & told["pairs"][peer] for peer in SITES)

    @invariant()
    def of_one_round_one_sum_is_opened(self):
        """Two over other sites would tell by their difference what one site trained, also after a restart."""
        opened = defaultdict(set)
        for (round, _, _), told in self.network.told.items():
            over = frozenset(peer for peer, sites in told["own"].items() if len(sites) >= THRESHOLD)
            if over:
                opened[round].add(over)
        assert all(len(sets) == 1 for sets in opened.values()), dict(opened)


class ManyPhases(Phases):
    """The same, for longer."""


TestPhases = Phases.TestCase
TestPhases.settings = settings(max_examples=8, stateful_step_count=6, deadline=None)
TestManyPhases = pytest.mark.slow(ManyPhases.TestCase)
TestManyPhases.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)


def test_a_site_too_many_or_too_few_in_a_sum_would_be_seen():
    whole = mean_move(SITES, 1)
    for site in SITES:
        rest = mean_move([name for name in SITES if name != site], 1)
        assert float((whole - rest).abs().max()) > 1000 * TOLERANCE


def test_a_round_that_is_asked_again_after_a_kill_is_summed_over_the_same_sites_only():
    """By a coordinator with new keys: what the two sums differ in would be the change of one site."""
    phases = Phases()
    everybody = {"keys": {}, "numbers": {}, "shares": {}, "order": SITES}
    phases.one_round(**everybody, dies=("shares", len(SITES)))
    assert phases.caller is None
    phases.start()
    phases.network.fates = {"numbers": {"a": "away"}}
    replies = phases.caller.call("RPC_train", 1, {ALL_SITES: questions()[1]})
    with pytest.raises(FederationError, match=r"0 of 4 sites opened the sum(.|\n)*already in this task, over a, b, c"):
        list(replies)
    phases.of_one_round_one_sum_is_opened()
    phases.caller = None
    phases.one_round(**everybody, dies=None)
    assert phases.round == 1
