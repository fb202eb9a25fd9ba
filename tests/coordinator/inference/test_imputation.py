"""Multiple imputation over sites: the sums are those of the pooled rows, the draws proper, the pooling Rubin's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.inference.rubin import rubin
from v6_algorithm.data.preparation.imputation import Imputation, draw_regression, products
from v6_algorithm.errors import ExperimentError, WireError

COLUMNS = ["x1", "x2", "x3"]


def tables(rows=600, seed=0):
    """Make three sites' rows, x2 missing where x1 is high and x3 at random, and the rows without empty cells."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(rows, 3))
    x1 = z[:, 0]
    x2, x3 = 0.6 * x1 + 0.8 * z[:, 1], (z[:, 2] + x1 > 0).astype(float)
    full = pd.DataFrame({"x1": x1, "x2": x2, "x3": x3, "y": 1 + x1 + 0.5 * x2 - x3 + generator.normal(size=rows)})
    frame = full.copy()
    frame.loc[generator.random(rows) < 1 / (1 + np.exp(1 - x1)), "x2"] = np.nan
    frame.loc[generator.random(rows) < 0.2, "x3"] = np.nan
    return {f"h{number}": frame.iloc[part] for number, part in enumerate(np.array_split(np.arange(rows), 3))}, full


def fit(frames, engine="local", problem="regression", **missing):
    data = {"target": "y", "missing": {"kind": "impute", "imputations": 4, "iterations": 3} | missing}
    return v6.run({"data": data, "problem": problem, "model": {"kind": "glm"}}, frames, engine=engine)


@pytest.mark.slow
def test_a_fit_of_imputed_rows_is_near_that_of_rows_without_empty_cells():
    import statsmodels.api as sm

    frames, full = tables()
    result = fit(frames, imputations=10, iterations=5)
    expected = sm.OLS(full["y"], sm.add_constant(full[COLUMNS])).fit()
    table = result.coefficients
    assert (np.abs(table["estimate"].to_numpy() - expected.params.to_numpy()) < 2 * expected.bse.to_numpy()).all()
    # What is not known makes errors larger, most of the column with most empty cells.
    wider = table["standard_error"].to_numpy() / expected.bse.to_numpy()
    assert (wider[1:] > 1).all()
    assert table["missing_information"].idxmax() == "x2"
    assert 0.1 < table.loc["x2", "missing_information"] < 0.6
    told = result.content["fit"]
    assert (told["imputations"], told["iterations"], told["rows"], told["converged"]) == (10, 5, 600, True)
    assert result.content["sites"]["h0"]["n"]["train"] == 200
    assert any("empty are x2 " in note for note in result.notes)
    assert np.isfinite(result.predict(frames["h0"].head(3))["prediction"]).all()


@pytest.mark.slow
def test_the_same_cells_are_drawn_again_on_another_engine():
    frames, _ = tables(rows=150)
    local, mock = fit(frames), fit(frames, engine="mock")
    pd.testing.assert_frame_equal(local.coefficients, mock.coefficients, rtol=1e-9)


@pytest.mark.slow
def test_a_site_without_a_single_value_of_a_column_draws_from_the_others_regression():
    frames, _ = tables(rows=300)
    frames["h1"] = frames["h1"].assign(x2=np.nan)
    table = fit(frames, imputations=5).coefficients
    assert abs(table.loc["x2", "estimate"] - 0.5) < 0.3


@pytest.mark.slow
def test_a_few_rows_with_empty_cells_are_left_out_for_the_tables_differ_in_them_alone():
    frames, full = tables(rows=300)
    frames["h0"] = full.iloc[:100].assign(x2=full["x2"].iloc[:100].where(np.arange(100) != 7))
    result = fit(frames)
    assert result.content["fit"]["rows"] == 299
    assert result.content["sites"]["h0"]["n"]["train"] == 99
    assert any("these are left out" in note for note in result.notes)


@pytest.mark.slow
def test_two_classes_are_imputed_with_their_outcome_too():
    frames, _ = tables(rows=300)
    frames = {name: frame.assign(y=(frame["y"] > 1).astype(int)) for name, frame in frames.items()}
    result = fit(frames, problem="classification")
    assert result.coefficients.loc["x1", "estimate"] > 0
    assert {"odds_ratio", "freedom", "missing_information"} <= set(result.content["coefficients"][1])


def test_rubins_rules_are_those_of_a_worked_example():
    """Against the formulas by hand: within 4, between 2.5 and five imputations make 4 + 1.2 * 2.5 = 7."""
    estimates = np.array([[8.0], [9], [10], [11], [12]])
    total, freedom, lost = rubin(estimates, np.array([[4.0]]), 1e12)
    assert total[0, 0] == pytest.approx(7)
    assert freedom[0] == pytest.approx(4 / (3 / 7) ** 2, rel=1e-6)
    increase = 3 / 4
    assert lost[0] == pytest.approx((increase + 2 / (freedom[0] + 3)) / (increase + 1))
    small = rubin(estimates, np.array([[4.0]]), 20)[1][0]
    observed = 21 / 23 * 20 * (1 - 3 / 7)
    assert small == pytest.approx(1 / (1 / (4 / (3 / 7) ** 2) + 1 / observed))


def test_sums_of_sites_add_up_to_those_of_the_pooled_rows_and_draws_are_around_their_regression():
    generator = np.random.default_rng(0)
    completed, target = generator.normal(size=(400, 2)), generator.normal(size=400)
    others, known = np.empty((400, 0)), generator.random((400, 1)) < 0.7
    pooled = products(completed, others, target, known)
    parts = [
        products(completed[part], others[part], target[part], known[part]) for part in (slice(150), slice(150, 400))
    ]
    assert sum(parts) == pytest.approx(pooled)
    draws = np.array([draw_regression(pooled[0], 1, np.random.default_rng(seed))[0] for seed in range(2000)])
    design = np.column_stack([np.ones(400), completed[:, 1], target])[known[:, 0]]
    response = completed[known[:, 0], 0]
    best, (rest,), *_ = np.linalg.lstsq(design, response, rcond=None)
    spread = np.sqrt(rest / (len(design) - 3) * np.diag(np.linalg.inv(design.T @ design)))
    assert draws[:, [0, 2, 3]].mean(axis=0) == pytest.approx(best, abs=0.1 * spread.max())
    assert draws[:, [0, 2, 3]].std(axis=0) == pytest.approx(spread, rel=0.1)
    assert (draws[:, 1] == 0).all()


def test_matched_cells_are_values_that_the_site_has_and_known_cells_stay():
    scaled = np.array([[0.0, 1.0]] * 6 + [[1.0, np.nan]] * 2 + [[np.nan, 2.0]])
    coefficients = np.zeros((1, 1, 1, 4))
    made = Imputation(["b"], 0, coefficients, np.ones((1, 1, 1)))
    filled = made.complete(scaled, np.empty((9, 0)), np.zeros(9), ["a", "b"], 0, ["h"], np.ones(9, dtype=bool))
    assert set(filled[6:8, 1]) <= {1.0, 2.0}
    assert (filled[:6] == scaled[:6]).all()
    with pytest.raises(WireError, match="no features"):
        Imputation.check({"columns": ["c"], "seed": 0}, made.arrays(), ["a", "b"], 4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": {"kind": "mlp"}}, "impute is for model glm without penalty"),
        ({"model": {"kind": "glm", "penalty": "lasso"}}, "impute is for model glm without penalty"),
        ({"split": {"kind": "kfold"}}, "imputations take the folds' place"),
        ({"mode": "local"}, "does not go with mode local"),
    ],
)
def test_where_imputations_could_not_be_pooled_they_are_refused(keys, message):
    content = {"data": {"target": "y", "missing": "impute"}, "model": {"kind": "glm"}} | keys
    with pytest.raises(ExperimentError, match=message):
        v6.Experiment(**content)
