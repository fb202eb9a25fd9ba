"""Intervals of shares of rows: accuracy, sensitivity, specificity, precision, and what is made of shares."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

Interval = tuple[float, float]
# The normal distribution's 97.5 % quantile.
Z = 1.959963984540054
# With fewer rows behind a share its interval spans half the scale, and says nothing.
LEAST_ROWS = 5
# With fewer rows of either class, or fewer events, large-sample intervals of rankings miss far too often.
LEAST_EVENTS = 5


def wilson(hits: float, rows: float) -> Interval | None:
    """Wilson's score interval of a binomial share [1]_, which does not collapse at 0 and 1.

    Parameters
    ----------
    hits, rows : float
        The share is hits / rows.

    Returns
    -------
    (float, float) or None
        None of fewer than `LEAST_ROWS` rows.

    References
    ----------
    .. [1] Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22(158), 209-212.
       Recommended by Brown, Cai and DasGupta (2001), Statistical Science 16(2), 101-133.
    """
    if rows < LEAST_ROWS:
        return None
    share, weight = hits / rows, 1 / (1 + Z**2 / rows)
    middle = weight * (share + Z**2 / (2 * rows))
    half = weight * Z * sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    # At the edges the formula is 0 or 1 but for rounding.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == rows else middle + half)


def f1_interval(true_positives: int, false: int) -> Interval | None:
    """Interval of F1 = 2J / (1 + J), where J, the share of true positives among these and all errors, is binomial.

    Parameters
    ----------
    true_positives : int
        Rows of the class that were predicted as it.
    false : int
        Rows of the class that were not, and rows predicted as it that are not of it.
    """
    jaccard = wilson(true_positives, true_positives + false)
    return None if jaccard is None else (2 * jaccard[0] / (1 + jaccard[0]), 2 * jaccard[1] / (1 + jaccard[1]))


def mean_of_shares(hits: Sequence[int], rows: Sequence[int]) -> Interval | None:
    """Interval of the mean of independent shares, such as balanced accuracy, from their own intervals [1]_.

    References
    ----------
    .. [1] Zou and Donner (2008), Construction of confidence limits about effect measures: a general approach,
       Statistics in Medicine 27(10), 1693-1702.
    """
    shares = [hit / total for hit, total in zip(hits, rows, strict=True)]
    intervals = [wilson(hit, total) for hit, total in zip(hits, rows, strict=True)]
    known = [interval for interval in intervals if interval is not None]
    if not known or len(known) < len(intervals):
        return None
    mean = sum(shares) / len(shares)
    below = sqrt(sum((share - low) ** 2 for share, (low, _) in zip(shares, known, strict=True))) / len(shares)
    above = sqrt(sum((high - share) ** 2 for share, (_, high) in zip(shares, known, strict=True))) / len(shares)
    return max(mean - below, 0.0), min(mean + above, 1.0)
