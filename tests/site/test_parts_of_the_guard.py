"""Small parts of the guard by themselves: its clock, its ledger's sums, what it remembers of earlier rounds."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import PolicyError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.privacy.accountant import Steps
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.guard.bounds import check_inputs, within
from v6_algorithm.site.guard.join import joined_groups
from v6_algorithm.site.guard.privacy_account import _add
from v6_algorithm.site.guard.requests import check_parts
from v6_algorithm.site.guard.rowsets import check_differences
from v6_algorithm.site.guard.watch import UpdateWatch, _Sent
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import Rule


def test_the_clock_stops_a_request_in_the_main_thread_and_lets_others_be():
    with pytest.raises(PolicyError, match="took longer than this node's"), within(0.01):
        time.sleep(1)
    done = []

    def elsewhere():
        with within(60):
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


def test_steps_of_one_kind_are_one_entry_of_the_ledger():
    booked: list[list[float]] = []
    for rate, noise, count in ((0.1, 1.0, 5), (0.2, 1.0, 1), (0.1, 2.0, 1), (0.1, 1.0, 7), (0.2, 1.0, 2)):
        _add(booked, Steps(rate, noise, count))
    assert booked == [[0.1, 1.0, 12], [0.2, 1.0, 3], [0.1, 2.0, 1]]


def test_units_of_another_width_are_not_compared_and_the_newest_are_kept():
    sent = _Sent(SiteContext({}), 2, "fold 0-layer.1")
    assert sent.earlier(3).shape == (0, 3)
    _Sent(sent_context := SiteContext({}), 1, "layer").keep(None, np.arange(6.0).reshape(2, 3))
    second = _Sent(sent_context, 2, "layer")
    assert second.earlier(3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second.earlier(4).shape == (0, 4)
    assert _Sent(sent_context, 1, "layer").earlier(3).shape == (0, 3), "a round that comes again sees what it saw"
    second.keep(second.earlier(3), np.zeros((2000, 3)))
    assert len(_Sent(sent_context, 3, "layer").earlier(3)) == 2000


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("train", {"folds": []}),
        ("evaluate", {"folds": [], "setup": {"preparation": None}}),
        ("prepare", {"step": "statistics"}),
        ("prepare", {"step": "quantiles", "setup": []}),
    ],
)
def test_a_request_without_what_the_sites_agreed_is_refused(method, request_):
    with pytest.raises(WireError, match="setup must be what the sites agreed"):
        check_parts(method, request_)
    check_parts(method, request_ | {"setup": {"preparation": None, "combat": None}})
    check_parts("prepare", {"step": "schema"})


@pytest.mark.parametrize(
    ("tighter", "value", "preset", "loosens"),
    [
        (None, 1, 9, False), (None, 9, 1, False),
        ("more", 5, 5, False), ("more", 4, 5, True), ("more", 6, 5, False), ("less", 6, 5, True),
        ("less", None, 5, True), ("more", 4, None, False), ("on", False, True, True), ("off", True, False, True),
        ("on", True, False, False),
    ],
)  # fmt: skip
def test_a_value_loosens_a_rule_where_it_protects_less(tighter, value, preset, loosens):
    rule = Rule("field", "VARIABLE", "whole", (None, None, None), tighter, "what it is for")
    assert rule.loosens(value, preset) is loosens


def watch_of(rows, units):
    watch = object.__new__(UpdateWatch)
    watch._cox, watch._glm = None, False
    watch._layers = {"net": (rows, np.zeros((units, rows.shape[1] + 1)), None)}
    return watch


def gradient_of(weights, rows):
    sums = weights @ np.column_stack([rows, np.ones(len(rows))])
    return {"net.weight": torch.from_numpy(sums[:, :-1]), "net.bias": torch.from_numpy(sums[:, -1])}


def test_what_a_few_units_sent_is_remembered_and_the_next_round_may_not_differ_in_one_row():
    rows, context = np.random.default_rng(0).normal(size=(80, 5)), SiteContext({})
    weights = np.ones((1, 80))
    watch = watch_of(rows, 1)
    watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=context, round=1, key="0")
    weights[0, 11] = 0
    with pytest.raises(PolicyError, match="the update of layer net would give single rows away"):
        watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=context, round=2, key="0")
    # By itself it gives nothing away.
    watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=SiteContext({}), round=2, key="0")


@pytest.mark.parametrize(("units", "kept"), [(8, True), (9, False)])
def test_layers_of_up_to_eight_units_are_compared_with_earlier_rounds(units, kept):
    rows, context = np.random.default_rng(0).normal(size=(80, 5)), SiteContext({})
    weights = np.random.default_rng(1).normal(size=(units, 80))
    sent = gradient_of(weights, rows)
    watch_of(rows, units).check(sent, gradient=True, smallest=5, context=context, round=1, key="0")
    assert any(context.memory.values()) is kept


def test_the_round_before_is_compared_by_itself_as_soon_as_it_was_sent():
    """With one column, all pairs of units match rows by chance; each unit against itself a round ago does not."""
    generator = np.random.default_rng(0)
    rows, context = generator.normal(size=(200, 1)), SiteContext({})
    weights = generator.normal(size=(8, 200))
    watch = watch_of(rows, 8)
    watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=context, round=1, key="0")
    weights[np.arange(8), np.arange(8) * 7] += 1.0
    with pytest.raises(PolicyError, match="the update of layer net would give single rows away"):
        watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=context, round=2, key="0")


def test_a_layer_of_many_units_is_looked_at_by_itself():
    rows = np.random.default_rng(0).normal(size=(80, 5))
    weights = np.random.default_rng(1).normal(size=(40, 80))
    watch, context = watch_of(rows, 40), SiteContext({})
    watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=context, round=1, key="0")
    assert not any(context.memory.values()), "nothing is kept of it"
    weights[3] = 0
    weights[3, 7] = 1
    with pytest.raises(PolicyError, match="single rows away"):
        watch.check(gradient_of(weights, rows), gradient=True, smallest=5, context=context, round=2, key="0")


def test_a_ledger_takes_as_many_sets_of_rows_as_it_may_and_no_more():
    def ask(sets):
        kept = {"bits": {str(number): "" for number in range(sets)}}
        check_differences(kept, "experiment", {"y": np.arange(30)}, 5, "VARIABLE")

    ask(19_999)
    with pytest.raises(PolicyError, match="ledger is full"):
        ask(20_000)


def test_a_bin_of_just_enough_rows_stands_by_itself():
    assert joined_groups(np.array([[5, 5, 0, 5]]), 5) == [(0, [0]), (1, [1]), (3, [3])]
    groups = [members for _, members in joined_groups(np.array([[5, 4, 0, 5]]), 5)]
    assert groups == [[0], [1, 3]]


def test_a_penaltys_cross_validation_leaves_out_as_many_rows_as_a_part_must_have():
    experiment = Experiment.parse(
        {
            "data": {"target": "y"},
            "problem": "classification",
            "model": {"kind": "glm", "family": "binomial", "penalty": {"kind": "ridge", "folds": 5}},
        }
    )
    guard = Guard(SiteContext({}, Policy(minimum_part_rows=5)), {}, experiment)
    guard.check_left_out(25)
    with pytest.raises(
        PolicyError, match=r"fewer left-out \(model\.penalty\.folds\) rows here than this node's minimum"
    ):
        guard.check_left_out(24)


def test_a_table_of_just_as_many_cells_as_a_node_allows_passes():
    setup = Setup(classes=None, features=["a", "b"], categories={"c": ["x", "y"]})
    check_inputs(Policy(maximum_cells=50), setup, 10)
    with pytest.raises(PolicyError, match="V6_ALGORITHM_MAXIMUM_CELLS"):
        check_inputs(Policy(maximum_cells=49), setup, 10)
