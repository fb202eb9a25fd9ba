"""Decision curves, observed over expected, and calibration of a run, from sums over sites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import v6_algorithm.api as v6
from v6_algorithm.coordinator.result.diagnostics import decision_curve, risk_summary
from v6_algorithm.learning.metrics import ClassificationMetrics
from v6_algorithm.learning.metrics.classification_state import histograms
from v6_algorithm.researcher.report.page import render


def test_a_run_has_a_decision_curve_and_observed_over_expected(tmp_path):
    generator = np.random.default_rng(0)
    frames = {}
    for number in range(3):
        dose = generator.normal(size=200)
        chance = 1 / (1 + np.exp(-(dose - 1 + 0.5 * number)))
        frames[f"h{number}"] = pd.DataFrame({"dose": dose, "y": generator.binomial(1, chance)})
    split = {"train": 0.5, "validation": 0.0, "test": 0.5}
    result = v6.run({"data": {"target": "y"}, "model": "glm", "split": split}, frames)
    content = result.content
    curve = content["decision"]["test"]["y"]
    assert curve["model"][0] == pytest.approx(curve["all"][0], abs=0.02)
    assert max(np.array(curve["model"]) - np.maximum(curve["all"], 0)) > 0.02
    risk = content["risk"]["test"]["y"]
    assert sum(site["observed"] for site in risk["sites"].values()) == risk["pooled"]["observed"]
    assert risk["pooled"]["o_e_low"] < risk["pooled"]["o_e"] < risk["pooled"]["o_e_high"]
    assert 0.4 < risk["pooled"]["slope"] < 1.8
    page = (result.save(tmp_path / "run") / "report.html").read_text()
    assert "Decision curve" in page
    assert "O/E" in page


def test_net_benefit_is_that_of_the_rows():
    generator = np.random.default_rng(0)
    p = generator.beta(1, 3, 4000)
    y = generator.binomial(1, p)
    metrics = ClassificationMetrics(2)
    metrics.update(np.column_stack([1 - p, p]), y, np.zeros(4000))
    state = metrics.state()
    curve = decision_curve(*histograms(state)[0], state["bins"])
    for t, benefit in zip(curve["threshold"], curve["model"], strict=True):
        treated = p >= t
        expected = ((treated & (y == 1)).sum() - (treated & (y == 0)).sum() * t / (1 - t)) / 4000
        assert benefit == pytest.approx(expected, abs=1e-9)
    summary = risk_summary(state)
    assert summary["expected"] == pytest.approx(p.sum(), rel=1e-3)
    logit = np.log(p / (1 - p))
    pooled = sm.Logit(y, sm.add_constant(logit)).fit(disp=0)
    assert (summary["intercept"], summary["slope"]) == pytest.approx(tuple(pooled.params), abs=0.01)


def test_a_survival_run_has_the_auroc_over_time(tmp_path):
    generator = np.random.default_rng(0)
    frames = {}
    for number in range(2):
        dose = generator.normal(size=200)
        happens, leaves = generator.exponential(np.exp(-dose)), generator.exponential(2.0, 200)
        frames[f"h{number}"] = pd.DataFrame(
            {"dose": dose, "days": np.minimum(happens, leaves), "died": (happens <= leaves).astype(int)}
        )
    section = {
        "data": {"target": {"duration": "days", "event": "died"}},
        "model": "cox",
        "split": {"train": 0.5, "validation": 0.0, "test": 0.5},
    }
    result = v6.run(section, frames)
    curves = result.content["auroc_over_time"]["test"]["days"]
    assert set(curves["sites"]) == set(frames)
    assert len(curves["pooled"]) > 10
    assert all(0.6 < point["auroc"] <= 1 for point in curves["pooled"])
    page = (result.save(tmp_path / "run") / "report.html").read_text()
    assert "AUROC over time" in page
    assert "Mean predicted risk at time" in page
    assert "is not drawn of" not in page
    # Of classes, which there are none of, nothing is explained.
    assert "Net benefit" not in page
    assert "a row is a true class" not in page
    many = {
        **result.content,
        "auroc_over_time": {"test": {"days": {**curves, "sites": dict.fromkeys("abcd", curves["pooled"])}}},
    }
    assert "AUROC over time is not drawn of d; result.json has it." in render(many)
