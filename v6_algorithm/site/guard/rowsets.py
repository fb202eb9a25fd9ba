"""Which rows an answer is about, as far as two answers may differ in few; kept as bits by place in the table.

A set is one bit a row of the hospital's table: no value, no identifier. Called by the guard.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from v6_algorithm.errors import PolicyError

Array = np.ndarray
# Distinct sets kept of one database; of more, only new ones of other names are answered.
_MOST_SETS = 20_000


def check_differences(kept: dict[str, Any], key: str, sets: Mapping[str, Array], smallest: int, variable: str) -> None:
    """Refuse sets of rows that differ from earlier ones of the same name by few rows, and keep those that are new.

    Parameters
    ----------
    kept
        The ledger's part for this database: ``bits`` by hash, and ``named``: name to {hash: key of the experiment}.
    key
        Of the experiment: its own sets are not compared with each other.
    sets
        Name of what is summed to (rows,) numbers of the rows in the hospital's table.
    smallest
        Fewest rows that two answers may differ in, unless they are about the same.
    variable
        The rule's, for the message.

    Raises
    ------
    PolicyError
        Naming the column or label, never how many rows.
    """
    bits, named = kept.setdefault("bits", {}), kept.setdefault("named", {})
    for name, rows in sets.items():
        packed = _pack(rows)
        row_hash = hashlib.sha256(packed).hexdigest()[:32]
        others: dict[str, str] = named.setdefault(name, {})
        if row_hash in others:
            continue
        for other, of in others.items():
            if of != key and 0 < _difference(packed, base64.b64decode(bits[other])) < smallest:
                raise PolicyError(
                    f"what is asked of {name} differs from an earlier answer of this node by few rows; that difference "
                    f"would tell of them ({variable})"
                )
        if row_hash not in bits:
            if len(bits) >= _MOST_SETS:
                raise PolicyError("this node's ledger is full: it has answered about too many sets of rows")
            bits[row_hash] = base64.b64encode(packed).decode()
        others[row_hash] = key


def _pack(rows: Array) -> bytes:
    numbers = np.asarray(rows, dtype=np.int64)
    field = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=bool)
    field[numbers] = True
    return zlib.compress(np.packbits(field).tobytes())


def _difference(left: bytes, right: bytes) -> int:
    """Count the rows that are in one of two sets only."""
    fields = [np.unpackbits(np.frombuffer(zlib.decompress(packed), dtype=np.uint8)) for packed in (left, right)]
    length = max(map(len, fields))
    first, second = (np.pad(field, (0, length - len(field))) for field in fields)
    return int((first != second).sum())
