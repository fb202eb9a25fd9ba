"""Rows that are in a table twice, and tables that are two sites': both would be trained on and tested with.

Rows are compared by hashes of their numbers and words; columns that count or name rows are passed over, for they make
copies differ.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.rows.numbers import looks_like_identifier

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# As many rows as no two patients have alike by chance: of a column with so many different values among the rows that
# differ, and so large a share of all.
_DIFFERENT, _SHARE, _FEWEST = 0.5, 0.02, 3
# 64 bits, as of a group.
_DIGITS = 16


def row_hashes(frame: pd.DataFrame, kinds: Mapping[str, str], hints: Mapping[str, str]) -> Array | None:
    """Return a hash of each row, (rows,) uint64; None of a table in which nothing tells rows apart.

    `kinds` and `hints` are those of its columns; see `description`.
    """
    import pandas as pd

    names = [
        name
        for name, kind in kinds.items()
        if kind in ("numeric", "text") and hints.get(name) != "row numbers" and not looks_like_identifier(name)
    ]
    columns = {
        name: pd.to_numeric(frame[name], errors="coerce").astype(float)
        if kinds[name] == "numeric"
        else frame[name].astype(str)
        for name in names
    }
    if not columns:
        return None
    hashes: Array = pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy()
    most = max((column.nunique() for name, column in columns.items() if kinds[name] == "numeric"), default=0)
    return hashes if most > _DIFFERENT * len(np.unique(hashes)) else None


def repeated_rows(hashes: Array) -> int:
    """Count the rows that are copies of others; 0 of so few that they are hardly a mistake."""
    repeated = len(hashes) - len(np.unique(hashes))
    return repeated if repeated >= max(_FEWEST, _SHARE * len(hashes)) else 0


def table_hash(hashes: Array, key: bytes) -> str:
    """Return a keyed hash of a table's rows in any order, 16 hexadecimal digits."""
    return hmac.new(key, np.sort(hashes).tobytes(), hashlib.sha256).hexdigest()[:_DIGITS]
