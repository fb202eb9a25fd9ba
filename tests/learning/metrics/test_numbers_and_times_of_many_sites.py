"""Regression's and survival's states of many sites, made at once, are those of a collector at each site."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.learning.metrics import (
    RegressionMetrics,
    SurvivalMetrics,
    check_state,
    compute,
    merge_states,
    scores_by_name,
    scores_of,
    states_of_sites,
)

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


def near(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == (pytest.approx(value, rel=1e-12, abs=1e-12) if isinstance(value, float) else value), name


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drawn", [regression, survival])
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
