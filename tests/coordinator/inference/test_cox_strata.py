"""A Cox model's strata are its hospitals: in training, wherever the rows are, and in its survival curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.evaluation.model_evaluation import LEAST_EVENTS
from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.external.predict import predict


def hospital(rows, seed, hazard, events=1.0):
    """Exponential times, at a hazard of the hospital's own, and twice that for a row one unit up."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, rows)
    time = rng.exponential(1 / (hazard * 2**x))
    end = rng.uniform(5, 20, rows)
    return pd.DataFrame(
        {"dose": x, "days": np.minimum(time, end), "died": ((time <= end) & (rng.random(rows) < events)) * 1}
    )


FRAMES = {"fast": hospital(200, 1, 0.5), "slow": hospital(160, 2, 0.03)}


def trained(frames=FRAMES, **changes):
    content = Experiment.parse(
        {
            "data": {"target": {"duration": "days", "event": "died"}, "scaling": "none"},
            "problem": changes.pop("problem", "survival"),
            "model": "linear",
            "split": {"kind": "ratio", "train": 0.7, "validation": 0, "test": 0.3},
            "training": {"local_steps": 1, "optimizer": {"kind": "sgd", "lr": 0.5}, "dtype": "float64"},
            "rounds": 8,
            **changes,
        }
    )
    sources = {name: TableSource(frame=frame) for name, frame in frames.items()}
    return run(local_federation(content, sources), content)


@pytest.fixture(scope="module")
def federated():
    return trained()


@pytest.mark.usefixtures("one_thread")
def test_a_centralised_cox_model_fits_the_same_stratified_likelihood(federated):
    """Pooled rows in one stratum gave another estimand, and so another coefficient, than the federation's."""
    models = [wire.unpack(result["parameters"]) for result in (federated, trained(mode="centralised"))]
    for name, tensor in models[0].items():
        np.testing.assert_allclose(models[1][name].numpy(), tensor.numpy(), rtol=1e-9, atol=1e-12)


def observed(frame, time):
    """Kaplan-Meier survival at a time."""
    alive = 1.0
    for event in np.unique(frame["days"][(frame["died"] == 1) & (frame["days"] <= time)]):
        alive *= 1 - ((frame["days"] == event) & (frame["died"] == 1)).sum() / (frame["days"] >= event).sum()
    return alive


def predicted(frame, hazard, model):
    """Mean survival by the model, whose scores have a constant that the baseline hazard makes up for."""
    score = model["model.weight"].item() * frame["dose"].to_numpy() + model["model.bias"].item()
    return np.exp(-hazard * np.exp(score)).mean()


def test_survival_is_predicted_by_each_sites_baseline_hazard(federated):
    """With one for all, 0.78 was predicted where 0.35 was observed."""
    baseline = federated["preparation"]["baseline"]
    model = wire.unpack(federated["parameters"])
    apart = {}
    for name, frame in FRAMES.items():
        for number, time in enumerate(baseline["times"]):
            true = observed(frame, time)
            assert predicted(frame, baseline["sites"][name][number], model) == pytest.approx(true, abs=0.06)
            apart[name, number] = abs(predicted(frame, baseline["cumulative_hazard"][number], model) - true)
    assert max(apart.values()) > 0.2


def test_the_brier_score_is_of_those_curves_and_better_for_it(federated):
    pooled = trained(problem={"kind": "survival", "baseline": "pooled"})
    assert "sites" not in pooled["preparation"]["baseline"]
    scores = [result["metrics"]["test"]["pooled"]["brier"] for result in (federated, pooled)]
    assert scores[0] < scores[1] - 0.02


def test_a_centralised_run_has_the_same_baselines_by_hospital(federated):
    other = trained(mode="centralised")["preparation"]["baseline"]
    for name, hazard in federated["preparation"]["baseline"]["sites"].items():
        np.testing.assert_allclose(other["sites"][name], hazard, rtol=1e-6)


def test_a_site_of_few_events_takes_the_baseline_of_all_and_is_named():
    frames = FRAMES | {"small": hospital(40, 3, 0.1, events=0.3)}
    assert frames["small"]["died"].sum() < LEAST_EVENTS
    result = trained(frames)
    assert set(result["preparation"]["baseline"]["sites"]) == {"fast", "slow"}
    assert any(
        note.startswith("survival curves of small come from the baseline hazard of all sites")
        for note in result["notes"]
    )


def test_the_result_says_that_the_c_index_ranks_across_strata(federated):
    assert any("c_index of all sites ranks patients of different sites too" in note for note in federated["notes"])
    alone = trained({"fast": FRAMES["fast"]}, participation={"minimum": 1})
    assert not any("c_index of all sites" in note for note in alone["notes"])


@pytest.fixture(scope="module")
def all_rows_fitted():
    """By strata: a Cox model as statisticians fit it, exactly and to all rows, so that no part is left to measure."""
    keys = {"data": {"target": {"duration": "days", "event": "died"}}, "problem": "survival"}
    sources = {name: TableSource(frame=frame) for name, frame in FRAMES.items()}
    contents = {
        strata: Experiment.parse({**keys, "model": {"kind": "cox", "strata": strata}}) for strata in ("site", "none")
    }
    return {strata: run(local_federation(content, sources), content) for strata, content in contents.items()}


def test_a_model_fitted_to_all_rows_predicts_survival_by_the_named_sites_baseline(all_rows_fitted):
    """It gave log-risks alone: the baseline hazard was asked for with the metrics only, and of those there are none."""
    model = ReturnedModel.of(all_rows_fitted["site"]["parameters"], "the result")
    for name, frame in FRAMES.items():
        predicted = predict(model, TableSource(frame=frame[["dose"]]), name)
        assert not predicted.attrs["notes"]
        for column in predicted.columns[1::5]:
            true = observed(frame, float(column.removeprefix("survival(").removesuffix(")")))
            assert predicted[column].mean() == pytest.approx(true, abs=0.06)
    unnamed = predict(model, TableSource(frame=FRAMES["fast"][["dose"]]))
    assert len(unnamed.columns) > 10
    assert any("by that of one of these: fast, slow" in note for note in unnamed.attrs["notes"])
    with pytest.raises(ExperimentError, match=r"site 'fats': has no baseline hazard of its own.*: fast, slow"):
        predict(model, TableSource(frame=FRAMES["fast"][["dose"]]), "fats")


def test_a_model_without_strata_has_one_baseline_hazard(all_rows_fitted):
    result = all_rows_fitted["none"]
    baseline, breslow = result["preparation"]["baseline"], result["baseline_hazard"]
    assert "sites" not in baseline
    at = np.searchsorted(breslow["time"], baseline["times"], side="right") - 1
    np.testing.assert_allclose(baseline["cumulative_hazard"], np.array(breslow["cumulative_hazard"])[at], rtol=1e-12)


def test_no_note_is_about_a_c_index_that_was_not_measured(all_rows_fitted):
    assert not any("c_index" in note for note in all_rows_fitted["site"]["notes"])


def test_survival_is_told_at_the_times_that_are_asked_for(all_rows_fitted):
    """Between the model's own times the hazard is constant, so that its logarithm is halfway in the middle."""
    model = ReturnedModel.of(all_rows_fitted["none"]["parameters"], "the result")
    rows = TableSource(frame=FRAMES["fast"][["dose"]])
    known = predict(model, rows)
    ends = [float(column.removeprefix("survival(").removesuffix(")")) for column in known.columns[1:]]
    middle = (ends[3] + ends[4]) / 2
    found = predict(model, rows, None, [0.0, middle])
    assert [*found.columns] == ["log_risk", "survival(0)", f"survival({middle:g})"]
    assert (found["survival(0)"] == 1).all()
    wanted = np.sqrt(known.iloc[:, 4] * known.iloc[:, 5])
    np.testing.assert_allclose(found.iloc[:, 2], wanted, rtol=1e-4)
    with pytest.raises(ExperimentError, match=r"survival at 1e\+06 is not known; the model tells it from 0 to"):
        predict(model, rows, None, [1e6])
