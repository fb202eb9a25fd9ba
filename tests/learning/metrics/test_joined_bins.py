"""Sites that join score bins: a state has a size, and the resolutions contain whatever that moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from v6_algorithm.learning.metrics import ClassificationMetrics, compute, explain, joined, merge_states
from v6_algorithm.learning.metrics.additive import from_sums, to_sums
from v6_algorithm.learning.metrics.histogram import average_precision_bounds
from v6_algorithm.learning.metrics.joined import MOST_LISTED, Extents, capped
from v6_algorithm.site.guard.coarse import coarse_state


def state_of(score, target):
    collector = ClassificationMetrics(2)
    collector.update(np.stack([1 - score, score], axis=1), target, np.zeros(len(score)))
    return collector.state()


def drawn(rows, seed, spread=1.5, share=0.3, shift=0.0):
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < share).astype(int)
    target[:2] = 0, 1
    return 1 / (1 + np.exp(-(shift + spread * generator.normal(size=rows) + target))), target


def best_sensitivity(score, target, specificity):
    """Largest sensitivity of any threshold with at least this specificity."""
    above, found, _ = sk.roc_curve(target, score, drop_intermediate=False)
    return found[above <= 1 - specificity + 1e-12].max()


def within(found, score, target):
    for name, exact in (
        ("auroc", sk.roc_auc_score(target, score)),
        ("auprc", sk.average_precision_score(target, score)),
        ("sensitivity_at_90", best_sensitivity(score, target, 0.9)),
        ("sensitivity_at_95", best_sensitivity(score, target, 0.95)),
    ):
        assert abs(found[name] - exact) <= found[f"{name}_resolution"] + 1e-9, name


@given(
    st.lists(
        st.tuples(st.integers(2, 60), st.floats(-3, 3), st.floats(0.01, 5), st.booleans()), min_size=2, max_size=4
    ),
    st.sampled_from([3, 5, 10]), st.floats(0.05, 0.9), st.integers(0, 2**20),
)  # fmt: skip
@settings(max_examples=60)
def test_no_resolution_understates_what_joined_bins_move(sites, smallest, share, seed):
    """Ties in joined bins alone gave 0.02 where the AUROC was 0.05 off: bins of two sites interleave."""
    states, rows = [], []
    for number, (count, shift, spread, joins) in enumerate(sites):
        score, target = drawn(count, seed + number, spread, share, shift)
        states.append(coarse_state(state_of(score, target), smallest) if joins else state_of(score, target))
        rows.append((score, target))
    within(compute(merge_states(states)), *map(np.concatenate, zip(*rows, strict=True)))


@given(st.integers(0, 2**20), st.floats(0.02, 0.9))
@settings(max_examples=10)
def test_the_resolution_is_reached_by_rows_that_could_have_been(seed, share):
    """The bound of the AUROC is that of real rows: moved to the ends of what is known of each joined bin."""
    parts = [coarse_state(state_of(*drawn(40, seed + site, share=share)), 8) for site in range(2)]
    merged = merge_states(parts)
    least, most = Extents(merged["parts"], 0, merged["bins"]).auroc()
    assert least <= compute(merged)["auroc"] <= most
    assert compute(merged)["auroc_resolution"] == pytest.approx(
        max(most - compute(merged)["auroc"], compute(merged)["auroc"] - least)
    )


def test_within_one_site_joined_bins_are_ties_and_nothing_more():
    state = coarse_state(state_of(*drawn(100, 1)), 5)
    alone, merged = compute(state), compute(merge_states([state]))
    assert merged["auroc_resolution"] == pytest.approx(alone["auroc_resolution"], abs=1e-12)
    assert alone["auroc_resolution"] > 0


def test_states_that_join_nothing_have_the_resolution_of_their_ties():
    states = [state_of(*drawn(50, site)) for site in range(3)]
    merged = merge_states(states)
    assert merged["joined"] == 0
    assert "parts" not in merged
    values = compute(merged)
    again = compute(merge_states([*states[:2], states[2] | {"joined": 1}]))
    moved = {name for name in values if again[name] != values[name]}
    assert moved
    assert all(name.endswith(("_resolution", "_low", "_high")) for name in moved)
    assert again["auroc_resolution"] > values["auroc_resolution"]


def test_sums_of_sums_keep_what_each_site_told():
    states = [coarse_state(state_of(*drawn(60, site)), 5) for site in range(3)]
    at_once, in_steps = merge_states(states), merge_states([merge_states(states[:2]), states[2]])
    assert compute(at_once) == compute(in_steps)
    assert at_once["joined"] == in_steps["joined"] == 3


def test_a_reply_has_a_size_whatever_the_rows():
    score, target = drawn(30_000, 0)
    state, whole = capped(state_of(score, target)), state_of(score, target)
    assert len({place for name in ("positives", "negatives") for place in state[name][0]["bins"]}) <= MOST_LISTED
    assert len(json.dumps(state)) < 100_000 < len(json.dumps(whole))
    assert [sum(state[name][0]["rows"]) for name in ("positives", "negatives")] == [
        target.sum(),
        len(target) - target.sum(),
    ]
    assert (state["joined"], whole["joined"]) == (1, 0)


@pytest.mark.parametrize("share", [0.3, 0.002])
def test_capped_histograms_lose_next_to_nothing_and_say_how_much(share):
    rows = [drawn(20_000, site, share=share, shift=site - 1.0) for site in range(3)]
    score, target = map(np.concatenate, zip(*rows, strict=True))
    found = compute(merge_states(capped(state_of(*each)) for each in rows))
    within(found, score, target)
    assert found["auroc_resolution"] < 0.001
    assert abs(found["auroc"] - sk.roc_auc_score(target, score)) < 1e-5


def test_the_classes_of_one_state_share_its_list():
    generator = np.random.default_rng(0)
    collector = ClassificationMetrics(20)
    scores = generator.dirichlet(np.ones(20), 6000)
    collector.update(scores, generator.integers(0, 20, 6000), np.zeros(6000))
    state = capped(collector.state())
    assert (
        sum(len(set(p["bins"]) | set(n["bins"])) for p, n in zip(state["positives"], state["negatives"], strict=True))
        <= MOST_LISTED
    )
    assert compute(merge_states([state]))["auroc"] == pytest.approx(compute(collector.state())["auroc"], abs=0.001)


def test_a_state_of_few_rows_is_as_it_was():
    state = state_of(*drawn(MOST_LISTED, 0))
    assert capped({"site": {"group": state}})["site"]["group"] is state


def test_many_equal_scores_are_one_bin_and_not_joined_with_others():
    score = np.concatenate([np.full(50_000, 0.5), np.linspace(0.1, 0.4, 5000)])
    target = np.arange(len(score)) % 2
    state = capped(state_of(score, target))
    middle = state["positives"][0]["bins"][-1]
    assert state["positives"][0]["rows"][-1] == 25_000
    assert middle == state_of(score, target)["positives"][0]["bins"][-1]


def test_secure_aggregation_says_that_bins_were_joined_before_it():
    state = coarse_state(state_of(*drawn(60, 0)), 5)
    summed = from_sums(to_sums(state))
    assert any("1 sites joined score bins before secure aggregation" in text for text in explain(summed))
    assert not any("joined" in text for text in explain(from_sums(to_sums(state_of(*drawn(60, 0))))))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60).filter(any), st.booleans())
def test_bounds_of_an_average_precision_are_its_value_in_the_best_and_the_worst_order(bins, many):
    """Reached by rows, not only beyond them: a bound that is too wide hides a good model."""
    pairs = bins * (2 if many else 1)
    positives, negatives = (np.array(counts) for counts in zip(*pairs, strict=True))
    if not positives.sum():
        return
    target = {
        "worst": np.concatenate([[1] * p + [0] * n for p, n in pairs]),
        "best": np.concatenate([[0] * n + [1] * p for p, n in pairs]),
    }
    exact = {name: sk.average_precision_score(rows, np.arange(len(rows))) for name, rows in target.items()}
    worst, best = average_precision_bounds(positives.tolist(), negatives.tolist())
    assert (worst, best) == pytest.approx((exact["worst"], exact["best"]), abs=1e-9)


def test_an_interval_of_joined_bins_is_hardly_wider_than_that_of_the_rows_and_holds_the_truth():
    """The worst that joining may hide stands beside it, as the resolution; the truth is of two normal distributions."""
    held, widths = [], []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        target = (generator.random(300) < 0.4).astype(np.int64)
        score = 1 / (1 + np.exp(-generator.normal(1.5 * target, 1)))
        states = [state_of(score[site::3], target[site::3]) for site in range(3)]
        plain, told = (
            compute(merge_states(map(change, states))) for change in (dict, lambda one: coarse_state(one, 5))
        )
        held.append(told["auroc_low"] <= 0.8556 <= told["auroc_high"])  # Phi(1.5 / sqrt(2))
        widths.append((told["auroc_high"] - told["auroc_low"]) / (plain["auroc_high"] - plain["auroc_low"]))
    assert np.mean(held) >= 0.93
    assert 1 <= np.mean(widths) < 1.2


def test_the_resolution_of_an_auprc_counts_ties_of_the_worst_order_against_it():
    """Where positives and negatives of the worst order share a bin, the negatives come first."""
    tied = state_of(np.full(22, 0.99), np.array([1] * 20 + [0] * 2))
    merged = merge_states([coarse_state(state_of(*drawn(200, 0)), 8), tied])
    _, positives, negatives = Extents(merged["parts"], 0, merged["bins"]).worst()
    assert (positives * negatives).any()
    pairs = zip(positives.tolist(), negatives.tolist(), strict=True)
    worst = np.concatenate([[1] * above + [0] * below for above, below in pairs])
    found = compute(merged)
    lowest = sk.average_precision_score(worst, np.arange(len(worst)))
    assert found["auprc_resolution"] == pytest.approx(found["auprc"] - lowest)


def test_only_sites_that_join_bins_list_joined_ones():
    """So that a handful of joined bins stays one, however many sites join none."""
    coarse, plain = coarse_state(state_of(*drawn(60, 0)), 20), state_of(*drawn(60, 1))
    parts = merge_states([coarse, *[plain] * 9])["parts"]
    mine = {place for name in ("positives", "negatives") for place in coarse[name][0]["bins"]}
    assert joined.listed(parts) == len(mine) < 8
    assert joined.listed(parts[1:]) == 0


@pytest.mark.parametrize("times", [2**22, 2**38])
def test_bins_of_very_many_rows_are_joined_as_those_of_few(times):
    """Their products are no longer exact in int64, whichever class is the larger."""
    generator = np.random.default_rng(0)
    keys, counts = np.arange(300) * 7, generator.integers(1, 9, (2, 300))
    counts[1] = counts[0][::-1]
    assert joined.joined_keys(keys, counts * times, 4096, 50).tolist() == (
        joined.joined_keys(keys, counts, 4096, 50).tolist()
    )
