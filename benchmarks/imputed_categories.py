"""Multiple imputation of a category in made-up studies: bias of its coefficients, their errors and coverage.

    OMP_NUM_THREADS=1 python benchmarks/imputed_categories.py [STUDIES]

A study has three sites of 200 rows; the category is empty more often where another column and the outcome are high
(a third of the rows), so that leaving such rows out biases the fit. Nodes of policy trusted match (a category of
another row), of policy standard they draw shares of its values, which are not rounded. `drop` leaves the rows out.
Prints a line for each model and way: bias of the two coefficients with its Monte Carlo error, the mean of the standard
errors beside the spread of estimates, and how many of the 95 % intervals hold the truth.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.python.sites import tables_of_sites

TRUTH = {"c=v": 0.8, "c=w": -0.5}
MODELS: dict[str, tuple[Any, str, Any]] = {
    "linear": ("y", "regression", "glm"),
    "logistic": ("ill", "classification", "glm"),
    "Cox": ({"duration": "time", "event": "died"}, "survival", {"kind": "cox", "strata": "site"}),
}


def study(seed: int, model: str, rows: int = 600) -> dict[str, pd.DataFrame]:
    """Make the tables of three sites."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=rows)
    kind = np.argmax(generator.gumbel(size=(rows, 3)) + np.outer(x, [0, 0.8, -0.8]), axis=1)
    linear = 0.5 * x + np.array([0, *TRUTH.values()])[kind]
    event, leaves = generator.exponential(np.exp(-linear)), generator.exponential(2, rows)
    frame = pd.DataFrame(
        {
            "x": x,
            "c": np.array(list("uvw"))[kind],
            "y": linear + generator.normal(size=rows),
            "ill": (generator.random(rows) < 1 / (1 + np.exp(-linear))).astype(int),
            "time": np.minimum(event, leaves) + 1e-6,
            "died": (event <= leaves).astype(int),
        }
    )
    outcome = frame[{"linear": "y", "logistic": "ill", "Cox": "died"}[model]]
    high = x + (outcome - outcome.mean()) / outcome.std()
    frame.loc[generator.random(rows) < 1 / (1 + np.exp(0.9 - 0.7 * high)), "c"] = None
    return {f"site{number}": frame.iloc[number::3].reset_index(drop=True) for number in range(3)}


def line(model: str, policy: str, missing: Any, studies: int) -> None:
    """Fit all studies, and print what came out."""
    target, problem, section = MODELS[model]
    data = {"target": target, "features": ["x"], "categorical": ["c"], "missing": missing}
    experiment = Experiment.parse({"data": data, "problem": problem, "model": section})
    rules = replace(own_policy(policy), approved_experiments=None)
    fits = []
    for seed in range(studies):
        tables = tables_of_sites(study(seed, model), experiment)
        result = run(local_federation(experiment, tables, rules), experiment)
        terms = {term["term"]: term for term in result["coefficients"]}
        fits.append([[terms[name][key] for key in ("estimate", "standard_error", "low", "high")] for name in TRUTH])
    estimate, error, low, high = np.moveaxis(np.array(fits), 2, 0)
    truth = np.array(list(TRUTH.values()))
    bias, spread = estimate.mean(axis=0) - truth, estimate.std(axis=0, ddof=1)
    way = "rows left out" if missing == "drop" else f"imputed, {policy}"
    told = " ".join(f"{value:+.3f} ± {noise:.3f}" for value, noise in zip(bias, spread / studies**0.5, strict=True))
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    ratio = error.mean(axis=0) / spread
    print(
        f"| {model} | {way} | {told} | {ratio[0]:.2f} {ratio[1]:.2f} | {covered[0]:.0%} {covered[1]:.0%} |", flush=True
    )


def main(studies: int) -> None:
    """Do all of it."""
    warnings.simplefilter("ignore")
    imputed = {"kind": "impute", "imputations": 10, "iterations": 4}
    for model in MODELS:
        line(model, "trusted", imputed, studies)
        line(model, "standard", imputed, studies)
        line(model, "trusted", "drop", studies)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
