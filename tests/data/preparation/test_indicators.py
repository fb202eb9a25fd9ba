"""`data.missing.indicators`: an input that says whether a cell was empty, beside the cell that is filled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError, FederationError


@pytest.fixture(scope="module")
def frames():
    generator, frames = np.random.default_rng(2), {}
    for name in ("one", "two", "three"):
        age, dose = generator.normal(size=(2, 90))
        empty = generator.random(90) < 0.3
        risk = 1 / (1 + np.exp(-(age + empty - 0.3)))
        frames[name] = pd.DataFrame({"age": age, "dose": np.where(empty, np.nan, dose)})
        frames[name]["y"] = (generator.random(90) < risk).astype(int)
    return frames


def keys(**missing):
    data = {"target": "y", "features": ["age", "dose"], "missing": {"kind": "mean", "indicators": ["dose"], **missing}}
    return {"data": data, "model": "glm"}


@pytest.mark.parametrize("engine", ["local", "mock"])
def test_coefficients_are_those_of_the_pooled_rows_with_a_column_of_their_own(frames, engine):
    result = v6.run(keys(), frames, engine=engine)
    rows = pd.concat(frames.values(), ignore_index=True)
    design = rows[["age"]].assign(dose=rows["dose"].fillna(rows["dose"].mean()), empty=rows["dose"].isna().astype(int))
    expected = sm.Logit(rows["y"], sm.add_constant(design)).fit(disp=0, tol=1e-12)
    table = result.coefficients.loc[["(intercept)", "age", "dose", "dose missing=1"]]
    np.testing.assert_allclose(table["estimate"], expected.params, rtol=1e-6)
    np.testing.assert_allclose(table["standard_error"], expected.bse, rtol=1e-6)
    predicted = result.predict(rows.drop(columns="y"))["p(1)"]
    np.testing.assert_allclose(predicted, expected.predict(sm.add_constant(design)), rtol=1e-6)


def test_a_network_takes_them_and_is_measured_with_them_elsewhere(frames):
    network = {**keys(), "model": {"kind": "mlp", "hidden": [4]}, "rounds": 2}
    result = v6.run(network, frames)
    measured = result.evaluate(frames["one"]).content["metrics"]["central"]["pooled"]
    assert measured["n"] == 90
    tested = v6.run(network, frames, test=result).content["metrics"]["test"]["sites"]["one"]
    assert tested["auroc"] == measured["auroc"]


def test_a_column_without_empty_cells_has_none_and_a_note_says_so(frames):
    full = {name: frame.fillna(0.0) for name, frame in frames.items()}
    result = v6.run(keys(), full)
    assert "dose missing=1" not in result.coefficients.index
    assert any("column 'dose' is empty in no row" in note for note in result.content["notes"])


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ({"kind": "drop"}, "goes with kind mean, median or constant, not drop"),
        ({"indicators": ["weight"]}, "'weight' .missing.indicators. is no numeric feature"),
        ({"indicators": ["dose", "dose"]}, "named twice"),
    ],
)
def test_what_makes_no_indicator_is_refused(frames, missing, named):
    with pytest.raises(ExperimentError, match=named):
        v6.run(keys(**missing), frames)


def test_a_column_that_has_the_indicators_name_is_told(frames):
    there = {name: frame.assign(**{"dose missing": 1}) for name, frame in frames.items()}
    with pytest.raises((ExperimentError, FederationError), match="rename it"):
        v6.run(keys(), there)
