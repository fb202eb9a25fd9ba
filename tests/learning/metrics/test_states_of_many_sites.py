"""The states of many sites from one pass over all rows are those of a collector at each site."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from v6_algorithm.learning.metrics import ClassificationMetrics, check_state, compute, joined, merge_states
from v6_algorithm.learning.metrics.by_site import SiteState, SiteStates, StateByHospital

LENGTHS = [5, 0, 9, 1, 30]


@pytest.fixture(params=[False, True], ids=["all bins", "joined bins"], autouse=True)
def joins(request, monkeypatch):
    """Let sites list all their bins, or so few that the larger ones join some."""
    if request.param:
        monkeypatch.setattr(joined, "MOST_LISTED", 12)
        monkeypatch.setattr(joined, "_FEWEST_LISTED", 4)
    return request.param


def rows_of(classes, seed=0):
    generator = np.random.default_rng(seed)
    number = sum(LENGTHS)
    probability = generator.dirichlet(np.ones(classes), number)
    loss = generator.random(number)
    loss[[1, 7, 8]] = np.nan, np.inf, np.nan
    return probability, generator.integers(0, classes, number), loss


def collected(classes, seed=0):
    """Each site's state by a collector of its own."""
    states, start = [], 0
    for length in LENGTHS:
        collector = ClassificationMetrics(classes)
        collector.update(*(array[start : start + length] for array in rows_of(classes, seed)))
        states.append(joined.capped(collector.state()))
        start += length
    return states


def table_of(classes, seed=0):
    return SiteStates.of(ClassificationMetrics(classes), *rows_of(classes, seed), LENGTHS)


def same(found, wanted):
    for name in ("loss", "brier"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-12)
    assert {**found, "loss": 0, "brier": 0} == {**wanted, "loss": 0, "brier": 0}


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_each_sites_state_and_their_sum_are_those_of_collectors(classes):
    wanted, table = collected(classes), table_of(classes)
    there = SiteStates.from_arrays(*copy.deepcopy(table.to_arrays()))
    for given in (table, there):
        assert [state.whole()["n"] for state in given.states()] == [state["n"] for state in wanted]
        for number, state in enumerate(wanted):
            found = given.state(number)
            assert not found.written
            check_state(dict(found.whole()))
            same(found, state)
            assert found.written
            assert found.whole() is found
        same(given.pooled(), merge_states(wanted))
        assert (given.n_classes, given.rows) == (classes, [state["n"] for state in wanted])


def test_a_single_site_is_its_own_sum():
    given = tuple(array[:5] for array in rows_of(2))
    collector = ClassificationMetrics(2)
    collector.update(*given)
    same(SiteStates.of(ClassificationMetrics(2), *given, [5]).pooled(), collector.state())


def test_where_bins_are_joined_the_sum_knows_whose_they_are(joins):
    table, wanted = table_of(3), merge_states(collected(3))
    assert [state["joined"] for state in table.states()] == [0, 0, int(joins), 0, int(joins)]
    assert ("parts" in table.pooled()) == ("parts" in wanted) == joins
    of_table = StateByHospital({str(number): number for number in range(5)}, table)
    assert compute(of_table.merged()) == pytest.approx(compute(wanted), rel=1e-12)
    with_others = compute(of_table.with_others(collected(3, 1)))
    assert with_others == pytest.approx(compute(merge_states([*collected(3), *collected(3, 1)])), rel=1e-12)


def test_states_of_several_tables_are_added_up_where_all_of_them_are_there():
    tables = [table_of(3, seed) for seed in range(2)]
    states = [state for table in tables for state in table.states()]
    same(SiteState.sum_of(states), merge_states([*collected(3, 0), *collected(3, 1)]))
    same(SiteState.sum_of(tables[1].states()), merge_states(collected(3, 1)))
    assert SiteState.sum_of(states[1:]) is None
    assert SiteState.sum_of([*states[1:], collected(3)[0]]) is None


def test_hospitals_have_the_states_of_their_sites_and_one_sum():
    table = table_of(2)
    names = {"first": 0, "last": 4, "third": 2, "second": 1, "fourth": 3}
    given, wanted = StateByHospital(names, table), collected(2)
    assert list(given) == list(given.keys()) == list(names)
    assert len(given) == 5
    for name, number in names.items():
        same(given[name].whole(), wanted[number])
        assert given[name] is given[name]
    same(given.merged().whole(), merge_states(wanted))
    assert given.merged() is given.merged()
    with pytest.raises(KeyError, match="nothing"):
        given["last"]["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        table.state(2)["nothing"]
