"""A site that answers wrongly, or not at all, in the middle of a run: it is named, and the others go on without it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from hospitals import COULD_NOT_GO_ON, FINE, command, explained, read_result, write

from v6_algorithm.engines.simulation import simulate
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Missing


class Tampered:
    """A federation in which what one site answers to one method, from one round on, is changed on the way."""

    def __init__(self, federation, change, *, method="RPC_train", rounds=(2,), site="berlin"):
        self.federation, self.change = federation, change
        self.method, self.rounds, self.site = method, rounds, site
        self.before = None

    def sites(self):
        return self.federation.sites()

    def overdue(self, site):
        return self.federation.overdue(site)

    def belated(self):
        return self.federation.belated()

    def call(self, method, requests, *, deadline_s):
        replies = self.federation.call(method, requests, deadline_s=deadline_s)
        replies.arrivals = (self._pass(method, requests, arrival) for arrival in replies.arrivals)
        return replies

    def _pass(self, method, requests, arrival):
        if arrival.site != self.site or method != self.method:
            return arrival
        if requests[arrival.site]["round"] in self.rounds:
            return self.change(arrival, self.before)
        self.before = replace(arrival)
        return arrival


def replying(change):
    """Make a tampering that changes the reply's content."""

    def tamper(arrival, before):
        reply = json.loads(arrival.text)
        change(reply)
        return Arrival(arrival.site, json.dumps(reply))

    return tamper


def with_tensors(change):
    """Make a tampering that changes the reply's tensors."""

    def tamper(reply):
        tensors = wire.unpack(reply["folds"][0]["parameters"])
        reply["folds"][0]["parameters"] = wire.pack({name: change(tensor) for name, tensor in tensors.items()})

    return replying(tamper)


def gone(arrival, before):
    return Arrival(arrival.site, None, Missing("crashed", "the algorithm container crashed"))


def interrupt(arrival, before):
    raise KeyboardInterrupt


def stale(arrival, before):
    return before


def drop_fold(reply):
    reply["folds"] = []


def repeat_fold(reply):
    reply["folds"] *= 2


def not_finite_loss(reply):
    reply["folds"][0]["loss"]["sum"] = float("nan")


def halved(arrival, before):
    return Arrival(arrival.site, arrival.text[: len(arrival.text) // 2])


def tampered(folder, change, *options, changes=None, **where):
    """Run an experiment whose replies are tampered with; return the CLI's and its own result."""
    real = simulate.local_federation
    with pytest.MonkeyPatch.context() as patch:
        # Texts are what is tampered with.
        patch.setattr(
            simulate,
            "local_federation",
            lambda *given, way="wire", workers=None: Tampered(real(*given[:4]), change, **where),
        )
        result = command("run", write(folder, **(changes or {})), "--out", folder / "out", *options)
    return result, read_result(folder / "out")


@pytest.fixture
def run_tampered(tmp_path):
    return partial(tampered, tmp_path)


@pytest.fixture(scope="module")
def without_a_reply(tmp_path_factory):
    """The result of the run in which berlin's reply of round 2 is lost."""
    return tampered(tmp_path_factory.mktemp("without"), gone)[1]


WRONG_REPLIES = {
    "a wrong shape": (with_tensors(lambda tensor: tensor[..., :1]), "has shape"),
    "a NaN update": (with_tensors(lambda tensor: tensor * torch.nan), "holds non-finite numbers"),
    "a wrong dtype": (with_tensors(torch.Tensor.double), "has dtype float64, expected float32"),
    "a stale round": (stale, "the reply is of round '1', asked was 2"),
    "no folds": (replying(drop_fold), "it answers for other folds than it was asked for"),
    "a fold twice": (replying(repeat_fold), "it answers for other folds than it was asked for"),
    "a NaN loss": (replying(not_finite_loss), "the reply is not JSON, or holds numbers that are not finite"),
    "half a reply": (halved, "the reply is not JSON"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG_REPLIES.values(), ids=WRONG_REPLIES)
def test_a_wrong_reply_counts_as_no_reply_and_is_named(tmp_path, run_tampered, without_a_reply, change, reason):
    result, content = run_tampered(change)
    explained(result, FINE, "round 2: missing berlin: wrong: ", reason, folder=tmp_path / "out")
    (second,) = [entry for entry in content["participation"] if (entry["call"], entry["round"]) == ("train", 2)]
    assert second["answered"] == ["amsterdam", "cairo"]
    assert second["missing"]["berlin"].startswith("wrong: ")
    assert reason in second["missing"]["berlin"]
    for key in ("parameters", "metrics", "history", "best_round", "sites"):
        assert content[key] == without_a_reply[key], key


def test_the_site_is_back_in_the_round_after(run_tampered):
    _, content = run_tampered(gone)
    missing = {e["round"]: e["missing"] for e in content["participation"] if e["call"] == "train"}
    assert missing == {1: {}, 2: {"berlin": "crashed: the algorithm container crashed"}, 3: {}}


def test_a_site_that_disappears_is_missed_but_the_run_is_completed(tmp_path, run_tampered):
    result, content = run_tampered(gone, rounds=range(2, 99))
    explained(
        result, FINE, "round 3: missing berlin: crashed: the algorithm container crashed", folder=tmp_path / "out"
    )
    assert content["status"] == "completed"
    assert content["rounds_run"] == 3


def test_a_site_that_disappears_and_is_needed_ends_the_run_with_what_was_done(tmp_path, run_tampered):
    quorum = {"participation": {"minimum": 3}, "rounds": 9}
    result, content = run_tampered(gone, rounds=range(3, 99), changes=quorum)
    explained(
        result,
        COULD_NOT_GO_ON,
        "stopped early, what was done is kept: round 3: 2 of 3 sites answered, 3 are needed (participation.minimum)",
        "  berlin: crashed: the algorithm container crashed",
        folder=tmp_path / "out",
    )
    assert content["status"] == "stopped"
    assert content["rounds_run"] == 2
    assert len(content["history"]["train_loss"]) == 2
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 0


def test_an_interruption_from_the_keyboard_keeps_what_was_done(tmp_path, run_tampered):
    result, content = run_tampered(interrupt, "--baselines", rounds=(3,))
    explained(
        result,
        COULD_NOT_GO_ON,
        "stopped early, what was done is kept: interrupted from the keyboard",
        folder=tmp_path / "out",
    )
    assert (content["status"], content["rounds_run"]) == ("stopped", 2)
    assert "baselines" not in content


def test_an_interruption_during_a_baseline_keeps_the_run(tmp_path, run_tampered):
    result, content = run_tampered(interrupt, "--baselines", rounds=(1,), site="pooled")
    explained(result, COULD_NOT_GO_ON, "baseline centralised: interrupted from the keyboard", folder=tmp_path / "out")
    assert (content["status"], content["baselines"]) == ("completed", {})


def test_a_baseline_that_fails_costs_nothing_of_what_is_done(tmp_path, run_tampered):
    """The local baseline asks one site a call; without its answer there is no model of that site."""
    result, content = run_tampered(gone, "--baselines", rounds=(1,), method="RPC_train")
    explained(
        result,
        COULD_NOT_GO_ON,
        "error: the rest is kept, but baseline local: round 1: 0 of 1 sites",
        folder=tmp_path / "out",
    )
    assert content["status"] == "completed"
    assert list(content["baselines"]) == ["centralised"]
