"""Sites as a sample: REML, Hartung and Knapp, prediction intervals, of metrics and of coefficients by site."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import v6_algorithm.api as v6
from v6_algorithm.coordinator.inference.meta_analysis import of_coefficients, of_metrics, random_effects

Y, SE = [0.10, 0.42, 0.30, 0.75, -0.12], [0.12, 0.15, 0.10, 0.20, 0.17]


def test_the_variance_between_sites_is_of_greatest_restricted_likelihood():
    y, v = np.array(Y), np.array(SE) ** 2

    def minus(tau2):
        w = 1 / (v + tau2)
        mean = w @ y / w.sum()
        return (np.log(v + tau2).sum() + np.log(w.sum()) + (w * (y - mean) ** 2).sum()) / 2

    best = optimize.minimize_scalar(minus, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}).x
    pooled = random_effects(Y, SE)
    assert pooled["tau2"] == pytest.approx(best, rel=1e-5)
    w = 1 / (v + best)
    mean = w @ y / w.sum()
    error = np.sqrt((w * (y - mean) ** 2).sum() / 4 / w.sum())
    assert (pooled["estimate"], pooled["standard_error"]) == pytest.approx(
        (mean, max(error, w.sum() ** -0.5)), rel=1e-5
    )
    assert pooled["high"] - mean == pytest.approx(stats.t.ppf(0.975, 4) * pooled["standard_error"], rel=1e-4)
    reach = stats.t.ppf(0.975, 3) * np.sqrt(best + pooled["standard_error"] ** 2)
    assert pooled["prediction_low"] == pytest.approx(mean - reach, rel=1e-4)


def test_equal_sites_have_no_variance_between_them_and_two_no_prediction():
    pooled = random_effects([0.3, 0.3], [0.1, 0.2])
    assert (pooled["tau2"], pooled["i2"]) == (0, 0)
    assert pooled["estimate"] == pytest.approx(0.3)
    assert "prediction_low" not in pooled


def test_intervals_cover_the_mean_of_a_population_of_sites():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        errors = generator.uniform(0.1, 0.3, 6)
        estimates = 0.5 + generator.normal(0, 0.2, 6) + generator.normal(0, errors)
        pooled = random_effects(estimates, errors)
        covered += pooled["low"] < 0.5 < pooled["high"]
    assert 0.92 < covered / 400 <= 1


def test_metrics_are_pooled_on_a_scale_of_their_own_and_sites_without_an_interval_left_out():
    sites = {
        "a": {"auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.88, "mae": 3.0, "mae_low": 2.0, "mae_high": 4.5},
        "b": {"auroc": 0.9, "auroc_low": 0.85, "auroc_high": 0.94, "mae": 2.0, "mae_low": 1.0, "mae_high": 4.0},
        "c": {"auroc": None, "auroc_low": None, "auroc_high": None},
        "d": {"auroc": 1.0, "auroc_low": 0.9, "auroc_high": 1.0},
    }
    pooled = of_metrics({"test": {"sites": sites}})["test"]
    assert pooled["auroc"]["sites"] == 2
    assert pooled["auroc"]["scale"] == "logit"
    assert 0.8 < pooled["auroc"]["estimate"] < 0.9
    assert 0 < pooled["auroc"]["low"] < pooled["auroc"]["high"] < 1
    assert pooled["mae"]["scale"] == "log"


def test_coefficients_of_each_site_alone_and_their_mean(tmp_path):
    generator = np.random.default_rng(0)
    frames = {}
    for number, slope in enumerate([0.5, 1.0, 1.5]):
        x = generator.normal(size=120)
        frames[f"h{number}"] = pd.DataFrame({"dose": x, "y": slope * x + generator.normal(size=120)})
    result = v6.run(
        {"data": {"target": "y"}, "problem": "regression", "model": {"kind": "glm"}, "mode": "local"}, frames
    )
    alone = {
        site: {line["term"]: line for line in lines} for site, lines in result.content["site_coefficients"].items()
    }
    for name, frame in frames.items():
        assert alone[name]["dose"]["estimate"] == pytest.approx(np.polyfit(frame["dose"], frame["y"], 1)[0])
    line = result.meta_analysis.loc[("coefficients", "dose")]
    expected = random_effects(
        [of_site["dose"]["estimate"] for of_site in alone.values()],
        [of_site["dose"]["standard_error"] for of_site in alone.values()],
    )
    assert line["estimate"] == pytest.approx(expected["estimate"])
    assert line["i2"] > 0.8
    folder = result.save(tmp_path / "run")
    assert "Sites as a sample" in (folder / "report.html").read_text()
    assert "forest-0" in (folder / "report.html").read_text()
    assert len(pd.read_csv(folder / "meta_analysis.csv")) == 2


def test_coefficients_that_separate_or_have_another_reference_are_left_out_and_named():
    def line(term, **keys):
        return {"term": term, "estimate": 1.0, "standard_error": 0.5, "low": 0.0, "high": 2.0} | keys

    reference = {"term": "cp=1", "left_out": "reference"}
    sites = {
        "a": [line("(intercept)"), line("age"), reference, line("cp=2"), line("cp=3", separated=True)],
        "b": [line("(intercept)"), line("age"), reference, line("cp=2"), line("cp=3")],
        # Nobody here has 1, so that 2 is the reference.
        "c": [line("(intercept)"), line("age"), {"term": "cp=1", "left_out": "aliased"}, line("cp=2"), line("cp=3")],
    }
    pooled, notes = of_coefficients(sites, {"cp=1": "cp"})
    assert {term: values["sites"] for term, values in pooled.items()} == {"(intercept)": 2, "age": 3, "cp=2": 2}
    assert [note.split("'")[1] for note in notes] == ["a", "c"]
