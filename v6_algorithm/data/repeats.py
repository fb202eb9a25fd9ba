"""Rows that are in a table twice, and tables that are two sites': both would be trained on and tested with.

Rows are compared by hashes of their numbers and words; columns that count or name rows are passed over, for they make
copies differ.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.rows.numbers import looks_like_identifier

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
_MOST_CELLS = 2_000_000


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


def row_hashes(frame: pd.DataFrame, kinds: Mapping[str, str], hints: Mapping[str, str]) -> RowHashes | None:
    """Hash the rows of a table; None of one in which rows are alike by chance.

    `kinds` and `hints` are those of its columns; see `description`.
    """
    import pandas as pd

    names = [
        name
        for name, kind in kinds.items()
        if kind in ("numeric", "text") and hints.get(name) != "row numbers" and not looks_like_identifier(name)
    ]
    hashes, alike = np.zeros(len(frame), dtype=np.uint64), 1.0
    step = max(_MOST_CELLS // max(len(frame), 1), 1)
    for start in range(0, len(names), step):
        some, block = _block(frame, names[start : start + step], kinds)
        alike *= float(np.prod(_alike(block[:: max(len(block) // _ALIKE_ROWS, 1)])))
        # Each column begins elsewhere, by its name, so that columns may stand in another order.
        starts = pd.util.hash_array(np.array(some, dtype=object))
        hashes += _mixed(block.view(np.uint64) + starts).sum(axis=1, dtype=np.uint64)
    return None if alike > _MOST_ALIKE else RowHashes(hashes, alike)


def _mixed(words: Array) -> Array:
    """Spread the bits of (rows, columns) uint64, as SplitMix64 does (Steele, Lea and Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = words ^ (words >> np.uint64(31))
    return mixed


def _block(frame: pd.DataFrame, names: Sequence[str], kinds: Mapping[str, str]) -> tuple[list[str], Array]:
    """Return columns as (rows, columns) float64, one number for what is empty, and their names in that order."""
    types = dict(zip(frame.columns, frame.dtypes, strict=True))
    # Those that are numbers already are taken out together; of 64 columns that is ten times as fast as one by one.
    plain = [name for name in names if kinds[name] == "numeric" and isinstance(types[name], np.dtype)]
    plain = [name for name in plain if types[name].kind in "biuf"]
    others = [name for name in names if name not in set(plain)]
    parts = [frame.loc[:, plain].to_numpy(dtype=np.float64)] if plain else []
    block = np.column_stack([*parts, *(_numbers(frame[name], kinds[name]) for name in others)])
    # Zero is one number, too.
    return [*plain, *others], np.where(np.isnan(block), _EMPTY, block + 0.0)


def _numbers(column: pd.Series, kind: str) -> Array:
    """Return a column as (rows,) float64, words by their hashes."""
    import pandas as pd

    if kind == "text":
        hashed = pd.util.hash_array(column.astype(str).to_numpy(dtype=object))
        return (hashed >> np.uint64(11)).astype(np.float64)
    values: Array = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return values


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
