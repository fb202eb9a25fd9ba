"""Under secure aggregation bounds of ranking metrics contain what sites joined before: sums say where rows may be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.secure_aggregation.fixed_point import decode_sums, encode_sums
from v6_algorithm.exchange.secure_aggregation.layout import put_together, rounded, take_apart
from v6_algorithm.exchange.secure_aggregation.packing import MOST_COUNTS, MOST_ROWS, pack, unpack
from v6_algorithm.learning.metrics import (
    ClassificationMetrics,
    SurvivalMetrics,
    check_state,
    compute,
    explain,
    merge_states,
)
from v6_algorithm.learning.metrics.additive import from_sums, to_sums
from v6_algorithm.learning.metrics.survival.concordance import exact_pairs
from v6_algorithm.site.guard.coarse import coarse_state


def summed(states):
    """Add up states as masked sums do, number by number."""
    parts = [take_apart(to_sums(state)) for state in states]
    assert all(skeleton == parts[0][0] for skeleton, _ in parts)
    words = [decode_sums(encode_sums(numbers, len(states))) for _, numbers in parts]
    total = [sum(column, Fraction(0)) for column in zip(*words, strict=True)]
    state = rounded(from_sums(put_together(parts[0][0], total)))
    check_state(state)
    return merge_states([state])


def classified(score, target):
    collector = ClassificationMetrics(2)
    collector.update(np.stack([1 - score, score], axis=1), target, np.zeros(len(score)))
    return collector.state()


def scores(rows, seed, spread=1.5, share=0.3, shift=0.0):
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < share).astype(int)
    target[:2] = 0, 1
    return 1 / (1 + np.exp(-(shift + spread * generator.normal(size=rows) + target))), target


def best_sensitivity(score, target, specificity):
    above, found, _ = sk.roc_curve(target, score, drop_intermediate=False)
    return found[above <= 1 - specificity + 1e-12].max()


SITES = st.lists(
    st.tuples(st.integers(2, 50), st.floats(-3, 3), st.floats(0.01, 5), st.booleans()), min_size=2, max_size=4
)


@given(SITES, st.sampled_from([3, 5, 10]), st.floats(0.05, 0.9), st.integers(0, 2**20))
@settings(max_examples=25)
def test_no_resolution_of_a_masked_sum_understates_what_joined_bins_move(sites, smallest, share, seed):
    """Bounds were of the summed bins alone: an AUROC of joined bins could be further off than its resolution."""
    states, rows = [], []
    for number, (count, shift, spread, joins) in enumerate(sites):
        score, target = scores(count, seed + number, spread, share, shift)
        states.append(coarse_state(classified(score, target), smallest) if joins else classified(score, target))
        rows.append((score, target))
    found, (score, target) = compute(summed(states)), map(np.concatenate, zip(*rows, strict=True))
    for name, exact in (
        ("auroc", sk.roc_auc_score(target, score)),
        ("auprc", sk.average_precision_score(target, score)),
        ("sensitivity_at_90", best_sensitivity(score, target, 0.9)),
    ):
        assert abs(found[name] - exact) <= found[f"{name}_resolution"] + 1e-9, name


def test_bins_that_interleave_move_an_auroc_beyond_their_ties_and_not_beyond_the_resolution():
    """Two sites of five rows each: what the old bound, half the pairs in one bin, said of them was 0."""
    score = np.array([0.30, 0.32, 0.34, 0.36, 0.60, 0.31, 0.50, 0.52, 0.54, 0.56])
    target = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    states = [coarse_state(classified(score[part], target[part]), 5) for part in (slice(5), slice(5, 10))]
    found, exact = compute(summed(states)), sk.roc_auc_score(target, score)
    tied = [set(state["positives"][0]["bins"]) & set(state["negatives"][0]["bins"]) for state in states]
    assert not any(tied)
    assert abs(found["auroc"] - exact) > 0.1
    assert abs(found["auroc"] - exact) <= found["auroc_resolution"]


def test_sums_of_sites_that_join_nothing_are_bounded_by_their_bins():
    states = [classified(*scores(40, site)) for site in range(3)]
    merged = summed(states)
    assert merged["joined"] == 0
    assert "parts" not in merged
    assert not any("joined" in text for text in explain(merged))


def test_of_every_class_the_masked_sum_is_that_of_the_sites():
    generator = np.random.default_rng(0)
    states = []
    for _ in range(3):
        collector = ClassificationMetrics(4)
        collector.update(generator.dirichlet(np.ones(4), 70), generator.integers(0, 4, 70), np.zeros(70))
        states.append(collector.state())
    masked, clear = (compute(one(states)) for one in (summed, merge_states))
    for name in ("n", "accuracy", "f1", "ece", "brier"):
        assert masked[name] == pytest.approx(clear[name])
    assert abs(masked["auroc"] - clear["auroc"]) <= masked["auroc_resolution"] < 0.02
    coarse = compute(summed([coarse_state(state, 5) for state in states]))
    assert abs(coarse["auroc"] - clear["auroc"]) <= coarse["auroc_resolution"]


# -- C-index -------------------------------------------------------------------------------------------------------

EDGES = [0.2, 0.5, 0.9, 1.5, 2.5]


def survival(rows, seed, shift=0.0):
    generator = np.random.default_rng(seed)
    risk = shift + generator.normal(size=rows)
    happens, leaves = generator.exponential(np.exp(-risk)), generator.exponential(1.5, rows)
    return np.minimum(happens, leaves), happens <= leaves, risk


def watched(time, event, risk):
    collector = SurvivalMetrics(EDGES)
    collector.update(risk[:, None], np.column_stack([time, event]), np.zeros(len(time)))
    return collector.state()


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(3, 40), st.floats(-2, 2), st.booleans()), min_size=2, max_size=3),
    st.sampled_from([3, 5, 10]), st.integers(0, 2**20),
)  # fmt: skip
@settings(max_examples=8)
def test_no_resolution_of_a_masked_c_index_understates_what_joined_cells_move(sites, smallest, seed):
    states, rows = [], []
    for number, (count, shift, joins) in enumerate(sites):
        rows.append(survival(count, seed + number, shift))
        state = watched(*rows[-1])
        states.append(coarse_state(state, smallest) if joins else state)
    time, event, risk = map(np.concatenate, zip(*rows, strict=True))
    exact = exact_pairs(time, event, risk, np.zeros(len(time), dtype=np.intp))
    merged = summed(states)
    found = compute(merged)
    if found["c_index"] is not None and exact.comparable:
        truth = exact.twice_concordant / (2 * exact.comparable)
        assert abs(found["c_index"] - truth) <= found["c_index_resolution"] + 1e-9
    # Cells are the same under masks, and so is all that is made of them.
    clear = compute(merge_states(states))
    assert {name: value for name, value in found.items() if name != "loss"} == pytest.approx(
        {name: value for name, value in clear.items() if name != "loss"}, abs=1e-12
    )


# -- counts in one number, and what no sites can have told ---------------------------------------------------------


@given(st.integers(1, MOST_COUNTS), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**20))
def test_counts_in_one_number_add_up_apart(tables, length, sites, seed):
    generator = np.random.default_rng(seed)
    counts = [generator.integers(0, MOST_ROWS // sites + 1, (tables, length)) for _ in range(sites)]
    total = [sum(column) for column in zip(*(pack(one) for one in counts), strict=True)]
    assert unpack(total, tables).tolist() == sum(counts).tolist()


@pytest.mark.parametrize("number", [Fraction(-1, 2**96), Fraction(1, 2**97), Fraction(2**62, 2**96)])
def test_what_is_no_sum_of_counts_is_refused(number):
    assert unpack([Fraction(2**62 - 1, 2**96)], 2).tolist() == [[MOST_ROWS], [MOST_ROWS]]
    with pytest.raises(WireError, match="sum of counts"):
        unpack([number], 2)


def test_ends_that_contradict_the_rows_are_refused():
    state = from_sums(to_sums(coarse_state(classified(*scores(60, 1)), 5)))
    cells = from_sums(to_sums(coarse_state(watched(*survival(60, 1)), 5)))
    for good in (state, cells):
        check_state(good)
    ends, of_cells = state["ends"], cells["ends"]
    told = ends["classes"][0]
    fewer = {"bins": told["positives_low"]["bins"][1:], "rows": told["positives_low"]["rows"][1:]}
    for wrong in (
        None, ends | {"listed": -1}, ends | {"classes": []}, ends | {"classes": [told | {"above": -1}]},
        ends | {"classes": [told | {"not_above": 60 * 60}]}, ends | {"classes": [told | {"positives_low": fewer}]},
        ends | {"classes": [{**told, "more": 0}]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="of the metric state"):
            check_state(state | {"ends": wrong})
    for wrong in (
        None, of_cells | {"listed": -1}, of_cells | {"cells": of_cells["cells"][1:]}, of_cells | {"within": [0] * 3},
        of_cells | {"within": [10**9] * 4}, of_cells | {"cells": of_cells["cells"][::-1]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="of the metric state"):
            check_state(cells | {"ends": wrong})
    with pytest.raises(ValueError, match="under secure aggregation"):
        from_sums(to_sums(classified(*scores(9, 1))) | {"n": MOST_ROWS + 1})
