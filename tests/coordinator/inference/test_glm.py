"""Generalised linear models: a federation's fit is that of all rows in one place, and what cannot be is named."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError

COLUMNS = ["age", "dose", "score"]


def hospitals(target, seed=0, rows=(60, 45, 80)):
    """Make three hospitals with other means, whose target is a function of the linear predictor and a generator."""
    generator = np.random.default_rng(seed)
    frames = {}
    for number, count in enumerate(rows):
        x = generator.normal(size=(count, 3)) * [10, 1, 0.1] + [60 + number, number, 0]
        eta = 0.03 * (x[:, 0] - 60) + 0.5 * x[:, 1] - 2 * x[:, 2] - 0.3
        frame = pd.DataFrame(x, columns=COLUMNS).assign(y=target(eta, generator))
        frames[f"h{number}"] = frame
    return frames


CASES = {
    "binomial": ("classification", lambda eta, g: g.binomial(1, 1 / (1 + np.exp(-eta))), sm.families.Binomial()),
    "gaussian": ("regression", lambda eta, g: 5 + eta + g.normal(size=len(eta)), sm.families.Gaussian()),
    "poisson": ("count", lambda eta, g: g.poisson(np.exp(eta)), sm.families.Poisson()),
    "gamma": (
        "regression",
        lambda eta, g: g.gamma(2, np.exp(eta) / 2) + 1e-6,
        sm.families.Gamma(sm.families.links.Log()),
    ),
}


def fit(frames, problem, model, **keys):
    data = {"target": "y", "missing": "error"} | keys.pop("data", {})
    return v6.run({"data": data, "problem": problem, "model": {"kind": "glm"} | model, **keys}, frames)


def pooled(frames, family, columns=COLUMNS):
    frame = pd.concat(frames.values())
    return sm.GLM(frame["y"].astype(float), sm.add_constant(frame[columns]), family=family).fit(tol=1e-14, maxiter=200)


@pytest.mark.parametrize("family", CASES)
def test_a_federated_fit_is_the_fit_of_the_pooled_rows(family):
    problem, target, reference = CASES[family]
    frames = hospitals(target)
    result, expected = fit(frames, problem, {"family": family}), pooled(frames, reference)
    table, told = result.coefficients, result.content["fit"]
    assert list(table.index) == ["(intercept)", *COLUMNS]
    assert table["estimate"].to_numpy() == pytest.approx(expected.params.to_numpy(), rel=1e-6)
    assert table["standard_error"].to_numpy() == pytest.approx(expected.bse.to_numpy(), rel=1e-6)
    assert table["p"].to_numpy() == pytest.approx(expected.pvalues.to_numpy(), rel=1e-4, abs=1e-12)
    assert table[["low", "high"]].to_numpy() == pytest.approx(expected.conf_int().to_numpy(), rel=1e-5)
    assert told["deviance"] == pytest.approx(expected.deviance, rel=1e-9)
    assert told["null_deviance"] == pytest.approx(expected.null_deviance, rel=1e-9)
    assert told["dispersion"] == pytest.approx(expected.scale, rel=1e-9)
    assert told["converged"]
    assert told["rounds"] <= 15
    if family != "gamma":
        assert told["log_likelihood"] == pytest.approx(expected.llf, rel=1e-9)


@pytest.mark.parametrize(
    ("link", "reference"), [("probit", sm.families.links.Probit()), ("cloglog", sm.families.links.CLogLog())]
)
def test_other_links_of_binomial(link, reference):
    problem, target, _ = CASES["binomial"]
    frames = hospitals(target)
    table = fit(frames, problem, {"link": link}).coefficients
    expected = pooled(frames, sm.families.Binomial(reference))
    assert table["estimate"].to_numpy() == pytest.approx(expected.params.to_numpy(), rel=1e-5)


def test_the_first_category_is_the_reference():
    frames = hospitals(CASES["binomial"][1])
    for number, frame in enumerate(frames.values()):
        frame["ward"] = np.resize(["a", "b", "c"] if number else ["b", "c"], len(frame))
    result = fit(frames, "classification", {}, data={"categorical": ["ward"]})
    table, frame = result.coefficients, pd.concat(frames.values())
    assert table.loc["ward=a", "left_out"] == "reference"
    design = sm.add_constant(frame[COLUMNS].assign(b=frame["ward"] == "b", c=frame["ward"] == "c").astype(float))
    expected = sm.GLM(frame["y"], design, family=sm.families.Binomial()).fit(tol=1e-14)
    given = table.loc[["ward=b", "ward=c"], "estimate"].to_numpy()
    assert given == pytest.approx(expected.params[["b", "c"]].to_numpy(), rel=1e-6)


def test_a_column_that_others_tell_is_named_and_left_out():
    frames = {name: frame.assign(twice=2 * frame["dose"] + 1) for name, frame in hospitals(CASES["poisson"][1]).items()}
    result = fit(frames, "count", {})
    left = result.coefficients["left_out"].dropna()
    assert list(left) == ["aliased"]
    assert any("left out, since the other columns tell it exactly" in note for note in result.notes)
    assert np.isfinite(result.coefficients["estimate"].dropna()).all()


def test_separation_is_named():
    frames = hospitals(CASES["poisson"][1])
    frames = {name: frame.assign(y=(frame["dose"] > 1).astype(int)) for name, frame in frames.items()}
    result = fit(frames, "classification", {})
    assert any("grows without end (separation" in note for note in result.notes)
    json.dumps(result.content["coefficients"], allow_nan=False)
    calm = fit(frames, "classification", {"ridge": 1.0})
    assert not any("separation" in note for note in calm.notes)


@pytest.mark.parametrize(("problem", "family"), [("classification", "Binomial"), ("count", "Poisson")])
def test_columns_that_differ_in_a_row_that_stops_weighing_grow_all_and_the_rest_is_as_without_it(problem, family):
    """The one was named, and the other told with an estimate of 15 or more and a small error."""
    frames = hospitals(CASES["poisson"][1])
    for frame in frames.values():
        frame["drug"] = frame["arm"] = (frame.index % 2).astype(float)
        frame["y"] = np.minimum(frame["y"], 1) if problem == "classification" else frame["y"]
    first = next(iter(frames.values()))
    row = np.flatnonzero((first["y"] == 0) & (first["drug"] == 0))[0]
    first.loc[row, "drug"] = 1.0
    result = fit(frames, problem, {})
    left = result.coefficients["left_out"].dropna()
    assert left.to_dict() == {"arm": "separated", "drug": "separated"}, "the intercept and the others are finite"
    assert any("drug, arm: grows without end" in note for note in result.notes)
    rest = pd.concat(frames.values(), ignore_index=True).drop(columns="drug").drop(index=row)
    design = sm.add_constant(rest[[column for column in rest if column not in ("y", "arm")]].assign(arm=rest["arm"]))
    wanted = sm.GLM(rest["y"], design, getattr(sm.families, family)()).fit(tol=1e-12)
    others = [name for name in result.coefficients.index if name in design and name != "arm"]
    assert len(others) >= 2
    found = result.coefficients.loc[others, "estimate"].to_numpy()
    assert found == pytest.approx(wanted.params[others].to_numpy(), rel=1e-4)
    assert result.coefficients.loc["(intercept)", "estimate"] == pytest.approx(wanted.params["const"], rel=1e-4)


def test_predictions_and_metrics_are_those_of_the_coefficients():
    frames = hospitals(CASES["binomial"][1])
    result = fit(frames, "classification", {}, split={"kind": "ratio", "train": 0.8, "validation": 0.0, "test": 0.2})
    table, frame = result.coefficients, frames["h0"]
    eta = table.loc["(intercept)", "estimate"] + frame[COLUMNS].to_numpy() @ table.loc[COLUMNS, "estimate"].to_numpy()
    assert result.predict(frame)["p(1)"].to_numpy() == pytest.approx(1 / (1 + np.exp(-eta)), rel=1e-6)
    assert result.metrics.loc[("test", "pooled"), "n"] == pytest.approx(0.2 * 185, abs=3)


def test_a_large_count_is_no_trouble():
    """From coefficients of zero the first Newton step of a Poisson model would be e to the hundreds."""
    frames = hospitals(lambda eta, g: g.poisson(5000 * np.exp(0.2 * eta)))
    table = fit(frames, "count", {}).coefficients
    expected = pooled(frames, sm.families.Poisson())
    assert table["estimate"].to_numpy() == pytest.approx(expected.params.to_numpy(), rel=1e-6)


def test_the_mock_client_gives_the_same_coefficients():
    frames = hospitals(CASES["binomial"][1])
    keys = {"data": {"target": "y"}, "model": {"kind": "glm"}}
    local, mock = v6.run(keys, frames), v6.run(keys, frames, engine="mock")
    pd.testing.assert_frame_equal(local.coefficients, mock.coefficients, rtol=1e-12)


def test_files_and_text_of_the_coefficients(tmp_path):
    result = fit(hospitals(CASES["binomial"][1]), "classification", {})
    folder = result.save(tmp_path / "run")
    written = pd.read_csv(folder / "coefficients.csv")
    assert list(written["term"]) == ["(intercept)", *COLUMNS]
    assert "<h2>Coefficients</h2>" in (folder / "report.html").read_text()
    assert "Odds ratio" in (folder / "report.html").read_text()
    assert "log-likelihood" in result.summary()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"problem": "regression", "model": {"kind": "glm", "family": "poisson"}}, "is for problem count"),
        ({"model": {"kind": "glm", "link": "inverse"}}, "allowed: logit, probit, cloglog"),
        ({"model": {"kind": "glm"}, "strategy": "fedavg"}, "is fitted by strategy newton"),
        ({"model": {"kind": "logistic"}, "strategy": "newton"}, "strategy newton is for model glm"),
        ({"model": {"kind": "glm"}, "training": {"batch_size": 8}}, "takes all rows once a round"),
        ({"model": {"kind": "glm"}, "strategy": {"kind": "newton", "clip": 1.0}}, "clip does not go with"),
        ({"model": {"kind": "glm"}, "participation": {"fraction": 0.5}}, "participation.fraction does not go with"),
    ],
)
def test_what_does_not_go_with_a_glm_is_refused(keys, message):
    with pytest.raises(ExperimentError, match=message):
        v6.Experiment(**({"data": {"target": "y"}} | keys))


def test_a_strict_node_refuses_as_many_coefficients_as_a_third_of_its_rows(monkeypatch, tmp_path):
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "standard")
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    generator = np.random.default_rng(0)
    frames = {}
    for name in "abc":
        frame = pd.DataFrame(generator.normal(size=(60, 25)), columns=[f"x{number}" for number in range(25)])
        frames[name] = frame.assign(y=generator.integers(0, 2, 60))
    from v6_algorithm.errors import FederationError

    with pytest.raises((ExperimentError, FederationError), match="asks for 26 coefficients"):
        v6.run({"data": {"target": "y"}, "model": {"kind": "glm"}}, frames, engine="mock")


def test_a_site_that_is_missing_in_the_last_round_is_told_with_the_rows():
    from spying import Spy

    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulation.simulate import local_federation

    frames = hospitals(CASES["binomial"][1])
    experiment = v6.Experiment(data={"target": "y"}, model={"kind": "glm"}, participation={"minimum": 2})

    def tamper(method, site, number, reply):
        return {**reply, "folds": "wrong"} if method == "RPC_train" and site == "h2" and number > 2 else reply

    sources = {name: TableSource(frame=frame) for name, frame in frames.items()}
    result = run(Spy(local_federation(experiment, sources), tamper), experiment)
    assert result["fit"]["rows"] == 105
    assert any("coefficients are of 105 of 185 training rows" in note for note in result["notes"])
    expected = pooled({name: frames[name] for name in ("h0", "h1")}, sm.families.Binomial())
    estimates = [line["estimate"] for line in result["coefficients"]]
    assert estimates == pytest.approx(expected.params.to_list(), rel=1e-6)


def test_an_offset_has_a_coefficient_of_one_and_is_no_term():
    frames = hospitals(CASES["poisson"][1])
    generator = np.random.default_rng(1)
    for frame in frames.values():
        watched = generator.uniform(1, 9, len(frame))
        frame["log_time"] = np.log(watched)
        frame["y"] = generator.poisson(watched * np.exp(0.03 * (frame["age"] - 60)))
    result = fit(frames, "count", {"offset": "log_time"}, data={"features": COLUMNS})
    frame = pd.concat(frames.values())
    design, offset = sm.add_constant(frame[COLUMNS]), frame["log_time"]
    expected = sm.GLM(frame["y"], design, family=sm.families.Poisson(), offset=offset).fit(tol=1e-14)
    table = result.coefficients
    assert table.loc["log_time", "left_out"] == "offset"
    terms = table.drop(index="log_time")
    assert terms["estimate"].to_numpy() == pytest.approx(expected.params.to_numpy(), rel=1e-6)
    assert terms["standard_error"].to_numpy() == pytest.approx(expected.bse.to_numpy(), rel=1e-6)
    assert result.content["fit"]["aic"] == pytest.approx(expected.aic)
    assert result.predict(frames["h0"])["prediction"].to_numpy() == pytest.approx(
        expected.predict(sm.add_constant(frames["h0"][COLUMNS]), offset=frames["h0"]["log_time"]).to_numpy(), rel=1e-6
    )


@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_errors_over_sites_are_those_of_clusters(family):
    problem, target, reference = CASES[family]
    frames = hospitals(target, rows=(40, 30, 50, 35, 45))
    result = fit(frames, problem, {"errors": "site"})
    frame = pd.concat([frame.assign(site=number) for number, frame in enumerate(frames.values())], ignore_index=True)
    design = sm.add_constant(frame[COLUMNS])
    expected = sm.GLM(frame["y"].astype(float), design, family=reference).fit(
        tol=1e-14, cov_type="cluster", cov_kwds={"groups": frame["site"]}, use_t=True
    )
    assert result.coefficients["standard_error"].to_numpy() == pytest.approx(expected.bse.to_numpy(), rel=1e-5)
    low = expected.params - 2.7764451051977987 * expected.bse
    assert result.coefficients["low"].to_numpy() == pytest.approx(low.to_numpy(), rel=1e-4)
    assert any("robust over 5 sites" in note for note in result.notes)


def test_a_category_is_tested_as_a_whole_and_nested_fits_against_each_other():
    frames = hospitals(CASES["binomial"][1])
    for number, frame in enumerate(frames.values()):
        frame["ward"] = np.random.default_rng(number).choice(["a", "b", "c"], len(frame))
    larger = fit(frames, "classification", {}, data={"features": COLUMNS, "categorical": ["ward"]})
    smaller = fit(frames, "classification", {}, data={"features": COLUMNS})
    frame = pd.concat(frames.values())
    design = sm.add_constant(frame[COLUMNS].assign(b=frame["ward"] == "b", c=frame["ward"] == "c").astype(float))
    full = sm.GLM(frame["y"], design, family=sm.families.Binomial()).fit(tol=1e-14)
    few = sm.GLM(frame["y"], design[["const", *COLUMNS]], family=sm.families.Binomial()).fit(tol=1e-14)
    (test,) = larger.content["wald"]
    expected = full.wald_test(np.eye(6)[4:], scalar=True)
    assert (test["chi2"], test["freedom"], test["p"]) == pytest.approx((expected.statistic, 2, expected.pvalue))
    ratio = smaller.likelihood_ratio(larger)
    assert (ratio["chi2"], ratio["freedom"]) == pytest.approx((2 * (full.llf - few.llf), 2))
    with pytest.raises(ExperimentError, match="must have all terms"):
        larger.likelihood_ratio(smaller)


def test_rows_without_a_category_are_dropped_with_the_others_and_named_where_they_are_kept():
    """Else they would be, unsaid, what the category's values are compared with."""
    import statsmodels.formula.api as smf

    generator = np.random.default_rng(11)
    rows = pd.DataFrame({"x": generator.normal(size=180), "c": np.resize(list("uvw"), 180)})
    rows["y"] = rows["x"] + (rows["c"] == "v") + generator.normal(size=180)
    rows.loc[generator.random(180) < 0.2, "c"] = None
    rows.loc[[0, 100], "x"] = np.nan
    frames = {"one": rows[:90].reset_index(drop=True), "two": rows[90:].reset_index(drop=True)}
    keys = {"problem": "regression", "model": "glm", "data": {"target": "y", "features": ["x"], "categorical": ["c"]}}
    result = v6.run({**keys, "data": {**keys["data"], "missing": "drop"}}, frames)
    whole = rows.dropna()
    expected = smf.ols("y ~ x + C(c)", whole).fit()
    assert result.content["fit"]["rows"] == len(whole)
    assert result.coefficients.loc["c=v", "estimate"] == pytest.approx(expected.params["C(c)[T.v]"], rel=1e-9)
    assert result.coefficients.loc["c=u", "left_out"] == "reference"
    assert any(f"{180 - len(whole)} of 180 rows have an empty cell and are left out" in note for note in result.notes)
    kept = v6.run(keys, frames)
    assert kept.content["fit"]["rows"] == 180
    assert any("c: rows of no category" in note and "are compared with" in note for note in kept.notes)


@pytest.mark.filterwarnings("ignore:The InversePower link")
def test_gamma_with_its_canonical_link_starts_where_there_is_no_mean_yet():
    """A predictor of 0 has no mean under the inverse link: the first round was called diverged."""
    generator = np.random.default_rng(12)
    rows = pd.DataFrame({"x": generator.uniform(0, 1, 120), "w": generator.uniform(0.5, 2, 120).round(2)})
    rows["y"] = generator.gamma(4, 1 / (4 * (0.01 + 0.005 * rows["x"])))
    model = {"kind": "glm", "family": "gamma", "link": "inverse", "weights": {"column": "w", "kind": "analytic"}}
    keys = {"data": {"target": "y", "features": ["x"]}, "problem": "regression", "model": model}
    result = v6.run(keys, {"one": rows[:50], "two": rows[50:]})
    family = sm.families.Gamma(link=sm.families.links.InversePower())
    expected = sm.GLM(rows["y"], sm.add_constant(rows[["x"]]), family=family, var_weights=rows["w"]).fit(tol=1e-14)
    assert result.coefficients["estimate"].to_numpy() == pytest.approx(expected.params.to_numpy(), rel=1e-9)
    assert result.coefficients["standard_error"].to_numpy() == pytest.approx(expected.bse.to_numpy(), rel=1e-9)


def test_a_gamma_model_refuses_a_target_of_0_as_r_does():
    """Its deviance is infinite there; what was told was that of a number near 0, and a likelihood that followed."""
    frames = hospitals(CASES["gamma"][1])
    frames["h1"].loc[:9, "y"] = 0.0
    with pytest.raises(ExperimentError, match=r"column 'y' .* holds numbers that are not above 0; model\.family gamma"):
        fit(frames, "regression", {"family": "gamma"})
    assert fit(frames, "regression", {"family": "gamma"}, data={"where": {"y": "> 0"}}).content["fit"]["rows"] == 175
    assert fit(frames, "regression", {"family": "gaussian"}).content["fit"]["rows"] == 185


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (lambda frame: 0.1, "the target has one value in all rows"),
        (lambda frame: 3 - 2 * frame["dose"] + 0.1 * frame["age"], "the columns tell the target exactly"),
        (lambda frame: 1e6 + frame["dose"] + frame["y"], None),
    ],
)
def test_a_target_without_variance_or_without_residuals_is_named(target, told):
    """Errors of 1e-17 and p = 0 stood there without a word."""
    frames = {name: frame.assign(y=target(frame)) for name, frame in hospitals(CASES["gaussian"][1]).items()}
    notes = [note for note in fit(frames, "regression", {}).notes if "p mean nothing" in note]
    assert [told in note for note in notes] == ([] if told is None else [True])


def test_a_category_without_counts_is_named_and_a_large_mean_is_not():
    """It had an estimate of -26 with an error of 40,000, of which nothing was said but that 25 rounds were few."""
    frames = {name: frame.assign(ward=np.resize(["u", "v", "w"], len(frame)))
              for name, frame in hospitals(CASES["poisson"][1]).items()}  # fmt: skip
    for frame in frames.values():
        frame.loc[frame["ward"] == "w", "y"] = 0
    keys = {"target": "y", "missing": "error", "categorical": ["ward"]}
    found = fit(frames, "count", {}, data=keys)
    assert any("glm: ward=w: grows without end (separation: no row with it has a count" in note for note in found.notes)
    assert found.coefficients["separated"].dropna().index.tolist() == ["ward=w"]
    large = {name: frame.assign(y=(1e6 * np.exp(0.01 * frame["age"])).round()) for name, frame in frames.items()}
    assert not any("grows without end" in note for note in fit(large, "count", {}).notes)
