"""Cox regression: a federation's fit is that of all rows in one place, and what is coarsened or cannot be is named."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_gbsg2
from lifelines.statistics import proportional_hazard_test

import v6_algorithm.api as v6
from v6_algorithm.data.preparation.times import coarse_times
from v6_algorithm.errors import ExperimentError

TARGET = {"duration": "days", "event": "died"}


def hospitals(seed=0, rows=(60, 45, 80), *, ties=True):
    """Make three hospitals with other means; days are whole, so that many events tie."""
    generator = np.random.default_rng(seed)
    frames = {}
    for number, count in enumerate(rows):
        x = generator.normal(size=(count, 2)) * [10, 1] + [60 + number, number]
        time = generator.exponential(np.exp(-0.03 * (x[:, 0] - 60) - 0.5 * x[:, 1])) * 30
        last = generator.uniform(5, 60, count)
        days = np.minimum(time, last) + 0.1
        frames[f"h{number}"] = pd.DataFrame(x, columns=["age", "dose"]).assign(
            days=np.ceil(days) if ties else days, died=(time <= last).astype(int)
        )
    return frames


def fit(frames, model=None, **keys):
    data = {"target": TARGET, "missing": "error"} | keys.pop("data", {})
    return v6.run({"data": data, "problem": "survival", "model": {"kind": "cox"} | (model or {}), **keys}, frames)


def pooled(frames, strata=False):
    frame = pd.concat([frame.assign(site=name) for name, frame in frames.items()])
    frame = frame if strata else frame.drop(columns="site")
    options = {"precision": 1e-12}
    return frame, CoxPHFitter().fit(frame, "days", "died", strata=["site"] if strata else None, fit_options=options)


@pytest.mark.parametrize(("strata", "transform"), [("none", "km"), ("site", "log")])
def test_a_federated_cox_model_is_that_of_the_pooled_rows(strata, transform):
    frames = hospitals()
    result = fit(frames, {"strata": strata})
    frame, expected = pooled(frames, strata == "site")
    table, about = result.coefficients, result.content["fit"]
    assert table["estimate"].to_numpy() == pytest.approx(expected.params_.to_numpy(), rel=1e-5)
    assert table["standard_error"].to_numpy() == pytest.approx(expected.standard_errors_.to_numpy(), rel=1e-5)
    assert table["hazard_ratio"].to_numpy() == pytest.approx(expected.hazard_ratios_.to_numpy(), rel=1e-5)
    assert table["hazard_ratio_low"].to_numpy() == pytest.approx(np.exp(expected.confidence_intervals_.iloc[:, 0]))
    assert about["log_likelihood"] == pytest.approx(expected.log_likelihood_)
    assert about["likelihood_ratio"] == pytest.approx(expected.log_likelihood_ratio_test().test_statistic)
    assert about["likelihood_ratio_p"] == pytest.approx(expected.log_likelihood_ratio_test().p_value, rel=1e-6)
    test = proportional_hazard_test(expected, frame, time_transform=transform)
    # lifelines gives events of one time the residual of each; the sums over them are the same.
    assert [line["chi2"] for line in result.content["proportional_hazards"]] == pytest.approx(
        list(test.test_statistic), rel=1e-5
    )


@pytest.mark.parametrize("strata", ["none", "site"])
def test_twenty_skewed_covariates_take_eight_calls_and_errors_are_those_of_the_pooled_rows(strata):
    frame = load_gbsg2().drop(columns="tgrade")
    frame = frame.assign(horTh=(frame["horTh"] == "yes") * 1.0, menostat=(frame["menostat"] == "Post") * 1.0)
    inputs = frame.drop(columns=["time", "cens"])
    inputs = (inputs - inputs.mean()) / inputs.std(ddof=0)
    products = {f"{a}_by_{b}": inputs[a] * inputs[b] for a, b in [*combinations(inputs, 2)][:13]}
    frame = inputs.assign(**products, days=frame["time"], died=frame["cens"])
    frames = {f"h{number}": frame.iloc[number::3] for number in range(3)}
    result = fit(frames, {"strata": strata})
    _, expected = pooled(frames, strata == "site")
    assert len(result.coefficients) == 20
    assert result.content["fit"]["converged"]
    # With a baseline hazard for each site a call more, when the coefficients are known.
    calls = sum(bool(call["arrived_s"]) for call in result.content["timing"]["rounds"])
    assert calls <= (9 if strata == "site" else 8)
    assert result.coefficients["estimate"].to_numpy() == pytest.approx(expected.params_.to_numpy(), rel=1e-7)
    assert result.coefficients["standard_error"].to_numpy() == pytest.approx(
        expected.standard_errors_.to_numpy(), rel=1e-7
    )


@pytest.mark.parametrize("strata", ["none", "site"])
def test_a_centralised_fit_is_the_federated_one(strata):
    federated, centralised = (
        fit(hospitals(), {"strata": strata}, mode=mode).coefficients for mode in ("federated", "centralised")
    )
    pd.testing.assert_frame_equal(federated, centralised, rtol=1e-9)


def test_breslow_is_efron_without_ties_and_differs_with_them():
    without = hospitals(ties=False)
    efron, breslow = (fit(without, {"ties": ties}).coefficients["estimate"] for ties in ("efron", "breslow"))
    assert efron.to_numpy() == pytest.approx(breslow.to_numpy(), rel=1e-9)
    tied = hospitals()
    efron, breslow = (fit(tied, {"ties": ties}).coefficients["estimate"] for ties in ("efron", "breslow"))
    assert abs(efron["dose"] - breslow["dose"]) > 1e-3


def test_the_baseline_hazard_is_that_of_the_pooled_rows():
    frames = hospitals(ties=False)
    result = fit(frames)
    _, expected = pooled(frames)
    baseline = result.content["baseline_hazard"]
    reference = expected.baseline_cumulative_hazard_.iloc[:, 0].loc[baseline["time"]]
    # Both are of a patient at the mean of all rows.
    assert baseline["cumulative_hazard"] == pytest.approx(reference.to_list(), rel=1e-5)


def test_categories_have_a_reference_and_metrics_are_measured():
    frames = {name: frame.assign(arm=np.resize(["a", "b", "c"], len(frame))) for name, frame in hospitals().items()}
    result = fit(frames, data={"categorical": ["arm"]}, split={"train": 0.7, "validation": 0.0, "test": 0.3})
    assert result.coefficients["left_out"].dropna().to_dict() == {"arm=a": "reference"}
    assert 0.5 < result.content["metrics"]["test"]["pooled"]["c_index"] < 1


@pytest.mark.slow
def test_a_node_of_policy_standard_tells_times_of_several_events_and_the_run_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "standard")
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    frames = hospitals(rows=(200, 150, 180))
    data = {"target": TARGET, "missing": "error"}
    keys = {"data": data, "problem": "survival", "model": {"kind": "cox"}}
    result = v6.run(keys, frames, engine="mock")
    _, expected = pooled(frames)
    away = (result.coefficients["estimate"] - expected.params_) / expected.standard_errors_
    assert 0 < np.abs(away).max() < 0.5
    assert sum("joins event times" in note for note in result.notes) == 3
    by_site = v6.run(keys | {"model": {"kind": "cox", "strata": "site"}}, frames, engine="mock")
    _, stratified = pooled(frames, strata=True)
    assert by_site.coefficients["estimate"].to_numpy() == pytest.approx(stratified.params_.to_numpy(), rel=1e-5)
    assert not any("joins event times" in note for note in by_site.notes)


@pytest.mark.parametrize("last", [60.0, 12.0])
def test_coarse_times_stand_for_enough_events_and_rows(last):
    generator = np.random.default_rng(0)
    time, event = generator.exponential(10, 300), generator.random(300) < 0.4
    event, time = event & (time < last), np.minimum(time, last)
    coarse = coarse_times(time, event, 5, 20)
    assert len(np.unique(coarse)) > 3
    for value in np.unique(coarse):
        died = event[coarse == value].sum()
        assert died == 0 or died >= 5
        assert (coarse == value).sum() >= 20
    if last == 12:
        # Who is watched to the end is.
        assert coarse[time == last] == pytest.approx(last, abs=0.1)
    assert len(np.unique(coarse_times(time, event, 1000, 1000))) == 1


def test_separation_is_named_and_ridge_keeps_it_finite():
    frames = {name: frame.assign(safe=(frame["died"] == 0).astype(float)) for name, frame in hospitals().items()}
    assert any("safe: grows without end" in note for note in fit(frames).notes)
    result = fit(frames, {"ridge": 1.0})
    assert result.content["fit"]["converged"]
    json.dumps(result.content["coefficients"], allow_nan=False)


@pytest.mark.parametrize("strata", ["none", "site"])
def test_two_columns_that_differ_in_a_row_without_event_grow_both_and_the_rest_is_as_without_it(strata):
    """The one was called a combination of the other, which then had an estimate of 15, an error of 0.3 and p = 0."""
    frames = {name: frame.assign(drug=(frame.index % 2).astype(float)) for name, frame in hospitals().items()}
    for frame in frames.values():
        frame["arm"] = frame["drug"]
    row = np.flatnonzero((frames["h0"]["died"] == 0) & (frames["h0"]["drug"] == 0))[-1]
    frames["h0"].loc[row, "drug"] = 1.0
    result = fit(frames, {"strata": strata})
    assert any("drug, arm: grows without end" in note for note in result.notes)
    assert not any("other columns tell it exactly" in note for note in result.notes)
    assert result.coefficients.loc[["arm", "drug"], "left_out"].tolist() == ["separated"] * 2
    assert result.content["fit"]["converged"]
    rest = pd.concat([frame.assign(site=name) for name, frame in frames.items()])
    rest = rest.drop(columns="drug").reset_index(drop=True).drop(index=row)
    given = {"strata": ["site"]} if strata == "site" else {}
    rest = rest if strata == "site" else rest.drop(columns="site")
    wanted = CoxPHFitter().fit(rest, "days", "died", fit_options={"precision": 1e-10}, **given)
    found = result.coefficients.loc[["age", "dose"]]
    assert found["estimate"].to_numpy() == pytest.approx(wanted.params_[["age", "dose"]].to_numpy(), rel=1e-4)
    assert found["standard_error"].to_numpy() == pytest.approx(
        wanted.standard_errors_[["age", "dose"]].to_numpy(), rel=1e-4
    )


def test_files_text_and_the_model_hold_no_sums_by_time(tmp_path):
    result = fit(hospitals())
    folder = result.save(tmp_path / "run")
    assert pd.read_csv(folder / "coefficients.csv")["ratio"].notna().all()
    assert list(pd.read_csv(folder / "proportional_hazards.csv")["term"]) == ["age", "dose"]
    assert {"time", "survival"} <= set(pd.read_csv(folder / "baseline_hazard.csv"))
    assert "Proportional hazards" in (folder / "report.html").read_text()
    assert "Efron" in result.summary()
    assert (folder / "model.safetensors").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"problem": {"kind": "survival", "method": "discrete_time"}}, "is for problem.method cox"),
        ({"strategy": "fedavg"}, "is fitted by strategy newton"),
        ({"participation": {"late": "stale"}}, "late stale does not go with"),
        ({"training": {"batch_size": 8}}, "takes all rows once a round"),
        ({"data": {"target": "y"}}, "takes {duration"),
        ({"model": {"kind": "cox", "strata": "ward"}}, "strata"),
    ],
)
def test_what_does_not_go_with_a_cox_model_is_refused(keys, message):
    with pytest.raises(ExperimentError, match=message):
        v6.Experiment(**({"data": {"target": TARGET}, "model": {"kind": "cox"}} | keys))


def test_without_an_event_the_run_ends_before_it_trains():
    frames = {name: frame.assign(died=0) for name, frame in hospitals().items()}
    with pytest.raises(ExperimentError, match="no training row of any site has an event"):
        fit(frames)


def test_errors_over_sites_of_a_stratified_model_are_the_sandwich_of_the_sites_scores():
    frames = hospitals()
    robust = fit(frames, {"strata": "site", "errors": "site"})
    plain = fit(frames, {"strata": "site"})
    assert robust.coefficients["estimate"].to_numpy() == pytest.approx(plain.coefficients["estimate"].to_numpy())
    assert not np.allclose(robust.coefficients["standard_error"], plain.coefficients["standard_error"], rtol=1e-3)
    with pytest.raises(ExperimentError, match="goes with strata site"):
        fit(frames, {"errors": "site"})


def test_a_skewed_column_makes_no_first_step_that_a_node_refuses(monkeypatch, tmp_path):
    """A whole first step would let the few rows in the tail of the column carry a site's sums."""
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "standard")
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    columns = ["age", "pnodes", "progrec", "time", "cens"]
    frame = load_gbsg2()[columns].rename(columns={"time": "days", "cens": "died"})
    frames = {f"h{number}": frame.iloc[rows] for number, rows in enumerate(np.array_split(np.arange(686), 3))}
    keys = {"data": {"target": TARGET, "missing": "error"}, "problem": "survival"}
    result = v6.run(keys | {"model": {"kind": "cox", "strata": "site"}}, frames, engine="mock")
    assert result.content["fit"]["rows"] == 686


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("strata", ["none", "site"])
def test_times_of_0_are_the_earliest_events_as_statsmodels_has_them(ties, strata):
    from statsmodels.duration.hazard_regression import PHReg

    frames = hospitals()
    for frame in frames.values():
        frame.loc[:3, "days"] = 0.0
    rows = pd.concat([frame.assign(hospital=name) for name, frame in frames.items()])
    result = fit(frames, {"ties": ties, "strata": strata})
    strata_of = rows["hospital"] if strata == "site" else None
    fitted = PHReg(rows["days"], rows[["age", "dose"]], rows["died"], ties=ties, strata=strata_of).fit()
    assert result.coefficients["estimate"].to_numpy() == pytest.approx(fitted.params, rel=1e-5)
    assert np.isfinite([test["p"] for test in result.content["proportional_hazards"]]).all()
