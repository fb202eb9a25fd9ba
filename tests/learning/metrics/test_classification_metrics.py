"""The values of the classification metrics, held against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from v6_algorithm.learning.metrics import (
    METRIC_NAMES,
    ClassificationMetrics,
    compute,
    explain,
    is_score,
    is_sensitivity,
)
from v6_algorithm.learning.metrics.calibration import calibration_bin
from v6_algorithm.learning.metrics.histogram import bin_edges, bin_index

ROWS = 400


def softmax_rows(n_classes, *, rows=ROWS, seed=0, spread=2.0):
    """Probabilities that lean towards a random target, as a half-trained network gives."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, n_classes, rows)
    logits = rng.normal(0, spread, (rows, n_classes)) + 1.5 * np.eye(n_classes)[target]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probability, target, -np.log(probability[np.arange(rows), target])


def measured(probability, target, loss=None, **options):
    probability = np.asarray(probability, dtype=float)
    collector = ClassificationMetrics(probability.shape[1], **options)
    collector.update(probability, target, np.zeros(len(probability)) if loss is None else loss)
    return collector.state()


def of_class_1(scores):
    scores = np.asarray(scores, dtype=float)
    return np.stack([1 - scores, scores], axis=1)


@pytest.mark.parametrize("average", ["binary", "macro"])
def test_threshold_metrics_equal_sklearn(average):
    probability, target, loss = softmax_rows(2 if average == "binary" else 5)
    predicted = probability.argmax(axis=1)
    values = compute(measured(probability, target, loss))
    assert values["n"] == ROWS
    assert values["loss"] == pytest.approx(sk.log_loss(target, probability))
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(target, predicted))
    assert values["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(target, predicted))
    assert values["precision"] == pytest.approx(sk.precision_score(target, predicted, average=average))
    assert values["recall"] == pytest.approx(sk.recall_score(target, predicted, average=average))
    assert values["f1"] == pytest.approx(sk.f1_score(target, predicted, average=average))


def test_brier_of_two_classes_equals_sklearn():
    probability, target, _ = softmax_rows(2)
    expected = sk.brier_score_loss(target, probability[:, 1])
    assert compute(measured(probability, target))["brier"] == pytest.approx(expected)


def test_brier_of_many_classes_sums_over_the_classes():
    probability, target, _ = softmax_rows(4)
    expected = ((probability - np.eye(4)[target]) ** 2).sum(axis=1).mean()
    assert compute(measured(probability, target))["brier"] == pytest.approx(expected)


def ece_by_hand(confidence, hit, bins=15):
    """The sum over bins of |bin| / n * |share of hits - mean confidence|, as Guo et al. (2017) write it."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


def test_ece_of_two_classes_holds_the_risk_of_class_1_against_its_frequency():
    probability, target, _ = softmax_rows(2)
    expected = ece_by_hand(probability[:, 1], target == 1)
    assert compute(measured(probability, target))["ece"] == pytest.approx(expected, abs=1 / 2048)


def test_ece_of_many_classes_holds_the_top_probability_against_being_right():
    probability, target, _ = softmax_rows(4)
    expected = ece_by_hand(probability.max(axis=1), probability.argmax(axis=1) == target)
    assert compute(measured(probability, target))["ece"] == pytest.approx(expected, abs=1 / 2048)


def test_ece_worked_out_on_paper():
    # Bin 4 (0.2, 0.2667]: 0.25 x 4, one positive, no gap. Bin 12 (0.7333, 0.8]: 0.75 x 2, none positive, gap 0.75.
    state = measured(of_class_1([0.25, 0.25, 0.25, 0.25, 0.75, 0.75]), [0, 1, 0, 0, 0, 0])
    assert compute(state)["ece"] == pytest.approx(2 / 6 * 0.75)


def test_a_calibration_bin_holds_its_upper_edge_and_the_first_one_zero():
    assert calibration_bin(np.array([0.0, 1e-300, 1 / 15, np.nextafter(1 / 15, 1), 14 / 15, 1.0])).tolist() == [
        0, 0, 0, 1, 13, 14,
    ]  # fmt: skip


def test_sure_and_right_has_no_calibration_error_and_sure_and_wrong_has_all():
    assert compute(measured(of_class_1([0.0, 1.0]), [0, 1]))["ece"] == 0
    assert compute(measured(of_class_1([0.0, 1.0]), [1, 0]))["ece"] == 1


def test_a_bin_with_one_row_does_not_carry_its_probability_in_full():
    state = measured(of_class_1([0.123456789]), [1])
    assert sum(state["calibration"][1]) == round(0.123456789 * 1024)


@pytest.mark.parametrize("bins", [2, 7, 64, 512])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_ranking_metrics_equal_sklearn_on_the_binned_scores(n_classes, bins):
    probability, target, _ = softmax_rows(n_classes)
    scored = [1] if n_classes == 2 else range(n_classes)
    binned = bin_index(probability, bins)
    values = compute(measured(probability, target, bins=bins))
    auroc = np.mean([sk.roc_auc_score(target == k, binned[:, k]) for k in scored])
    auprc = np.mean([sk.average_precision_score(target == k, binned[:, k]) for k in scored])
    assert values["auroc"] == pytest.approx(auroc, abs=1e-12)
    assert values["auprc"] == pytest.approx(auprc, abs=1e-12)


@pytest.mark.parametrize("spread", [0.01, 0.3, 2.0, 30.0])
@pytest.mark.parametrize("bins", [8, 512])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_binned_auroc_is_within_its_resolution_of_the_exact_auroc(n_classes, bins, spread):
    probability, target, _ = softmax_rows(n_classes, spread=spread)
    scored = [1] if n_classes == 2 else range(n_classes)
    exact = np.mean([sk.roc_auc_score(target == k, probability[:, k]) for k in scored])
    values = compute(measured(probability, target, bins=bins))
    assert abs(values["auroc"] - exact) <= values["auroc_resolution"] + 1e-12


def test_default_bins_resolve_the_auroc_of_spread_scores_to_the_second_digit():
    probability, target, _ = softmax_rows(2)
    assert compute(measured(probability, target))["auroc_resolution"] < 0.005


def test_scores_at_zero_and_one_fall_into_the_outer_bins():
    assert bin_index(np.array([0.0, 1e-300, 1.0]), 512).tolist() == [0, 0, 511]


def test_bins_are_equally_wide_in_logit_space():
    edges = bin_edges(64)
    assert np.diff(np.log(edges / (1 - edges))) == pytest.approx(24 / 64)


def test_a_tie_at_one_half_predicts_class_1():
    values = compute(measured([[0.5, 0.5]], [1]))
    assert values["accuracy"] == values["recall"] == 1


def test_macro_averages_are_over_the_classes_that_occur():
    probability = np.eye(5)[[0, 1, 1, 3]]
    target = np.array([0, 1, 2, 2])
    predicted = probability.argmax(axis=1)
    values = compute(measured(probability, target))
    options = {"average": "macro", "zero_division": 0}
    assert values["precision"] == pytest.approx(sk.precision_score(target, predicted, **options))
    assert values["recall"] == pytest.approx(sk.recall_score(target, predicted, **options))
    assert values["f1"] == pytest.approx(sk.f1_score(target, predicted, **options))
    assert values["balanced_accuracy"] == pytest.approx(2 / 3)


def test_batches_add_up_to_the_whole():
    probability, target, loss = softmax_rows(3)
    whole, batched = ClassificationMetrics(3), ClassificationMetrics(3)
    whole.update(probability, target, loss)
    for start in range(0, ROWS, 33):
        part = slice(start, start + 33)
        batched.update(probability[part], target[part], loss[part])
    sums = ("loss", "brier")
    expected, state = whole.state(), batched.state()
    assert [state.pop(name) for name in sums] == pytest.approx([expected.pop(name) for name in sums])
    assert state == expected


def test_two_classes_keep_the_histograms_of_class_1_only():
    state = measured(of_class_1([0.1, 0.9]), [0, 1])
    assert len(state["positives"]) == len(state["negatives"]) == 1


def test_one_class_has_no_ranking_metrics_and_says_so():
    state = measured(of_class_1([0.2, 0.7]), [0, 0])
    values = compute(state)
    assert values["auroc"] is values["auprc"] is values["auroc_resolution"] is None
    assert values["accuracy"] == values["balanced_accuracy"] == 0.5
    assert "auroc and auprc: only one class present" in explain(state)


def test_undefined_precision_and_recall_are_zero_and_say_so():
    state = measured(of_class_1([0.2, 0.3]), [0, 0])
    values = compute(state)
    assert values["precision"] == values["recall"] == values["f1"] == 0
    assert any(note.startswith("precision: no row") for note in explain(state))
    assert any(note.startswith("recall: no row") for note in explain(state))


def test_absent_and_never_predicted_classes_are_named_in_the_notes():
    notes = explain(measured(np.eye(5)[[0, 1, 1, 3]], [0, 1, 2, 2]))
    assert any("2 of 5 classes do not occur in the target" in note for note in notes)
    assert any("1 of 5 classes were never predicted" in note for note in notes)


def test_scores_that_share_a_bin_are_noted_as_coarse():
    state = measured(of_class_1([0.5, 0.500001, 0.5, 0.500001]), [0, 1, 0, 1])
    assert compute(state)["auroc"] == compute(state)["auroc_resolution"] == 0.5
    notes = explain(state)
    assert notes[0] == "auroc: binned, within 0.500 of the exact value"
    assert notes[1].startswith("auprc: binned, within 0.")


def test_nothing_is_noted_when_all_is_well():
    assert explain(measured(of_class_1([0.1, 0.2, 0.8, 0.9]), [0, 0, 1, 1])) == []


def test_non_finite_rows_are_counted_and_left_out():
    probability = of_class_1([0.2, np.nan, 0.8, np.inf, 0.6])
    state = measured(probability, [0, 0, 1, 1, 1], [0.1, 0.1, 0.2, 0.1, np.nan])
    assert compute(state)["n"] == 2
    assert compute(state)["loss"] == pytest.approx(0.15)
    assert explain(state) == ["3 rows had a non-finite prediction or loss and are left out"]
    json.dumps(state, allow_nan=False)


@pytest.mark.parametrize("rows", [0, 3])
def test_a_part_without_usable_rows_has_no_metrics(rows):
    state = measured(np.full((rows, 3), np.nan), np.zeros(rows, dtype=int))
    values = compute(state)
    assert values.pop("n") == 0
    assert set(values.values()) == {None}
    assert explain(state)[-1] == "no rows"


def test_float32_input_is_accepted():
    probability, target, loss = softmax_rows(3, spread=20)
    values = compute(measured(probability.astype(np.float32), target.astype(np.int32), loss.astype(np.float32)))
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(target, probability.argmax(axis=1)))


def test_every_value_has_a_known_direction():
    values = compute(measured(of_class_1([0.1, 0.9]), [0, 1]))
    scores = [name for name in values if is_score(name) and not is_sensitivity(name)]
    assert set(scores) < METRIC_NAMES.keys()


@pytest.mark.parametrize(
    ("probability", "target", "loss", "message"),
    [
        ([0.1, 0.9], [0, 1], [0, 0], "shape"),
        ([[0.1, 0.2, 0.7]], [0], [0], "shape"),
        ([[0.1, 0.9]], [0, 1], [0], "shape"),
        ([[0.1, 0.9]], [0], [0, 0], "shape"),
        ([[0.1, 0.9]], [0.0], [0], "integers"),
        ([[0.1, 0.9]], [2], [0], "classes from 0 to 1"),
        ([[0.1, 0.9]], [-1], [0], "classes from 0 to 1"),
        ([[3.0, 5.0]], [0], [0], "softmax"),
        ([[-4.0, 5.0]], [0], [0], "softmax"),
    ],
)
def test_wrong_input_is_refused(probability, target, loss, message):
    with pytest.raises(ValueError, match=message):
        ClassificationMetrics(2).update(np.array(probability), np.array(target), np.array(loss))


@pytest.mark.parametrize("options", [{"n_classes": 1}, {"n_classes": 2, "bins": 1}])
def test_wrong_sizes_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 2"):
        ClassificationMetrics(**options)
