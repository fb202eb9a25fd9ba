"""The paired bootstrap of two models' metrics at the threshold, from counts of what both predict for the same rows.

`comparison` calls it. A hospital tells of each class how many rows neither model, the second, the first or both take
for class 1. A row that is drawn anew is one of these eight kinds, so the bootstrap of a hospital's rows is a
multinomial draw of its eight counts: it is drawn here, and no replicate leaves a hospital. (Sums of replicates, drawn
at the hospital with weights that nobody else knows, would tell the same counts by their covariance.)

References
----------
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals) and 16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from v6_algorithm import seeding

Array = np.ndarray
REPLICATES = 2000
# A metric that is defined in fewer of the replicates has no interval.
_LEAST_DEFINED = 0.95


def resampled(tables: Mapping[str, list[float] | None], seed: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return each metric of both models, and the bootstrap of its difference.

    Parameters
    ----------
    tables
        Hospital to 8 counts, of class 0 and then of class 1 the rows that neither, the second, the first and both take
        for class 1; None where it has few rows of a class and tells none.
    seed
        Of the draws.

    Returns
    -------
    tuple
        ``accuracy``, ``balanced_accuracy``, ``recall`` (sensitivity), ``specificity``, ``precision``, ``npv`` and
        ``f1``: `first`, `second`, `difference`, `standard_error`, `low` and `high` (percentiles 2.5 and 97.5),
        `p`, and `replicates`, in how many it was defined. Then sentences.
    """
    told = {name: np.asarray(counts) for name, counts in sorted(tables.items()) if counts is not None}
    notes = []
    if silent := sorted(set(tables) - set(told)):
        notes.append(
            f"comparison: {', '.join(silent)} has few rows of a class and tells no counts of both models; accuracy and "
            "the other metrics at the threshold are compared over the other hospitals' rows"
        )
    rows = int(sum(counts.sum() for counts in told.values()))
    if rows < 2:
        return {}, notes
    drawn = np.zeros((REPLICATES, 8))
    for name, counts in told.items():
        if total := int(counts.sum()):
            generator = seeding.numpy_generator(seed, "paired bootstrap", name)
            drawn += generator.multinomial(total, counts / total, size=REPLICATES)
    added = np.sum(list(told.values()), axis=0)[None]
    result = {}
    for name, metric in METRICS.items():
        first, second = (float(metric(_confusion(added, model))[0]) for model in (0, 1))
        gaps = metric(_confusion(drawn, 0)) - metric(_confusion(drawn, 1))
        gaps = gaps[np.isfinite(gaps)]
        if np.isfinite(first) and np.isfinite(second) and len(gaps) >= _LEAST_DEFINED * REPLICATES:
            result[name] = _summary(first, second, gaps)
    return result, notes


def _summary(first: float, second: float, gaps: Array) -> dict[str, Any]:
    low, high = np.percentile(gaps, [2.5, 97.5])
    beyond = min((gaps <= 0).sum(), (gaps >= 0).sum())
    return {
        "first": first,
        "second": second,
        "difference": first - second,
        "standard_error": float(gaps.std(ddof=1)),
        "low": float(low),
        "high": float(high),
        "p": min(2 * (float(beyond) + 1) / (len(gaps) + 1), 1.0),
        "replicates": len(gaps),
    }


def _confusion(counts: Array, model: int) -> tuple[Array, Array, Array, Array]:
    """Return true negatives, false positives, false negatives and true positives of a model, (replicates,) each."""
    taken = counts.reshape(-1, 2, 2, 2).sum(axis=3 - model)
    return taken[:, 0, 0], taken[:, 0, 1], taken[:, 1, 0], taken[:, 1, 1]


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


_Confusion = tuple[Array, Array, Array, Array]


def _balanced(table: _Confusion) -> Array:
    tn, fp, fn, tp = table
    mean: Array = (_share(tn, tn + fp) + _share(tp, tp + fn)) / 2
    return mean


METRICS: dict[str, Callable[[_Confusion], Array]] = {
    "accuracy": lambda table: _share(table[0] + table[3], np.add.reduce(table)),
    "balanced_accuracy": _balanced,
    "recall": lambda table: _share(table[3], table[2] + table[3]),
    "specificity": lambda table: _share(table[0], table[0] + table[1]),
    "precision": lambda table: _share(table[3], table[1] + table[3]),
    "npv": lambda table: _share(table[0], table[0] + table[2]),
    "f1": lambda table: _share(2 * table[3], table[1] + table[2] + 2 * table[3]),
}
