"""The least and the greatest C-index that rows may have of which sites told joined cells of time and score.

A site whose owner wants cells of several rows joins bins of time and then, within each, bins of score
(`site.guard.coarse_survival`); a joined bin stands where its rows are on average. Joined bins follow each other: a row
of one is in a later bin than the joined bin before it, and an earlier than the one after. `state` asks here, once for
all sites' cells together and once for each site's, which takes away the pairs within a site: those are counted by rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.checks import require_count, require_counts
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS

_Ends = NDArray[np.int64]
# (tables, times, scores) rows.
Tables = NDArray[np.int64]
# A site's cells, as its state lists them, and whether they are joined; or, of several sites that secure aggregation
# added up, how many cells they joined (`listed`), the pairs `within` them, and the `cells` of their `tables_of`.
Part = tuple[Sequence[Sequence[int]], bool] | Mapping[str, Any]
# Where a cell's rows may be at the earliest or latest, with the lowest or highest score.
_CORNERS = [(0, 2), (0, 3), (1, 2), (1, 3)]
TABLES = 2 * len(_CORNERS)


def between_sites(parts: Sequence[Part], times: int) -> tuple[int, int, int, int]:
    """Count pairs of rows of different sites, of which one has an event and may be seen first.

    Parameters
    ----------
    parts
        What each site told, or several together.
    times
        Bins of time.

    Returns
    -------
    tuple of int
        Pairs that may be concordant; that cannot be, though they are surely comparable; that may be discordant; and
        that cannot be, though they are surely comparable. Two events whose order is open count in either order.
    """
    whole = np.zeros((TABLES, times, SCORE_BINS), dtype=np.int64)
    within: list[Sequence[int]] = []
    for part in parts:
        if isinstance(part, Mapping):
            cells = np.array(part["cells"], dtype=np.int64).reshape(-1, 2 + TABLES)
            whole[:, cells[:, 0], cells[:, 1]] += cells[:, 2:].T
            within.append(part["within"])
        else:
            tables = tables_of(part, times)
            whole += tables
            within.append(pairs_in(tables))
    between = zip(pairs_in(whole), *within, strict=True)
    return tuple(int(total - sum(counts)) for total, *counts in between)  # type: ignore[return-value]


def listed(parts: Sequence[Part]) -> int:
    """Count the joined cells of all sites."""
    return sum(int(part["listed"]) if isinstance(part, Mapping) else len(part[0]) if part[1] else 0 for part in parts)


def tables_of(part: tuple[Sequence[Sequence[int]], bool], times: int) -> Tables:
    """Return where the rows of one site may be: (tables, times, scores) rows at each corner, then those with events."""
    ends = _ends(*part)
    ends[:, :2] = np.minimum(ends[:, :2], times - 1)
    tables = np.zeros((2, len(_CORNERS), times, SCORE_BINS), dtype=np.int64)
    for number, (time, score) in enumerate(_CORNERS):
        for kind, column in enumerate((5, 4)):
            np.add.at(tables[kind, number], (ends[:, time], ends[:, score]), ends[:, column])
    return tables.reshape(TABLES, times, SCORE_BINS)


def own_tables(cells: Sequence[Sequence[int]], times: int) -> Tables:
    """Return the rows of listed cells, (2, times, scores): with the event and without."""
    array = np.asarray(cells, dtype=np.int64).reshape(-1, 4)
    tables = np.zeros((2, times, SCORE_BINS), dtype=np.int64)
    tables[:, array[:, 0], array[:, 1]] = array[:, 2:].T
    return tables


def listed_cells(tables: Tables) -> list[list[int]]:
    """Return bin of time, bin of score and the rows in each table, of cells in which any table has rows."""
    filled = np.argwhere(tables.any(axis=0))
    return np.column_stack([filled, tables[:, filled[:, 0], filled[:, 1]].T]).tolist()


def check_ends(ends: Any, events: int, rows: int, times: int) -> None:
    """Refuse anything but what several sites told together; see `Part`."""
    if not isinstance(ends, dict) or set(ends) != {"listed", "within", "cells"} or not isinstance(ends["cells"], list):
        raise ValueError("ends of the metric state must have listed, within and a list of cells")
    require_count(ends["listed"], "listed")
    require_counts(ends["cells"], len(ends["cells"]), 2 + TABLES, "cells of ends")
    places = [(time, score) for time, score, *_ in ends["cells"]]
    if any(time >= times or score >= SCORE_BINS for time, score in places) or sorted(set(places)) != places:
        raise ValueError("cells of ends of the metric state must be of bins that there are, in order, each once")
    sums = [sum(counts) for counts in zip(*ends["cells"], strict=True)][2:] or [0] * TABLES
    if sums != [rows] * len(_CORNERS) + [events] * len(_CORNERS):
        raise ValueError("ends of the metric state must count the same rows as its cells")
    within = ends["within"]
    if not isinstance(within, list) or len(within) != 4 or not all(type(count) is int for count in within):
        raise ValueError("within of the metric state must be four numbers of pairs")
    tables = np.zeros((TABLES, times, SCORE_BINS), dtype=np.int64)
    cells = np.array(ends["cells"], dtype=np.int64).reshape(-1, 2 + TABLES)
    tables[:, cells[:, 0], cells[:, 1]] = cells[:, 2:].T
    if any(not 0 <= own <= whole for own, whole in zip(within, pairs_in(tables), strict=True)):
        raise ValueError("within of the metric state must be among the pairs of its cells")


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


def pairs_in(tables: Tables) -> tuple[int, int, int, int]:
    """Count the pairs of all rows of `tables_of`, as `between_sites` does of rows of different sites."""
    rows, events = (dict(zip(_CORNERS, half, strict=True)) for half in np.split(tables, 2))

    def pairs(others: NDArray[np.int64], own: NDArray[np.int64], *, above: bool, apart: bool) -> int:
        """Add up, over events, the rows from their time on whose score is not below, or not above; or beyond both."""
        reached = np.cumsum(others[::-1], axis=0)[::-1]
        reached = np.cumsum(reached[:, ::-1], axis=1)[:, ::-1] if above else np.cumsum(reached, axis=1)
        if not apart:
            return int((own * reached).sum())
        return int((own[:-1, :-1] * reached[1:, 1:]).sum() if above else (own[:-1, 1:] * reached[1:, :-1]).sum())

    first_low, first_high, last_low, last_high = _CORNERS
    return (
        pairs(rows[last_low], events[first_high], above=False, apart=False),
        pairs(rows[first_low], events[last_high], above=True, apart=True),
        pairs(rows[last_high], events[first_low], above=True, apart=False),
        pairs(rows[first_high], events[last_low], above=False, apart=True),
    )
