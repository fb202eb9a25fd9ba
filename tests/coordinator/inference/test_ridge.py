"""Ridge: estimates are where the penalised score of the pooled rows is nothing, of Cox models and of GLMs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import v6_algorithm.api as v6


def sites(seed=0):
    generator = np.random.default_rng(seed)
    frames = {}
    for name, rows in (("a", 30), ("b", 24)):
        x = generator.normal(size=(rows, 2)) * [3.0, 0.5] + [10, 1]
        effect = 0.2 * (x[:, 0] - 10) + x[:, 1]
        time = generator.exponential(np.exp(-effect)) + np.arange(rows) * 1e-6
        frames[name] = pd.DataFrame(x, columns=["p", "q"]).assign(
            days=time, died=(generator.random(rows) < 0.7).astype(int), count=generator.poisson(np.exp(effect / 3)),
            sick=(effect + generator.normal(size=rows) > 1).astype(int),
        )  # fmt: skip
    return frames


def scaled(frames):
    columns = pd.concat(frames.values())[["p", "q"]]
    return ((columns - columns.mean()) / columns.std(ddof=0)).to_numpy(), columns.std(ddof=0).to_numpy()


@pytest.mark.parametrize("strata", ["none", "site"])
@pytest.mark.parametrize("ridge", [0.0, 4.0])
def test_a_cox_models_estimates_are_the_minimum_by_another_method(strata, ridge):
    frames = sites()
    x, spread = scaled(frames)
    pooled = pd.concat([frame.assign(site=name) for name, frame in frames.items()])
    time, died = pooled["days"].to_numpy(), pooled["died"].to_numpy() == 1
    site = np.zeros(len(x)) if strata == "none" else (pooled["site"] == "a").to_numpy()

    def objective(beta):
        risk = np.exp(x @ beta)
        total = sum(
            x[row] @ beta - np.log(risk[(time >= time[row]) & (site == site[row])].sum())
            for row in np.flatnonzero(died)
        )
        return -total + ridge / 2 * (beta**2).sum()

    best = optimize.minimize(objective, np.zeros(2), method="BFGS", options={"gtol": 1e-7}).x
    data = {"target": {"duration": "days", "event": "died"}, "features": ["p", "q"], "missing": "error"}
    model = {"kind": "cox", "strata": strata, "ridge": ridge}
    result = v6.run({"data": data, "problem": "survival", "model": model}, frames)
    assert result.content["fit"]["converged"]
    assert result.coefficients["estimate"].to_numpy() * spread == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("target", "problem"), [("sick", "classification"), ("count", "count")])
def test_a_glms_estimates_are_the_minimum_by_another_method(target, problem):
    frames = sites()
    x, spread = scaled(frames)
    y = pd.concat(frames.values())[target].to_numpy()
    design = np.column_stack([np.ones(len(x)), x])

    def objective(beta):
        linear = design @ beta
        log_likelihood = y @ linear - (np.logaddexp(0, linear) if problem == "classification" else np.exp(linear)).sum()
        return -log_likelihood + 1.5 * (beta[1:] ** 2).sum()

    best = optimize.minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-7}).x
    data = {"target": target, "features": ["p", "q"], "missing": "error"}
    result = v6.run({"data": data, "problem": problem, "model": {"kind": "glm", "ridge": 3.0}}, frames)
    assert result.coefficients["estimate"].to_numpy()[1:] * spread == pytest.approx(best[1:], abs=1e-6)
