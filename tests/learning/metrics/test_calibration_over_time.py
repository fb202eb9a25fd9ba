"""Calibration at a time: predicted risks against Kaplan-Meier, from the bins that sites tell."""

from __future__ import annotations

import lifelines
import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.learning.metrics import SurvivalMetrics
from v6_algorithm.learning.metrics.survival import calibration_at_horizons, calibration_over_time, survival

EDGES = np.linspace(0.05, 2.0, 24).tolist()


def rows(seed: int, number: int = 800):
    generator = np.random.default_rng(seed)
    score = generator.normal(size=number)
    happens, leaves = generator.exponential(np.exp(-score)), generator.uniform(0.2, 3, number)
    return score, np.minimum(happens, leaves), happens <= leaves


def state(score, time, event, hazard):
    metrics = SurvivalMetrics(EDGES, EDGES)
    metrics.update(np.column_stack([score, survival(hazard, score)]), np.column_stack([time, event]), 0 * time)
    return metrics.state()


def test_pooled_risks_are_those_of_single_rows_and_of_lifelines():
    # The second site's baseline is half: its expected risks come from its own.
    sites = {"one": rows(1), "two": rows(2)}
    hazards = {"one": np.array(EDGES), "two": 0.5 * np.array(EDGES)}
    states = {name: state(*sites[name], hazards[name]) for name in sites}
    curve = calibration_over_time(states, hazards)
    time, event = (np.concatenate([site[place] for site in sites.values()]) for place in (1, 2))
    kaplan_meier = lifelines.KaplanMeierFitter().fit(time, event)
    assert len(curve) == len(EDGES)
    for place, told in enumerate(curve):
        risk = np.concatenate([1 - survival(hazards[name], sites[name][0])[:, place] for name in sites])
        assert told["expected"] == pytest.approx(risk.mean(), abs=1e-3)
        assert told["observed"] == pytest.approx(1 - kaplan_meier.predict(told["time"]), abs=0.005)
    middle = curve[10]
    order = np.argsort(np.concatenate([1 - survival(hazards[name], sites[name][0])[:, 10] for name in sites]))
    lowest = order[: middle["groups"]["rows"][0]]
    of_group = lifelines.KaplanMeierFitter().fit(time[lowest], event[lowest])
    assert middle["groups"]["observed"][0] == pytest.approx(1 - of_group.predict(middle["time"]), abs=0.02)
    assert sum(middle["groups"]["rows"]) == len(time)


def test_a_model_that_promises_half_the_hazard_is_found_out():
    score, time, event = rows(3)
    right, half = np.array(EDGES), 0.5 * np.array(EDGES)
    good = calibration_over_time({"a": state(score, time, event, right)}, {"a": right})[8]
    wrong = calibration_over_time({"a": state(score, time, event, half)}, {"a": half})[8]
    assert good["o_e_low"] < 1 < good["o_e_high"]
    assert wrong["o_e_low"] > 1
    # Half the hazard: the logarithm of 2 in the large; the order is right, and so is the slope.
    assert wrong["in_the_large"] == pytest.approx(np.log(2), abs=2 * wrong["in_the_large_se"])
    assert good["in_the_large"] == pytest.approx(0, abs=2 * good["in_the_large_se"])
    for told in (good, wrong):
        assert told["slope"] == pytest.approx(1, abs=2 * told["slope_se"])


def test_slope_and_intercept_are_those_of_a_poisson_regression_of_single_rows():
    import statsmodels.api as sm

    score, time, event = rows(6)
    hazard = np.array(EDGES)
    told = calibration_over_time({"a": state(1.5 * score, time, event, hazard)}, {"a": hazard})[12]
    until = np.minimum(time, told["time"])
    outcome = (event & (time <= told["time"])).astype(float)
    fit = sm.GLM(
        outcome, sm.add_constant(1.5 * score), family=sm.families.Poisson(), offset=np.log(np.maximum(until, 1e-9))
    ).fit()
    assert [told["intercept"], told["slope"]] == pytest.approx(fit.params.tolist(), abs=0.02)
    assert [told["intercept_se"], told["slope_se"]] == pytest.approx(fit.bse.tolist(), rel=0.03)
    # Scores that are half as far apart again as risks are.
    assert told["slope"] == pytest.approx(1 / 1.5, abs=3 * told["slope_se"])
    alike = calibration_over_time({"a": state(0 * score, time, event, hazard)}, {"a": hazard})[12]
    assert alike["slope"] is None
    assert alike["in_the_large"] is not None


def test_a_cox_network_has_it_in_its_result_and_report_and_discrete_time_at_its_horizons():
    generator = np.random.default_rng(4)
    frames = {}
    for name in ("one", "two"):
        score, time, event = rows(int(generator.integers(100)), 150)
        frames[name] = pd.DataFrame({"marker": score, "time": time, "died": event.astype(int)})
    keys = {
        "data": {"target": {"duration": "time", "event": "died"}, "missing": "error"},
        "model": {"kind": "mlp", "hidden": []},
        "rounds": 3,
        "training": {"batch_size": None},
    }
    result = v6.run({**keys, "problem": "survival"}, frames)
    told = result.content["calibration_over_time"]["test"]["time"]
    assert set(told["sites"]) == {"one", "two"}
    assert 0 < told["pooled"][0]["expected"] < told["pooled"][-1]["expected"] < 1
    assert "Calibration at time" in result.report()
    discrete = v6.run({**keys, "problem": {"kind": "survival", "method": "discrete_time"}}, frames)
    told = discrete.content["calibration_over_time"]["test"]["time"]
    assert set(told["sites"]) == {"one", "two"}
    assert 0 < told["pooled"][0]["expected"] < told["pooled"][-1]["expected"] < 1
    assert told["pooled"][0]["o_e_low"] < told["pooled"][0]["o_e"] < told["pooled"][0]["o_e_high"]
    assert "Expected risk" in discrete.report()


def test_at_horizons_observed_and_expected_are_those_of_single_rows():
    score, time, event = rows(8)
    promised = survival(np.array(EDGES), score)
    metrics = SurvivalMetrics(EDGES, EDGES[:20:4])
    metrics.update(np.column_stack([score, promised[:, :20:4]]), np.column_stack([time, event]), 0 * time)
    kaplan_meier = lifelines.KaplanMeierFitter().fit(time, event)
    curve = calibration_at_horizons(metrics.state())
    assert len(curve) == 5
    for place, told in enumerate(curve):
        assert told["expected"] == pytest.approx(1 - promised[:, 4 * place].mean(), abs=1e-4)
        assert told["observed"] == pytest.approx(1 - kaplan_meier.predict(told["time"]), abs=0.02)
