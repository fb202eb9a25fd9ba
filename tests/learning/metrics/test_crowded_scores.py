"""Federated AUROC and AUPRC are those of the pooled rows also where scores crowd or saturate, or say how far off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from v6_algorithm.learning.metrics import ClassificationMetrics, compute, merge_states
from v6_algorithm.learning.metrics.additive import from_sums, to_sums
from v6_algorithm.learning.metrics.histogram import logit_edges
from v6_algorithm.site.guard.coarse import coarse_state

# Centre and spread of logits: spread out, a rare disease, an untrained network, overconfident ones.
CROWDS = [(0.0, 2.0), (-5.0, 0.05), (0.0, 0.02), (-3.5, 0.01), (25.0, 6.0), (-120.0, 30.0), (0.0, 60.0)]


def drawn(centre, spread, rows=800, seed=0, share=0.3):
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < share).astype(int)
    target[:2] = 0, 1
    logit = np.clip(centre + spread * (generator.normal(size=rows) + 1.5 * target), -700, 700)
    return np.exp(-np.logaddexp(0, -logit)), target, generator.integers(0, 3, rows)


def state_of(score, target, **options):
    collector = ClassificationMetrics(2, **options)
    collector.update(np.stack([1 - score, score], axis=1), target, np.zeros(len(score)))
    return collector.state()


def federated(score, target, site, change=lambda state: state, **options):
    return compute(merge_states(change(state_of(score[site == k], target[site == k], **options)) for k in range(3)))


@pytest.mark.parametrize(("centre", "spread"), CROWDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_federated_values_are_the_pooled_ones(centre, spread, seed):
    """512 bins over -12 to 12 gave 0.861 for 0.957."""
    score, target, site = drawn(centre, spread, seed=seed)
    found = federated(score, target, site)
    for name, exact in (
        ("auroc", sk.roc_auc_score(target, score)),
        ("auprc", sk.average_precision_score(target, score)),
    ):
        # Rows whose scores are the same number are in the same bin: that is no error, and yet in the bound.
        assert abs(found[name] - exact) <= min(found[f"{name}_resolution"] + 1e-12, 0.005)


@given(st.floats(-50, 50), st.floats(1e-7, 50), st.integers(0, 999), st.sampled_from([64, 512, 2**20]))
@settings(max_examples=60, deadline=None)
def test_the_bounds_hold_for_any_crowd_and_any_number_of_bins(centre, spread, seed, bins):
    score, target, site = drawn(centre, spread, rows=90, seed=seed)
    found = federated(score, target, site, bins=bins)
    assert abs(found["auroc"] - sk.roc_auc_score(target, score)) <= found["auroc_resolution"] + 1e-9
    assert abs(found["auprc"] - sk.average_precision_score(target, score)) <= found["auprc_resolution"] + 1e-9


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1e-4), (0.0, 1e-6)])
def test_where_even_these_bins_hold_several_scores_the_interval_contains_the_truth(centre, spread):
    score, target, site = drawn(centre, spread)
    found = federated(score, target, site)
    assert found["auroc_low"] <= sk.roc_auc_score(target, score) <= found["auroc_high"]
    assert found["auprc_low"] <= sk.average_precision_score(target, score) <= found["auprc_high"]


@pytest.mark.parametrize(("centre", "spread"), CROWDS[:4])
def test_a_node_that_joins_bins_is_close_where_scores_crowd_too(centre, spread):
    """Cells of five rows: neighbours are ties, and no more than that, however near they are."""
    score, target, site = drawn(centre, spread)
    found = federated(score, target, site, lambda state: coarse_state(state, 5))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(target, score), abs=0.01)


def test_secure_aggregation_sums_512_bins():
    score, target, site = drawn(0.0, 2.0)
    sums = to_sums(state_of(score, target))
    assert np.shape(sums["rows_by_bin"]) == (1, 512)
    coarse, fine = compute(from_sums(sums)), federated(score, target, site)
    assert coarse["auroc"] == pytest.approx(fine["auroc"], abs=coarse["auroc_resolution"] + 1e-3)


def test_a_state_lists_no_more_bins_than_it_has_rows():
    score, target, _ = drawn(0.0, 2.0, rows=50)
    state = state_of(score, target)
    assert sum(len(state[name][0]["bins"]) for name in ("positives", "negatives")) <= 50


def test_fewer_bins_than_the_fine_ones_are_equal_in_logits_and_from_there_on_they_reach_all_floats():
    few, fine = logit_edges(2**13 - 1), logit_edges(2**13)
    assert np.ptp(np.diff(few)) < 1e-9
    assert few[-1] < 12
    assert fine[-1] > 690
