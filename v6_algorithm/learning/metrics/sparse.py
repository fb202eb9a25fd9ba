"""Score histograms as a state tells them: of each scored class the bins that hold rows, and how many they hold.

A site's rows fill few of the bins, so this costs what the rows cost, on the wire and in every sum. The collector writes
the form, `classification_state` checks it, adds it up and computes from it; the guard and secure aggregation, which
must see all bins, turn it into a table and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.checks import LARGEST_COUNT

# One class's histogram: bins that hold rows, in rising order, and the rows of each.
Histogram = dict[str, list[int]]
# Number of the class times the number of bins, plus that of the bin; and rows.
Flat = tuple[NDArray[np.int64], NDArray[Any]]
_KEYS = {"bins", "rows"}
# Sums below this are exact in int64, and so are products with a handful of other counts.
SMALL = 2**62
# Rows that wait to be counted.
_MOST_WAITING = 2**20


class Counted(list[Histogram]):
    """Histograms made here, with the arrays that they were made of: whoever adds up need not read the lists again.

    Nobody changes either.
    """

    __slots__ = ("flat",)

    def __init__(self, histograms: Sequence[Histogram], flat: Flat) -> None:
        super().__init__(histograms)
        self.flat = flat


class Tally:
    """Rows counted as they come, by class and bin."""

    def __init__(self, classes: int, bins: int) -> None:
        self._shape = classes, bins
        self._waiting: list[NDArray[np.int64]] = []
        self._counted: Flat = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def add(self, keys: NDArray[np.int64]) -> None:
        """Count rows: (rows,) of class * bins + bin, in any order."""
        self._waiting.append(keys)
        if sum(map(len, self._waiting)) > _MOST_WAITING:
            self._counted = self._all()
            self._waiting = []

    def histograms(self) -> list[Histogram]:
        """Return what was counted."""
        return from_flat(self._all(), *self._shape)

    def _all(self) -> Flat:
        if not self._waiting:
            return self._counted
        fresh = np.unique(np.concatenate(self._waiting), return_counts=True)
        return fresh if not len(self._counted[0]) else summed([self._counted, fresh])


def from_keys(keys: NDArray[np.int64], classes: int, bins: int) -> list[Histogram]:
    """Count rows: (rows,) of class * bins + bin, in any order."""
    return from_flat(np.unique(keys, return_counts=True), classes, bins)


def from_flat(flat: Flat, classes: int, bins: int) -> list[Histogram]:
    """Return the form from sorted keys and their rows, none of them 0."""
    keys, rows = flat
    ends = np.searchsorted(keys, np.arange(1, classes + 1) * bins).tolist()
    places, counts = (keys % bins).tolist(), rows.tolist()
    listed = [
        {"bins": places[start:end], "rows": counts[start:end]} for start, end in zip([0, *ends], ends, strict=False)
    ]
    return Counted(listed, flat) if rows.dtype == np.int64 else listed


def from_table(table: NDArray[Any]) -> list[Histogram]:
    """Return the form of a table, (classes, bins)."""
    counts = table.ravel()
    filled = np.flatnonzero(counts)
    return from_flat((filled, counts[filled]), *table.shape)


def from_lists(table: Sequence[Sequence[int]]) -> list[Histogram]:
    """Return the form of a table of any whole numbers, whether they are counts or not: `check` looks at them."""
    return [
        {"bins": [place for place, count in enumerate(row) if count], "rows": [count for count in row if count]}
        for row in table
    ]


def flat(histograms: Sequence[Histogram], bins: int) -> Flat:
    """Return keys and rows of checked histograms."""
    return histograms.flat if isinstance(histograms, Counted) else _read(histograms, bins)


def _read(histograms: Sequence[Histogram], bins: int) -> Flat:
    lengths = [len(histogram["bins"]) for histogram in histograms]
    total = sum(lengths)
    places = np.fromiter(chain.from_iterable(each["bins"] for each in histograms), dtype=np.int64, count=total)
    rows = np.fromiter(chain.from_iterable(each["rows"] for each in histograms), dtype=np.int64, count=total)
    return places + np.repeat(np.arange(len(histograms)) * bins, lengths), rows


def table(histograms: Sequence[Histogram], bins: int) -> NDArray[np.int64]:
    """Return checked histograms with all their bins, (classes, bins)."""
    keys, rows = flat(histograms, bins)
    counts = np.zeros(len(histograms) * bins, dtype=np.int64)
    counts[keys] = rows
    return counts.reshape(len(histograms), bins)


def summed(parts: Sequence[Flat], rows: int = 0) -> Flat:
    """Add up checked histograms, of `rows` rows in all: in Python's integers where these are too many for int64."""
    keys, place = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), dtype=np.int64 if rows < SMALL else object)
    np.add.at(counts, place, np.concatenate([count for _, count in parts]))
    return keys, counts


def paired(positives: Histogram, negatives: Histogram) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Return the bins that hold rows of either, in rising order, with the positives and the negatives in each."""
    each = [
        (np.array(histogram["bins"], dtype=np.int64), np.array(histogram["rows"]))
        for histogram in (positives, negatives)
    ]
    places = np.union1d(each[0][0], each[1][0])
    counts = []
    for bins, rows in each:
        whole = np.zeros(len(places), dtype=rows.dtype if len(rows) else np.int64)
        whole[np.searchsorted(places, bins)] = rows
        counts.append(whole)
    return places, counts[0], counts[1]


def all_paired(
    positives: Sequence[Histogram], negatives: Sequence[Histogram], bins: int
) -> list[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
    """Return what `paired` does for each class, of fewer than `SMALL` rows, made for all of them at once."""
    return flat_paired(flat(positives, bins), flat(negatives, bins), len(positives), bins)


def flat_paired(
    positives: Flat, negatives: Flat, classes: int, bins: int
) -> list[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
    """Return what `all_paired` does, from sorted keys and their rows."""
    keys, counts = counted(positives, negatives)
    ends = np.searchsorted(keys, np.arange(classes + 1) * bins).tolist()
    return [
        (keys[start:end] - number * bins, counts[0, start:end], counts[1, start:end])
        for number, (start, end) in enumerate(pairwise(ends))
    ]


def counted(positives: Flat, negatives: Flat) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the keys of either, (filled,) rising, and (2, filled) the rows of both."""
    each = [positives, negatives]
    keys = np.sort(np.concatenate([each[0][0], each[1][0]]), kind="stable")
    keys = keys[np.diff(keys, prepend=-1) > 0]
    counts = np.zeros((2, len(keys)), dtype=np.int64)
    for whole, (known, rows) in zip(counts, each, strict=True):
        whole[np.searchsorted(keys, known)] = rows
    return keys, counts


def folded(histogram: Histogram, places: NDArray[np.int64]) -> Histogram:
    """Return a histogram whose bins are moved to these places, (bins,) in the same order; those at one add up."""
    keys, place = np.unique(places, return_inverse=True)
    rows = np.zeros(len(keys), dtype=np.int64)
    np.add.at(rows, place, np.array(histogram["rows"], dtype=np.int64))
    return {"bins": keys.tolist(), "rows": rows.tolist()}


def check(histograms: Any, classes: int, bins: int, name: str) -> Flat:
    """Refuse anything but the form of so many classes and bins; return its keys and rows."""
    if not isinstance(histograms, list) or len(histograms) != classes:
        raise ValueError(f"{name} of the metric state must be a list of {classes} histograms")
    for histogram in histograms:
        if not isinstance(histogram, dict) or set(histogram) != _KEYS:
            raise ValueError(f"{name} of the metric state must hold histograms of bins and rows")
        places, rows = histogram["bins"], histogram["rows"]
        if not isinstance(places, list) or not isinstance(rows, list) or len(places) != len(rows):
            raise ValueError(f"{name} of the metric state must hold as many rows as bins")
        if not set(map(type, chain(places, rows))) <= {int} or (
            rows and not 1 <= min(rows) <= max(rows) <= LARGEST_COUNT
        ):
            raise ValueError(f"{name} of the metric state must hold integers only, rows from 1 to 2**53")
        if places and (places[0] < 0 or places[-1] >= bins):
            raise ValueError(f"{name} of the metric state must name bins from 0 to {bins - 1}")
        if any(after <= before for before, after in pairwise(places)):
            raise ValueError(f"{name} of the metric state must name bins in rising order")
    return _read(histograms, bins)
