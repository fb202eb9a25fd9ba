"""Confusion matrices, calibration and ROC curves of a run: from the sums of all sites, and what they add up to."""

from __future__ import annotations

import numpy as np
import pytest
from hospitals import make_table

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

SITES = {"amsterdam": 200, "berlin": 150}


def result_of(classes: int = 2, **changes) -> dict:
    sources = {
        name: TableSource(frame=make_table(rows, seed, classes=classes))
        for seed, (name, rows) in enumerate(SITES.items())
    }
    experiment = Experiment.parse({"data": {"target": "y"}, "model": "linear", "rounds": 2, **changes})
    return run(local_federation(experiment, sources), experiment)


@pytest.fixture(scope="module")
def result() -> dict:
    return result_of()


def test_confusion_matrices_of_the_sites_add_up_to_the_pooled_one(result):
    for part in ("validation", "test"):
        confusion = result["confusion"][part]["y"]
        assert confusion["classes"] == [0, 1]
        assert np.array_equal(np.sum(list(confusion["sites"].values()), axis=0), confusion["pooled"])
        metrics = result["metrics"][part]["pooled"]
        assert np.trace(confusion["pooled"]) / metrics["n"] == pytest.approx(metrics["accuracy"])


def test_the_calibration_error_is_that_of_the_bins(result):
    bins, metrics = result["calibration"]["test"]["y"], result["metrics"]["test"]["pooled"]
    assert sum(bins["rows"]) == metrics["n"]
    apart = [
        rows * abs(observed - predicted)
        for rows, predicted, observed in zip(bins["rows"], bins["predicted"], bins["observed"], strict=True)
        if rows
    ]
    assert sum(apart) / metrics["n"] == pytest.approx(metrics["ece"])
    assert all((rows == 0) == (share is None) for rows, share in zip(bins["rows"], bins["observed"], strict=True))


def test_the_roc_curve_falls_from_corner_to_corner_and_its_area_is_about_the_auroc(result):
    curve, metrics = result["roc"]["test"]["y"], result["metrics"]["test"]["pooled"]
    sensitivity, false = np.array(curve["sensitivity"]), 1 - np.array(curve["specificity"])
    assert (sensitivity[0], false[0], sensitivity[-1], false[-1]) == (0, 0, 1, 1)
    assert (np.diff(sensitivity) >= 0).all()
    assert (np.diff(false) >= -1e-12).all()
    assert np.trapezoid(sensitivity, false) == pytest.approx(metrics["auroc"], abs=0.02)
    thresholds = curve["threshold"]
    assert thresholds[0] is None
    assert thresholds[1:] == sorted(thresholds[1:], reverse=True)


def test_no_step_of_the_roc_curve_is_of_fewer_than_five_rows(result):
    curve = result["roc"]["test"]["y"]
    (negatives, positives) = map(sum, result["confusion"]["test"]["y"]["pooled"])
    rows = np.array(curve["sensitivity"]) * positives + (1 - np.array(curve["specificity"])) * negatives
    assert np.diff(rows).min() >= 5 - 1e-6


def test_more_classes_have_a_matrix_and_no_roc_curve():
    result = result_of(3)
    assert np.shape(result["confusion"]["test"]["y"]["pooled"]) == (3, 3)
    assert result["roc"] == {}
    assert sum(result["calibration"]["test"]["y"]["rows"]) == result["metrics"]["test"]["pooled"]["n"]


def test_several_targets_have_one_each_that_is_a_class():
    targets = {"y": "classification", "a": "regression"}
    result = result_of(data={"targets": targets, "features": ["b", "c"]}, problem="multitask")
    assert set(result["confusion"]["test"]) == set(result["roc"]["test"]) == {"y"}


def test_a_regression_has_none():
    result = result_of(0, problem="regression")
    assert result["confusion"] == result["calibration"] == result["roc"] == {}
