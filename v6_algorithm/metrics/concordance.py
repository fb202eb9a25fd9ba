"""Counting pairs of patients in the right order: exactly within a site, and between sites from counts in bins of time
and score. Used by the survival metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Pairs are compared in blocks of this many events against all rows.
_BLOCK = 512


class Pairs(NamedTuple):
    """Numbers of pairs.

    Attributes
    ----------
    twice_concordant, comparable
        Pairs that can be compared, and twice those in the right order; equal scores count half.
    tied
        Comparable pairs that share a bin of scores, counted half like equal scores.
    unsure
        Pairs that share a bin of time, counted in neither of the others.
    """

    twice_concordant: int
    comparable: int
    tied: int = 0
    unsure: int = 0


def exact_pairs(time: NDArray[np.float64], event: NDArray[np.bool_], score: NDArray[np.float64]) -> Pairs:
    """Count Harrell's pairs [1]_.

    Of two rows the one whose event came first can be compared with the other, if that was still observed then: at a
    later time, or at the same time without an event. The pair is concordant if the first has the higher score, and
    counts half if the scores are equal.

    Parameters
    ----------
    time, score : ndarray of float64, shape (n,)
        Times observed, and risk.
    event : ndarray of bool, shape (n,)
        Whether the event was seen.

    Returns
    -------
    Pairs
        With nothing tied by bins, or unsure. Takes n * events comparisons.

    References
    ----------
    .. [1] Harrell, Lee and Mark (1996), Multivariable prognostic models, Statistics in Medicine 15(4), 361-387.
    """
    first = np.flatnonzero(event)
    concordant = comparable = 0
    for start in range(0, len(first), _BLOCK):
        own = first[start : start + _BLOCK, None]
        after = (time > time[own]) | ((time == time[own]) & ~event)
        comparable += int(after.sum())
        concordant += int(2 * (after & (score < score[own])).sum() + (after & (score == score[own])).sum())
    return Pairs(concordant, comparable)


def binned_pairs(events: NDArray[np.int64], censored: NDArray[np.int64]) -> Pairs:
    """Count pairs of rows of which only the bins are known.

    Parameters
    ----------
    events, censored : ndarray of int64, shape (times, scores)
        Rows with and without the event, by bin, earliest and lowest first. At most 10^9 rows, or integers overflow.

    Returns
    -------
    Pairs
        Of rows in one bin of time it is not known whose time came first: those with an event are `unsure`.
    """
    rows = events + censored
    later = rows.sum(axis=0) - np.cumsum(rows, axis=0)
    lower = np.cumsum(later, axis=1) - later
    by_time = events.sum(axis=1)
    tied = int((events * later).sum())
    together = by_time * (by_time - 1) // 2 + by_time * censored.sum(axis=1)
    comparable = int((by_time * later.sum(axis=1)).sum())
    return Pairs(2 * int((events * lower).sum()) + tied, comparable, tied, int(together.sum()))
