"""States of numbers, times and several targets of many sites, made at once, are those of a collector at each site."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.learning.metrics import (
    RegressionMetrics,
    SurvivalMetrics,
    TaskMetrics,
    check_state,
    compute,
    merge_states,
    scores_by_name,
    scores_of,
)
from v6_algorithm.learning.metrics.many_sites import states_of_sites

LENGTHS = [5, 0, 9, 1, 30, 2]
HORIZONS = [0.5, 1.0, 1.5, 2.0]


def regression(seed):
    generator = np.random.default_rng(seed)
    prediction, target, loss = generator.normal(1e3, 2.0, (3, sum(LENGTHS)))
    # A constant target has no spread at all; some rows are of no use, and all of the last site.
    target[5:14] = 0.1
    prediction[[1, 7]], loss[-2:] = np.nan, np.inf
    return (lambda: RegressionMetrics(0.7)), (prediction, target, loss)


def survival(seed):
    generator = np.random.default_rng(seed)
    rows = sum(LENGTHS)
    # Times, and risks, of which many are equal.
    time, risk = generator.integers(1, 9, rows) / 4, generator.integers(-3, 3, rows) / 2.0
    event = generator.random(rows) < 0.6
    event[5:14] = False
    curves = generator.random((rows, len(HORIZONS))).cumprod(axis=1)
    loss = generator.random(rows)
    loss[[1, 7]], loss[-2:] = np.nan, np.inf
    prediction = np.column_stack([risk, curves])
    return (lambda: SurvivalMetrics([0.6, 1.2, 1.8], HORIZONS)), (prediction, np.column_stack([time, event]), loss)


def tasks(seed):
    generator = np.random.default_rng(seed)
    rows = sum(LENGTHS)
    target = np.column_stack(
        [generator.integers(0, 3, rows), generator.normal(size=rows), generator.integers(0, 2, rows)]
    )
    # Of some rows one of the targets is not known, of one site none of the first.
    target[generator.random((rows, 3)) < 0.2] = np.nan
    target[5:14, 0] = np.nan
    score, loss = generator.random(rows), generator.random(rows)
    prediction = [
        generator.dirichlet(np.ones(3), rows),
        generator.normal(size=(rows, 1)),
        np.stack([1 - score, score], 1),
    ]
    loss[[1, 7]], loss[-2:] = np.nan, np.inf
    return (lambda: TaskMetrics({"a": 3, "b": None, "c": 2})), (np.hstack(prediction), target, loss)


def near(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            near(found[name], value)
        else:
            assert found[name] == (pytest.approx(value, rel=1e-12, abs=1e-12) if isinstance(value, float) else value)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drawn", [regression, survival, tasks])
def test_states_at_once_and_their_scores_are_those_of_collectors(drawn, seed):
    empty, rows = drawn(seed)
    wanted, end = [], 0
    for length in LENGTHS:
        collector = empty()
        collector.update(*(values[end : end + length] for values in rows))
        wanted.append(collector.state())
        end += length
    found = states_of_sites(empty, *rows, LENGTHS)
    for state, own in zip(found, wanted, strict=True):
        check_state(dict(state))
        near(state, own)
    if drawn is regression:
        assert found[2]["target_m2"] == 0
    near(compute(merge_states(found)), compute(merge_states(wanted)))
    scores = scores_by_name(dict(zip("abcdef", found, strict=True)))
    for own, of_site in zip(wanted, scores.values(), strict=True):
        near(of_site, scores_of(own))
        near(of_site, {name: value for name, value in compute(own).items() if name in of_site})


def test_survival_of_many_rows_is_counted_site_by_site_to_the_same_states():
    empty, rows = survival(0)
    many = [np.concatenate([values] * 3) for values in rows]
    lengths = [length * 3 for length in LENGTHS]
    of_each = states_of_sites(empty, *many, lengths)
    at_once = empty().states_of(*many, lengths)
    for state, own in zip(of_each, at_once, strict=True):
        near(state, own)
    # What is merged has pairs between sites, and is looked at by itself.
    merged = merge_states(of_each)
    assert scores_by_name({"all": merged, "one": of_each[0]}) == {
        "all": scores_of(merged),
        "one": scores_of(of_each[0]),
    }
