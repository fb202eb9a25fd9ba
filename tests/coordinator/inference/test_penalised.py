"""Ridge, LASSO and elastic net over sites: scikit-learn's coefficients on the pooled rows, cross-validated or not."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, ElasticNetCV, LogisticRegression

import v6_algorithm.api as v6
from v6_algorithm.coordinator.strategies.penalised import coordinate_descent
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.learning.problems.tabular import parts_of

FRAME = load_diabetes(as_frame=True, scaled=False).frame
COLUMNS = [name for name in FRAME if name != "target"]
SITES = {f"s{number}": FRAME.iloc[rows] for number, rows in enumerate(np.array_split(np.arange(len(FRAME)), 3))}
SPREAD = FRAME[COLUMNS].std(ddof=0)
SCALED = ((FRAME[COLUMNS] - FRAME[COLUMNS].mean()) / SPREAD).to_numpy()


def fit(penalty, problem="regression", frames=SITES, **model):
    data = {"target": "target", "missing": "error"}
    return v6.run({"data": data, "problem": problem, "model": {"kind": "glm", "penalty": penalty} | model}, frames)


def scaled(result):
    """Return the coefficients of scaled columns."""
    return result.coefficients.loc[COLUMNS, "estimate"].to_numpy() * SPREAD.to_numpy()


def away(ours, theirs):
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max() / np.abs(theirs).max()


def binary():
    return {name: frame.assign(target=(frame["target"] > 140).astype(int)) for name, frame in SITES.items()}


@pytest.mark.parametrize(
    ("penalty", "options"),
    [
        ({"kind": "lasso", "strength": 2.0}, {"alpha": 2.0, "l1_ratio": 1.0}),
        ({"kind": "elastic_net", "strength": 1.0, "mixing": 0.3}, {"alpha": 1.0, "l1_ratio": 0.3}),
    ],
)
def test_a_gaussian_fit_is_that_of_scikit_learn(penalty, options):
    result = fit(penalty)
    expected = ElasticNet(tol=1e-14, max_iter=100_000, **options).fit(SCALED, FRAME["target"])
    assert away(scaled(result), expected.coef_) < 1e-6
    assert list(scaled(result) == 0) == list(expected.coef_ == 0)
    assert result.content["fit"]["converged"]
    assert result.content["fit"]["rounds"] <= 4


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [{"kind": "ridge", "strength": 0.1}, {"kind": "elastic_net", "strength": 0.05}])
def test_a_logistic_fit_is_that_of_scikit_learn(penalty):
    result = fit(penalty, "classification", binary())
    share = 0.0 if penalty["kind"] == "ridge" else 0.5
    options = {"C": 1 / (len(FRAME) * penalty["strength"]), "l1_ratio": share, "solver": "saga"}
    if share == 0:
        options |= {"solver": "newton-cholesky"}
    expected = LogisticRegression(tol=1e-12, max_iter=100_000, **options).fit(SCALED, FRAME["target"] > 140)
    assert away(scaled(result), expected.coef_[0]) < 1e-6


@pytest.mark.slow
def test_cross_validation_on_the_sums_is_that_of_the_pooled_rows_with_the_same_parts():
    result = fit("lasso")
    told = result.content["fit"]["penalty"]
    parts = np.concatenate([parts_of(0, site, 0, len(frame), 5) for site, frame in SITES.items()])
    cuts = [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(5)]
    path = ElasticNetCV(l1_ratio=1.0, alphas=np.array(told["strengths"]), cv=cuts, tol=1e-12, max_iter=100_000)
    path.fit(SCALED, FRAME["target"])
    rows = np.array([len(left_out) for _, left_out in cuts])
    assert told["deviance"] == pytest.approx((path.mse_path_ * rows).sum(axis=1) / rows.sum(), rel=1e-6)
    assert told["strength"] == pytest.approx(path.alpha_)
    assert away(scaled(result), path.coef_) < 1e-6
    # The largest strength is the one under which nothing is left.
    assert told["terms"][0] == 0
    assert told["terms"][-1] == 10


@pytest.mark.slow
def test_a_logistic_path_and_the_simplest_model_as_good():
    penalty = {"kind": "lasso", "choose": "one_standard_error", "strengths": 6, "folds": 3}
    result = fit(penalty, "classification", binary())
    told = result.content["fit"]["penalty"]
    assert result.content["fit"]["converged"]
    assert told["one_standard_error"] <= told["minimum"]
    assert told["strength"] == told["strengths"][told["one_standard_error"]]
    options = {"C": 1 / (len(FRAME) * told["strength"]), "l1_ratio": 1.0, "solver": "saga"}
    expected = LogisticRegression(tol=1e-12, max_iter=100_000, **options).fit(SCALED, FRAME["target"] > 140)
    assert away(scaled(result), expected.coef_[0]) < 1e-6
    # The last part by hand: the deviance of rows left out, at the fit of the others.
    parts = np.concatenate([parts_of(0, site, 0, len(frame), 3) for site, frame in SITES.items()])
    place, total = 3, 0.0
    options = {"l1_ratio": 1.0, "solver": "saga", "tol": 1e-10, "max_iter": 100_000}
    for part in range(3):
        rows = parts != part
        y = (FRAME["target"] > 140).to_numpy()
        other = LogisticRegression(C=1 / (rows.sum() * told["strengths"][place]), **options).fit(SCALED[rows], y[rows])
        chance = other.predict_proba(SCALED[~rows])[:, 1]
        total += -2 * np.where(y[~rows], np.log(chance), np.log1p(-chance)).sum()
    assert told["deviance"][place] == pytest.approx(total / len(FRAME), rel=1e-5)


@pytest.mark.slow
def test_no_intervals_are_told_and_the_result_says_why(tmp_path):
    result = fit({"kind": "lasso", "strength": 2.0})
    assert set(result.content["coefficients"][1]) == {"term", "estimate"}
    assert any("have no standard errors, intervals or p values" in note for note in result.notes)
    assert "covariance" not in result.content
    json.dumps(result.content["fit"], allow_nan=False)
    folder = result.save(tmp_path / "run")
    assert pd.read_csv(folder / "coefficients.csv")["standard_error"].isna().all()
    assert "penalty lasso" in (folder / "report.html").read_text()
    assert len(result.predict(FRAME[COLUMNS])) == len(FRAME)


@pytest.mark.slow
def test_every_value_of_a_category_has_a_coefficient_and_weights_count():
    generator = np.random.default_rng(0)
    frames = {
        name: frame.assign(ward=generator.choice(["a", "b"], len(frame)), w=generator.integers(1, 4, len(frame)))
        for name, frame in SITES.items()
    }
    model = {"kind": "glm", "penalty": {"kind": "lasso", "strength": 1.0}}
    model["weights"] = {"column": "w", "kind": "frequency"}
    data = {"target": "target", "categorical": ["ward"], "missing": "error", "scaling": "none"}
    result = v6.run({"data": data, "problem": "regression", "model": model}, frames)
    pooled = pd.concat(frames.values())
    design = pooled[COLUMNS].assign(a=pooled["ward"] == "a", b=pooled["ward"] == "b").astype(float)
    expected = ElasticNet(alpha=1.0, l1_ratio=1.0, tol=1e-14, max_iter=500_000)
    expected.fit(design, pooled["target"], sample_weight=pooled["w"])
    given = result.coefficients.loc[[*COLUMNS, "ward=a", "ward=b"], "estimate"]
    fitted = [result.coefficients.loc["(intercept)", "estimate"] + design.to_numpy() @ given.to_numpy()]
    assert fitted[0] == pytest.approx(expected.predict(design), rel=1e-6)


def test_coordinate_descent_meets_the_conditions_of_the_minimum():
    generator = np.random.default_rng(0)
    design = generator.normal(size=(5, 40, 8))
    information = np.einsum("fni,fnj->fij", design, design) / 40
    wanted, absolute = generator.normal(size=(5, 8)), np.full((5, 8), 0.3)
    solution = coordinate_descent(information, wanted, absolute, np.full((5, 8), 0.1), np.zeros((5, 8)))
    pull = wanted - np.einsum("fij,fj->fi", information, solution) - 0.1 * solution
    assert np.allclose(pull[solution != 0], 0.3 * np.sign(solution[solution != 0]))
    assert (np.abs(pull[solution == 0]) <= 0.3 + 1e-9).all()
    assert (solution == 0).any()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"penalty": {"kind": "lasso", "mixing": 0.5}}, "mixing is of kind elastic_net, not lasso"),
        ({"penalty": "lasso", "ridge": 1.0}, "does not go with model.ridge"),
        ({"penalty": "lasso", "firth": True}, "does not go with model.firth"),
        ({"penalty": "lasso", "errors": "site"}, "errors site does not go with model.penalty"),
    ],
)
def test_what_does_not_go_with_a_penalty_is_refused(model, message):
    with pytest.raises(ExperimentError, match=message):
        v6.Experiment(data={"target": "y"}, model={"kind": "glm"} | model)


@pytest.mark.slow
def test_a_standard_node_counts_the_sums_of_all_fits(monkeypatch, tmp_path):
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "standard")
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    with pytest.raises((ExperimentError, FederationError), match="asks for 1320 coefficients"):
        v6.run({"data": {"target": "target"}, "model": {"kind": "glm", "penalty": "lasso"}}, binary(), engine="mock")
