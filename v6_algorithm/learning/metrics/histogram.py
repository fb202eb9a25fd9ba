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
# States list filled bins only, so many bins cost nothing: scores that crowd within a hundredth of a logit, or run to
# logits of hundreds, keep their order. Of fewer than `_FEWEST_FINE` bins, which are all sent, as under secure
# aggregation, each is worth more where scores usually are: a float32 softmax rounds to exactly 1 at a logit near 17.
FINE_BINS = 2**20
COARSE_BINS = 512
_FEWEST_FINE = 2**13
LOGIT_RANGE = 12.0
# float64 has probabilities down to a logit of -745. Bins are 8e-5 wide near logit 0, and wider in proportion beyond 8.
_FINE_RANGE, _FINE_SCALE = 700.0, 8.0
# A guess this near a bin's middle, in bins, is right up to such a logit: there the rounding of a probability is less
# than a thousandth of a bin.
_CERTAIN, _CERTAIN_LOGIT = 0.49, 20.0
# Products of two counts are exact as floats, and their sums in int64, up to so many rows.
_MOST_EXACT = 2**26
# So few are faster added up one by one than as arrays; the sums are the same.
_FEW_BINS = 40
_HARMONIC = [fsum(1 / k for k in range(1, n + 1)) for n in range(256)]


@cache
def logit_edges(bins: int) -> NDArray[np.float64]:
    """Logits that divide the bins, (bins - 1,) increasing: equally spaced, or by asinh where there are many."""
    edges: NDArray[np.float64]
    if bins < _FEWEST_FINE:
        edges = np.linspace(-LOGIT_RANGE, LOGIT_RANGE, bins + 1)[1:-1]
    else:
        reach = np.arcsinh(_FINE_RANGE / _FINE_SCALE)
        edges = _FINE_SCALE * np.sinh(np.linspace(-reach, reach, bins + 1)[1:-1])
    edges.flags.writeable = False
    return edges


@cache
def bin_edges(bins: int) -> NDArray[np.float64]:
    """Probabilities that divide the bins: `bins - 1` values, spaced in logit space; see `logit_edges`.

    Parameters
    ----------
    bins : int
        Number of bins; the two outer ones reach to 0 and to 1.

    Returns
    -------
    ndarray of float64, shape (bins - 1,)
        Increasing edges in probability space; near 1 several may be the same number.
    """
    edges: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logit_edges(bins)))
    edges.flags.writeable = False
    return edges


def _logits_at(places: NDArray[np.integer[Any]], bins: int) -> NDArray[np.float64]:
    """Return some of `logit_edges`, bit for bit: where there are a million, making them all takes many rounds' time."""
    if bins < _FEWEST_FINE:
        return logit_edges(bins)[places]
    reach = np.arcsinh(_FINE_RANGE / _FINE_SCALE)
    # As numpy.linspace has it.
    logit: NDArray[np.float64] = _FINE_SCALE * np.sinh((places + 1) * (2 * reach / bins) - reach)
    return logit


def _edges_at(places: NDArray[np.integer[Any]], bins: int) -> NDArray[np.float64]:
    """Return some of `bin_edges`, bit for bit."""
    edges: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-_logits_at(places, bins)))
    return edges


def nearest_edges(probability: NDArray[np.float64], bins: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the number of the edge that is nearest to each probability, the lower of two as near, and that edge."""
    after = np.minimum(bin_index(probability, bins), bins - 2)
    before = np.maximum(after - 1, 0)
    low, high = _edges_at(before, bins), _edges_at(after, bins)
    is_low = np.abs(low - probability) <= np.abs(high - probability)
    return np.where(is_low, before, after), np.where(is_low, low, high)


def lower_edges(places: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    """Return the probability at which each of some bins begins."""
    return np.where(places > 0, _edges_at(np.maximum(places - 1, 0), bins), 0.0)


def middles(places: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    """Return the probability in the middle of each of some bins."""
    upper = np.where(places < bins - 1, _edges_at(np.minimum(places, bins - 2), bins), 1.0)
    middle: NDArray[np.float64] = (lower_edges(places, bins) + upper) / 2
    return middle


def logits(places: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    """Return the logit in the middle of each of some bins; of the outermost, half a bin beyond its edge."""
    first, second, last, before = _logits_at(np.array([0, 1, bins - 2, bins - 3]), bins)
    lower = np.where(places > 0, _logits_at(np.maximum(places - 1, 0), bins), 2 * first - second)
    upper = np.where(places < bins - 1, _logits_at(np.minimum(places, bins - 2), bins), 2 * last - before)
    middle: NDArray[np.float64] = (lower + upper) / 2
    return middle


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
    if bins < _FEWEST_FINE:
        return np.searchsorted(bin_edges(bins), probability, side="right")
    # The formula of the edges says where to look; near an edge, and where several are one number, these are compared.
    with np.errstate(divide="ignore", invalid="ignore"):
        logit = np.log(probability) - np.log1p(-probability)
        guess = (np.arcsinh(logit / _FINE_SCALE) / np.arcsinh(_FINE_RANGE / _FINE_SCALE) + 1) * (bins / 2)
        place = np.clip(np.nan_to_num(guess), 0, bins - 1).astype(np.intp)
        certain = (np.abs(guess - place - 0.5) < _CERTAIN) & (np.abs(logit) < _CERTAIN_LOGIT)
    if not certain.all():
        place[~certain] = _place_among(probability[~certain], place[~certain], bins)
    return place


def _place_among(probability: NDArray[np.float64], guess: NDArray[np.intp], bins: int) -> NDArray[np.intp]:
    """Return how many edges are not above each probability, (n,): the guess where it is right, else by halving."""
    inside = lower_edges(guess, bins) <= probability
    inside &= (guess == bins - 1) | (probability < _edges_at(guess, bins))
    if inside.all():
        return guess
    sought = probability[~inside]
    low, high = np.zeros(len(sought), dtype=np.intp), np.full(len(sought), bins - 1, dtype=np.intp)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        below = open_ & (_edges_at(middle, bins) <= sought)
        low = np.where(below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    place = guess.copy()
    place[~inside] = low
    return place


def rankings(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[list[float], list[float]]:
    """Return `auroc` and `average_precision` of several classes, to the last bit, from one pass over their bins.

    Parameters
    ----------
    pairs
        Positives and negatives of each class, as for `auroc`.
    """
    if sum(int(above.sum()) + int(below.sum()) for above, below in pairs) >= _MOST_EXACT or len(pairs) < 2:
        return [auroc(*pair) for pair in pairs], [average_precision(*pair) for pair in pairs]
    above, below = (np.concatenate(counts) for counts in zip(*pairs, strict=True))
    ends = np.cumsum([len(counts) for counts, _ in pairs])
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    # Up to and with each bin, of its class; then from each bin on.
    above_to, below_to = (
        sums - np.repeat(sums[starts] - counts[starts], lengths)
        for counts, sums in ((above, np.cumsum(above)), (below, np.cumsum(below)))
    )
    positives, negatives = above_to[ends - 1], below_to[ends - 1]
    twice_ordered = np.add.reduceat(above * (2 * below_to - below), starts)
    aurocs = [
        twice / (2 * of_class * others)
        for twice, of_class, others in zip(twice_ordered.tolist(), positives.tolist(), negatives.tolist(), strict=True)
    ]
    true_positives = np.repeat(positives, lengths) - above_to + above
    taken = true_positives + np.repeat(negatives, lengths) - below_to + below
    # An empty bin of a class adds nothing; a running sum adds from the highest score down, as one by one would.
    gains = above * true_positives / taken
    areas = [np.cumsum(gains[start:end][::-1])[-1] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return aurocs, [float(area / of_class) for area, of_class in zip(areas, positives.tolist(), strict=True)]


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
        twice_ordered = lower = found = 0
        for positive, negative in _one_by_one(positives, negatives):
            twice_ordered += positive * (2 * lower + negative)
            found, lower = found + positive, lower + negative
        return twice_ordered / (2 * found * lower)
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
        pairs = _one_by_one(positives, negatives)
        tied = sum(positive * negative for positive, negative in pairs)
        return tied / (2 * sum(positive for positive, _ in pairs) * sum(negative for _, negative in pairs))
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
    worst, best = average_precision_bounds(positives, negatives)
    binned = average_precision(positives, negatives)
    # What is left of rounding is no bound.
    return max(best - binned, binned - worst, 0.0)


def average_precision_bounds(positives: Counts, negatives: Counts) -> tuple[float, float]:
    """Return the average precision of the worst and of the best order within each bin; see above."""
    best = worst = 0.0
    true_positives = taken = 0
    for positive, negative in _filled(positives, negatives):
        if positive:
            best += positive - (taken - true_positives) * (_harmonic(taken + positive) - _harmonic(taken))
            before = taken + negative
            worst += positive - (before - true_positives) * (_harmonic(before + positive) - _harmonic(before))
        true_positives += positive
        taken += positive + negative
    return worst / true_positives, best / true_positives


def _counts(positives: Counts, negatives: Counts) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two histograms whose products can be summed exactly: of Python's integers where int64 would overflow."""
    above, below = np.asarray(positives), np.asarray(negatives)
    if above.sum() + below.sum() >= _MOST_EXACT:
        return above.astype(object), below.astype(object)
    return above, below


def _one_by_one(positives: Counts, negatives: Counts) -> list[tuple[int, int]]:
    """Return positives and negatives of each bin as Python's integers, which no product overflows."""
    above, below = (counts.tolist() if isinstance(counts, np.ndarray) else counts for counts in (positives, negatives))
    return list(zip(above, below, strict=True))


def _filled(positives: Counts, negatives: Counts) -> list[tuple[int, int]]:
    """Return positives and negatives of each bin that holds a row, highest score first."""
    if len(positives) < _FEW_BINS:
        return [pair for pair in reversed(_one_by_one(positives, negatives)) if any(pair)]
    above, below = np.asarray(positives), np.asarray(negatives)
    places = np.flatnonzero(above + below)[::-1]
    return list(zip(above[places].tolist(), below[places].tolist(), strict=True))


@cache
def _harmonic(n: int) -> float:
    """Sum of 1 / k for k from 1 to n; by its series from 256 on, right to 1e-16."""
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
    specificity: float, positives: Counts, negatives: Counts, edges: NDArray[np.float64]
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
    edges : ndarray of float64, shape (bins,)
        Probability at which each of these bins begins.

    Returns
    -------
    sensitivity : float
        Share of the positives from the threshold on; 0 where even the highest bin holds too many negatives.
    threshold : float or None
        Probability from which on a row counts as positive; None: no row may.
    resolution : float
        Bound on how much greater the exact value, the largest sensitivity at this specificity, can be.
    """
    above, below = np.asarray(positives), np.asarray(negatives)
    total = int(above.sum())
    # A share that is a whole number of rows but for rounding is meant as that.
    allowed = int((1 - specificity) * int(below.sum()) * (1 + 1e-12) + 1e-9)
    # From each bin on, the negatives are too many or not.
    fitting = np.cumsum(below[::-1])[::-1] <= allowed
    first = len(below) - int(fitting.sum())
    threshold = float(edges[first]) if first < len(below) else None
    if first == 0:
        return int(above.sum()) / total, 0.0, 0.0
    return int(above[first:].sum()) / total, threshold, int(above[first - 1]) / total


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
        for positive, negative in reversed(_one_by_one(positives, negatives)):
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
