"""A federation's further GLMs beside statsmodels and scikit-learn on the pooled rows: largest relative differences.

    python benchmarks/inference_terms.py [heart] [diabetes] [rossi] [masked] [covariates]

Curves and products, weights of both kinds, negative binomial, Firth, LASSO and elastic net (given and cross-validated),
multiple imputation, and rounds and bytes of 20 covariates. `benchmarks/inference.py` does the plain GLMs and the rest.
The tables are those of that benchmark: heart disease at four hospitals (where `V6_ALGORITHM_DATA` has it), diabetes at
three sites, Rossi at two. Multiple imputation is drawn, so its distance from statsmodels' MICE is in standard errors.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from common import DATA
from inference import diabetes, heart, rossi

import v6_algorithm.api as v6
from v6_algorithm.data.preparation.terms import cubic_basis, natural_basis
from v6_algorithm.learning.problems.tabular import parts_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracles

# Table, its loader, columns, a binary target, a count, and a column for a curve.
TABLES: list[tuple[str, Any, list[str], tuple[str, float], str, str]] = [
    ("heart", heart, ["age", "sex", "trestbps", "thalach", "exang", "oldpeak"], ("target", 0), "target", "age"),
    ("diabetes", diabetes, ["age", "sex", "bmi", "bp", "s3", "s4"], ("target", 140), "target", "bmi"),
    ("rossi", rossi, ["fin", "age", "race", "wexp", "mar", "paro"], ("arrest", 0), "prio", "age"),
]


def away(ours: Any, theirs: Any) -> float:
    """Return the largest relative difference."""
    return float(np.abs(np.asarray(ours, dtype=float) / np.asarray(theirs, dtype=float) - 1).max())


def apart(ours: Any, theirs: Any) -> float:
    """Return the largest difference beside the largest number, of numbers of which some are 0."""
    theirs = np.asarray(theirs, dtype=float)
    return float(np.abs(np.asarray(ours, dtype=float) - theirs).max() / np.abs(theirs).max())


def fitted(frames: dict[str, pd.DataFrame], columns: list[str], target: str, problem: str, **model: Any) -> v6.Result:
    """Fit over the sites."""
    data = {"target": target, "features": columns, "missing": "error"}
    return v6.run({"data": data, "problem": problem, "model": {"kind": "glm", **model}}, frames)


def line(name: str, what: str, result: v6.Result, *differences: float) -> None:
    """Print a line."""
    fit = result.content["fit"]
    told = "".join(f"{value:11.1e}" for value in differences)
    print(f"{name:10}{what:34}{fit['rows']:6}{fit['rounds']:8}{told}", flush=True)


def terms(name: str, frames: dict[str, pd.DataFrame], columns: list[str], curve: str) -> None:
    """Curves of both kinds and a product."""
    pooled = pd.concat(frames.values())
    other = columns[0] if columns[0] != curve else columns[1]
    for kind, basis in (("natural", natural_basis), ("cubic", cubic_basis)):
        result = fitted(
            frames, columns, "ill", "classification",
            splines={curve: {"kind": kind, "knots": 4}}, interactions=[[other, columns[-1]]],
        )  # fmt: skip
        knots = np.array(result.content["preparation"]["terms"]["knots"][curve])
        bent = basis(pooled[curve].to_numpy(dtype=float), knots)
        design = np.column_stack([np.ones(len(pooled)), pooled[columns], bent, pooled[other] * pooled[columns[-1]]])
        expected = sm.GLM(pooled["ill"].to_numpy(), design, family=sm.families.Binomial()).fit(tol=1e-14)
        table = result.coefficients
        line(
            name, f"{kind} curve and a product", result, away(table["estimate"], expected.params),
            away(table["standard_error"], expected.bse), abs(result.content["fit"]["deviance"] / expected.deviance - 1),
        )  # fmt: skip


def weights(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> None:
    """Frequency and analytic weights."""
    pooled = pd.concat(frames.values())
    design = sm.add_constant(pooled[columns])
    for kind, key in (("frequency", "freq_weights"), ("analytic", "var_weights")):
        result = fitted(frames, columns, "ill", "classification", weights={"column": "weight", "kind": kind})
        more = {key: pooled["weight"].to_numpy()}
        expected = sm.GLM(pooled["ill"], design, family=sm.families.Binomial(), **more).fit(tol=1e-14)
        line(
            name, f"{kind} weights", result, away(result.coefficients["estimate"], expected.params),
            away(result.coefficients["standard_error"], expected.bse),
            abs(result.content["fit"]["deviance"] / expected.deviance - 1),
        )  # fmt: skip


def negative_binomial(name: str, frames: dict[str, pd.DataFrame], columns: list[str], count: str) -> None:
    """Dispersion by maximum likelihood; errors at that dispersion."""
    pooled = pd.concat(frames.values())
    result = fitted(frames, columns, count, "count", family="negative_binomial")
    design, told = sm.add_constant(pooled[columns]), result.content["fit"]
    if told["alpha_standard_error"] is None:
        poisson = sm.GLM(pooled[count], design, family=sm.families.Poisson()).fit(tol=1e-14)
        distance = abs(told["log_likelihood"] / poisson.llf - 1)
        line(name, "negative binomial: Poisson, named", result, np.nan, np.nan, distance)
        return
    # Of raw columns Newton's method of statsmodels does not come far without a start.
    start = sm.NegativeBinomial(pooled[count], design).fit(disp=0, method="bfgs", maxiter=2000).params
    model = sm.NegativeBinomial(pooled[count], design)
    expected = model.fit(start, disp=0, method="newton", maxiter=500, tol=1e-14)
    errors = sm.GLM(pooled[count], design, family=sm.families.NegativeBinomial(alpha=told["alpha"])).fit(tol=1e-14)
    line(
        name, "negative binomial", result,
        away([*result.coefficients["estimate"], told["alpha"]], expected.params),
        away(result.coefficients["standard_error"], errors.bse), abs(told["log_likelihood"] / expected.llf - 1),
    )  # fmt: skip


def firth(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> None:
    """Against the maximum of the penalised likelihood by scipy, from other coefficients."""
    from scipy.optimize import root

    pooled = pd.concat(frames.values())
    result = fitted(frames, columns, "ill", "classification", firth=True)
    spread = pooled[columns].std()
    design = np.column_stack([np.ones(len(pooled)), (pooled[columns] - pooled[columns].mean()) / spread])
    y = pooled["ill"].to_numpy()

    def parts(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = 1 / (1 + np.exp(-design @ b))
        weight = mean * (1 - mean)
        inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
        leverage = weight * np.einsum("ij,jk,ik->i", design, inverse, design)
        return design.T @ (y - mean + leverage * (0.5 - mean)), inverse

    expected = root(lambda b: parts(b)[0], np.zeros(design.shape[1]), method="hybr", tol=1e-13).x
    errors = np.sqrt(np.diag(parts(expected)[1]))[1:] / spread
    line(
        name, "Firth", result, away(result.coefficients["estimate"][1:], expected[1:] / spread),
        away(result.coefficients["standard_error"][1:], errors), np.nan,
    )  # fmt: skip


def cox_firth(name: str, columns: list[str]) -> None:
    """The first 180 rows of Rossi: against the maximum of the penalised likelihood by scipy, row by row."""
    from lifelines.datasets import load_rossi

    rows = load_rossi().iloc[:180]
    few = {f"site{number}": rows.iloc[number::2].reset_index(drop=True) for number in range(2)}
    data = {"target": {"duration": "week", "event": "arrest"}, "features": columns, "missing": "error"}
    result = v6.run({"data": data, "problem": "survival", "model": {"kind": "cox", "firth": True}}, few)
    pooled = pd.concat(few.values())
    spread = pooled[columns].std()
    x = ((pooled[columns] - pooled[columns].mean()) / spread).to_numpy()
    time, died = pooled["week"].to_numpy(), pooled["arrest"].to_numpy() == 1
    best, errors, gain = oracles.cox_firth([(x, time, died)])
    line(
        name, "Cox with Firth's penalty", result, apart(result.coefficients["estimate"] * spread, best),
        away(result.coefficients["standard_error"], errors / spread),
        abs(result.content["fit"]["likelihood_ratio"] / (2 * gain) - 1),
    )  # fmt: skip


def paired(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> None:
    """DeLong's test of all columns against the first two: difference and error from single rows, by definition."""
    models = [fitted(frames, names, "ill", "classification") for names in (columns, columns[:2])]
    keys = {"data": {"target": "ill", "features": columns, "missing": "error"}, "model": "glm"}
    told = v6.run(keys, frames, test=models[0], against=models[1]).comparison
    rows = pd.concat(frames.values(), ignore_index=True)
    event, risks = rows["ill"].to_numpy() == 1, [model.predict(rows)["p(1)"].to_numpy() for model in models]
    difference, error = oracles.delong(event, *risks)
    of_auroc = told.loc["auroc"]
    line(
        name, "two models (DeLong)", models[0], abs(of_auroc["difference"] / difference - 1),
        abs(of_auroc["standard_error"] / error - 1), np.nan,
    )  # fmt: skip
    gaps = ((risks[0] > 0.5) == event).astype(float) - ((risks[1] > 0.5) == event)
    # The bootstrap draws rows within sites: its variance is the sum of the sites'.
    starts = np.cumsum([0, *map(len, frames.values())])
    within = sum(gaps[a:b].var() * (b - a) for a, b in itertools.pairwise(starts)) ** 0.5 / len(gaps)
    line(
        name, "their accuracies (bootstrap)", models[0], abs(told.loc["accuracy", "difference"] / gaps.mean() - 1),
        abs(told.loc["accuracy", "standard_error"] / within - 1), np.nan,
    )  # fmt: skip


def correlations(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> None:
    """Pairwise correlations of tables without empty cells, beside pandas."""
    data = {"target": "ill", "features": columns, "missing": "error"}
    told = v6.describe({"data": data, "model": "glm"}, frames).content["correlations"]
    matrix = np.array(told["matrix"], dtype=float)
    expected = pd.concat(frames.values())[told["columns"]].corr().to_numpy()
    rows = sum(map(len, frames.values()))
    assert (np.array(told["n"]) == rows).all()
    print(f"{name:10}{'pairwise correlations':34}{rows:6}{'':8}{np.abs(matrix - expected).max():11.1e}", flush=True)


def penalties(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> None:
    """Elastic net with a given strength, and the LASSO with that of cross-validation in the same parts."""
    from sklearn.linear_model import ElasticNet, ElasticNetCV, LogisticRegression

    pooled = pd.concat(frames.values())
    spread = pooled[columns].std(ddof=0).to_numpy()
    design = ((pooled[columns] - pooled[columns].mean()) / spread).to_numpy()
    penalty = {"kind": "elastic_net", "mixing": 0.5, "strength": 0.05}
    result = fitted(frames, columns, "ill", "regression", penalty=penalty)
    given = result.coefficients["estimate"].to_numpy()[1:] * spread
    expected = ElasticNet(alpha=0.05, l1_ratio=0.5, tol=1e-14, max_iter=1_000_000).fit(design, pooled["ill"])
    line(name, "elastic net, gaussian", result, apart(given, expected.coef_), np.nan, np.nan)
    result = fitted(frames, columns, "ill", "classification", penalty=penalty)
    given = result.coefficients["estimate"].to_numpy()[1:] * spread
    options = {"C": 1 / (len(pooled) * 0.05), "l1_ratio": 0.5, "solver": "saga", "tol": 1e-13, "max_iter": 1_000_000}
    logistic = LogisticRegression(**options).fit(design, pooled["ill"])
    line(name, "elastic net, binomial", result, apart(given, logistic.coef_[0]), np.nan, np.nan)
    result = fitted(frames, columns, "ill", "regression", penalty="lasso")
    told = result.content["fit"]["penalty"]
    parts = np.concatenate([parts_of(0, site, 0, len(frame), 5) for site, frame in frames.items()])
    cuts = [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(5)]
    path = ElasticNetCV(l1_ratio=1.0, alphas=np.array(told["strengths"]), cv=cuts, tol=1e-13, max_iter=1_000_000)
    path.fit(design, pooled["ill"])
    rows = np.array([len(left_out) for _, left_out in cuts])
    given = result.coefficients["estimate"].to_numpy()[1:] * spread
    curve = (path.mse_path_ * rows).sum(axis=1) / rows.sum()
    line(name, "LASSO, cross-validated", result, apart(given, path.coef_), np.nan, away(told["deviance"], curve))


def imputation(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> None:
    """Distances from statsmodels' MICE in its standard errors, and the ratio of errors; both are drawn."""
    from statsmodels.imputation import mice

    pooled = pd.concat(frames.values(), ignore_index=True)[[*columns, "score"]]
    data = {"target": "score", "features": columns, "missing": {"kind": "impute", "imputations": 20, "iterations": 5}}
    result = v6.run({"data": data, "problem": "regression", "model": "glm"}, frames)
    np.random.seed(0)
    made = mice.MICEData(pooled.copy())
    expected = mice.MICE("score ~ " + " + ".join(columns), sm.OLS, made).fit(10, 20)
    table = result.coefficients
    distance = np.abs((table["estimate"].to_numpy() - expected.params) / expected.bse).max()
    ratio = (table["standard_error"].to_numpy() / expected.bse).mean()
    share = pooled[columns].isna().any(axis=1).mean()
    lost = table["missing_information"].max()
    print(
        f"{name:10}{'multiple imputation':34}{len(pooled):6}{result.content['rounds_run']:8}   rows with empty cells "
        f"{share:.0%}, distance {distance:.2f} SE, errors x {ratio:.2f}, missing information up to {lost:.0%}",
        flush=True,
    )


def masked() -> None:
    """Three made-up sites under policy standard: estimates under secure aggregation beside those in the clear."""
    from v6_algorithm.coordinator.master import run
    from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.python.sites import tables_of_sites

    frames = {}
    for seed, site in enumerate(("one", "two", "three")):
        generator = np.random.default_rng(seed)
        x = generator.normal(size=(170, 3))
        count = generator.poisson(np.exp(0.3 * x[:, 0] + 0.5) * generator.gamma(2, 0.5, 170))
        frames[site] = pd.DataFrame(x, columns=["age", "dose", "marker"]).assign(
            ill=(generator.random(170) < 1 / (1 + np.exp(-x[:, 0] - 0.8 * x[:, 1]))).astype(int),
            count=count,
            weight=generator.integers(1, 4, 170),
            days=generator.exponential(np.exp(-x[:, 0])) + 0.01,
            died=(generator.random(170) < 0.7).astype(int),
        )
    watched: Any = {"duration": "days", "event": "died"}
    fits: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "logistic": ("ill", "classification", {"kind": "glm"}),
        "Firth": ("ill", "classification", {"kind": "glm", "firth": True}),
        "negative binomial": ("count", "count", {"kind": "glm", "family": "negative_binomial"}),
        "weights": ("ill", "classification", {"kind": "glm", "weights": {"column": "weight", "kind": "frequency"}}),
        "LASSO": ("ill", "classification", {"kind": "glm", "penalty": {"kind": "lasso", "strength": 0.05}}),
        "Cox": (watched, "survival", {"kind": "cox", "strata": "site"}),
        "Cox, Firth": (watched, "survival", {"kind": "cox", "strata": "site", "firth": True}),
    }
    for name, (target, problem, model) in fits.items():
        told = []
        for more in ({}, {"privacy": {"secure_aggregation": {"threshold": 2}}}):
            data = {"target": target, "features": ["age", "dose", "marker"], "missing": "error"}
            experiment = Experiment.parse({"data": data, "problem": problem, "model": model, **more})
            tables = tables_of_sites(frames, experiment)
            result = run(local_federation(experiment, tables, own_policy("standard")), experiment)
            told.append([term["estimate"] for term in result["coefficients"]])
        print(f"masked, standard: {name:20}{apart(told[1], told[0]):11.1e}", flush=True)


def covariates() -> None:
    """Rounds and bytes of 20 covariates: diabetes' ten columns and ten products."""
    frames = diabetes()
    columns = [name for name in next(iter(frames.values())) if name != "target"]
    products = [[a, b] for place, a in enumerate(columns[:5]) for b in columns[place + 1 : 5]]
    for family, problem in (("gaussian", "regression"), ("binomial", "classification"), ("poisson", "count")):
        parts = {
            site: frame.assign(target=(frame["target"] > 140).astype(int)) if family == "binomial" else frame
            for site, frame in frames.items()
        }
        data = {"target": "target", "features": columns, "missing": "error"}
        model = {"kind": "glm", "family": family, "interactions": products}
        result = v6.run({"data": data, "problem": problem, "model": model}, parts, engine="mock")
        calls = result.content["participation"]
        timing = result.content["timing"]["rounds"]
        sent = sum(sum(_numbers(call["bytes_sent"])) + sum(_numbers(call["bytes_received"])) for call in timing)
        terms_of = len(result.coefficients) - 1
        print(
            f"{family:10}{terms_of:3} covariates, {result.content['fit']['rounds']} rounds, {len(calls)} calls in all, "
            f"{sent / 1024 / len(timing) / len(parts):.0f} KiB a call and site",
            flush=True,
        )


def _numbers(value: Any) -> list[int]:
    return list(value.values()) if isinstance(value, dict) else [value]


def prepared(name: str, load: Any, columns: list[str], binary: tuple[str, float]) -> dict[str, pd.DataFrame]:
    """Return a table's sites with a binary target `ill` and weights."""
    generator = np.random.default_rng(0)
    target, cut = binary
    return {
        site: frame.assign(
            ill=(frame[target] > cut).astype(int),
            weight=generator.integers(1, 4, len(frame)),
            score=frame[target].astype(float),
        )
        for site, frame in load().items()
    }


def with_empty_cells(name: str, frames: dict[str, pd.DataFrame], columns: list[str]) -> dict[str, pd.DataFrame]:
    """Return heart's rows as they are, with their empty cells; of the others a fifth of two columns' cells emptied."""
    if name == "heart":
        folder = DATA / "heart_disease"
        made = {file.stem: pd.read_csv(file)[[*columns, "target"]] for file in sorted(folder.glob("*.csv"))}
        return {site: frame.assign(score=frame["target"].astype(float)) for site, frame in made.items()}
    generator = np.random.default_rng(1)
    emptied = {}
    for site, frame in frames.items():
        frame = frame[[*columns, "score"]].astype(float)
        for column in columns[1:3]:
            frame.loc[generator.random(len(frame)) < 0.2, column] = np.nan
        emptied[site] = frame
    return emptied


def main(wanted: list[str]) -> None:
    """Do all of it, or the parts that are named."""
    warnings.simplefilter("ignore")
    print(f"{'data':10}{'what':34}{'rows':>6}{'rounds':>8}{'estimate':>11}{'error':>11}{'fit':>11}")
    for name, load, columns, binary, count, curve in TABLES:
        if wanted and name not in wanted:
            continue
        if not load():
            print(f"{name:10}left out: the data are not here")
            continue
        frames = prepared(name, load, columns, binary)
        terms(name, frames, columns, curve)
        weights(name, frames, columns)
        negative_binomial(name, frames, columns, count)
        firth(name, frames, columns)
        paired(name, frames, columns)
        correlations(name, frames, columns)
        if name == "rossi":
            cox_firth(name, columns)
        penalties(name, frames, columns)
        imputation(name, with_empty_cells(name, frames, columns), columns)
    for part in (masked, covariates):
        if not wanted or part.__name__ in wanted:
            part()


if __name__ == "__main__":
    main(sys.argv[1:])
