"""Replies of all sites as one object: the result is that of single replies, and what is wrong is found and named."""

import dataclasses
import math

import numpy as np
import pytest

from v6_algorithm.coordinator.evaluation.final_evaluation import FinalEvaluation
from v6_algorithm.coordinator.evaluation.model_evaluation import ModelEvaluation
from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.rounds.fold_round import FoldRound
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange.joint import KEYS, Joint
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.learning.metrics.by_site import SiteState

SAME = ("history", "site_history", "metrics", "folds", "sites", "best_round", "notes", "participation")
PLAIN = {"rounds": 3, "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16}}


@pytest.fixture
def experiment(make_experiment):
    return make_experiment(**PLAIN)


@pytest.fixture
def changed(monkeypatch):
    """Let each joint reply be changed on its way, and count those that are taken in as one."""
    taken, plain, take = [], Replies.taken, FoldRound.take_joint
    monkeypatch.setattr(FoldRound, "take_joint", lambda self, *given: (take(self, *given), taken.append(1)))

    def by(change):
        def passed(self):
            for site, reply in plain(self):
                yield site, change(reply) if isinstance(reply, Joint) else reply

        monkeypatch.setattr(Replies, "taken", passed)
        return taken

    return by


def trained(joint, what, first):
    training = joint.items[0].training
    if training is not None:
        changed = {what: [first, *getattr(training, what)[1:]]}
        joint.items[0].training = dataclasses.replace(training, **changed)
    return joint


JOINT = {
    "plain": ({}, 3),
    "fedprox": ({"strategy": {"kind": "fedprox", "mu": 0.1, "adaptive": True}}, 3),
    # The first replies carry the model that the sites began with.
    "scaffold": ({"strategy": {"kind": "scaffold"}}, 3),
    "scaffold, sampled": ({"strategy": {"kind": "scaffold"}, "participation": {"fraction": 0.6}}, 2),
    "fednova": ({"strategy": {"kind": "fednova"}}, 3),
    "feddyn": ({"strategy": {"kind": "feddyn", "alpha": 0.1}}, 3),
    "qfedavg": ({"strategy": {"kind": "qfedavg"}}, 3),
    "agnostic": ({"strategy": {"kind": "agnostic"}}, 3),
    "median": ({"strategy": {"kind": "fedavg", "combine": {"kind": "median", "malicious": 0}, "clip": 0.1}}, 3),
    "folds": ({"split": {"kind": "kfold", "folds": 3}}, 9),
    "regression": ({"problem": "regression", "data": {"target": "d"}}, 3),
    "survival": (
        {
            "problem": {"kind": "survival", "method": "discrete_time"},
            "data": {"target": {"duration": "time", "event": "y"}},
        },
        3,
    ),
    "Cox": (
        {"problem": {"kind": "survival", "method": "cox"}, "data": {"target": {"duration": "time", "event": "y"}}},
        3,
    ),
    "two targets": ({"problem": "multitask", "data": {"targets": {"y": "classification", "d": "regression"}}}, 3),
}


@pytest.mark.parametrize(("changes", "joint"), JOINT.values(), ids=JOINT)
def test_one_reply_for_all_sites_is_used_and_gives_what_single_ones_give(
    tables, make_experiment, changed, monkeypatch, changes, joint
):
    for source in tables.values():
        source.frame["time"] = np.exp(source.frame["a"])
    experiment = make_experiment(**PLAIN, **changes)
    taken = changed(lambda joint: joint)
    together = run(local_federation(experiment, tables, way="fast"), experiment)
    assert len(taken) == joint
    monkeypatch.setattr(FoldRound, "takes_joint", False)
    monkeypatch.setattr(FinalEvaluation, "_take_joint", lambda *given: False)
    single = run(local_federation(experiment, tables, way="fast"), experiment)
    assert len(taken) == joint
    assert [together[key] for key in SAME] == [single[key] for key in SAME]


def test_the_final_evaluation_writes_out_no_single_sites_state(tables, experiment, monkeypatch):
    written, until_tested, write = [], [], SiteState.__missing__
    monkeypatch.setattr(SiteState, "__missing__", lambda self, key: (written.append(key), write(self, key))[1])

    def listen(event):
        if event["event"] == "tested":
            until_tested.append(len(written))

    run(local_federation(experiment, tables, way="fast"), experiment, listen)
    assert until_tested == [0]
    # The result tells of each site.
    assert written


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rows", "other training rows"),
        ("losses", "not a finite number"),
        ("steps", "number of steps"),
    ],
)
def test_a_wrong_site_among_them_is_named_and_nothing_of_it_is_used(tables, experiment, changed, what, message):
    wrong = {"rows": 10**6, "losses": math.inf, "steps": 0}[what]

    taken = changed(lambda joint: trained(joint, what, wrong))
    result = run(local_federation(experiment, tables, way="fast"), experiment)
    assert not taken
    first = sorted(tables)[0]
    for call in result["participation"]:
        if call["call"] == "train" and call["round"] > 1:
            assert call["missing"].keys() == {first}
            assert message in call["missing"][first]


def test_a_reply_made_from_it_has_no_other_keys(tables, experiment, changed):
    def change(joint):
        for reply in joint.split().values():
            assert reply.keys() - {"schema", "site", "round", "attempt", "status"} == KEYS.keys()
            assert all(item.keys() <= KEYS["folds"][0].keys() for item in reply["folds"])
        return joint

    taken = changed(change)
    run(local_federation(experiment, tables, way="fast"), experiment)
    assert taken


COX = {
    **PLAIN,
    "problem": {"kind": "survival", "method": "cox"},
    "data": {"target": {"duration": "time", "event": "event"}},
    # So that one model is measured.
    "output": {"model": "last"},
}


@pytest.fixture
def watched_tables(tables):
    """Two hospitals with events enough for a baseline hazard of their own, and one without."""
    for number, source in enumerate(tables.values()):
        source.frame["time"] = np.exp(source.frame["a"])
        source.frame["event"] = (np.arange(len(source.frame)) % (2 if number < 2 else 4) == 0).astype(int)
        if number < 2:
            source.frame["event"] = 1
        source.frame.drop(columns="y", inplace=True)
    return tables


def test_baseline_hazards_are_asked_of_all_sites_at_once_and_curves_measured_with_each_ones_own(
    watched_tables, make_experiment, monkeypatch
):
    """At 100 sites the final evaluation took as long as 50 rounds: each was asked by itself, twice."""
    experiment, together, alone = make_experiment(**COX), [], []
    take, take_joint = ModelEvaluation.take, ModelEvaluation.take_joint
    monkeypatch.setattr(ModelEvaluation, "take", lambda self, item: (alone.append(item), take(self, item)))
    monkeypatch.setattr(
        ModelEvaluation, "take_joint", lambda self, *given: (together.append(given), take_joint(self, *given))
    )
    joint = run(local_federation(experiment, watched_tables, way="fast"), experiment)
    # Each of the two calls asks the first site by text, and the other two at once.
    assert (len(together), len(alone)) == (2, 2)
    assert [len(list(sums.by_site())) for _, sums in together if sums is not None] == [2]
    monkeypatch.setattr(FinalEvaluation, "_take_joint", lambda *given: False)
    single = run(local_federation(experiment, watched_tables, way="fast"), experiment)
    assert (len(together), len(alone)) == (2, 8)
    assert [joint[key] for key in SAME] == [single[key] for key in SAME]
    by_site = joint["preparation"]["baseline"]["sites"]
    assert len(by_site) == 2
    exact = run(local_federation(experiment, watched_tables, way="exact"), experiment)
    for name, hazard in exact["preparation"]["baseline"]["sites"].items():
        assert by_site[name] == pytest.approx(hazard, rel=1e-5)
    for site, scores in exact["metrics"]["test"]["sites"].items():
        known = {name: score for name, score in scores.items() if score is not None}
        assert {name: joint["metrics"]["test"]["sites"][site][name] for name in known} == pytest.approx(
            known, rel=1e-4, abs=2e-3
        ), site


@pytest.mark.parametrize("wrong", [{"events": [-1]}, {"risk": None}, {"more": 1}])
def test_a_site_with_wrong_sums_of_a_baseline_hazard_is_named_and_the_others_count(
    watched_tables, make_experiment, changed, wrong
):
    def change(joint):
        for item in joint.items:
            if item.baseline is not None:
                item.baseline.states[0] = item.baseline.states[0] | wrong
        return joint

    changed(change)
    experiment = make_experiment(**COX)
    result = run(local_federation(experiment, watched_tables, way="fast"), experiment)
    second = sorted(watched_tables)[1]
    first_call = next(call for call in result["participation"] if call["call"] == "evaluate")
    assert first_call["missing"].keys() == {second}


def test_sums_of_a_baseline_hazard_that_nobody_asked_for_are_not_taken(watched_tables, make_experiment, changed):
    kept = []

    def change(joint):
        for item in joint.items:
            if item.baseline is not None:
                kept.append(item.baseline)
            elif kept:
                item.baseline = kept[0]
        return joint

    changed(change)
    experiment = make_experiment(**COX)
    result = run(local_federation(experiment, watched_tables, way="fast"), experiment)
    calls = [call for call in result["participation"] if call["call"] == "evaluate"]
    assert [len(call["missing"]) for call in calls] == [0, 2]
