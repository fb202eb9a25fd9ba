"""Intervals over the repeats and folds of cross-validation: the same patients again are not new patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, variance
from typing import Any

from v6_algorithm.learning.metrics.intervals.proportions import Interval, Z

_SHARES = frozenset(
    (
        "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "npv", "f1", "auroc", "auprc", "brier",
        "ece", "c_index", "c_index_within",
    )
)  # fmt: skip
# Means and sums of squares that are never below 0; a loss may be, as that of a GAN or of a plug-in.
_ERRORS = frozenset(("mae", "mse", "huber", "fid"))
# Student's 97.5 % quantiles of 1 and 2 degrees of freedom, which no series gets near.
_FEW_DEGREES = {1: 12.706204736432095, 2: 4.302652729911275}


def over_repeats(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of a repeated cross-validation: the means over its repeats.

    `n` is that of one repeat, in which each row is tested once. An interval reaches, on each side, as far as the
    repeats' own do in the mean (that is the chance of which patients there are, which repeating does not lessen), and
    further by the chance of the splits: the variance between the repeats over their number.

    Parameters
    ----------
    rows
        The metrics of each repeat, with `_low` and `_high` where there are intervals.
    """
    if len(rows) == 1:
        return dict(rows[0])
    means: dict[str, Any] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row[name] for row in rows if row.get(name) is not None]
        means[name] = fmean(values) if values else None
    means["n"] = max(row.get("n") or 0 for row in rows)
    for name in [key.removesuffix("_low") for key in means if key.endswith("_low")]:
        known = [row for row in rows if row.get(f"{name}_low") is not None and row.get(name) is not None]
        if len(known) < len(rows):
            means |= {f"{name}_low": None, f"{name}_high": None}
            continue
        splits = Z**2 * variance([row[name] for row in known]) / len(known)
        below = sqrt(fmean([(row[name] - row[f"{name}_low"]) ** 2 for row in known]) + splits)
        above = sqrt(fmean([(row[f"{name}_high"] - row[name]) ** 2 for row in known]) + splits)
        low, high = on_scale(name, (means[name] - below, means[name] + above))
        means |= {f"{name}_low": low, f"{name}_high": high}
    return means


def on_scale(metric: str, interval: Interval) -> Interval:
    """Return an interval cut to the metric's scale: no error is below 0, no share below 0 or above 1, no R2 above 1."""
    low, high = interval
    base_name = metric.rpartition(".")[2]
    if base_name in _SHARES or base_name.startswith("sensitivity_at_"):
        return max(low, 0.0), min(high, 1.0)
    if base_name in _ERRORS:
        return max(low, 0.0), high
    return (low, min(high, 1.0)) if base_name == "r2" else interval


def corrected_over_folds(values: Sequence[float], tested: float, trained: float) -> tuple[float, float] | None:
    """Interval of the mean over J folds with the corrected variance of Nadeau and Bengio [1]_.

    Folds share training rows, so their variance over J is too small: it is (1 / J + tested / trained) times the
    variance between folds, with Student's t of J - 1 degrees of freedom.

    Parameters
    ----------
    values : sequence of float
        A metric by fold, of all repeats.
    tested, trained : float
        Rows tested and trained on in a fold.

    Returns
    -------
    (float, float) or None
        None of fewer than three folds.

    References
    ----------
    .. [1] Nadeau and Bengio (2003), Inference for the generalization error, Machine Learning 52(3), 239-281.
    """
    if len(values) < 3 or trained <= 0:
        return None
    error = sqrt((1 / len(values) + tested / trained) * variance(values))
    mean, reach = fmean(values), _student(len(values) - 1) * error
    return mean - reach, mean + reach


def _student(degrees: int) -> float:
    """97.5 % quantile of Student's t; Abramowitz and Stegun 26.7.5, right to 0.005 from 3 degrees on."""
    if degrees in _FEW_DEGREES:
        return _FEW_DEGREES[degrees]
    z, n = Z, degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )
