"""Shares of rows as whole numbers of rows, drawn so that each is right in the mean; `splits` deals rare classes so."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
# Shares times counts that are whole but for rounding are meant as that: of 100 million rows rounding is some 1e-8.
_WHOLE = 1e-6


def rounded(wanted: Array, generator: np.random.Generator) -> Array:
    """Round a table of counts at random, so that the mean of each cell over many draws is what was wanted [1]_.

    Each cell, and the sum of each row and column, is rounded to one of the two whole numbers next to it; whole ones
    stay. As long as a cell is between two whole numbers, a cycle of such cells, in turn along a row and a column, is
    raised and lowered by the same amount until one of them is whole, up or down with the chances that keep the mean.

    Parameters
    ----------
    wanted : ndarray of float64, shape (rows, columns)
        Counts >= 0. Sums of rows are whole numbers.
    generator
        The only source of randomness.

    Returns
    -------
    ndarray of int64, shape (rows, columns)

    References
    ----------
    .. [1] Cox (1987), A constructive procedure for unbiased controlled rounding, JASA 82(398), 520-524.
    """
    # A row that makes the sums of columns whole: then whatever is between whole numbers has such a neighbour, too.
    sums = wanted.sum(axis=0)
    table = np.vstack([wanted, np.ceil(sums - _WHOLE) - sums])
    left = table - np.floor(table + _WHOLE)
    left[left < _WHOLE] = 0.0
    whole = np.rint(table - left).astype(np.int64)
    while left.any():
        cycle = _cycle(left > 0)
        rows, columns = np.array(cycle[::2]), np.array(cycle[1::2])
        raised, lowered = left[rows, columns], left[np.roll(rows, -1), columns]
        up = min(float((1 - raised).min()), float(lowered.min()))
        down = min(float(raised.min()), float((1 - lowered).min()))
        moved = up if generator.random() < down / (up + down) else -down
        left[rows, columns] += moved
        left[np.roll(rows, -1), columns] -= moved
        full = left > 1 - _WHOLE
        whole[full] += 1
        left[full | (left < _WHOLE)] = 0.0
    return whole[:-1]


def _cycle(cells: Array) -> list[int]:
    """Return a cycle of cells: row, column, row, column, …, each with the next, and the last with the first.

    Every row and column with a cell has another one, so that a walk comes back to where it has been.
    """
    path = [int(cells.any(axis=1).argmax())]
    before = -1
    while True:
        lines = cells[path[-1]] if len(path) % 2 else cells[:, path[-1]]
        nexts = np.flatnonzero(lines)
        following = int(nexts[0] if nexts[0] != before else nexts[1])
        # Rows stand at even places, columns at odd ones.
        seen = path[len(path) % 2 :: 2]
        if following in seen:
            start = len(path) % 2 + 2 * seen.index(following)
            cycle = path[start:]
            # Beginning with a row.
            return cycle if start % 2 == 0 else cycle[1:] + cycle[:1]
        before = path[-1]
        path.append(following)
