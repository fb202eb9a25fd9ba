"""The integrated Brier score of censored data row by row, with the life table that weights it."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.learning.metrics import SurvivalMetrics, compute, explain

HORIZONS = [1.0, 2.0, 4.0, 4.5]
# Quarters, whose squares are whole numbers of the units that states count in.
ROW = st.tuples(
    st.sampled_from([0.5, 1.0, 1.5, 3.0, 4.2, 6.0]),
    st.booleans(),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=4, max_size=4),
)


def state_of(rows):
    metrics = SurvivalMetrics([2.0], HORIZONS)
    prediction = np.array([[0.0, *survival] for _, _, survival in rows])
    metrics.update(prediction, np.array([(time, dead) for time, dead, _ in rows], dtype=float), np.zeros(len(rows)))
    return metrics.state()


def by_hand(rows):
    """Graf's score at each horizon at which somebody may still be uncensored, and their mean over time."""
    interval = [sum(time > horizon for horizon in HORIZONS) for time, _, _ in rows]
    stays, scores = [], []
    for place in range(len(HORIZONS)):
        at_risk = sum(number >= place for number in interval)
        died = sum(number == place and dead for number, (_, dead, _) in zip(interval, rows, strict=True))
        left = sum(number == place and not dead for number, (_, dead, _) in zip(interval, rows, strict=True))
        stays.append(1 - left / (at_risk - died / 2) if at_risk - died / 2 > 0 else 1.0)
        if min(stays) <= 0:
            break
        score = 0.0
        for number, (_, dead, survival) in zip(interval, rows, strict=True):
            if number > place:
                score += (1 - survival[place]) ** 2 / prod(stays)
            elif dead:
                score += survival[place] ** 2 / sqrt(prod(stays[:number]) * prod(stays[: number + 1]))
        scores.append(score / len(rows))
    if len(scores) < 2:
        return scores[0] if scores else None
    steps = [
        (HORIZONS[place + 1] - HORIZONS[place]) * (scores[place] + scores[place + 1]) / 2
        for place in range(len(scores) - 1)
    ]
    return sum(steps) / (HORIZONS[len(scores) - 1] - HORIZONS[0])


@given(st.lists(ROW, min_size=1, max_size=14))
@settings(max_examples=80)
def test_an_integrated_brier_score_is_that_of_its_rows(rows):
    state, wanted = state_of(rows), by_hand(rows)
    found = compute(state)["brier"]
    assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-9))
    assert any("censored before the first horizon" in text for text in explain(state)) == (wanted is None)


def test_a_horizon_after_which_all_are_censored_is_left_out():
    rows = [(0.5, True, [0.5] * 4), (0.5, True, [0.75] * 4), (1.5, False, [0.25] * 4), (1.5, False, [0.0] * 4)]
    assert compute(state_of(rows))["brier"] == pytest.approx((0.25 + 0.5625 + 0.5625 + 1) / 4)
    assert compute(state_of([(0.5, False, [0.5] * 4)] * 3))["brier"] is None
    assert compute(SurvivalMetrics([2.0], HORIZONS).state())["brier"] is None
