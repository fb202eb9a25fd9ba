"""The baseline hazard of a Cox model: sums over sites that give Breslow's curves, and tell nothing of a few rows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.learning.metrics.survival import BaselineSums, check_baseline, cumulative, survival

TIMES = [50.0, 120.0, 200.0, 300.0, 450.0, 700.0]


def ward(rows, seed):
    generator = np.random.default_rng(seed)
    score = generator.normal(size=rows)
    time = 400 * generator.weibull(1.4, rows) * np.exp(-score / 1.4)
    censored = generator.exponential(800, rows)
    return np.minimum(time, censored), time <= censored, score


def sums(site, times=TIMES, least=1, batches=1):
    time, event, score = site
    found = BaselineSums(times, least)
    for part in np.array_split(np.arange(len(time)), batches):
        found.update(score[part, None], np.column_stack([time, event])[part], np.zeros(len(part)))
    return found.state()


def breslow(time, event, score, at):
    """The definition: a step at each event time of its events over the summed exp(score) of those still watched."""
    moments = np.unique(time[event & (time <= at)])
    return sum((event & (time == moment)).sum() / np.exp(score[time >= moment]).sum() for moment in moments)


@given(seed=st.integers(0, 2**32), sites=st.integers(1, 5), batches=st.integers(1, 4))
def test_the_federations_hazard_is_that_of_the_pooled_rows(seed, sites, batches):
    parts = [ward(20 + 7 * number, seed + number) for number in range(sites)]
    pooled = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
    states = [json.loads(json.dumps(sums(part, batches=batches))) for part in parts]
    for state in states:
        check_baseline(state, len(TIMES))
    np.testing.assert_allclose(cumulative(states, TIMES), cumulative([sums(pooled)], TIMES), rtol=1e-12)


@given(seed=st.integers(0, 2**32))
def test_a_constant_hazard_is_events_over_weighted_time(seed):
    time, event, score = ward(30, seed)
    last = float(time.max())
    (hazard,) = cumulative([sums((time, event, score), [last])], [last])
    assert hazard == pytest.approx(event.sum() / (np.exp(score) * time).sum() * last, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_fine_intervals_give_breslows_estimate(seed):
    site = ward(60, seed)
    # Each event at the very end of a short interval, in which all who have it or leave later are watched throughout.
    fine = np.unique(np.concatenate([site[0], site[0] - 1e-6, TIMES]))
    found = cumulative([sums(site, fine)], fine)[np.searchsorted(fine, TIMES)]
    np.testing.assert_allclose(found, [breslow(*site, at) for at in TIMES], rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_survival_is_that_of_lifelines_within_0_02(seed):
    lifelines = pytest.importorskip("lifelines")
    import pandas as pd

    time, event, score = ward(600, seed)
    fitted = lifelines.CoxPHFitter().fit(pd.DataFrame({"t": time, "e": event, "x": score}), "t", "e")
    logs = fitted.predict_log_partial_hazard(pd.DataFrame({"x": score})).to_numpy()
    times = np.quantile(time[event], np.arange(1, 16) / 16)
    hazard = cumulative([sums((time, event, logs), times)], times)
    wanted = fitted.predict_survival_function(pd.DataFrame({"x": score}), times=times).to_numpy().T
    np.testing.assert_allclose(survival(hazard, logs), wanted, atol=0.02)


# -- few rows, and wrong states ------------------------------------------------------------------------------------


def test_an_interval_that_few_rows_reach_tells_nothing():
    time = np.array([10.0, 60.0, 130.0, 210.0, 310.0, 460.0])
    site = (time, np.ones(6, dtype=bool), np.zeros(6))
    # Reached by 6, 5, 4, 3, 2 and 1 rows.
    state = sums(site, least=3)
    assert state["events"] == [1, 1, 1, 1, 0, 0]
    assert state["risk"][4:] == [0, 0]
    assert all(state["risk"][:4])
    # What is left out there is left out on both sides of the fraction: the others' hazard stands.
    large = ward(200, 1)
    both = cumulative([state, sums(large, least=3)], TIMES)
    alone = cumulative([sums(large, least=3)], TIMES)
    np.testing.assert_allclose(np.diff(both)[3:], np.diff(alone)[3:], rtol=1e-12)


def test_no_rows_and_scores_that_are_not_finite_or_huge_are_no_trouble():
    assert cumulative([sums((np.empty(0), np.empty(0, dtype=bool), np.empty(0)))], TIMES).tolist() == [0.0] * 6
    time, event, score = ward(20, 1)
    broken = sums((time, event, np.where(np.arange(20) < 3, np.nan, score)))
    assert broken == sums((time[3:], event[3:], score[3:]))
    huge = sums((time, event, np.full(20, 1e30)))
    check_baseline(huge, len(TIMES))
    curves = survival(cumulative([huge], TIMES), np.array([1e30, -1e30]))
    assert np.isfinite(curves).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("risk"), "lacks risk"),
        (lambda state: state.update(times=[1.0]), "unexpected"),
        (lambda state: state["events"].append(1), "events"),
        (lambda state: state["events"].__setitem__(0, -1), "events"),
        (lambda state: state["risk"].pop(), "risk"),
        (lambda state: state["risk"].__setitem__(0, float("nan")), "risk"),
        (lambda state: state["risk"].__setitem__(0, -1.0), "risk"),
        (lambda state: state["risk"].__setitem__(0, 0.0), "above 0 where there are events"),
    ],
)
def test_sums_that_cannot_be_are_refused(change, message):
    state = sums(ward(80, 1))
    change(state)
    with pytest.raises(ValueError, match=message):
        check_baseline(state, len(TIMES))
    with pytest.raises(ValueError, match="must be a dict"):
        check_baseline([state], len(TIMES))
