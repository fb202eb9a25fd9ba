"""Results as `master` leaves them, made up: a plain run with baselines, a 10-fold run, and one that stopped."""

from __future__ import annotations

import base64
import math
import random
from typing import Any

import pytest

METRICS = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc", "brier", "ece")
MODEL = base64.b64encode(b"weights").decode()


def experiment(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "seed": 0,
        "mode": "federated",
        "sites": None,
        "data": {"target": "num", "positive": "> 0", "features": None, "scaling": "standard", "missing": "mean"},
        "problem": {"kind": "classification"},
        "model": {"kind": "mlp", "hidden": [64, 32], "norm": "layer", "dropout": 0.0},
        "split": {"kind": "ratio", "train": 0.6, "validation": 0.2, "test": 0.2, "stratify": True},
        "rounds": 20,
        "training": {"local_epochs": 1, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 0.001}},
        "strategy": {"kind": "fedavg", "weighting": "samples"},
        "stopping": {"monitor": "loss", "patience": 5, "min_delta": 0.0001},
        "privacy": {},
    } | changes


def metrics(rng: random.Random, level: float) -> dict[str, float | None]:
    values = {name: round(min(0.999, max(0.02, rng.gauss(level, 0.03))), 6) for name in METRICS}
    return (
        values
        | {name: round(abs(rng.gauss(1 - level, 0.02)), 6) for name in ("loss", "brier", "ece")}
        | {"mse": None, "auroc_resolution": 0.001}
    )


def metric_block(rng: random.Random, sites: list[str], level: float) -> dict[str, Any]:
    by_site = {site: metrics(rng, level + rng.gauss(0, 0.03)) for site in sites}
    return {"pooled": metrics(rng, level), "sites": by_site, "mean_over_sites": metrics(rng, level - 0.01)}


def history(rng: random.Random, rounds: int) -> dict[str, list[Any]]:
    steps = range(1, rounds + 1)
    return {
        "round": list(steps),
        "train_loss": [0.35 + 0.4 * math.exp(-r / 5) + rng.gauss(0, 0.004) for r in steps],
        "validation_loss": [0.42 + 0.3 * math.exp(-r / 4) + 0.00025 * r * r + rng.gauss(0, 0.006) for r in steps],
        "validation_auroc": [0.9 - 0.2 * math.exp(-r / 4) + rng.gauss(0, 0.006) for r in steps],
    }


def make_result(name: str, sites: list[str], rounds: int, seed: int = 1) -> dict[str, Any]:
    rng = random.Random(seed)
    n = {site: rng.randint(100, 300) for site in sites}
    split = {
        s: {"train": n[s] - 2 * (n[s] // 5), "validation": n[s] // 5, "test": n[s] // 5, "rows": n[s]} for s in sites
    }
    return {
        "schema": 1,
        "name": name,
        "status": "completed",
        "stopped_because": None,
        "experiment": experiment(name),
        "sites": {site: {"n": split[site]} for site in sites},
        "rounds_run": rounds,
        "best_round": min(rounds, 9),
        "history": history(rng, rounds),
        "metrics": {part: metric_block(rng, sites, 0.86) for part in ("validation", "test")},
        "folds": [],
        "participation": [{"round": r, "answered": sites, "missing": {}} for r in range(1, rounds + 1)],
        "timing": {"total_s": 31.4 * rounds / 10, "rounds": [timing(rng, r, sites) for r in range(1, rounds + 1)]},
        "notes": [],
        "preparation": {"features": [f"x{i}" for i in range(13)], "classes": ["0", "1"]},
        "parameters": MODEL,
        "software": {"v6_algorithm": "0.1.0", "torch": "2.8.0", "python": "3.11.9"},
    }


def timing(rng: random.Random, at: int, sites: list[str]) -> dict[str, Any]:
    spent = {site: abs(rng.gauss(1.2, 0.3)) for site in sites}
    return {
        "round": at,
        "seconds": max(spent.values()) + 0.8,
        "waiting_s": max(spent.values()) + 0.5,
        "site_s": spent,
        "bytes_sent": dict.fromkeys(sites, 24_310),
        "bytes_received": dict.fromkeys(sites, 23_870),
    }


@pytest.fixture
def plain() -> dict[str, Any]:
    sites = ["cleveland", "hungarian", "va"]
    result = make_result("heart", sites, 14)
    rng = random.Random(5)
    result["baselines"] = {
        "centralised": {"metrics": {"test": metric_block(rng, sites, 0.88)}},
        "local": {"metrics": {"test": metric_block(rng, sites, 0.81)}},
    }
    result["metrics"]["test"]["sites"]["va"]["auroc"] = None
    return result


@pytest.fixture
def kfold() -> dict[str, Any]:
    return ten_folds()


@pytest.fixture(scope="module")
def kfold_of_module() -> dict[str, Any]:
    """The same for tests that only look at it, or at what is written of it."""
    return ten_folds()


def ten_folds() -> dict[str, Any]:
    sites = ["Amsterdam UMC", "Maastro", "Radboudumc", "St. Antonius Ziekenhuis", "Zürich"]
    result = make_result("Head-and-neck, ten folds", sites, 20, seed=3)
    rng = random.Random(8)
    result["experiment"]["split"] = {"kind": "kfold", "folds": 10}
    result["best_round"] = None
    for fold in range(10):
        rounds = rng.randint(9, 20)
        block = {part: metric_block(rng, sites, 0.85) for part in ("validation", "test")}
        one = {"fold": fold, "best_round": rounds - 5, "rounds_run": rounds, "history": history(rng, rounds)}
        result["folds"].append(one | {"metrics": block})
    # One fold without AUROC: its cells stay empty and nothing shifts.
    del result["folds"][3]["history"]["validation_auroc"]
    result["history"] = {}
    result["rounds_run"] = sum(fold["rounds_run"] for fold in result["folds"])
    return result


@pytest.fixture
def stopped() -> dict[str, Any]:
    sites = ["cleveland", "hungarian", "switzerland", "va"]
    result = make_result("heart, interrupted", sites, 7, seed=4)
    late = "no reply before the deadline of 3600 s"
    for at in (3, 4, 7):
        result["participation"][at - 1] |= {
            "answered": ["cleveland", "hungarian", "va"],
            "missing": {"switzerland": late},
        }
    wrong = {"switzerland": late, "va": "wrong reply: tensor 'head.weight' has shape (2, 16), expected (2, 32)"}
    result["participation"][6] |= {"answered": ["cleveland", "hungarian"], "missing": wrong}
    del result["metrics"]["test"], result["parameters"], result["preparation"]
    result["history"]["validation_loss"][3] = None
    return result | {
        "status": "stopped",
        "stopped_because": "fewer than 3 sites answered in round 7",
        "notes": ["switzerland holds one class only: AUROC is not defined there."],
    }
