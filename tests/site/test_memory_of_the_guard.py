"""Which rules need a place that lasts, what is booked there, and which labels a site names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.policy import Policy

CONTENT = {"data": {"target": "y"}, "problem": "classification", "model": "logistic"}
PRIVATE = {"differential_privacy": {"unit": "sample", "epsilon": 1.0, "delta": 1e-5}}


def guard(content=CONTENT, *, place=None, node=None, memory=None, lasting=True, **rules):
    context = SiteContext({"a": TableSource("a.csv")}, Policy(**rules), state=place, lasting=lasting, node_folder=node)
    if memory is not None:
        context.memory = memory
    return Guard(context, {}, Experiment.parse(content))


@pytest.mark.parametrize(
    ("rules", "privacy", "needs"),
    [
        ({}, None, False), ({"request_order": True}, None, True), ({"refuse_differences": True}, None, True),
        ({"maximum_share_of_sums": 0.5}, None, True), ({"secret_folds": True}, None, True),
        ({"secret_folds": True, "folds_secret": "ab" * 32}, None, False), ({"folds_secret": "ab" * 32}, None, False),
        ({"maximum_epsilon": 3.0}, PRIVATE, True), ({}, PRIVATE, True), ({"coarse_histograms": True}, None, False),
    ],
)  # fmt: skip
def test_rules_that_remember_need_a_place_that_lasts(tmp_path, rules, privacy, needs):
    content = CONTENT | ({"privacy": privacy} if privacy else {})
    guard(content, **rules)
    guard(content, place=tmp_path, lasting=False, **rules)
    if needs:
        with pytest.raises(PolicyError, match="no place that lasts from request to request"):
            guard(content, lasting=False, **rules)
    else:
        guard(content, lasting=False, **rules)


@pytest.mark.parametrize(
    ("folder", "node", "differs", "over"),
    [(False, False, True, False), (False, True, True, True), (False, True, False, False), (True, False, False, True),
     (True, True, True, True)],
)  # fmt: skip
def test_what_was_told_is_remembered_over_tasks_where_there_is_a_place(tmp_path, folder, node, differs, over):
    rules = {"refuse_differences": differs, "ledger_folder": str(tmp_path / "ledger") if folder else None}
    made = guard(node=tmp_path / "node" if node else None, **rules)
    body = made.screen("summary", {"columns": {}})
    assert body["policy"]["differences_over_tasks"] is over


def table_of(rows, columns=1):
    part = {"train": np.arange(rows), "validation": np.arange(0), "test": np.arange(0)}
    return SimpleNamespace(
        folds=[part], group_names=[], target=np.zeros(rows, dtype=int), members=["a"], member=np.zeros(rows, dtype=int),
        origin=np.arange(rows), values=np.zeros((rows, columns)), groups=np.zeros((rows, 0)),
    )  # fmt: skip


def test_independent_sums_are_a_share_of_the_rows_at_most_over_experiments_of_the_same_columns():
    memory = {}

    def ask(rows, columns, seed):
        setup = Setup(columns, {}, [0, 1])
        guard(CONTENT | {"seed": seed}, memory=memory, maximum_share_of_sums=0.25).account(table_of(rows), setup)

    # One sum an experiment: of four rows one may be told, of eight two.
    ask(4, ["u"], 1)
    ask(4, ["u"], 1)
    with pytest.raises(PolicyError, match=r"ask for 2 independent sums over rows.* at most 0.25 of its number of rows"):
        ask(4, ["u"], 2)
    with pytest.raises(PolicyError):
        ask(3, ["u"], 3)
    memory.clear()
    ask(8, ["u"], 1)
    ask(8, ["u", "v"], 2)
    with pytest.raises(PolicyError, match="ask for 3"):
        ask(8, ["v"], 3)


def test_labels_of_few_rows_are_refused_and_categories_of_few_left_out():
    frame = pd.DataFrame({"c": ["x"] * 5 + ["z"] * 4 + [None]})

    def told(rows, least=5):
        schema = {"categories": {"c": ["x", "z"], "elsewhere": ["w"]}}
        guard(minimum_label_rows=least).check_labels(frame, schema, {"y": rows})
        return schema["categories"], schema["few"]

    assert told({0: 5, 1: 9}) == ({"c": ["x"], "elsewhere": ["w"]}, ["c"])
    assert told({0: 5, 1: 9}, 4) == ({"c": ["x", "z"], "elsewhere": ["w"]}, [])
    assert told({0: 5, 1: 9}, 1) == ({"c": ["x", "z"], "elsewhere": ["w"]}, [])
    with pytest.raises(PolicyError, match="column 'y' has labels of fewer rows than this node's least of 5"):
        told({0: 4, 1: 9})


def test_a_description_is_booked_by_column_and_group_where_differences_are_refused():
    memory = {}

    def ask(frame, groups=None, cell=3, seed=0, **rules):
        asked = guard(CONTENT | {"evaluation": {"by": "sex"}, "seed": seed}, memory=memory, minimum_cell=cell, **rules)
        asked.account_frame(frame, ["u", "v", "none"], groups)

    whole = pd.DataFrame({"u": np.arange(9.0), "v": [np.nan, *range(8)]})
    fewer, gone = whole.copy(), whole.copy()
    fewer.loc[3:4, "v"] = np.nan
    gone.loc[3:5, "v"] = np.nan
    ask(whole, refuse_differences=True)
    ask(fewer)
    with pytest.raises(PolicyError, match="column 'v' as described differs"):
        ask(fewer, seed=1, refuse_differences=True)
    ask(gone, seed=1, refuse_differences=True)
    sexes = np.array(["f"] * 4 + ["m"] * 5)
    ask(whole, sexes, refuse_differences=True)
    with pytest.raises(PolicyError, match=r"group [0-9a-f]{8} of 'sex' differs"):
        ask(whole, np.array(["f"] * 3 + ["m"] * 6), seed=2, refuse_differences=True)
