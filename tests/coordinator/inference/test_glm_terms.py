"""Curves, products, weights, negative binomial and Firth's penalty: each is the fit of the pooled rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import patsy
import pytest
import statsmodels.api as sm

import v6_algorithm.api as v6
from v6_algorithm.data.preparation.terms import DesignTerms, cubic_basis, natural_basis
from v6_algorithm.errors import ExperimentError, FederationError, WireError

COLUMNS = ["age", "dose", "sex"]


@pytest.fixture(scope="module")
def frames():
    generator = np.random.default_rng(0)
    tables = {}
    for number, rows in enumerate((120, 90, 150)):
        age, dose = generator.normal(60 + number, 10, rows), generator.normal(number, 2, rows)
        sex, ward = generator.integers(0, 2, rows), generator.choice(["a", "b", "c"], rows)
        eta = 0.03 * (age - 60) + 0.5 * sex - 0.02 * (age - 60) * sex + 0.3 * (ward == "b") + 0.03 * dose**2 - 0.5
        mean = np.exp(eta)
        tables[f"h{number}"] = pd.DataFrame(
            {
                "age": age, "dose": dose, "sex": sex, "ward": ward,
                "ill": generator.binomial(1, 1 / (1 + np.exp(-eta))),
                "visits": generator.negative_binomial(2, 2 / (2 + mean)),
                "cost": eta + generator.normal(size=rows),
                "stay": generator.gamma(4, np.exp(0.02 * (age - 60) + 0.3 * sex) / 4) + 1e-3,
                "times": generator.integers(0, 4, rows),
                "precision": generator.uniform(0.2, 3, rows),
            }
        )  # fmt: skip
    return tables


def fit(frames, target, problem, model, engine="local", **data):
    data = {"target": target, "features": COLUMNS, "missing": "error"} | data
    return v6.run({"data": data, "problem": problem, "model": {"kind": "glm"} | model}, frames, engine=engine)


def relative(ours, theirs):
    return np.abs(np.asarray(ours, dtype=float) / np.asarray(theirs, dtype=float) - 1).max()


def test_curves_and_products_are_those_of_the_pooled_rows_in_units_of_the_columns(frames, tmp_path):
    model = {"interactions": ["age * sex", ["age", "ward"]], "splines": {"dose": 4}}
    result = fit(frames, "ill", "classification", model, categorical=["ward"])
    pooled = pd.concat(frames.values())
    knots = result.content["preparation"]["terms"]["knots"]["dose"]
    curve = natural_basis(pooled["dose"].to_numpy(), np.array(knots))
    b, c = (pooled["ward"] == "b").astype(float), (pooled["ward"] == "c").astype(float)
    design = pd.DataFrame(
        {
            "(intercept)": 1.0, "age": pooled["age"], "dose": pooled["dose"], "sex": pooled["sex"], "ward=b": b,
            "ward=c": c, "dose'": curve[:, 0], "dose''": curve[:, 1], "age * sex": pooled["age"] * pooled["sex"],
            "age * ward=b": pooled["age"] * b, "age * ward=c": pooled["age"] * c,
        }
    )  # fmt: skip
    expected = sm.GLM(pooled["ill"], design, family=sm.families.Binomial()).fit(tol=1e-14)
    table = result.coefficients
    terms = table.dropna(subset=["estimate"])
    assert list(terms.index) == list(design.columns)
    assert relative(terms["estimate"], expected.params) < 1e-6
    assert relative(terms["standard_error"], expected.bse) < 1e-6
    assert set(table.index[table["left_out"] == "reference"]) == {"ward=a", "age * ward=a"}
    tests = {test["column"]: test for test in result.content["wald"]}
    assert set(tests) == {"ward", "dose", "dose (not straight)", "age * ward"}
    constraints = np.eye(11)[[9, 10]]
    wald = expected.wald_test(constraints, scalar=True)
    assert (tests["age * ward"]["chi2"], tests["age * ward"]["freedom"]) == pytest.approx((wald.statistic, 2), rel=1e-6)
    effect = result.content["spline_effects"]["dose"]
    at = effect["x"].index(min(effect["x"], key=lambda x: abs(x - effect["reference"])))
    assert abs(effect["estimate"][at]) < 0.1
    folder = result.save(tmp_path / "run")
    assert len(pd.read_csv(folder / "spline_effects.csv")) == 41
    assert "Curve of dose with its 95 % interval" in (folder / "report.html").read_text()
    predicted = result.predict(frames["h0"])["p(1)"].to_numpy()
    assert relative(predicted, expected.predict(design)[: len(predicted)]) < 1e-6


@pytest.mark.parametrize("kind", ["natural", "cubic"])
def test_curves_span_the_splines_of_patsy(kind):
    x = np.sort(np.random.default_rng(0).normal(size=80))
    knots = np.array([-1.2, -0.3, 0.4, 1.5])
    if kind == "natural":
        x = np.clip(x, knots[0], knots[-1])
        ours = np.column_stack([np.ones(80), x, natural_basis(x, knots)])
        formula = "cr(x, knots=k, lower_bound=low, upper_bound=high) - 1"
        theirs = patsy.dmatrix(formula, {"x": x, "k": knots[1:-1], "low": knots[0], "high": knots[-1]})
    else:
        ours = np.column_stack([np.ones(80), x, cubic_basis(x, knots)])
        formula = "bs(x, knots=k, include_intercept=True, lower_bound=low, upper_bound=high) - 1"
        theirs = patsy.dmatrix(formula, {"x": x, "k": knots[1:-1], "low": x.min(), "high": x.max()})
    assert ours.shape == theirs.shape
    assert np.linalg.matrix_rank(np.column_stack([ours, theirs])) == np.linalg.matrix_rank(ours) == ours.shape[1]


@pytest.mark.slow
def test_knots_are_quantiles_of_all_sites_rows_or_where_the_experiment_puts_them(frames):
    model = {"splines": {"age": 3, "dose": {"kind": "cubic", "knots": [-2, 0, 1.5, 4]}}}
    result = fit(frames, "cost", "regression", model)
    pooled = pd.concat(frames.values())
    knots = result.content["preparation"]["terms"]["knots"]
    assert knots["age"] == pytest.approx(np.quantile(pooled["age"], [0.1, 0.5, 0.9]), abs=0.5)
    assert knots["dose"] == [-2, 0, 1.5, 4]
    assert any(note.startswith("knots: age at ") for note in result.notes)
    basis = {"x": pooled["dose"], "low": pooled["dose"].min(), "high": pooled["dose"].max()}
    curve = patsy.dmatrix("bs(x, knots=[0, 1.5], lower_bound=low, upper_bound=high) - 1", basis)
    age = natural_basis(pooled["age"].to_numpy(), np.array(knots["age"]))
    design = np.column_stack([np.ones(len(pooled)), pooled[["age", "sex"]], age, curve])
    expected = sm.GLM(pooled["cost"].to_numpy(), design).fit()
    assert result.content["fit"]["deviance"] == pytest.approx(expected.deviance, rel=1e-9)


@pytest.mark.slow
def test_a_cox_model_has_curves_and_products_too():
    from lifelines import CoxPHFitter
    from lifelines.datasets import load_rossi

    rossi = load_rossi()
    parts = {"a": rossi.iloc[:150], "b": rossi.iloc[150:300], "c": rossi.iloc[300:]}
    data = {"target": {"duration": "week", "event": "arrest"}, "features": ["fin", "age", "prio"], "missing": "error"}
    model = {"kind": "cox", "interactions": ["fin * prio"], "splines": {"age": [18, 23, 35]}}
    table = v6.run({"data": data, "problem": "survival", "model": model}, parts).coefficients
    curve = natural_basis(rossi["age"].to_numpy(float), np.array([18.0, 23, 35]))[:, 0]
    design = rossi[["fin", "age", "prio", "week", "arrest"]].assign(curve=curve, both=rossi["fin"] * rossi["prio"])
    expected = CoxPHFitter().fit(design, "week", "arrest", fit_options={"precision": 1e-12})
    assert list(table.index) == ["fin", "age", "prio", "age'", "fin * prio"]
    names = ["fin", "age", "prio", "curve", "both"]
    assert relative(table["estimate"], expected.params_[names]) < 1e-5
    assert relative(table["standard_error"], expected.standard_errors_[names]) < 1e-5


@pytest.mark.slow
def test_a_column_that_others_tell_takes_its_share_out_of_a_product(frames):
    """Unscaled, a product has a share in the columns that it is made of, and one of these may be left out."""
    tables = {name: frame.assign(later=frame["age"] + 5 * frame["sex"]) for name, frame in frames.items()}
    columns = ["age", "sex", "later"]
    result = fit(tables, "cost", "regression", {"interactions": ["age * dose"]}, features=[*columns, "dose"])
    left = result.coefficients["left_out"].dropna()
    assert list(left) == ["aliased"]
    pooled = pd.concat(tables.values())
    kept = [name for name in [*columns, "dose"] if name not in left.index]
    design = sm.add_constant(pooled[kept].assign(both=pooled["age"] * pooled["dose"]))
    expected = sm.GLM(pooled["cost"], design).fit()
    assert relative(result.coefficients["estimate"].dropna(), expected.params) < 1e-6
    assert relative(result.coefficients["standard_error"].dropna(), expected.bse) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "problem", "family", "reference"),
    [
        ("ill", "classification", "binomial", sm.families.Binomial()),
        ("cost", "regression", "gaussian", sm.families.Gaussian()),
        ("visits", "count", "poisson", sm.families.Poisson()),
        ("stay", "regression", "gamma", sm.families.Gamma(sm.families.links.Log())),
    ],
)
def test_weights_are_rows_of_a_kind_or_precisions(frames, target, problem, family, reference):
    pooled = pd.concat(frames.values())
    result = fit(frames, target, problem, {"family": family, "weights": {"column": "times", "kind": "frequency"}})
    rows = pooled.iloc[np.repeat(np.arange(len(pooled)), pooled["times"])]
    model = sm.GLM(rows[target].astype(float), sm.add_constant(rows[COLUMNS]), family=reference)
    expected = model.fit(tol=1e-14, maxiter=200)
    told = result.content["fit"]
    assert relative(result.coefficients["estimate"], expected.params) < 1e-6
    assert relative(result.coefficients["standard_error"], expected.bse) < 1e-6
    assert told["deviance"] == pytest.approx(expected.deviance)
    assert told["null_deviance"] == pytest.approx(expected.null_deviance)
    assert told["residual_df"] == len(rows) - 4
    likelihood = expected.llf
    if family == "gamma":
        scale = expected.deviance / len(rows)
        likelihood = reference.loglike(rows[target], expected.mu, scale=scale)
    assert told["log_likelihood"] == pytest.approx(likelihood)
    assert told["residuals"]["sd"] == pytest.approx(expected.resid_deviance.std(ddof=0))
    model = {"family": family, "weights": {"column": "precision", "kind": "analytic"}}
    result = fit(frames, target, problem, model)
    expected = sm.GLM(
        pooled[target].astype(float),
        sm.add_constant(pooled[COLUMNS]),
        family=reference,
        var_weights=pooled["precision"].to_numpy(),
    ).fit(tol=1e-14, maxiter=200)
    assert relative(result.coefficients["estimate"], expected.params) < 1e-6
    assert relative(result.coefficients["standard_error"], expected.bse) < 1e-6
    if family == "gaussian":
        assert result.content["fit"]["log_likelihood"] == pytest.approx(expected.llf)
    assert any("kind analytic" in note for note in result.notes)
    assert "precision" not in result.coefficients.index
    assert len(result.predict(frames["h0"][COLUMNS])) == 120


def test_a_negative_binomial_has_its_dispersion_by_maximum_likelihood(frames):
    result = fit(frames, "visits", "count", {"family": "negative_binomial"})
    pooled = pd.concat(frames.values())
    design = sm.add_constant(pooled[COLUMNS])
    expected = sm.NegativeBinomial(pooled["visits"], design).fit(disp=0, method="newton", maxiter=200, tol=1e-14)
    told = result.content["fit"]
    assert told["converged"]
    assert relative(result.coefficients["estimate"], expected.params[:-1]) < 1e-6
    assert told["alpha"] == pytest.approx(expected.params["alpha"], rel=1e-6)
    assert told["log_likelihood"] == pytest.approx(expected.llf)
    assert told["null_log_likelihood"] == pytest.approx(expected.llnull, rel=1e-6)
    assert (told["aic"], told["bic"]) == pytest.approx((expected.aic, expected.bic))
    assert told["pseudo_r2"] == pytest.approx(expected.prsquared, rel=1e-5)
    at_alpha = sm.GLM(pooled["visits"], design, family=sm.families.NegativeBinomial(alpha=told["alpha"])).fit(tol=1e-14)
    assert relative(result.coefficients["standard_error"], at_alpha.bse) < 1e-6
    assert told["deviance"] == pytest.approx(at_alpha.deviance, rel=1e-6)


@pytest.mark.slow
def test_counts_without_more_variance_than_poissons_are_named(frames):
    tables = {name: frame.assign(visits=np.resize([1, 2, 1, 2, 2], len(frame))) for name, frame in frames.items()}
    result = fit(tables, "visits", "count", {"family": "negative_binomial"})
    assert any("take family poisson" in note for note in result.notes)


def firth_score(design, y, estimate):
    mean = 1 / (1 + np.exp(-design @ estimate))
    weight = mean * (1 - mean)
    inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
    leverage = weight * np.einsum("ij,jk,ik->i", design, inverse, design)
    return design.T @ (y - mean + leverage * (0.5 - mean)), inverse


@pytest.mark.slow
def test_firths_estimates_solve_his_score_equations_where_classes_are_separated(frames):
    tables = {
        name: frame.assign(sex=np.arange(len(frame)) < 5, ill=np.where(np.arange(len(frame)) < 5, 1, frame["ill"]))
        for name, frame in frames.items()
    }
    tables = {name: frame.assign(sex=frame["sex"].astype(int)) for name, frame in tables.items()}
    assert any("model.firth" in note for note in fit(tables, "ill", "classification", {}).notes)
    result = fit(tables, "ill", "classification", {"firth": True})
    pooled = pd.concat(tables.values())
    scaled = (pooled[COLUMNS] - pooled[COLUMNS].mean()) / pooled[COLUMNS].std(ddof=0)
    design = np.column_stack([np.ones(len(pooled)), scaled])
    estimate = result.coefficients["estimate"].to_numpy()
    raw = np.concatenate(
        [[estimate[0] + pooled[COLUMNS].mean() @ estimate[1:]], estimate[1:] * pooled[COLUMNS].std(ddof=0)]
    )
    score, inverse = firth_score(design, pooled["ill"].to_numpy(), raw)
    assert np.abs(score).max() < 1e-6
    assert result.coefficients["standard_error"].to_numpy()[1:] == pytest.approx(
        np.sqrt(np.diag(inverse))[1:] / pooled[COLUMNS].std(ddof=0), rel=1e-6
    )
    assert not any("separation" in note for note in result.notes)
    assert result.content["fit"]["converged"]
    assert result.content["fit"]["rounds"] <= 30


@pytest.mark.slow
def test_an_offsets_null_model_is_fitted_beside(frames):
    generator = np.random.default_rng(1)
    tables = {}
    for name, frame in frames.items():
        watched = generator.uniform(1, 9, len(frame))
        counts = generator.poisson(watched * np.exp(0.03 * (frame["age"] - 60)))
        tables[name] = frame.assign(log_time=np.log(watched), y=counts)
    result = fit(tables, "y", "count", {"offset": "log_time"})
    pooled = pd.concat(tables.values())
    design = sm.add_constant(pooled[COLUMNS])
    expected = sm.GLM(pooled["y"], design, family=sm.families.Poisson(), offset=pooled["log_time"]).fit(tol=1e-14)
    told = result.content["fit"]
    assert told["null_deviance"] == pytest.approx(expected.null_deviance, rel=1e-9)
    assert told["pseudo_r2"] == pytest.approx(expected.pseudo_rsquared("mcf"), rel=1e-6)
    assert told["cox_snell"] == pytest.approx(expected.pseudo_rsquared("cs"), rel=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"interactions": ["age"]}, "must be of 2 or 3 columns"),
        ({"interactions": [["age", "age"]]}, "names a column twice"),
        ({"interactions": ["age * sex", "sex * age"]}, "is given twice"),
        ({"interactions": ["age * bmi"]}, "'bmi' is neither in data.features nor in data.categorical"),
        ({"splines": {"age": 9}}, "9 is not 3 to 7"),
        ({"splines": {"age": [3, 2, 4]}}, "3 to 20 increasing numbers"),
        ({"splines": {"bmi": 4}}, "'bmi' is no numeric column of data.features"),
        ({"weights": {"column": "w"}}, "kind"),
        ({"weights": {"column": "y", "kind": "frequency"}}, "is the target"),
        ({"firth": True, "link": "probit"}, "is for family binomial with link logit"),
        ({"firth": True, "ridge": 1.0}, "two penalties"),
        ({"family": "negative_binomial"}, "is for problem count"),
    ],
)
def test_terms_that_make_no_sense_are_refused(model, message):
    with pytest.raises(ExperimentError, match=message):
        v6.Experiment(data={"target": "y", "features": COLUMNS}, model={"kind": "glm"} | model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        ({}, {"splines": {"sex": 4}}, "'sex' has too few different values for 4 knots"),
        ({"times": 0.5}, {"weights": {"column": "times", "kind": "frequency"}}, "no whole numbers"),
        ({"times": -1}, {"weights": {"column": "times", "kind": "analytic"}}, "below 0"),
        ({"times": np.nan}, {"weights": {"column": "times", "kind": "analytic"}}, "empty or no number"),
        ({}, {"weights": {"column": "weight", "kind": "analytic"}}, "'weight' .model.weights. is not there"),
    ],
)
def test_columns_that_do_not_do_are_named(frames, change, model, message):
    tables = {name: frame.assign(**change) for name, frame in frames.items()}
    with pytest.raises((ExperimentError, FederationError), match=message):
        fit(tables, "ill", "classification", model)


@pytest.mark.slow
def test_weights_that_make_sums_of_a_few_rows_are_refused(frames):
    tables = {name: frame.assign(times=np.where(np.arange(len(frame)) < 1, 1000, 1)) for name, frame in frames.items()}
    with pytest.raises((ExperimentError, FederationError), match="sums ones over fewer rows than this node's minimum"):
        fit(tables, "ill", "classification", {"weights": {"column": "times", "kind": "frequency"}})


def test_a_request_cannot_ask_for_terms_of_other_columns():
    content = DesignTerms({"age": ("natural", 4)}, [("age", "sex")]).to_json()
    assert DesignTerms.from_json(content, ["age", "sex"], {}).to_json() == content
    with pytest.raises(WireError, match="columns that are no inputs"):
        DesignTerms.from_json(content, ["age"], {})
    with pytest.raises(WireError, match="increasing"):
        DesignTerms.from_json(content | {"knots": {"age": [[3, 2, 1, 0]]}}, ["age", "sex"], {})


@pytest.mark.slow
def test_a_fit_with_curves_over_the_mock_client_is_the_local_one(frames):
    model = {"splines": {"age": 3}, "interactions": ["dose * sex"]}
    local, mock = (fit(frames, "ill", "classification", model, engine=engine) for engine in ("local", "mock"))
    pd.testing.assert_frame_equal(local.coefficients, mock.coefficients, rtol=1e-12)
