"""Ranking metrics from two histograms of scores, one of the positives and one of the negatives.
Histograms add up over sites, ranks do not; what the bins cost in exactness is bounded and reported.
Used by the classification metrics."""

from collections.abc import Sequence
from functools import cache
from math import fsum, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows per bin, lowest score first.
Counts = Sequence[int] | NDArray[Any]
# A float32 softmax rounds to exactly 1 at a logit near 17; 12 (p = 1 - 6e-6) leaves bins no empty tail.
LOGIT_RANGE = 12.0
# Products of two counts are exact as floats, and their sums in int64, up to so many rows.
_MOST_EXACT = 2**26
# So few are faster added up one by one than as arrays; the sums are the same.
_FEW_BINS = 40
_HARMONIC = [fsum(1 / k for k in range(1, n + 1)) for n in range(64)]


def bin_edges(bins: int) -> NDArray[np.float64]:
    """Probabilities that divide the bins: `bins - 1` values, equally spaced in logit space.

    Parameters
    ----------
    bins : int
        Number of bins; the two outer ones reach to 0 and to 1.

    Returns
    -------
    ndarray of float64, shape (bins - 1,)
        Increasing edges in probability space.
    """
    logits = np.linspace(-LOGIT_RANGE, LOGIT_RANGE, bins + 1)[1:-1]
    return 1.0 / (1.0 + np.exp(-logits))


def bin_index(probability: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """Bin of each probability.

    The edges are mapped to probabilities, instead of the probabilities to logits: comparisons do not
    round, so a row falls into the same bin whichever batch it comes in.

    Parameters
    ----------
    probability : ndarray of float64, any shape
        Values in [0, 1].
    bins : int
        Number of bins.

    Returns
    -------
    ndarray of int, same shape
        0 to `bins - 1`.
    """
    return np.searchsorted(bin_edges(bins), probability, side="right")


def auroc(positives: Counts, negatives: Counts) -> float:
    """Area under the ROC curve: the share of positive/negative pairs in the right order.

    Pairs within one bin count half, as ties do in the Mann-Whitney statistic [1]_.

    Parameters
    ----------
    positives, negatives : sequence of int, shape (bins,)
        Rows per bin, lowest score first; each with at least one row.

    Returns
    -------
    float
        In [0, 1].

    References
    ----------
    .. [1] Hanley and McNeil (1982), The meaning and use of the area under a receiver operating
       characteristic (ROC) curve, Radiology 143(1), 29-36.
    """
    if len(positives) < _FEW_BINS:
        twice_ordered = lower = 0
        for positive, negative in zip(positives, negatives, strict=True):
            twice_ordered += positive * (2 * lower + negative)
            lower += negative
        return twice_ordered / (2 * sum(positives) * lower)
    above, below = _counts(positives, negatives)
    twice_ordered = int((above * (2 * np.cumsum(below) - below)).sum())
    return twice_ordered / (2 * int(above.sum()) * int(below.sum()))


def auroc_resolution(positives: Counts, negatives: Counts) -> float:
    """Bound on the difference between the binned and the exact AUROC.

    Half the share of pairs that share a bin: such a pair counts one half and would count 0 to 1.

    Parameters
    ----------
    positives, negatives : sequence of int, shape (bins,)
        As for `auroc`.

    Returns
    -------
    float
        In [0, 0.5].
    """
    if len(positives) < _FEW_BINS:
        tied = sum(positive * negative for positive, negative in zip(positives, negatives, strict=True))
        return tied / (2 * sum(positives) * sum(negatives))
    above, below = _counts(positives, negatives)
    return int((above * below).sum()) / (2 * int(above.sum()) * int(below.sum()))


def average_precision_resolution(positives: Counts, negatives: Counts) -> float:
    """Bound on the difference between the binned and the exact average precision.

    Within each bin the positives could all be above the negatives, or all below; the bound is to the further one.
    With f positives of t rows above a bin, its k-th positive adds (f + k) / (t + k) at best, and with the bin's
    negatives before it (f + k) / (t + negatives + k) at worst: sums of 1 / k from harmonic numbers.

    Parameters
    ----------
    positives, negatives : sequence of int, shape (bins,)
        As for `auroc`.

    Returns
    -------
    float
        In [0, 1].
    """
    best = worst = 0.0
    true_positives = taken = 0
    for positive, negative in _filled(positives, negatives):
        if positive:
            best += positive - (taken - true_positives) * (_harmonic(taken + positive) - _harmonic(taken))
            before = taken + negative
            worst += positive - (before - true_positives) * (_harmonic(before + positive) - _harmonic(before))
        true_positives += positive
        taken += positive + negative
    binned = average_precision(positives, negatives)
    # What is left of rounding is no bound.
    return min(max(best / true_positives - binned, binned - worst / true_positives, 0.0), 1.0)


def areas(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Return `auroc` and `average_precision` of several classes at once, to the same bits.

    Parameters
    ----------
    positives, negatives : ndarray of int64, shape (classes, bins)
        Each class with at least one row of both.
    """
    above, below = positives.sum(axis=1), negatives.sum(axis=1)
    if (above + below).max() >= _MOST_EXACT:
        pairs = list(zip(positives.tolist(), negatives.tolist(), strict=True))
        return [auroc(*pair) for pair in pairs], [average_precision(*pair) for pair in pairs]
    twice_ordered = (positives * (2 * np.cumsum(negatives, axis=1) - negatives)).sum(axis=1)
    highest_first = positives[:, ::-1]
    true_positives = np.cumsum(highest_first, axis=1)
    taken = np.cumsum(highest_first + negatives[:, ::-1], axis=1)
    # A running sum adds in the order of the bins, as one by one would; a bin without positives adds nothing.
    gains = np.divide(highest_first * true_positives, taken, out=np.zeros(taken.shape), where=highest_first > 0)
    precisions = np.cumsum(gains, axis=1)[:, -1] / true_positives[:, -1]
    return (twice_ordered / (2 * above * below)).tolist(), precisions.tolist()


def _counts(positives: Counts, negatives: Counts) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two histograms whose products can be summed exactly: of Python's integers where int64 would overflow."""
    above, below = np.asarray(positives), np.asarray(negatives)
    if above.sum() + below.sum() >= _MOST_EXACT:
        return above.astype(object), below.astype(object)
    return above, below


def _filled(positives: Counts, negatives: Counts) -> list[tuple[int, int]]:
    """Return positives and negatives of each bin that holds a row, highest score first."""
    if len(positives) < _FEW_BINS:
        return [pair for pair in zip(reversed(positives), reversed(negatives), strict=True) if any(pair)]
    above, below = np.asarray(positives), np.asarray(negatives)
    places = np.flatnonzero((above > 0) | (below > 0))[::-1]
    return list(zip(above[places].tolist(), below[places].tolist(), strict=True))


@cache
def _harmonic(n: int) -> float:
    """Sum of 1 / k for k from 1 to n; by its series from 64 on, right to 1e-16."""
    if n < len(_HARMONIC):
        return _HARMONIC[n]
    return log(n) + 0.5772156649015329 + 1 / (2 * n) - 1 / (12 * n**2) + 1 / (120 * n**4)


def auroc_error(positives: Counts, negatives: Counts) -> float | None:
    """Standard error of the AUROC by DeLong's method [1]_, which needs no more than the two histograms.

    How far a score is above the negatives (or below the positives) is the same for all rows of a bin, so that the
    sums over rows are sums over bins. Rows count as independent: several of one patient make it too small.

    Parameters
    ----------
    positives, negatives : sequence of int, shape (bins,)
        As for `auroc`.

    Returns
    -------
    float or None
        None with fewer than two rows of either class.

    References
    ----------
    .. [1] DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver
       operating characteristic curves: a nonparametric approach, Biometrics 44(3), 837-845.
    """
    above, below = np.array(positives, dtype=np.float64), np.array(negatives, dtype=np.float64)
    if above.sum() < 2 or below.sum() < 2:
        return None
    # Of a positive in each bin the share of negatives that are lower, of a negative that of positives that are higher.
    lower = (np.cumsum(below) - below / 2) / below.sum()
    higher = (above.sum() - np.cumsum(above) + above / 2) / above.sum()
    area = float(above @ lower / above.sum())
    variance = sum(
        float(rows @ (share - area) ** 2 / (rows.sum() - 1) / rows.sum())
        for rows, share in ((above, lower), (below, higher))
    )
    return float(np.sqrt(variance))


def sensitivity_at(
    specificity: float, positives: Sequence[int], negatives: Sequence[int]
) -> tuple[float, float | None, float]:
    """Sensitivity at the lowest threshold that has at least this specificity.

    Thresholds are the edges of the bins, and nothing is interpolated between two of them: the value is one that the
    threshold really has on these rows, as on a step of the ROC curve. With thresholds between all scores it could be
    greater by up to the resolution, which is the share of the positives in the next lower bin.

    Parameters
    ----------
    specificity : float
        In (0, 1).
    positives, negatives : sequence of int, shape (bins,)
        As for `auroc`.

    Returns
    -------
    sensitivity : float
        Share of the positives from the threshold on; 0 where even the highest bin holds too many negatives.
    threshold : float or None
        Probability from which on a row counts as positive; None: no row may.
    resolution : float
        Bound on how much greater the exact value, the largest sensitivity at this specificity, can be.
    """
    bins, total = len(positives), sum(positives)
    # A share that is a whole number of rows but for rounding is meant as that.
    allowed = int((1 - specificity) * sum(negatives) * (1 + 1e-12) + 1e-9)
    first, true_positives, wrong = bins, 0, 0
    while first and wrong + negatives[first - 1] <= allowed:
        first -= 1
        true_positives, wrong = true_positives + positives[first], wrong + negatives[first]
    edges = [0.0, *bin_edges(bins).tolist(), None]
    return true_positives / total, edges[first], positives[first - 1] / total if first else 0.0


def average_precision(positives: Counts, negatives: Counts) -> float:
    """Area under the precision-recall curve as average precision.

    Sum over bins, highest score first, of the gain in recall times the precision reached; the
    definition of `sklearn.metrics.average_precision_score`, without interpolation.

    Parameters
    ----------
    positives, negatives : sequence of int, shape (bins,)
        As for `auroc`.

    Returns
    -------
    float
        In [0, 1].
    """
    if len(positives) < _FEW_BINS:
        area, found, rows = 0.0, 0, 0
        for positive, negative in zip(reversed(positives), reversed(negatives), strict=True):
            found, rows = found + positive, rows + positive + negative
            if positive:
                area += positive * found / rows
        return area / found
    above, below = (counts[::-1] for counts in _counts(positives, negatives))
    filled = np.flatnonzero(above)
    if not len(filled):
        return 0.0
    true_positives, taken = np.cumsum(above), np.cumsum(above + below)
    # A running sum adds in the order of the bins, as one by one would.
    areas = np.cumsum(above[filled] * true_positives[filled] / taken[filled])
    return float(areas[-1] / true_positives[-1])
