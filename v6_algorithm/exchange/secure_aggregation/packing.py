"""Several counts in one number of a masked sum: a sum has 191 bits, and a count of rows needs 31 of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.secure_aggregation.fixed_point import PLACES

_BITS = 31
# Counts in one number, and rows that the sum over all sites may come to.
MOST_COUNTS = 6
MOST_ROWS = 2**_BITS - 1


def pack(counts: np.ndarray) -> list[Fraction]:
    """Write (tables, n) counts, whose sums over all sites stay at or below `MOST_ROWS`, as n numbers that add up."""
    total = np.zeros(counts.shape[1], dtype=object)
    for table in counts[::-1]:
        total = (total << _BITS) + table.astype(object)
    return [Fraction(int(number), 1 << PLACES) for number in total]


def unpack(numbers: Sequence[Any], tables: int) -> np.ndarray:
    """Return (tables, n) int64 from sums of numbers that `pack` wrote.

    Raises
    ------
    WireError
        When a number is no sum of so many counts.
    """
    wholes = [Fraction(number) * (1 << PLACES) for number in numbers]
    if any(whole.denominator != 1 or not 0 <= whole < 1 << (_BITS * tables) for whole in wholes):
        raise WireError("a sum of counts is none")
    left = np.array([int(whole) for whole in wholes], dtype=object)
    counts = np.zeros((tables, len(wholes)), dtype=np.int64)
    for table in range(tables):
        counts[table] = left & MOST_ROWS
        left = left >> _BITS
    return counts
