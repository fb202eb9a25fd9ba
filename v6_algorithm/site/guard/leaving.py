"""Every key that an answer may have, and the rule that bounds what stands under it; the guard lets no other out.

docs/what-leaves-the-hospital.md says the same at length. Whoever adds a key to a reply adds it here, with its rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v6_algorithm.errors import PolicyError

_ROWS = "minimum rows of a part, a column and a label"
_MODEL = "minimum batch and rows of an update; order of requests; secure aggregation or differential privacy"
_METRICS = "minimum rows of a part; joined bins; models that the site has seen"
_SETTING = "says nothing of the data"
LEAVES: dict[str, dict[str, str]] = {
    "summary": {
        "rows": "minimum rows", "columns": "allowed columns", "labels": "minimum cell", "image": "minimum cell",
        "hints": "allowed columns", "assumed": "minimum cell; allowed columns",
        "moments": "minimum cell",
        "hidden": "allowed columns", "cells": "minimum cell", "products": "minimum cell", "policy": _SETTING,
        "groups": "minimum cell", "withheld": "minimum cell", "cell": _SETTING, "bins": "minimum cell",
        "timing": _SETTING,
    },
    "prepare": {
        "members": "minimum rows; allowed columns; rows per label", "counts": _ROWS, "class_counts": "minimum cell",
        "sums": "minimum cell; share of sums", "moments": "rows with a value; share of sums; secret folds",
        "targets": "rows with a value; share of sums; secret folds", "hidden": "allowed columns", "spec": _SETTING,
        "run": _SETTING, "keys": _SETTING, "sealed": _SETTING, "context": _SETTING,
        "shares": "secure aggregation: one set of sites a sum, of the threshold",
        "event_times": "minimum cell; share of sums", "cell": _SETTING, "copies": "minimum cell",
        "products": "rows with a value; share of sums",
        "trained_on": "rows per label", "start": _SETTING,
        "cells": "minimum cell; share of sums", "policy": _SETTING, "software": _SETTING, "machine": _SETTING,
        "timing": _SETTING,
    },
    "train": {
        "folds": _MODEL, "subgroups": "minimum cell", "device": _SETTING, "timing": _SETTING,
        "epsilon": "training rows, which are told; left out under secure aggregation",
    },
    "evaluate": {"folds": _METRICS, "subgroups": "minimum cell", "device": _SETTING, "timing": _SETTING},
}  # fmt: skip
FOLD: dict[str, str] = {
    "fold": _SETTING, "private": _SETTING, "parameters": _MODEL, "rows": _ROWS, "loss": _MODEL, "steps": _SETTING,
    "strategy": _MODEL, "metrics": _METRICS, "samples": "what the model makes", "baseline": "minimum rows of a part",
    "compared": _METRICS, "paired": "minimum cell; joined bins",
}  # fmt: skip


def check_keys(method: str, body: Mapping[str, Any]) -> None:
    """Raise PolicyError for a key that no rule is known for: a fault of ours, which then tells nothing."""
    unknown = sorted(set(body) - set(LEAVES[method]))
    for item in body.get("folds", []):
        unknown += sorted(set(item) - set(FOLD))
    if unknown:
        raise PolicyError(f"this node's guard knows no rule for {', '.join(unknown[:5])}, so it stays here")
