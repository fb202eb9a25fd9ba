"""Exact copies of images, which must not stand in two parts: what was trained on would be tested.

`stack` finds them while it reads; `encoding` keeps them together when it splits, as it does a patient's images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from v6_algorithm.data.splits import Fold
from v6_algorithm.experiment import PARTS

Array = np.ndarray
NONE: Array = np.empty((0, 2), dtype=np.int64)


class CopyFinder:
    """Finds copies among images that are shown to it one after another."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self._pairs: list[tuple[int, int]] = []

    def see(self, row: int, values: Array) -> None:
        """Remember an image, as it was brought to one size; one that is of a single colour is no one's copy."""
        if values.min() == values.max():
            return
        digest = hashlib.sha256(np.ascontiguousarray(values).data).digest()
        first = self._first.setdefault(digest, row)
        if first != row:
            self._pairs.append((row, first))

    @property
    def pairs(self) -> Array:
        """(copies, 2) int64: the row of a copy, and the first row with the same image."""
        return np.asarray(self._pairs, dtype=np.int64).reshape(-1, 2)


def identities(pairs: Array, position: Array) -> Array:
    """Number the images of some rows, given their places in the table, so that copies have one number: (rows,)."""
    numbers = np.arange(max(position.max(initial=-1), pairs.max(initial=-1)) + 1)
    numbers[pairs[:, 0]] = pairs[:, 1]
    same: Array = numbers[position]
    return same


def with_copies_together(groups: Array | None, images: Array) -> Array | None:
    """Make one group of all groups that share an image.

    Parameters
    ----------
    groups
        (rows,) int64, or None where each row is by itself.
    images
        (rows,) of `identities`.

    Returns
    -------
    Array or None
        (rows,) int64; `groups` itself where there are no copies.
    """
    _, images, counts = np.unique(images, return_inverse=True, return_counts=True)
    copied = np.flatnonzero(counts[images] > 1)
    if not len(copied):
        return groups
    codes = np.arange(len(images)) if groups is None else groups
    # Trees of groups, each known by its root.
    above: dict[int, int] = {}
    first: dict[int, int] = {}

    def root(code: int) -> int:
        while (parent := above.get(code, code)) != code:
            above[code] = above.get(parent, parent)
            code = parent
        return code

    for row in copied.tolist():
        code_root = root(int(codes[row]))
        other = root(first.setdefault(int(images[row]), code_root))
        above[max(code_root, other)] = min(code_root, other)
    return np.array([root(code) for code in codes.tolist()], dtype=np.int64)


def count_apart(folds: Iterable[Fold], images: Array, member: Array) -> int:
    """Count the rows that have a copy in another part, in the fold with most of them; copies at one hospital count."""
    most = 0
    for fold in folds:
        parts: Mapping[str, Array] = {part: fold[part] for part in PARTS}
        where: dict[tuple[int, int], set[str]] = {}
        keys = {
            part: list(zip(member[rows].tolist(), images[rows].tolist(), strict=True)) for part, rows in parts.items()
        }
        for part, part_keys in keys.items():
            for key in part_keys:
                where.setdefault(key, set()).add(part)
        most = max(most, sum(len(where[key]) > 1 for part_keys in keys.values() for key in part_keys))
    return most
