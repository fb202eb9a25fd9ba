"""Quantiles of a federation, from cells of neighbouring rows that each site tells: their rows, mean and lower edge.

The node's smallest cell holds however often it is asked. A site cuts its sorted values in two, and the halves again,
at places that follow from the values and the smallest cell alone: of all numbers that leave enough rows on both sides,
the one with the fewest digits. A request only says where to cut further, so all answers together are cells of one tree
and no difference of two is of fewer rows. `preparing` fills it at the site, the coordinator asks up to three times,
each time about the cells in which the quantiles lie. Fixed bins over a range would put all rows beside an outlier into
one bin; these cells hold rows, not distances.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from v6_algorithm.errors import WireError

Array = np.ndarray
# Rows, mean, lower edge and state of a column's cells, lowest first.
CellColumn = tuple[Array, Array, Array, Array]
# Calls at most: the first cuts all values, later ones the cells in which a quantile lies.
CALLS = 3
# Cells of a column at first, and for each place that is asked about later.
_CELLS = 32
# What a cell's state says: it can be cut further, it cannot, all of its rows have one value.
_OPEN, _DONE, EQUAL = 0, 1, 2
# Bounds closer than this part of the distance between the outermost quantiles are close enough.
_CLOSE = 1e-3
# In estimates the rows of a cell are so many places, evenly spread around their mean.
_PLACES = 16
_SIGN = 1 << 63
_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Cells:
    """The cells of all columns of one site, one after the other.

    `number` (columns,) int64 counts them, `rows` (cells,) int64, `mean` and `low` (cells,) float64 are of each; `low`
    of a column's first cell is 0 and says nothing: a smallest value stays at home. `state` (cells,) int64.
    """

    number: Array
    rows: Array
    mean: Array
    low: Array
    state: Array

    @classmethod
    def of(cls, columns: Iterable[Array], smallest: int, windows: Array | None = None) -> Cells:
        """Cut columns into cells.

        Parameters
        ----------
        columns
            Known values of each, (rows,) float64.
        smallest
            Fewest rows of a cell. A column of fewer rows in all is one cell.
        windows
            (columns, places, 2) float64: where to cut further, from and to. None: everywhere.
        """
        cut = [
            _cut(np.sort(values) + 0.0, smallest, None if windows is None else windows[place])
            for place, values in enumerate(columns)
        ]
        cells = [cell for column in cut for cell in column]
        rows, mean, low, state = zip(*cells, strict=True) if cells else ((), (), (), ())
        return cls(
            np.array([len(column) for column in cut], dtype=np.int64),
            np.array(rows, dtype=np.int64),
            np.array(mean, dtype=np.float64),
            np.array(low, dtype=np.float64),
            np.array(state, dtype=np.int64),
        )

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, for a message."""
        return {"number": self.number, "rows": self.rows, "mean": self.mean, "low": self.low, "state": self.state}

    @classmethod
    def check(cls, arrays: Mapping[str, Array], columns: int) -> Cells:
        """Read what a site sent; raises WireError unless they are cells of so many columns."""
        if set(arrays) != {"number", "rows", "mean", "low", "state"}:
            raise WireError("cells need number, rows, mean, low and state")
        number = arrays["number"]
        whole = all(arrays[name].dtype == np.int64 for name in ("number", "rows", "state"))
        if not whole or number.shape != (columns,) or (number < 0).any():
            raise WireError(f"cells must be counted for each of {columns} columns")
        total = int(number.sum())
        if any(arrays[name].shape != (total,) for name in ("rows", "mean", "low", "state")):
            raise WireError("cells must have rows, mean, lower edge and state each")
        cells = cls(**arrays)
        numbers = np.concatenate([cells.mean, cells.low])
        if not np.isfinite(numbers).all() or (cells.rows < 1).any() or not np.isin(cells.state, (0, 1, 2)).all():
            raise WireError("cells must have rows, and finite numbers")
        for _, mean, low, _ in cells.columns():
            if (np.diff(low[1:]) <= 0).any() or (mean[1:] < low[1:]).any() or (mean[:-1] > low[1:]).any():
                raise WireError("cells must follow each other, each around its mean")
        return cells

    def columns(self) -> list[CellColumn]:
        """Return rows, mean, lower edge and state of the cells of each column."""
        ends = np.cumsum(self.number)[:-1]
        parts = (np.split(array, ends) for array in (self.rows, self.mean, self.low, self.state))
        return list(zip(*parts, strict=True))


def check_windows(windows: Array, columns: int) -> Array:
    """Read where a request asks for further cells; raises WireError for another shape."""
    if windows.ndim != 3 or windows.shape[0] != columns or windows.shape[2] != 2 or windows.shape[1] > _CELLS:
        raise WireError(f"places to cut must be from and to for each of {columns} columns, {_CELLS} at most")
    if windows.dtype != np.float64 or not np.isfinite(windows).all():
        raise WireError("places to cut must be finite numbers")
    return windows


def tree_cells(values: Array, smallest: int, cells: int) -> list[tuple[int, float, float, int]]:
    """Cut sorted values, (rows,), into so many cells at most: (rows, mean, lower edge, state) of each, lowest first."""
    return _cut(values, smallest, None, cells)


def _cut(
    values: Array, smallest: int, windows: Array | None, cells_of_part: int = _CELLS
) -> list[tuple[int, float, float, int]]:
    """Cut sorted values; return (rows, mean, lower edge, state) of each cell."""
    if not len(values):
        return []
    keys = _keys(values)
    wanted = None if windows is None else [(_key(float(low)), _key(float(high))) for low, high in windows]
    most = cells_of_part * (1 if wanted is None else 1 + len(wanted))
    # The fullest cell is cut first. Ends are keys; those of the first and last cell are beyond all.
    waiting = [(-len(keys), 0, len(keys), -1, 2 * _SIGN)]
    cells: list[tuple[int, int, int, int]] = []
    while waiting:
        _, start, stop, low, high = heapq.heappop(waiting)
        edge = _edge(keys[start + smallest - 1], keys[stop - smallest]) if stop - start >= 2 * smallest else None
        near = wanted is None or any(low <= last and first < high for first, last in wanted)
        if edge is None or not near or len(waiting) + len(cells) + 1 >= most:
            state = EQUAL if keys[start] == keys[stop - 1] else _DONE if edge is None else _OPEN
            cells.append((start, stop, low, state))
            continue
        middle = bisect_left(keys, edge, start, stop)
        heapq.heappush(waiting, (start - middle, start, middle, low, edge))
        heapq.heappush(waiting, (middle - stop, middle, stop, edge, high))
    return [
        (
            stop - start,
            float(np.clip(values[start:stop].mean(), values[start], values[stop - 1])),
            _value(low) if low >= 0 else 0.0,
            state,
        )
        for start, stop, low, state in sorted(cells)
    ]


def _edge(low: int, high: int) -> int | None:
    """Return the key of fewest digits above `low` and not above `high`; None where there is none."""
    if low >= high:
        return None
    digits = (low ^ high).bit_length() - 1
    return high >> digits << digits


def _keys(values: Array) -> list[int]:
    """Return whole numbers, 0 to 2^64, in the order of float64 values; halves of them are orders of magnitude first."""
    bits = values.view(np.int64)
    return [(_SIGN + bit) if bit >= 0 else (_SIGN - (bit & (_SIGN - 1))) for bit in bits.tolist()]


def _key(value: float) -> int:
    return _keys(np.array([value + 0.0]))[0]


def _value(key: int) -> float:
    size = abs(key - _SIGN)
    value = float(np.array([size], dtype=np.int64).view(np.float64)[0])
    return value if key >= _SIGN else -value


@dataclass(frozen=True)
class Quantile:
    """One quantile: an estimate within the values' range, and between what it lies for certain; None: not bounded."""

    value: float
    low: float | None
    high: float | None

    @property
    def doubt(self) -> float:
        """How far the true value may be from the estimate; infinite where a bound is not known."""
        if self.low is None or self.high is None:
            return float("inf")
        return max(self.high - self.value, self.value - self.low)


def one_value(rows: int, value: float) -> CellColumn:
    """Return a column of which so many rows have one value, as `Cells.columns` would."""
    if not rows:
        return np.empty(0, dtype=np.int64), np.empty(0), np.empty(0), np.empty(0, dtype=np.int64)
    return np.array([rows]), np.array([value]), np.zeros(1), np.array([EQUAL])


def quantiles(sites: Sequence[CellColumn], shares: Sequence[float]) -> list[Quantile]:
    """Find quantiles of one column over all sites, between the two nearest rows as numpy's default has it.

    Parameters
    ----------
    sites
        Of each, (rows, mean, lower edge, state) of its cells, as `Cells.columns` gives them; one cell at least.
    shares
        Which quantiles, from 0 to 1.
    """
    sites = [cells for cells in sites if len(cells[0])]
    edges, least, most, ends = _bounds(sites)
    where, below = places(sites)
    total = int(sum(rows.sum() for rows, *_ in sites))
    first, last = min(float(mean[0]) for _, mean, *_ in sites), max(float(mean[-1]) for _, mean, *_ in sites)
    estimates = []
    for share in shares:
        position = share * (total - 1)
        # A row is not below an edge that at most as many rows may be below as come before it.
        under = int(np.searchsorted(most, np.floor(position), side="right")) - 1
        over = int(np.searchsorted(least, np.ceil(position) + 1, side="left"))
        low = float(edges[under]) if under >= 0 else None
        high = float(edges[over]) if over < len(edges) else None
        rank = np.floor(position)
        before, after = (
            where[min(int(np.searchsorted(below, row + 0.5)), len(where) - 1)] for row in (rank, np.ceil(position))
        )
        high = ends.get(high, high) if high is not None else None
        value = float(np.clip(before + (position - rank) * (after - before), first, last))
        estimates.append(
            Quantile(float(np.clip(value, low, high)) if (low, high) != (None, None) else value, low, high)
        )
    return estimates


def _bounds(sites: Sequence[CellColumn]) -> tuple[Array, Array, Array, dict[float, float]]:
    """Return all sites' edges, how many rows are below each at least and at most, and which are right above a value.

    Of a cell whose rows have one value, that value and the next larger number are edges.
    """
    known = []
    ends: dict[float, float] = {}
    for rows, mean, low, state in sites:
        until = np.cumsum(rows)
        marks = list(zip(low[1:].tolist(), until[:-1].tolist(), strict=True))
        for place in np.flatnonzero(state == EQUAL).tolist():
            value = float(mean[place])
            above = float(np.nextafter(value, np.inf))
            ends[above] = value
            marks += [(value, int(until[place] - rows[place])), (above, int(until[place]))]
        marks.sort()
        known.append((np.array([edge for edge, _ in marks]), np.array([0, *(n for _, n in marks), int(until[-1])])))
    edges = np.unique(np.concatenate([marked for marked, _ in known]))
    least = np.zeros(len(edges), dtype=np.int64)
    most = np.zeros(len(edges), dtype=np.int64)
    for marked, below in known:
        least += below[np.searchsorted(marked, edges, side="right")]
        most += below[np.searchsorted(marked, edges, side="left") + 1]
    return edges, least, most, ends


def places(sites: Sequence[CellColumn]) -> tuple[Array, Array]:
    """Return where rows are taken to be, in order, and how many are up to each place.

    They are spread evenly around a cell's mean as far as its nearer edge. The outermost cells have one edge only:
    there, rows are no sparser than in the cell beside, for an outlier moves the mean. A site of a single cell tells no
    edge: its rows are at its mean, or as near to that as other sites' rows are.
    """
    values, weights = [], []
    single = [cells for cells in sites if len(cells[0]) == 1]
    for rows, mean, low, state in (cells for cells in sites if len(cells[0]) > 1):
        inner = np.minimum(mean[1:-1] - low[1:-1], low[2:] - mean[1:-1])
        beside = (rows[0] / rows[1] * (mean[1] - low[1]), rows[-1] / rows[-2] * (low[-1] - mean[-2]))
        first, last = min(low[1] - mean[0], beside[0]), min(mean[-1] - low[-1], beside[1])
        reach = np.concatenate([[first], inner, [last]])
        centre = np.concatenate([[low[1] - first], mean[1:-1], [low[-1] + last]])
        same = state == EQUAL
        reach[same], centre[same] = 0.0, mean[same]
        for count, middle, half in zip(rows.tolist(), centre.tolist(), reach.tolist(), strict=True):
            number = 1 if half == 0 else min(count, _PLACES)
            values.append(middle + half * ((2 * np.arange(number) + 1) / number - 1))
            weights.append(np.full(number, count / number))
    ends = (min(part[0] for part in values), max(part[-1] for part in values)) if values else (-np.inf, np.inf)
    for rows, mean, _, state in single:
        values.append(mean if state[0] == EQUAL else np.clip(mean, *ends))
        weights.append(rows.astype(np.float64))
    every, weight = np.concatenate(values), np.concatenate(weights)
    order = np.argsort(every, kind="stable")
    return every[order], np.cumsum(weight[order])


def next_windows(sites: Sequence[Sequence[CellColumn]], shares: Sequence[float]) -> tuple[Array, bool]:
    """Return where the next call should cut, (columns, shares, 2), and whether any site could tell something closer.

    `sites` has for each site its columns' cells.
    """
    windows = np.zeros((len(sites[0]), len(shares), 2))
    wanted = False
    for place, cells in enumerate(zip(*sites, strict=True)):
        if not any(len(rows) for rows, *_ in cells):
            continue
        estimates = quantiles(cells, shares)
        low = np.array([-_LARGEST if estimate.low is None else estimate.low for estimate in estimates])
        high = np.array([_LARGEST if estimate.high is None else estimate.high for estimate in estimates])
        windows[place] = np.stack([low, high], axis=1)
        spread = estimates[-1].value - estimates[0].value
        apart = [span for span in windows[place].tolist() if span[1] / 2 - span[0] / 2 > _CLOSE / 2 * spread]
        wanted |= any(_open(column, span) for column in cells for span in apart)
    return windows, wanted


def _open(cells: CellColumn, span: Sequence[float]) -> bool:
    """Say whether a cell between two values can be cut further."""
    rows, _, low, state = cells
    if not len(rows):
        return False
    starts = np.concatenate([[-np.inf], low[1:]])
    stops = np.concatenate([low[1:], [np.inf]])
    return bool(((state == _OPEN) & (starts <= span[1]) & (span[0] < stops)).any())
