"""One small experiment of each kind of problem, and three hospitals' tables for them: what engines are compared on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SITES = {"amsterdam": 40, "berlin": 50, "cairo": 60}
QUICK = {"rounds": 2, "training": {"batch_size": 16}, "model": {"kind": "mlp", "hidden": [4]}}
_KINDS: dict[str, dict[str, Any]] = {
    "classification": {"data": {"target": "outcome"}},
    "several classes": {"data": {"target": "stage", "features": ["age", "dose"]}},
    "regression": {"data": {"target": "dose"}, "problem": "regression"},
    "survival": {
        "data": {"target": {"duration": "days", "event": "died"}, "features": ["age", "dose"]},
        "problem": "survival",
    },
    "multitask": {
        "data": {"targets": {"outcome": "classification", "dose": "regression"}, "features": ["age"]},
        "problem": "multitask",
    },
    "glm": {"data": {"target": "outcome", "features": ["age", "dose"]}, "model": {"kind": "glm"}, "rounds": 8},
    "folds and scaffold": {
        "data": {"target": "outcome"},
        "split": {"kind": "kfold", "folds": 3},
        "strategy": "scaffold",
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16},
    },
}  # fmt: skip
KINDS = tuple(_KINDS)
# What a result has that does not depend on who carried the messages.
SAME = ("rounds_run", "best_round", "sites", "history", "metrics", "parameters")


def experiment_of(kind: str) -> dict[str, Any]:
    """Return the experiment of a kind."""
    experiment = {**QUICK, **_KINDS[kind]}
    if experiment["model"]["kind"] == "glm":
        del experiment["training"]
    return experiment


def write_hospitals(folder: Path) -> dict[str, Path]:
    """Make a CSV file a site, with categories, an empty cell, a comma for a decimal point nowhere."""
    files = {}
    for number, (name, rows) in enumerate(SITES.items()):
        generator = np.random.default_rng(number)
        age, dose = generator.normal(60, 12, rows).round(1), generator.uniform(0, 10, rows).round(2)
        frame = pd.DataFrame({"age": age, "dose": dose, "sex": generator.choice(["f", "m"], rows)})
        frame.loc[3, "age"] = np.nan
        frame["outcome"] = (age / 12 - dose + generator.normal(0, 1, rows) > 0).astype(int)
        frame["stage"] = generator.choice(["I", "II", "III"], rows)
        frame["days"] = generator.exponential(300, rows).round(0) + 1
        frame["died"] = generator.integers(0, 2, rows)
        files[name] = folder / f"{name}.csv"
        frame.to_csv(files[name], index=False)
    return files
