"""Replies of all sites as one object: the result is that of single replies, and what is wrong is found and named."""

import dataclasses
import math

import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.rounds.fold_round import FoldRound
from v6_algorithm.engines.simulate import local_federation
from v6_algorithm.exchange.joint import KEYS, Joint
from v6_algorithm.exchange.protocol import Replies

SAME = ("history", "site_history", "metrics", "folds", "sites", "best_round", "notes", "participation")


@pytest.fixture
def experiment(make_experiment):
    return make_experiment(rounds=3, training={"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16})


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


def trained(joint, **changes):
    if joint.items[0].training is not None:
        joint.items[0].training = dataclasses.replace(joint.items[0].training, **changes)
    return joint


def test_one_reply_for_all_sites_is_used_and_gives_what_single_ones_give(tables, experiment, changed, monkeypatch):
    taken = changed(lambda joint: joint)
    together = run(local_federation(experiment, tables, way="fast"), experiment)
    assert len(taken) == 2
    monkeypatch.setattr(FoldRound, "takes_joint", False)
    single = run(local_federation(experiment, tables, way="fast"), experiment)
    assert len(taken) == 2
    assert [together[key] for key in SAME] == [single[key] for key in SAME]


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

    def change(joint):
        given = getattr(joint.items[0].training, what)
        return trained(joint, **{what: [wrong, *given[1:]]})

    taken = changed(change)
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
