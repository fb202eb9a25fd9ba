"""Multiple imputation over sites: the sums are those of the pooled rows, the draws proper, the pooling Rubin's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.inference.rubin import rubin
from v6_algorithm.coordinator.master import run as run_master
from v6_algorithm.data.preparation.imputation import (
    Imputation,
    blocks_of,
    draw_category,
    draw_regression,
    outcome_of,
    products,
)
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.errors import ExperimentError, FederationError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.python.sites import tables_of_sites

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
    known = generator.random((400, 1)) < 0.7
    pooled = products(completed, target[:, None], known)
    parts = [products(completed[part], target[part, None], known[part]) for part in (slice(150), slice(150, 400))]
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
    made = Imputation(["b"], 0, coefficients, np.ones((1, 1, 1, 1)))
    blocks = blocks_of(["b"], ["a", "b"], {})
    filled = made.complete(scaled, np.empty((9, 0)), np.zeros((9, 1)), blocks, 0, ["h"], np.ones(9, dtype=bool))
    assert set(filled[6:8, 1]) <= {1.0, 2.0}
    assert (filled[:6] == scaled[:6]).all()
    with pytest.raises(WireError, match="no features"):
        Imputation.check({"columns": ["c"], "seed": 0}, made.arrays(), ["a", "b"], {})


def test_a_category_is_drawn_as_a_whole_around_the_regressions_of_its_values():
    generator = np.random.default_rng(1)
    x, target = generator.normal(size=(2, 300))
    one_hot = np.eye(3)[np.argmax(generator.gumbel(size=(300, 3)) + np.outer(x, [0, 1, -1]), axis=1)]
    completed = np.column_stack([x, one_hot])
    (block,) = blocks_of(["c"], ["x"], {"c": ["u", "v", "w"]})
    (sums,) = products(completed, target[:, None], np.ones((300, 1), dtype=bool))
    draws = [draw_category(sums, block, np.random.default_rng(seed)) for seed in range(1500)]
    design = np.column_stack([np.ones(300), x, target])
    best, *_ = np.linalg.lstsq(design, one_hot, rcond=None)
    rest = one_hot - design @ best
    covariance = rest.T @ rest / (300 - 3)
    coefficients = np.array([drawn for drawn, _ in draws])
    others = [0, 1, 5]
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(np.linalg.inv(design.T @ design))))
    assert coefficients[:, :, others].mean(axis=0) == pytest.approx(best.T, abs=0.12 * spread.max())
    assert coefficients[:, :, others].std(axis=0) == pytest.approx(spread, rel=0.1)
    assert np.mean([root @ root.T for _, root in draws], axis=0) == pytest.approx(covariance, abs=0.01)
    assert (coefficients[:, :, 2:5] == 0).all()
    # Shares of a row add up to 1, whatever is drawn.
    assert coefficients.sum(axis=1) == pytest.approx(np.tile(np.eye(6)[0], (1500, 1)), abs=1e-9)
    made = Imputation(["c"], 0, coefficients[:1, None], np.array([draws[0][1]])[:, None])
    holed = one_hot.copy()
    holed[:40] = np.nan
    drawn, matched = (
        made.complete(x[:, None], holed, target[:, None], [block], 0, ["h"], np.full(300, lends))[:, 1:]
        for lends in (False, True)
    )
    assert drawn.sum(axis=1) == pytest.approx(np.ones(300))
    assert len(np.unique(drawn[:40])) == 120
    assert set(np.unique(matched)) == {0, 1}
    assert (matched.sum(axis=1) == 1).all()
    assert (matched[40:] == one_hot[40:]).all()
    # Rows with a high x take the value that such rows have.
    assert np.corrcoef(matched[:40, 1], x[:40])[0, 1] > 0.2


def test_of_survival_an_imputation_knows_the_event_and_nelson_and_aalens_hazard_of_the_hospital():
    """White and Royston, 2009; the hazard by its definition, row by row."""
    generator = np.random.default_rng(2)
    target = np.column_stack([generator.integers(1, 9, 40), generator.random(40) < 0.6]).astype(float)
    member, train = np.repeat([0, 1], 20), np.setdiff1d(np.arange(40), [3, 30])
    outcome = outcome_of(target, train, member)
    assert (outcome[:, 0] == target[:, 1]).all()
    for row in range(40):
        rows = [other for other in train if member[other] == member[row]]
        expected = sum(
            1 / sum(target[later, 0] >= target[other, 0] for later in rows)
            for other in rows
            if target[other, 1] and target[other, 0] <= target[row, 0]
        )
        assert outcome[row, 1] == pytest.approx(expected)


def survival_tables(rows=210, seed=3):
    """Make three sites' rows with a category and a number that are empty where a third column is high."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=rows)
    c = np.argmax(generator.gumbel(size=(rows, 3)) + np.outer(x, [0, 1, -1]), axis=1)
    z = x + generator.normal(size=rows)
    time = generator.exponential(np.exp(-0.5 * x - np.array([0, 1, -1])[c]))
    frame = pd.DataFrame({"x": x, "z": z, "c": np.array(list("uvw"))[c], "time": time.round(3) + 0.001})
    frame["died"] = (generator.random(rows) < 0.7).astype(int)
    # In two of three rows that are high, and in both columns, so that a node of policy standard takes them.
    gone = (x > 0) & (generator.random(rows) < 0.7)
    frame.loc[gone, ["c", "z"]] = [None, np.nan]
    parts = np.array_split(np.arange(rows), 3)
    return {f"h{number}": frame.iloc[part] for number, part in enumerate(parts)}


SURVIVAL = {
    "data": {
        "target": {"duration": "time", "event": "died"},
        "features": ["x", "z"],
        "categorical": ["c"],
        "missing": {"kind": "impute", "imputations": 3, "iterations": 2},
    },
    "problem": "survival",
    "model": {"kind": "cox", "strata": "site"},
}


def fitted_under(policy, **keys):
    experiment = Experiment.parse({**SURVIVAL, **keys})
    tables = tables_of_sites(survival_tables(), experiment)
    rules = replace(own_policy(policy), approved_experiments=None, ledger_folder=None, require_ledger=False)
    return run_master(local_federation(experiment, tables, rules), experiment)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["trusted", "standard"])
def test_cox_models_are_imputed_with_their_categories_and_the_same_under_masks(policy):
    result = fitted_under(policy)
    lines = {line["term"]: line for line in result["coefficients"]}
    assert {"hazard_ratio", "freedom", "missing_information"} <= set(lines["c=v"])
    assert lines["c=v"]["estimate"] > lines["c=w"]["estimate"]
    # mice's degrees of freedom: what a Cox model knows is its events.
    assert lines["x"]["freedom"] < result["fit"]["events"]
    assert any("empty are z " in note and ", c " in note for note in result["notes"])
    masked = fitted_under(policy, privacy={"secure_aggregation": {"threshold": 2}})
    for line in masked["coefficients"]:
        if "left_out" not in line:
            # Under policy standard the draws follow from a secret and the task, so that they are others.
            near = 1e-9 if policy == "trusted" else 2 * line["standard_error"]
            assert line["estimate"] == pytest.approx(lines[line["term"]]["estimate"], abs=near)


def test_a_node_that_joins_event_times_imputes_no_cox_model_over_all_sites():
    """Sums of two tables over the rows at risk would differ in the few imputed rows between two times."""
    with pytest.raises((ExperimentError, FederationError), match=r"takes model\.strata site here"):
        fitted_under("standard", model={"kind": "cox"})


def test_an_honest_fit_is_not_taken_for_an_attack_on_imputed_tables():
    """Nodes compare tables by columns that tell rows apart: here all imputed rows are of one sex."""
    frames = {
        name: frame.assign(sex=np.where(frame["z"].isna(), 1, np.resize([0, 1], len(frame))), age=frame["x"].round(1))
        for name, frame in survival_tables().items()
    }
    data = {**SURVIVAL["data"], "target": "died", "features": ["sex", "age", "z"]}
    experiment = Experiment.parse({"data": data, "problem": "classification", "model": "glm"})
    rules = replace(own_policy("standard"), approved_experiments=None)
    result = run_master(local_federation(experiment, tables_of_sites(frames, experiment), rules), experiment)
    assert result["fit"]["converged"]
    assert not [call["missing"] for call in result["participation"] if call["missing"]]


def test_rows_whose_category_alone_is_empty_are_left_out_where_they_are_few():
    frames, _ = tables(rows=90)
    frames = {name: frame.assign(c=np.resize(["u", "v"], 30), x2=0.5, x3=1.0) for name, frame in frames.items()}
    frames["h0"].loc[[3, 4], "c"] = None
    data = {"target": "y", "categorical": ["c"], "missing": {"kind": "impute", "imputations": 2, "iterations": 1}}
    result = v6.run({"data": data, "problem": "regression", "model": "glm"}, frames)
    assert result.content["fit"]["rows"] == 88


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": {"kind": "mlp"}}, "impute is for model cox, and glm without penalty"),
        ({"model": {"kind": "glm", "penalty": "lasso"}}, "impute is for model cox, and glm without penalty"),
        (
            {"model": "cox", "data": {"target": {"entry": "a", "duration": "b", "event": "c"}, "missing": "impute"}},
            "a patient's rows would be imputed one by one",
        ),
        ({"split": {"kind": "kfold"}}, "imputations take the folds' place"),
        ({"mode": "local"}, "does not go with mode local"),
    ],
)
def test_where_imputations_could_not_be_pooled_they_are_refused(keys, message):
    content = {"data": {"target": "y", "missing": "impute"}, "model": {"kind": "glm"}} | keys
    with pytest.raises(ExperimentError, match=message):
        v6.Experiment(**content)
