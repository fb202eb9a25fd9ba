"""The least and the greatest C-index that rows may have of which sites told joined cells of time and score.

A site whose owner wants cells of several rows joins bins of time and then, within each, bins of score
(`site.guard.coarse_survival`); a joined bin stands where its rows are on average. Joined bins follow each other: a row
of one is in a later bin than the joined bin before it, and an earlier than the one after. `state` asks here, once for
all sites' cells together and once for each site's, which takes away the pairs within a site: those are counted by rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS

_Ends = NDArray[np.int64]
# A site's cells, as its state lists them, and whether they are joined.
Part = tuple[Sequence[Sequence[int]], bool]


def between_sites(parts: Sequence[Part], times: int) -> tuple[int, int, int, int]:
    """Count pairs of rows of different sites, of which one has an event and may be seen first.

    Parameters
    ----------
    parts
        What each site told.
    times
        Bins of time.

    Returns
    -------
    tuple of int
        Pairs that may be concordant; that cannot be, though they are surely comparable; that may be discordant; and
        that cannot be, though they are surely comparable. Two events whose order is open count in either order.
    """
    sites = [_ends(*part) for part in parts]
    whole = _count(np.concatenate(sites), times)
    within = [_count(site, times) for site in sites]
    return tuple(int(total - sum(counts)) for total, *counts in zip(whole, *within, strict=True))  # type: ignore[return-value]


def _ends(cells: Sequence[Sequence[int]], joined: bool) -> _Ends:
    """Return (cells, 6): first and last bin of time, of score, rows with the event, and all rows."""
    array = np.asarray(cells, dtype=np.int64).reshape(-1, 4)
    time, score, rows = array[:, 0], array[:, 1], array[:, 2] + array[:, 3]
    ends = np.column_stack([time, time, score, score, array[:, 2], rows])
    if not joined or not len(array):
        return ends
    places, number = np.unique(time, return_inverse=True)
    # No bin is beyond these: what has no neighbour may reach to the end.
    before, after = np.concatenate([[-1], places[:-1]]), np.concatenate([places[1:], [np.iinfo(np.int64).max]])
    ends[:, 0], ends[:, 1] = before[number] + 1, after[number] - 1
    # Cells are in order of time and then of score.
    same = np.diff(time) == 0
    ends[1:, 2] = np.where(same, score[:-1] + 1, 0)
    ends[:1, 2] = 0
    ends[:-1, 3] = np.where(same, score[1:] - 1, SCORE_BINS - 1)
    ends[-1:, 3] = SCORE_BINS - 1
    return ends


def _count(ends: _Ends, times: int) -> tuple[int, int, int, int]:
    first, last, low, high, events, rows = ends.T
    last = np.minimum(last, times - 1)

    def pairs(time: _Ends, score: _Ends, at_least: _Ends, others: _Ends, *, above: bool) -> int:
        """Add up, over events, the rows at `time` from `at_least` on whose score is not over `others`, or not below."""
        table = np.zeros((times + 1, SCORE_BINS), dtype=np.int64)
        np.add.at(table, (time, score), rows)
        table = np.cumsum(table[::-1], axis=0)[::-1]
        table = np.cumsum(table[:, ::-1], axis=1)[:, ::-1] if above else np.cumsum(table, axis=1)
        inside = (others >= 0) & (others < SCORE_BINS)
        return int((events * table[at_least, np.clip(others, 0, SCORE_BINS - 1)])[inside].sum())

    return (
        pairs(last, low, first, high, above=False),
        pairs(first, low, last + 1, high + 1, above=True),
        pairs(last, high, first, low, above=True),
        pairs(first, high, last + 1, low - 1, above=False),
    )
