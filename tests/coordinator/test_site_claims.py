"""What a site claims is bounded: its rows, its share, its numbers, its words; whatever it says, a run ends by name."""

from __future__ import annotations

import json
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spying import Spy

from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.preparation.shares import capped_rows
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import V6AlgorithmError


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 10**18), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_no_site_counts_for_more_than_its_share(rows, share):
    counted = capped_rows(rows, share)
    assert all(0 < counted[site] <= rows[site] for site in rows)
    most = max(share, 1 / len(rows))
    assert max(counted.values()) <= most * sum(counted.values()) * (1 + 1e-9)
    if max(rows.values()) <= share * sum(rows.values()):
        assert counted == rows


def claiming(step, change):
    """Let berlin say something else in one step of the preparation."""

    def tamper(method, site, number, reply):
        if method == "RPC_prepare" and site == "berlin" and step in reply:
            change(reply)
        return reply

    return tamper


@pytest.mark.parametrize("rows", [10**18, 10**9 + 1, -1, 24.0, True, "24", None, [24], 10**400])
def test_a_number_of_rows_that_no_table_has_is_dropped_and_named(spied, make_experiment, rows):
    _, result = spied(make_experiment(), claiming("counts", lambda r: r["counts"][0]["berlin"].update(train=rows)))
    assert sorted(result["sites"]) == ["amsterdam", "cairo"]
    assert any(e["missing"].get("berlin", "").startswith("wrong: ") for e in result["participation"])


def test_rows_in_training_are_those_of_preparation(spied, make_experiment):
    """Who says in preparation that he has a billion rows, and trains on 24, is dropped in every round."""
    lie = claiming("counts", lambda reply: reply["counts"][0]["berlin"].update(train=10**9))
    _, result = spied(make_experiment(), lie)
    trained = [e["missing"].get("berlin", "") for e in result["participation"] if e["call"] == "train"]
    assert all("other training rows than the 1000000000" in reason for reason in trained)
    assert any("berlin" in note and "of all training rows" in note for note in result["notes"])


@pytest.mark.slow
def test_a_site_with_most_of_the_rows_is_named_and_can_be_limited(spied, make_experiment, tables):
    import numpy as np

    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.exchange import wire

    big = tables["amsterdam"].frame.sample(2000, replace=True, random_state=0, ignore_index=True)
    sites = {**tables, "amsterdam": TableSource(frame=big)}
    _, free = spied(make_experiment(), sites=sites)
    assert any("'amsterdam' tells of 96" in note and "mostly its own" in note for note in free["notes"])
    _, limited = spied(make_experiment(participation={"maximum_share": 0.5}), sites=sites)
    assert any("counts as having 50.0% (participation.maximum_share)" in note for note in limited["notes"])
    a, b = (wire.unpack(result["parameters"]) for result in (free, limited))
    assert not all(np.allclose(a[name], b[name]) for name in a)


def test_a_share_that_no_site_reaches_changes_nothing(spied, make_experiment):
    _, free = spied(make_experiment())
    _, limited = spied(make_experiment(participation={"maximum_share": 0.9}))
    assert free["parameters"] == limited["parameters"]


@pytest.mark.parametrize("labels", ["01", [[0, 1]], {"0": 1}, [None], ["x" * 2000], 1, list(range(20_000))])
def test_labels_that_are_none_are_dropped_and_named(spied, make_experiment, labels):
    lie = claiming("members", lambda reply: reply["members"]["berlin"].update(labels=labels))
    _, result = spied(make_experiment(), lie)
    assert sorted(result["sites"]) == ["amsterdam", "cairo"]


@pytest.mark.parametrize("name", ["ber\x1b[2Jlin", "ber\nlin", "x" * 500, "ber\u202elin"])
def test_a_hospitals_name_that_a_terminal_would_act_on_is_refused(spied, make_experiment, name):
    def rename(reply):
        reply["members"] = {name: reply["members"]["berlin"]}

    _, result = spied(make_experiment(), claiming("members", rename))
    assert sorted(result["sites"]) == ["amsterdam", "cairo"]


def test_what_a_site_says_reaches_nobody_with_control_characters(tables, make_experiment):
    def answer(method, site, number, reply):
        if site != "berlin":
            return reply
        head = {key: reply[key] for key in ("schema", "site", "round", "attempt")}
        return head | {
            "status": "error",
            "kind": "refused\x07",
            "message": "\x1b[31mno\nsite 'cairo': fine" + "x" * 9999,
        }

    result = run(Spy(local_federation(make_experiment(), tables), answer), make_experiment())
    (reason,) = {e["missing"]["berlin"] for e in result["participation"] if e["missing"]}
    assert not set(reason) & set("\x1b\x07\n")
    assert len(reason) < 2200


WEIRD = [
    10**400,
    -(10**400),
    1e308,
    -1e308,
    10**18,
    2**63,
    0,
    -1,
    0.5,
    True,
    None,
    "",
    "01",
    "=1",
    "\x1b\x00",
    [],
    {},
    [[]],
]


def _leaves(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(children)[:30]:
        yield from _leaves(child, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_wrong_in_a_reply_ends_in_a_result_or_by_name(tables, make_experiment, seed):
    """A part of one reply replaced by anything: no traceback, and what is written is JSON."""
    draw = random.Random(seed)
    changes = draw.choice(
        [
            {"data": {"target": "y", "missing": "median", "scaling": "robust"}},
            {"strategy": "qfedavg"},
            {"problem": "regression", "model": "linear", "data": {"target": "a"}},
            {"strategy": {"kind": "fedavg", "compress": "int8"}},
            {"personal": "fine_tune"},
        ]
    )
    wanted, skip = draw.choice(["RPC_prepare", "RPC_train", "RPC_evaluate"]), draw.randrange(3)

    def tamper(method, site, number, reply):
        nonlocal skip
        if method == wanted and site == "berlin":
            skip -= 1
            if skip < 0:
                *path, last = draw.choice([path for path in _leaves(reply) if path])
                place = reply
                for key in path:
                    place = place[key]
                place[last] = draw.choice(WEIRD)
        return reply

    experiment = make_experiment(rounds=2, **changes)
    with suppress(V6AlgorithmError):
        json.dumps(run(Spy(local_federation(experiment, tables), tamper), experiment), allow_nan=False)
