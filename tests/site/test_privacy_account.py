"""The account of differential privacy by itself: what folds take, what rounds cost, where run and node stop."""

from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.errors import PolicyError, SiteError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.privacy import accountant
from v6_algorithm.learning.privacy.accountant import Steps
from v6_algorithm.site.guard.privacy_account import PrivacyAccount
from v6_algorithm.site.policy import Policy


class Book:
    """A ledger in memory."""

    def __init__(self):
        self.content = {}

    @contextmanager
    def open(self):
        yield self.content


def table_of(*sizes):
    starts = np.cumsum([0, *sizes])
    folds = [SimpleNamespace(train=np.arange(a, b)) for a, b in pairwise(starts)]
    rows = int(starts[-1])
    return SimpleNamespace(folds=folds, target=np.zeros(rows), origin=np.arange(rows), patient=np.arange(rows) // 2)


def account(training=None, policy=None, honest=1, rounds=3, **section):
    experiment = Experiment.parse(
        {
            "data": {"target": "y"}, "model": "logistic", "rounds": rounds,
            "training": {"batch_size": 4, "local_epochs": 2} | (training or {}),
            "privacy": {"differential_privacy": {"epsilon": 3.0, "delta": 1e-3} | section},
        }
    )  # fmt: skip
    return PrivacyAccount(policy or Policy(), experiment, Book(), Book(), "database", honest)


@pytest.mark.parametrize(
    ("training", "rate", "steps"),
    [
        ({}, 0.4, 6), ({"batch_size": 10}, 1.0, 2), ({"batch_size": 40}, 1.0, 2), ({"batch_size": 5}, 0.5, 4),
        ({"local_epochs": None, "local_steps": 7}, 0.4, 7),
    ],
)  # fmt: skip
def test_a_fold_takes_the_steps_of_its_epochs(training, rate, steps):
    found = account(training)._folds(table_of(10, 0))
    assert list(found) == [0]
    assert (found[0].rate, found[0].by_round, found[0].units) == (rate, (steps,) * 3, 10)
    assert found[0].unit.tolist() == list(range(10))


def test_noise_is_for_the_steps_of_all_folds_and_what_a_round_costs_is_counted():
    made, table = account(), table_of(10, 10)
    noise = made.open(table)
    plan = [Steps(0.4, noise, 18)] * 2
    assert 2.9 < accountant.epsilon(plan, 1e-3) <= 3.0 * (1 + 1e-9)
    assert made.open(table) == noise, "once for a run"
    for number in (1, 2, 3):
        booked = made.book(table, [0, 1], number)
        assert booked.noise_multiplier == noise
        assert booked.epsilon == pytest.approx(accountant.epsilon([Steps(0.4, noise, 6 * number)] * 2, 1e-3))
    assert made._lasting.content["databases"]["database"]["privacy"] == [[0.4, noise, 36]]
    with pytest.raises(PolicyError, match=r"budget of this run is used up here: round 3 .*\(epsilon .* with it\)"):
        made.book(table, [0], 3)
    for number in (0, 4):
        with pytest.raises(PolicyError, match="is none of this experiment's"):
            made.book(table, [0], number)


def test_of_a_lost_account_all_rounds_before_count_as_taken():
    made, table = account(), table_of(10)
    booked = made.book(table, [0], 3)
    noise = booked.noise_multiplier
    assert booked.epsilon == pytest.approx(accountant.epsilon([Steps(0.4, noise, 18)], 1e-3))
    with pytest.raises(PolicyError, match="used up"):
        made.book(table, [0], 1)


def test_a_site_without_training_rows_needs_no_noise():
    assert account().open(table_of(0)) == 1.0


def test_a_delta_of_one_in_as_many_as_there_are_rows_is_refused():
    assert account(delta=0.099).open(table_of(10)) > 0
    with pytest.raises(SiteError, match="is not below 1"):
        account(delta=0.1).open(table_of(10))


@pytest.mark.parametrize("honest", [1, 4])
def test_a_node_counts_its_part_of_the_noise_over_all_runs(honest):
    table = table_of(10)
    noise = account().open(table)
    mine = Steps(0.4, noise / math.sqrt(honest), 18)
    cost = accountant.epsilon([mine], 1e-5)
    allowed = account(policy=Policy(maximum_epsilon=cost * (1 + 1e-10), maximum_delta=1e-5), honest=honest)
    assert allowed.open(table) == noise
    refused = account(policy=Policy(maximum_epsilon=cost * (1 - 1e-6), maximum_delta=1e-5), honest=honest)
    with pytest.raises(PolicyError, match="the whole of this run would take what is told"):
        refused.open(table)
    # What was told before counts.
    allowed._lasting.content = {"databases": {"database": {"privacy": [[0.4, noise, 1]]}}}
    allowed.book(table, [0], 1)
    allowed.book(table, [0], 2)
    with pytest.raises(PolicyError, match="round 3 would take what is told"):
        allowed.book(table, [0], 3)


def test_runs_on_other_rows_have_accounts_of_their_own():
    made = account()
    first, second = table_of(10), table_of(12)
    assert made._run(first) != made._run(second)
    made.open(first)
    made.open(second)
    assert len(made._job.content["privacy"]) == 2


def test_a_site_that_nobody_counts_adds_all_of_its_noise():
    given = account(honest=1)
    unsaid = PrivacyAccount(given._policy, given._experiment, Book(), Book(), "database")
    table = table_of(10)
    unsaid.open(table)
    unsaid.book(table, [0], 1)
    given.open(table)
    given.book(table, [0], 1)
    assert unsaid._lasting.content == given._lasting.content
