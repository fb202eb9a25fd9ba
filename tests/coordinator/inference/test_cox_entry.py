"""Cox models of rows that are watched from a time on: equal to lifelines and statsmodels on the pooled rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from lifelines import CoxTimeVaryingFitter

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError
from v6_algorithm.learning.models.cox import RiskSums, likelihood
from v6_algorithm.learning.problems.survival import efron_loss

TARGET = {"duration": "stop", "event": "died", "entry": "start"}
SECTION = {
    "data": {"target": TARGET, "features": ["age", "treated"], "group": "who"},
    "problem": "survival",
    "model": {"kind": "cox"},
}


def hospital(patients, seed):
    """Draw patients who join late, some with the event, and whose treatment begins and ends while they are watched."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        age, time, treated = generator.normal(60, 8), float(generator.integers(0, 4)), int(generator.integers(0, 2))
        last = time + 1 + np.ceil(generator.exponential(20))
        while time < last:
            seen = time + np.ceil(generator.exponential(30 * np.exp(-0.7 * treated - 0.03 * (age - 60))))
            stop = min(time + 1 + generator.integers(0, 10), seen, last)
            rows.append((f"{seed}-{number}", time, stop, int(stop == seen), age, treated))
            if stop == seen:
                break
            time, treated = stop, 1 - treated
    return pd.DataFrame(rows, columns=["who", "start", "stop", "died", "age", "treated"])


@pytest.fixture(scope="module")
def frames():
    return {f"h{number}": hospital(patients, number) for number, patients in enumerate((70, 90, 60))}


def test_counting_process_rows_are_those_of_lifelines_pooled(frames):
    pooled = pd.concat(frames.values(), ignore_index=True)
    result = v6.run(SECTION, frames)
    expected = CoxTimeVaryingFitter().fit(
        pooled, id_col="who", start_col="start", stop_col="stop", event_col="died", fit_options={"precision": 1e-12}
    )
    table = result.coefficients
    assert table["estimate"].to_list() == pytest.approx(expected.params_.to_list(), rel=1e-6)
    assert table["standard_error"].to_list() == pytest.approx(expected.standard_errors_.to_list(), rel=1e-6)
    assert result.content["fit"]["log_likelihood"] == pytest.approx(expected.log_likelihood_)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_strata_of_sites_and_both_ties_are_those_of_statsmodels(frames, ties):
    section = SECTION | {"model": {"kind": "cox", "strata": "site", "ties": ties}}
    pooled = pd.concat([frame.assign(site=name) for name, frame in frames.items()])
    # statsmodels has a row at risk at its entry too, and not only after it.
    expected = sm.PHReg(
        pooled["stop"], pooled[["age", "treated"]], pooled["died"], entry=pooled["start"] + 0.001,
        strata=pooled["site"], ties=ties,
    ).fit()  # fmt: skip
    table = v6.run(section, frames).coefficients
    assert table["estimate"].to_list() == pytest.approx(expected.params.tolist(), rel=1e-5)
    assert table["standard_error"].to_list() == pytest.approx(expected.bse.tolist(), rel=1e-5)


def test_where_a_node_joins_times_estimates_stay_near(frames, monkeypatch):
    exact = v6.run(SECTION, frames).coefficients
    monkeypatch.setattr("v6_algorithm.site.guard.Guard.time_cell", lambda self, columns: (5, 6))
    result = v6.run(SECTION, frames)
    assert any("joins event times" in note for note in result.notes)
    assert (np.abs(result.coefficients["estimate"] - exact["estimate"]) < exact["standard_error"]).all()


@pytest.mark.parametrize("late", [False, True])
def test_the_loss_adds_up_to_the_log_partial_likelihood(late):
    generator = np.random.default_rng(2)
    x, weight = generator.normal(size=(80, 2)), np.array([0.5, -0.3])
    entry = generator.integers(0, 6, 80).astype(float) if late else np.zeros(80)
    time = entry + generator.integers(1, 12, 80)
    event = generator.random(80) < 0.6
    times = np.unique(time[event])
    expected = likelihood(RiskSums.of(x, time, event, weight, times, entry if late else None), weight, "efron").value
    tensors = (torch.from_numpy(values) for values in (x @ weight, time, event, entry))
    risk, duration, seen, entered = tensors
    assert -float(efron_loss(risk, duration, seen, entered if late else None).sum()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": {"kind": "mlp"}}, "goes with model cox"),
        ({"split": {"kind": "ratio"}}, "all rows training"),
        ({"data": SECTION["data"] | {"target": TARGET | {"entry": "stop"}}}, "entry and duration are both"),
    ],
)
def test_what_does_not_go_with_entries_is_refused(frames, change, says):
    with pytest.raises(ExperimentError, match=says):
        v6.run(SECTION | change, frames)


def test_survival_of_new_rows_is_from_the_risk_sets_of_rows_that_join_late(frames):
    """Neither predict nor the model could be used: new rows were refused for a C-index that nobody had asked for."""
    pooled, result = pd.concat(frames.values(), ignore_index=True), v6.run(SECTION, frames)
    slopes = result.coefficients["estimate"]
    risk = np.exp(pooled[slopes.index].to_numpy() @ slopes.to_numpy())
    steps = {}
    for time in np.unique(pooled["stop"][pooled["died"] == 1]):
        at_risk = risk[(pooled["start"] < time) & (pooled["stop"] >= time)].sum()
        tied = risk[(pooled["stop"] == time) & (pooled["died"] == 1)]
        steps[time] = (1 / (at_risk - np.arange(len(tied)) / len(tied) * tied.sum())).sum()
    new = pooled[slopes.index].head(5)
    found = result.predict(new)
    for column in found.columns[1:]:
        until = sum(step for time, step in steps.items() if time <= float(column[len("survival(") : -1]))
        wanted = np.exp(-until * np.exp(new.to_numpy() @ slopes.to_numpy()))
        assert found[column].to_numpy() == pytest.approx(wanted, rel=1e-4)
    assert len(found.columns) > 5
    with pytest.raises(ExperimentError, match=r"join late .*cannot be measured"):
        result.evaluate(pooled)
