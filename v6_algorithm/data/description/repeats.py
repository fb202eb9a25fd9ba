"""Rows that are in a table twice, and tables that are two sites': both would be trained on and tested with.

Rows are compared by hashes of their numbers and words; columns that count or name rows are passed over, for they make
copies differ.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.identifiers import looks_like_identifier

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# So many rows, and so large a share of all, that are alike, and so many times as many as would be by chance.
_FEWEST, _SHARE, _TIMES_CHANCE = 3, 0.02, 10.0
# Of tables in which more pairs of rows are alike by chance nothing is compared.
_MOST_ALIKE = 0.01
# 64 bits, as of a group.
_DIGITS = 16
# Of longer tables so many rows, evenly spread, say how often two are alike by chance.
_ALIKE_ROWS = 10_000
# A number that no table holds.
_EMPTY = -1.0715e301
# Cells that a processor's cache holds.
_CACHED_CELLS = 32_768


@dataclass(frozen=True)
class RowHashes:
    """A hash of each row, (rows,) uint64, and how likely two rows are alike where columns are independent."""

    hashes: Array
    alike: float

    def repeated(self) -> int:
        """Count the rows that are copies of others; 0 of so few that they are hardly a mistake."""
        rows = len(self.hashes)
        ordered = np.sort(self.hashes)
        repeated = int((ordered[1:] == ordered[:-1]).sum())
        by_chance = self.alike * rows * (rows - 1) / 2
        return repeated if repeated >= max(_FEWEST, _SHARE * rows, _TIMES_CHANCE * by_chance) else 0

    def of_table(self, key: bytes) -> str:
        """Return a keyed hash of the rows in any order, 16 hexadecimal digits."""
        return hmac.new(key, np.sort(self.hashes).tobytes(), hashlib.sha256).hexdigest()[:_DIGITS]


def row_hashes(
    frame: pd.DataFrame, kinds: Mapping[str, str], hints: Mapping[str, str], columns: TableColumns | None = None
) -> RowHashes | None:
    """Hash the rows of a table; None of one in which rows are alike by chance.

    `kinds` and `hints` are those of its columns, see `description`, and `columns` the table's, where somebody else asks
    of them as well.
    """
    import pandas as pd

    columns = columns or TableColumns(frame)
    names = [
        name
        for name, kind in kinds.items()
        if kind in ("numeric", "text")
        and hints.get(name) != "row numbers"
        and (hints.get(name) == "measured" or not looks_like_identifier(name))
    ]
    numeric = [name for name in names if kinds[name] == "numeric"]
    words = (([name], _words(columns, name)[:, None]) for name in names if kinds[name] == "text")
    hashes, alike = np.zeros(len(frame), dtype=np.uint64), 1.0
    for some, block in chain(columns.blocks(numeric), words):
        alike *= float(np.prod(_alike(_cells(block[:: max(len(block) // _ALIKE_ROWS, 1)]))))
        # Each column begins elsewhere, by its name, so that columns may stand in another order.
        starts = pd.util.hash_array(np.array(some, dtype=object), categorize=False)
        step = max(_CACHED_CELLS // len(some), 1)
        for start in range(0, len(block), step):
            rows = slice(start, start + step)
            cells = _cells(block[rows]).view(np.uint64)
            cells += starts
            hashes[rows] += _mixed(cells).sum(axis=1, dtype=np.uint64)
    return None if alike > _MOST_ALIKE else RowHashes(hashes, alike)


def _mixed(words: Array) -> Array:
    """Spread the bits of (rows, columns) uint64 in their place, as SplitMix64 does (Steele, Lea and Flood 2014)."""
    shifted = np.empty_like(words)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.right_shift(words, np.uint64(shift), out=shifted)
        words ^= shifted
        words *= np.uint64(factor)
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted
    return words


def _cells(block: Array) -> Array:
    """Return a copy of (rows, columns) float64 with one number for what is empty; zero is one number, too."""
    cells = block + 0.0
    if (empty := np.isnan(cells)).any():
        np.copyto(cells, _EMPTY, where=empty)
    return cells


def _words(columns: TableColumns, name: str) -> Array:
    """Return the words of a column by their hashes, (rows,) float64."""
    import pandas as pd

    if (texts := columns.texts_of(name)) is None:
        hashed = pd.util.hash_array(columns.frame[name].astype(str).to_numpy(dtype=object))
    else:
        # The last is of empty cells, as pandas has it.
        distinct = pd.util.hash_array(np.array(texts.values, dtype=object), categorize=False)
        hashed = np.append(distinct, np.uint64(np.iinfo(np.uint64).max))[texts.code]
    return (hashed >> np.uint64(11)).astype(np.float64)


def _alike(block: Array) -> Array:
    """Return for each column, of (rows, columns), how likely two rows have the same number."""
    ordered = np.sort(block, axis=0)
    place = np.arange(len(block))[:, None]
    first = np.ones(block.shape, dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    # Of equal numbers each makes a pair with those before it.
    pairs = (place - np.maximum.accumulate(np.where(first, place, 0), axis=0)).sum(axis=0)
    share: Array = 2 * pairs / len(block) ** 2 + 1 / len(block)
    return share
