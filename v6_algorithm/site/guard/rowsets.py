"""Which rows an answer is about: how many sums of them are independent, and whether two answers differ in few rows.

A set is kept as one bit a row of the hospital's table: no value, no identifier. Called by the guard.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.errors import PolicyError
from v6_algorithm.site.guard.order import digest

if TYPE_CHECKING:
    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.data.table import TableData
    from v6_algorithm.experiment import Experiment

Array = np.ndarray
# Distinct sets kept of one database; of more, only new ones of other names are answered.
_MOST_SETS = 20_000


def independent_sums(experiment: Experiment, table: TableData) -> int:
    """Count the sums over rows that a split and its groups tell and none of which follows from the others.

    Of k folds, repeated r times, the parts of one repeat add up to all rows: k + (r - 1)(k - 1).
    """
    split = experiment.split
    if split.kind == "kfold":
        folds = split.folds + (split.repeats - 1) * (split.folds - 1)
    else:
        parts = [fold[part] for fold in table.folds for part in ("train", "validation", "test") if len(fold[part])]
        folds = len({part.tobytes() for part in parts})
    return folds + 2 * sum(len(names) for names in table.group_names)


def sets_of(table: TableData, setup: Setup, experiment: Experiment) -> dict[str, Array]:
    """Name the sets of rows that answers about a table are sums over: with a value, with a label, of a group."""
    sets: dict[str, Array] = {}
    for number, member in enumerate(table.members):
        member_rows = np.flatnonzero(table.member == number)
        place = table.origin[member_rows] if len(table.origin) else member_rows
        where = f"{member}: " if len(table.members) > 1 else ""
        sets[f"{where}the rows"] = place
        target = table.target[member_rows]
        name = "', '".join(experiment.data.target_columns.values())
        if np.issubdtype(target.dtype, np.integer):
            labels = setup.classes or []
            for code in np.unique(target).tolist():
                label = code if code >= len(labels) else labels[code]
                sets[f"{where}label {digest(str(label))[:8]} of column '{name}'"] = place[target == code]
        if table.values.ndim == 2:
            empty = np.isnan(table.values[member_rows])
            for column in np.flatnonzero(empty.any(axis=0)).tolist():
                sets[f"{where}column '{setup.features[column]}'"] = place[~empty[:, column]]
            for column in np.flatnonzero(~empty.any(axis=0)).tolist():
                sets[f"{where}column '{setup.features[column]}'"] = place
        for column, names in enumerate(table.group_names):
            for code in range(len(names)):
                sets[f"{where}a group of {experiment.evaluation.columns[column]} #{code}"] = place[
                    table.groups[member_rows, column] == code
                ]
    return sets


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
