"""The AUROC at a time from binned states: near that of single rows, and 1 or a half where it must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.learning.metrics import SurvivalMetrics, merge_states
from v6_algorithm.learning.metrics.survival import auroc_over_time


def patients(seed, rows, effect=1.0):
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=rows)
    happens, leaves = generator.exponential(np.exp(-effect * risk)), generator.exponential(2.0, rows)
    return risk, np.minimum(happens, leaves), happens <= leaves


def state(risk, time, event, edges):
    metrics = SurvivalMetrics(edges)
    metrics.update(risk[:, None], np.column_stack([time, event]).astype(float), np.zeros(len(risk)))
    return metrics.state()


def of_rows(risk, time, event, at):
    """Cumulative/dynamic AUROC with the chance not to be censored from every single time, as scikit-survival has it."""
    order = np.unique(time[~event])
    at_risk = np.array([(time >= moment).sum() for moment in order])
    steps = np.array([((time == moment) & ~event).sum() for moment in order]) / at_risk
    still = np.concatenate([[1.0], np.cumprod(1 - steps)])[np.searchsorted(order, time, side="left")]
    cases, controls = event & (time <= at), time > at
    weight = 1 / still[cases]
    above = (risk[cases][:, None] > risk[controls]) + 0.5 * (risk[cases][:, None] == risk[controls])
    return float(weight @ above.sum(axis=1) / (weight.sum() * controls.sum()))


def test_it_is_near_that_of_single_rows_pooled_over_sites():
    edges = np.quantile(patients(0, 2000)[1], np.arange(1, 16) / 16).tolist()
    parts = [patients(seed, rows) for seed, rows in ((1, 300), (2, 250), (3, 400))]
    curve = auroc_over_time(merge_states([state(*part, edges) for part in parts]))
    pooled = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    assert len(curve) >= 14
    for point in curve:
        assert point["auroc"] == pytest.approx(of_rows(*pooled, point["time"]), abs=0.01)
        assert point["cases"] == (pooled[2] & (pooled[1] <= point["time"])).sum()
        assert point["controls"] == (pooled[1] > point["time"]).sum()


def test_risks_in_the_order_of_events_have_1_and_those_that_say_nothing_a_half():
    time = np.arange(1.0, 101)
    event = np.ones(100, dtype=bool)
    edges = [20.0, 40.0, 60.0]
    assert [point["auroc"] for point in auroc_over_time(state(-time / 10, time, event, edges))] == [1, 1, 1]
    assert {point["auroc"] for point in auroc_over_time(state(np.zeros(100), time, event, edges))} == {0.5}


def test_without_cases_or_controls_there_is_none():
    nobody = np.zeros(30, dtype=bool)
    assert auroc_over_time(state(np.zeros(30), np.arange(1.0, 31), nobody, [10.0])) == []
    assert auroc_over_time(state(np.zeros(30), np.arange(1.0, 31), ~nobody, [40.0])) == []
    assert auroc_over_time(SurvivalMetrics([]).state()) == []


@given(
    st.lists(
        st.tuples(st.sampled_from([0.5, 1.5, 2.5, 3.5]), st.booleans(), st.integers(-2, 2)), min_size=2, max_size=16
    )
)
@settings(max_examples=80)
def test_it_is_that_of_all_pairs_with_the_life_tables_weights(rows):
    """Who is censored in a bin leaves halfway, and an event counts by the chances at both ends of its bin."""
    edges = [1.0, 2.0, 3.0]
    given_ = [np.array(column) for column in zip(*rows, strict=True)]
    found = {point["time"]: point["auroc"] for point in auroc_over_time(state(given_[2], *given_[:2], edges))}
    still, weight = [1.0], []
    for place in range(4):
        at_risk = sum(time > place for time, _, _ in rows)
        died = sum(place < time < place + 1 and dead for time, dead, _ in rows)
        left = sum(place < time < place + 1 and not dead for time, dead, _ in rows)
        still.append(still[-1] * max(1 - left / (at_risk - died / 2), 0.0) if at_risk else still[-1])
        weight.append(np.sqrt(still[-2] * still[-1]))
    for place, time in enumerate(edges):
        cases = [(score, weight[int(at)]) for at, dead, score in rows if dead and at < time]
        controls = [score for at, _, score in rows if at > time]
        if not cases or not controls or any(each <= 0 for _, each in cases):
            assert time not in found
            continue
        pairs = [((score > other) + (score == other) / 2) / each for score, each in cases for other in controls]
        wanted = sum(pairs) / (sum(1 / each for _, each in cases) * len(controls))
        assert found[time] == pytest.approx(wanted), place
