"""Sensitivity at a given specificity and the AUROC's standard error, from summed histograms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from v6_algorithm.learning.metrics import ClassificationMetrics, compute, higher_is_better, is_score, merge_states
from v6_algorithm.learning.metrics.classification_state import histograms
from v6_algorithm.learning.metrics.histogram import lower_edges, sensitivity_at
from v6_algorithm.site.guard.coarse import coarse_state

SPECIFICITIES = (0.5, 0.9, 0.95, 0.975)


def scored(seed: int, rows: int = 600, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and a target that they tell something about."""
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < share).astype(int)
    return 1 / (1 + np.exp(-(generator.normal(-1, 2, rows) + 1.8 * target))), target


def state_of(score, target, **options):
    collector = ClassificationMetrics(2, **options)
    collector.update(np.stack([1 - score, score], axis=1), target, np.zeros(len(score)))
    return collector.state()


def exact(score, target, specificity):
    """The largest sensitivity of any threshold that has the specificity."""
    false, true, _ = sk.roc_curve(target, score, drop_intermediate=False)
    return true[false <= 1 - specificity + 1e-9].max()


@pytest.mark.parametrize("specificity", SPECIFICITIES)
@pytest.mark.parametrize("seed", range(5))
def test_it_is_within_its_resolution_of_scikit_learns_roc_curve(seed, specificity):
    score, target = scored(seed)
    state = state_of(score, target, specificities=[specificity])
    name = f"sensitivity_at_{100 * specificity:g}".replace(".", "_")
    found = compute(state)
    assert 0 <= exact(score, target, specificity) - found[name] <= found[f"{name}_resolution"] + 1e-12
    assert found[f"{name}_resolution"] < 0.05


@pytest.mark.parametrize("specificity", SPECIFICITIES)
def test_the_threshold_has_the_sensitivity_and_at_least_the_specificity_on_these_rows(specificity):
    score, target = scored(7)
    state = state_of(score, target)
    places, positives, negatives = histograms(state)[0]
    edges = lower_edges(places, state["bins"])
    sensitivity, threshold, _ = sensitivity_at(specificity, positives, negatives, edges)
    predicted = score >= threshold
    assert predicted[target == 1].mean() == sensitivity
    assert (~predicted[target == 0]).mean() >= specificity


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_federated_sensitivity_equals_pooled_sensitivity(seed, sites):
    score, target = scored(seed, rows=120)
    site = np.random.default_rng(seed).integers(0, sites, len(score))
    merged = merge_states(state_of(score[site == one], target[site == one]) for one in range(sites))
    pooled = compute(state_of(score, target))
    exact_ones = [name for name in pooled if "_at_" in name or name == "auroc_se"]
    assert [compute(merged)[name] for name in exact_ones] == [pooled[name] for name in exact_ones]


def test_a_whole_number_of_negatives_is_not_lost_to_rounding():
    # 1 - 0.9 is a little less than a tenth: of ten negatives one may still be wrong.
    negatives, positives = [0, 9, 1], [0, 0, 4]
    assert sensitivity_at(0.9, positives, negatives, np.array([0.0, 0.2, 0.4]))[0] == 1.0


def test_no_threshold_is_told_where_even_the_highest_scores_are_negative():
    sensitivity, threshold, resolution = sensitivity_at(0.9, [4, 0, 1], [0, 1, 9], np.array([0.0, 0.2, 0.4]))
    assert (sensitivity, threshold) == (0.0, None)
    assert resolution == 0.2


def test_a_perfect_model_finds_all_at_any_specificity():
    score, target = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    found = compute(state_of(score, target))
    assert found["sensitivity_at_90"] == found["sensitivity_at_95"] == 1.0


def test_with_one_class_or_three_there_is_none():
    one = compute(state_of(np.array([0.2, 0.4]), np.array([0, 0])))
    assert one["sensitivity_at_90"] is one["threshold_at_90"] is None
    three = ClassificationMetrics(3)
    three.update(np.full((3, 3), 1 / 3), np.arange(3), np.zeros(3))
    assert not [name for name in compute(three.state()) if "_at_" in name or name in ("specificity", "npv")]


def test_specificity_and_npv_equal_those_of_the_confusion_matrix():
    score, target = scored(3)
    found = compute(state_of(score, target))
    (tn, fp), (fn, _) = sk.confusion_matrix(target, score >= 0.5)
    assert found["specificity"] == pytest.approx(tn / (tn + fp))
    assert found["npv"] == pytest.approx(tn / (tn + fn))


def test_more_sensitivity_is_better_and_a_threshold_is_no_score():
    assert higher_is_better("sensitivity_at_97_5", "classification")
    assert higher_is_better("sex.sensitivity_at_90", "multitask")
    assert is_score("sex.sensitivity_at_90")
    assert not any(map(is_score, ["auroc_se", "sex.threshold_at_90", "sensitivity_at_90_resolution", "sex.n", "n"]))


def delong(score, target) -> float:
    """The standard error from all pairs of a positive and a negative."""
    pairs = np.sign(score[target == 1][:, None] - score[target == 0][None, :]) / 2 + 0.5
    parts = [pairs.mean(axis=axis).var(ddof=1) / pairs.shape[1 - axis] for axis in (0, 1)]
    return float(np.sqrt(sum(parts)))


@pytest.mark.parametrize("seed", range(5))
def test_the_standard_error_of_the_auroc_is_delongs(seed):
    score, target = scored(seed)
    assert compute(state_of(score, target))["auroc_se"] == pytest.approx(delong(score, target), rel=0.01)
    # Of scores that are the same within a bin it is so to the last digit.
    coarse = np.round(score, 1)
    assert compute(state_of(coarse, target))["auroc_se"] == pytest.approx(delong(coarse, target), rel=1e-9)


def test_the_interval_of_the_auroc_covers_the_true_value_about_as_often_as_it_says():
    hits, true = 0, 0.738  # of normal scores 0.9 standard deviations apart: Phi(0.9 / sqrt(2))
    for seed in range(200):
        generator = np.random.default_rng(seed)
        target = np.arange(120) % 3 // 2
        score = 1 / (1 + np.exp(-generator.normal(0.9 * target, 1)))
        found = compute(state_of(score, target))
        hits += abs(found["auroc"] - true) <= 1.96 * found["auroc_se"]
    assert 180 <= hits <= 200


def test_one_row_of_a_class_has_no_standard_error():
    assert compute(state_of(np.array([0.1, 0.4, 0.8]), np.array([0, 0, 1])))["auroc_se"] is None


def test_states_for_other_specificities_are_not_added_up():
    score, target = scored(1)
    with pytest.raises(ValueError, match="differ in specificities"):
        merge_states([state_of(score, target), state_of(score, target, specificities=[0.8])])


@pytest.mark.parametrize("given_", ["0.9", [1.5], [None], [float("nan")]])
def test_a_state_with_wrong_specificities_is_refused(given_):
    score, target = scored(1)
    with pytest.raises(ValueError, match="specificities"):
        compute(state_of(score, target) | {"specificities": given_})


def at_lowest_threshold(specificity, positives, negatives):
    """Sensitivity at the lowest place from which on few enough negatives lie, and the positives just below it."""
    allowed = int((1 - specificity) * len(negatives) + 1e-9)
    places = sorted({*positives, *negatives})
    fitting = [place for place in places if sum(other >= place for other in negatives) <= allowed]
    if len(fitting) == len(places):
        return 1.0, 0.0
    below = max(place for place in places if place not in fitting)
    return sum(place > below for place in positives) / len(positives), positives.count(below) / len(positives)


def precision_of(positives, negatives, *, first):
    """The average precision of rows in order, those of one place with the positives first or last."""
    ranked = sorted([(-place, not first) for place in positives] + [(-place, first) for place in negatives])
    hits = [number for number, (_, late) in enumerate(ranked, 1) if late is not first]
    return sum(found / taken for found, taken in enumerate(hits, 1)) / len(positives)


@pytest.mark.parametrize("seed", range(4))
def test_where_sites_join_bins_the_resolution_goes_to_the_furthest_that_rows_may_lie(seed):
    """All of a joined bin may be anywhere between its neighbours: positives up and negatives down, or the reverse."""
    states, ends = [], []
    for site in range(2):
        score, target = scored(10 * seed + site, rows=30)
        state = coarse_state(state_of(np.round(score, 2), target, specificities=[0.8]), 5)
        states.append(state)
        (places, above, below), bins = histograms(state)[0], state["bins"]
        for number, place in enumerate(places.tolist()):
            low = places[number - 1] + 1 if number else 0
            high = places[number + 1] - 1 if number + 1 < len(places) else bins - 1
            ends += [(kind, place, low, high) for kind, rows in ((1, above), (0, below)) for _ in range(rows[number])]
    merged = merge_states(states)
    found = compute(merged)

    def placed(positive, negative):
        """Rows of both classes at the end that is asked for: 1 as told, 2 lowest, 3 highest."""
        return [end[positive] for end in ends if end[0]], [end[negative] for end in ends if not end[0]]

    value, _ = at_lowest_threshold(0.8, *placed(1, 1))
    best, worst = at_lowest_threshold(0.8, *placed(3, 2)), at_lowest_threshold(0.8, *placed(2, 3))
    assert found["sensitivity_at_80"] == pytest.approx(value)
    assert found["sensitivity_at_80_resolution"] == pytest.approx(max(sum(best) - value, value - worst[0]))
    highest = precision_of(*placed(3, 2), first=True)
    lowest = precision_of(*placed(2, 3), first=False)
    assert found["auprc_resolution"] == pytest.approx(max(highest - found["auprc"], found["auprc"] - lowest))
