"""Every kind of problem that can be trained predicts for new rows from its saved folder, or says what to use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.errors import V6AlgorithmError
from v6_algorithm.experiment import PROBLEM_METRICS

DRAW = np.random.default_rng(5)
N = 60


def table() -> pd.DataFrame:
    frame = pd.DataFrame(DRAW.normal(size=(N, 2)), columns=["age", "marker"])
    return frame.assign(
        ward=DRAW.choice(["a", "b"], N),
        ill=np.arange(N) % 2,
        stage=DRAW.choice(["I", "II", "III"], N),
        pressure=DRAW.normal(120, 10, N),
        visits=DRAW.poisson(3, N),
        cost=DRAW.gamma(2, 3, N) + 0.1,
        days=DRAW.exponential(100, N) + 1,
        died=DRAW.integers(0, 2, N),
    )


SURVIVAL = {"duration": "days", "event": "died"}
INPUTS = {"features": ["age", "marker"], "categorical": ["ward"]}
NETWORK = {"model": {"kind": "mlp", "hidden": [4]}}
# What is learned, and the columns that predictions have at least.
CASES = {
    "classification": ({"data": {"target": "ill", **INPUTS}, **NETWORK}, ["p(0)", "p(1)", "prediction"]),
    "classification, classes": ({"data": {"target": "stage", **INPUTS}, **NETWORK}, ["p(I)", "p(III)", "prediction"]),
    "classification, glm": (
        {"data": {"target": "ill", **INPUTS, "missing": "drop"}, "model": {"kind": "glm", "family": "binomial"}},
        ["p(1)", "prediction"],
    ),
    "regression": (
        {"data": {"target": "pressure", "target_scaling": "standard", **INPUTS}, "problem": "regression", **NETWORK},
        ["prediction"],
    ),
    "regression, counts": (
        {"data": {"target": "visits", **INPUTS}, "problem": "regression", "training": {"loss": "poisson"}, **NETWORK},
        ["prediction"],
    ),
    "regression, glm": (
        {
            "data": {"target": "cost", **INPUTS, "missing": "drop"},
            "problem": "regression",
            "model": {"kind": "glm", "family": "gamma"},
        },
        ["prediction"],
    ),
    "count": ({"data": {"target": "visits", **INPUTS}, "problem": "count", **NETWORK}, ["prediction"]),
    "survival": ({"data": {"target": SURVIVAL, **INPUTS}, "problem": "survival", **NETWORK}, ["log_risk"]),
    "survival, discrete time": (
        {
            "data": {"target": SURVIVAL, **INPUTS},
            "problem": {"kind": "survival", "method": "discrete_time", "intervals": 4},
            **NETWORK,
        },
        [],
    ),
    "survival, cox": (
        {"data": {"target": SURVIVAL, **INPUTS, "missing": "drop"}, "problem": "survival", "model": "cox"},
        ["log_risk"],
    ),
    "multitask": (
        {"data": {"targets": {"ill": "classification", "pressure": "regression"}, **INPUTS}, "problem": "multitask",
         **NETWORK},
        [],
    ),
}  # fmt: skip
ARRAYS = {
    "sequence_classification": ((6, 2), {"model": {"kind": "gru", "hidden": 4}}),
    "image_classification": ((1, 8, 8), {"model": {"kind": "cnn", "widths": [4]}}),
    "volume_classification": ((1, 8, 8, 8), {"model": {"kind": "cnn", "widths": [2]}}),
}


def test_every_problem_is_here():
    kinds = {name.partition(",")[0] for name in (*CASES, *ARRAYS)} | {"gan"}
    assert kinds == set(PROBLEM_METRICS)


def checked(predicted: pd.DataFrame, rows: int, columns: list[str]) -> None:
    assert len(predicted) == rows
    assert set(columns) <= set(predicted.columns)
    numbers = predicted.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy(dtype=float)).all()
    assert len(numbers.columns)
    shares = [name for name in predicted.columns if name.startswith("p(")]
    if shares:
        assert predicted[shares].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_new_rows_without_an_outcome_are_predicted_from_the_saved_run(name, tmp_path):
    keys, columns = CASES[name]
    result = v6.run({"rounds": 2, **keys}, {"north": table(), "south": table()})
    result.save(tmp_path / "run")
    new = table()[["age", "marker", "ward"]].head(7)
    checked(v6.load(tmp_path / "run").predict(new), 7, columns)


@pytest.mark.parametrize("kind", ARRAYS)
def test_new_series_images_and_volumes_are_predicted_from_the_saved_run(kind, tmp_path):
    shape, keys = ARRAYS[kind]
    sites = {name: (DRAW.normal(size=(24, *shape)), np.arange(24) % 2) for name in ("north", "south")}
    result = v6.run({"target": "label", "rounds": 1, **keys}, sites)
    assert result.content["experiment"]["problem"] in (kind, {"kind": kind}) or kind in str(
        result.content["experiment"]
    )
    result.save(tmp_path / "run")
    checked(v6.load(tmp_path / "run").predict(DRAW.normal(size=(3, *shape))), 3, ["p(0)", "p(1)"])


def test_a_generator_predicts_nothing_and_says_what_it_is_for():
    pixels = pd.DataFrame(DRAW.integers(0, 255, (40, 256)), columns=[f"p{i}" for i in range(256)])
    keys = {
        "data": {"target": "y", "image": {"shape": [1, 16, 16], "range": [0, 255]}},
        "problem": {"kind": "gan", "latent": 4},
        "model": {"kind": "dcgan", "width": 2},
        "split": {"kind": "ratio", "train": 1, "validation": 0, "test": 0},
        "rounds": 1,
    }
    result = v6.run(keys, {name: pixels.assign(y=np.arange(40) % 2) for name in ("north", "south")})
    with pytest.raises(V6AlgorithmError, match="generate"):
        result.predict(pixels)
