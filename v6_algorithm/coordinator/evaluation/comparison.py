"""Two models on the same rows of all hospitals: DeLong's test of their AUROCs, and the differences of other metrics.

`model_test` calls it for a test of two models (``run --test A --against B``). The placements of a pooled AUROC follow
from the histograms that the sites tell of each model; the sites answer with sums over them (`site.comparison`).
Brier score and log loss are means over rows, whose differences' errors are from sums of squares; the metrics at the
threshold are drawn anew from the counts of both models' predictions (`resampling`).

References
----------
DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated ROC curves, Biometrics 44(3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from v6_algorithm.coordinator.evaluation.resampling import resampled
from v6_algorithm.coordinator.inference.distributions import normal_p
from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.errors import WireError
from v6_algorithm.learning.metrics import compute, merge_states
from v6_algorithm.learning.metrics.classification_state import histograms
from v6_algorithm.learning.metrics.intervals.proportions import Z

_LENGTHS = {"positives": 6, "negatives": 6, "brier": 4, "log_loss": 4, "joint": 8}
Sums = dict[str, list[float] | None]


def placements(first: dict[str, Any], second: dict[str, Any]) -> Any:
    """Return what the sites need of two merged states of classification: the shares of each class below a score."""
    arrays: dict[str, np.ndarray] = {}
    for name, state in (("first", first), ("second", second)):
        places, positives, negatives = histograms(state)[0]
        for kind, shares, counts in (("negatives", "below", negatives), ("positives", "reached", positives)):
            filled = counts > 0
            arrays[f"{name}_{kind}"] = np.asarray(places)[filled].astype(np.int64)
            running = np.cumsum(counts[filled].astype(np.float64))
            arrays[f"{name}_{shares}"] = running / max(float(running[-1]) if len(running) else 1.0, 1.0)
    return pack_arrays(arrays)


def check_paired(told: Any, hospitals: Sequence[str]) -> dict[str, Sums]:
    """Read a site's sums by hospital; raises WireError where they are malformed."""
    if not isinstance(told, Mapping) or not set(told) <= set(hospitals):
        raise WireError("its sums of two models are of hospitals that are not known")
    checked: dict[str, Sums] = {}
    for name, sums in told.items():
        if not isinstance(sums, Mapping) or set(sums) != set(_LENGTHS):
            raise WireError("its sums of two models have other names than were asked for")
        for key, length in _LENGTHS.items():
            numbers = sums[key]
            whole = numbers is None or (
                isinstance(numbers, list)
                and len(numbers) == length
                and all(isinstance(value, (int, float)) and abs(value) <= 1e15 for value in numbers)
                and numbers[0] >= 0
                and (key != "joint" or all(count >= 0 and count == int(count) for count in numbers))
            )
            if not whole:
                raise WireError(f"its sums of two models ({key}) must be {length} finite numbers, or none")
        checked[name] = {key: sums[key] for key in _LENGTHS}
    return checked


def comparison(
    first: Mapping[str, dict[str, Any]], second: Mapping[str, dict[str, Any]], sums: Mapping[str, Sums], seed: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """Return the paired comparison of two models, and sentences for the researcher.

    Parameters
    ----------
    first, second
        Hospital to each model's metric state.
    sums
        Hospital to what it told of both.
    seed
        Of the bootstrap.

    Returns
    -------
    tuple
        ``auroc``: `first`, `second`, `difference` (first less second), `standard_error`, `low`, `high`, `z`, `p`, and
        `resolution`, the most by which bins may have moved the difference; ``brier`` and ``log_loss``: the same
        without a resolution. None where it cannot be had. Then what `resampling.resampled` returns.
    """
    notes: list[str] = []
    values = [compute(merge_states(states.values())) for states in (first, second)]
    silent = sorted(name for name, told in sums.items() if told["positives"] is None or told["negatives"] is None)
    if silent:
        notes.append(
            f"comparison: {', '.join(silent)} has few rows of a class and tells no sums of both models; the standard "
            "error of the AUROCs' difference is from the other hospitals' rows"
        )
    if missing := sorted(set(first) - set(sums)):
        notes.append(
            f"comparison: {', '.join(missing)} did not answer the second call (participation); the standard errors of "
            "the differences are from the other hospitals' rows"
        )
    of_class = {kind: _added(told[kind] for told in sums.values()) for kind in ("positives", "negatives")}
    result: dict[str, Any] = {"auroc": None, "brier": None}
    rows = [sum(sum(int(count) for count in state["confusion"][place]) for state in first.values()) for place in (1, 0)]
    if None not in (values[0]["auroc"], values[1]["auroc"]) and all(
        told is not None and told[0] > 1 for told in of_class.values()
    ):
        variance = sum(_variance(of_class[kind]) / n for kind, n in zip(("positives", "negatives"), rows, strict=True))
        resolution = sum(float(value["auroc_resolution"] or 0.0) for value in values)
        result["auroc"] = _tested(values[0]["auroc"], values[1]["auroc"], variance) | {"resolution": resolution}
        if resolution > 0.005:
            notes.append(
                f"comparison: scores are in bins, which may have moved the difference of the AUROCs by up to "
                f"{resolution:.3f}"
            )
    for key in ("brier", "log_loss"):
        result[key] = _of_means([item[key] for item in sums.values()])
    of_counts, notes_of_counts = resampled({name: told["joint"] for name, told in sums.items()}, seed)
    result |= of_counts
    notes += notes_of_counts
    if result["auroc"] is None:
        notes.append("comparison: no AUROCs to compare, for only one class is there, or few rows of one")
    if result["brier"] is None:
        notes.append(
            "comparison: no difference of the Brier scores and the log losses, for a hospital has few rows and tells "
            "no sums"
        )
    return result, notes


def _of_means(told: Sequence[list[float] | None]) -> dict[str, float | None] | None:
    """Return the difference of two means over rows, from both models' sums and that of the differences' squares.

    The bootstrap of rows has this variance, but for n - 1 in place of n; no replicate is needed to know it.
    """
    known = [sums for sums in told if sums is not None]
    if not known or len(known) < len(told):
        return None
    n, first, second, squares = np.sum(known, axis=0)
    if n < 2:
        return None
    spread = max(squares / n - ((first - second) / n) ** 2, 0.0) * n / (n - 1)
    return _tested(first / n, second / n, spread / n)


def _added(told: Iterable[list[float] | None]) -> np.ndarray | None:
    known = [np.array(sums, dtype=np.float64) for sums in told if sums is not None]
    return np.sum(known, axis=0) if known else None


def _variance(sums: np.ndarray | None) -> float:
    """Return the variance over rows of the difference of two placements, from their sums."""
    assert sums is not None  # noqa: S101
    n, a, b, aa, bb, ab = sums.tolist()
    return max((aa - 2 * ab + bb - (a - b) ** 2 / n) / (n - 1), 0.0)


def _tested(first: Any, second: Any, variance: float) -> dict[str, float | None]:
    difference, error = float(first) - float(second), math.sqrt(variance)
    z = difference / error if error > 0 else None
    return {
        "first": float(first),
        "second": float(second),
        "difference": difference,
        "standard_error": error,
        "low": difference - Z * error,
        "high": difference + Z * error,
        "z": z,
        "p": None if z is None else normal_p(z),
    }
