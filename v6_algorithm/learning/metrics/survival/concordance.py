"""Counting pairs of patients in the right order: exactly within a site, and between sites from counts in bins of time
and score. Used by the survival metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Pairs are compared in blocks of this many events against all rows.
_BLOCK = 512
# Pairs within sites that are looked at together.
_PAIRS = 2**18


class Exact(NamedTuple):
    """Numbers of pairs that can be compared.

    Attributes
    ----------
    twice_concordant, comparable
        All of them, and twice those in the right order; equal scores count half.
    events, mixed
        Those whose times share a bin: of two events, and of an event and a censored row.
    """

    twice_concordant: int
    comparable: int
    events: int
    mixed: int


class Binned(NamedTuple):
    """Numbers of pairs of which only the bins are known.

    Attributes
    ----------
    twice_concordant, comparable, tied
        Pairs in different bins of time, which can be compared: twice those in the right order, all, and those that
        share a bin of scores, which count half.
    events, mixed
        Pairs in one bin of time, of two events and of an event and a censored row; it is open which can be compared.
    twice_mixed
        Twice the concordant ones of `mixed`, if they can be.
    """

    twice_concordant: int
    comparable: int
    tied: int
    events: int
    mixed: int
    twice_mixed: int


def exact_pairs(
    time: NDArray[np.float64], event: NDArray[np.bool_], score: NDArray[np.float64], bins: NDArray[np.intp]
) -> Exact:
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
    bins : ndarray of int, shape (n,)
        Bin of each time.

    Returns
    -------
    Exact
        Takes n * events comparisons.

    References
    ----------
    .. [1] Harrell, Lee and Mark (1996), Multivariable prognostic models, Statistics in Medicine 15(4), 361-387.
    """
    first = np.flatnonzero(event)
    counts = np.zeros(4, dtype=np.int64)
    for start in range(0, len(first), _BLOCK):
        block = first[start : start + _BLOCK, None]
        after = (time > time[block]) | ((time == time[block]) & ~event)
        twice = 2 * (after & (score < score[block])).sum() + (after & (score == score[block])).sum()
        together = after & (bins == bins[block])
        counts += (twice, after.sum(), (together & event).sum(), (together & ~event).sum())
    return Exact(*(int(count) for count in counts))


def pairs_of_sites(
    time: NDArray[np.float64],
    event: NDArray[np.bool_],
    score: NDArray[np.float64],
    bins: tuple[NDArray[np.int64], NDArray[np.int64]],
    lengths: Sequence[int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pairs within each of several sites, as `exact_pairs` and `binned_pairs` do of one.

    Parameters
    ----------
    time, event, score
        As for `exact_pairs`, one site's rows after the other's.
    bins
        Of each row's time and score, (n,) each.
    lengths
        The sites' numbers of rows.

    Returns
    -------
    exact, binned
        (sites, 4) and (sites, 6) int64, with the columns of `Exact` and `Binned`.
    """
    sites, (times, scores) = len(lengths), bins
    site = np.repeat(np.arange(sites), lengths)
    starts, rows = (np.cumsum(lengths) - lengths)[site], np.asarray(lengths)[site]
    found = np.zeros((sites, 10), dtype=np.int64)
    events = np.flatnonzero(event)
    # Each event with all rows of its site, so many pairs at a time.
    blocks = np.cumsum(rows[events]) // _PAIRS
    for block in np.split(events, np.flatnonzero(np.diff(blocks)) + 1):
        first = np.repeat(block, rows[block])
        begins = np.cumsum(rows[block]) - rows[block]
        other = np.arange(len(first)) - np.repeat(begins - starts[block], rows[block])
        after = (time[other] > time[first]) | ((time[other] == time[first]) & ~event[other])
        together, later = times[other] == times[first], times[other] > times[first]
        lower, level = scores[other] < scores[first], scores[other] == scores[first]
        mixed = together & ~event[other]
        columns = (
            after * (2 * (score[other] < score[first]) + (score[other] == score[first])), after,
            after & together & event[other], after & mixed,
            later * (2 * lower + level), later, later & level,
            # Of two events each pair once.
            together & event[other] & (other < first), mixed, mixed * (2 * lower + level),
        )  # fmt: skip
        for column, values in enumerate(columns):
            found[:, column] += np.bincount(site[first], values, sites).astype(np.int64)
    return found[:, :4], found[:, 4:]


def binned_pairs(events: NDArray[np.int64], censored: NDArray[np.int64]) -> Binned:
    """Count pairs of rows of which only the bins are known.

    Parameters
    ----------
    events, censored : ndarray of int64, shape (times, scores)
        Rows with and without the event, by bin, earliest and lowest first. At most 10^9 rows, or integers overflow.

    Returns
    -------
    Binned
    """
    rows = events + censored
    later = rows.sum(axis=0) - np.cumsum(rows, axis=0)
    lower = np.cumsum(later, axis=1) - later
    by_time = events.sum(axis=1)
    tied = int((events * later).sum())
    lower_censored = np.cumsum(censored, axis=1) - censored
    return Binned(
        twice_concordant=2 * int((events * lower).sum()) + tied,
        comparable=int((by_time * later.sum(axis=1)).sum()),
        tied=tied,
        events=int((by_time * (by_time - 1) // 2).sum()),
        mixed=int((by_time * censored.sum(axis=1)).sum()),
        twice_mixed=int((events * (2 * lower_censored + censored)).sum()),
    )
