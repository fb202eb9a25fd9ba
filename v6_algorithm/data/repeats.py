"""Rows that are in a table twice, and tables that are two sites': both would be trained on and tested with.

Rows are compared by hashes of their numbers and words; columns that count or name rows are passed over, for they make
copies differ.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
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


@dataclass(frozen=True)
class RowHashes:
    """A hash of each row, (rows,) uint64, and how likely two rows are alike where columns are independent."""

    hashes: Array
    alike: float

    def repeated(self) -> int:
        """Count the rows that are copies of others; 0 of so few that they are hardly a mistake."""
        rows = len(self.hashes)
        repeated = rows - len(np.unique(self.hashes))
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

    columns, alike = {}, 1.0
    for name, kind in kinds.items():
        if kind not in ("numeric", "text") or hints.get(name) == "row numbers" or looks_like_identifier(name):
            continue
        column = frame[name]
        numeric = kind == "numeric"
        columns[name] = pd.to_numeric(column, errors="coerce").astype(float) if numeric else column.astype(str)
        shares = columns[name].value_counts(dropna=False, normalize=True).to_numpy()
        alike *= float((shares**2).sum())
    if alike > _MOST_ALIKE:
        return None
    return RowHashes(pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy(), alike)
