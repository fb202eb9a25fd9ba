"""Score histograms whose neighbouring bins were joined: fewer bins to tell, and how far that may move a metric.

A site joins bins where its owner's rules want cells of several rows (`site.guard.coarse`), and where it would tell
more bins than `MOST_LISTED` (`capped`, called by the guard too): a reply must not grow with the rows without end. All
rows of a joined bin then stand in the bin that is their mean. `classification_state` asks here for bounds that contain
this.

What is known of a site's joined bins: they follow each other, and each stands within its rows' bins. So a row of one is
above the joined bin before it and below the next; within the site the order of two joined bins is that of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics import sparse
from v6_algorithm.learning.metrics.checks import require_count

# Bins that hold rows, of all classes together, in one state: some 100 kB as JSON, and ties of 1/2000 of the pairs.
MOST_LISTED = 4096
_FEWEST_LISTED = 64
# Products of two counts, and their sums, are exact in int64 up to so many rows.
_MOST_EXACT = 2**26
# And these, times the bins that may be listed, up to so many rows.
_MOST_SHARED = 2**25
# Bins and the rows in them, in any order.
_Rows = tuple[NDArray[np.int64], NDArray[Any]]
# A site's positives and negatives, by class, and whether their bins are joined; or, of several sites that secure
# aggregation added up, how many bins they joined (`listed`) and of each of the `classes` what `ends_of` returns, by
# `ENDS`, with rows as histograms.
Part = tuple[Sequence[sparse.Histogram], Sequence[sparse.Histogram], bool] | Mapping[str, Any]
ENDS = ("positives_low", "positives_high", "negatives_low", "negatives_high")
KNOWN = ("above", "not_above")


def capped(state: Any) -> Any:
    """Return a metric state, of one target or several, that lists no more bins than it may.

    Bins are joined so that each holds an equal share of the positives and negatives: pairs in one are at most
    1 / `MOST_LISTED` of all, or twice that, and of a rare class few rows are.
    """
    if isinstance(state, list):
        return [capped(item) for item in state] if state and isinstance(state[0], Mapping) else state
    if not isinstance(state, Mapping):
        return state
    if state.get("kind") != "classification":
        # Another kind's lists are of a length of their own; several targets, members and groups are in dicts.
        if "n" in state and "tasks" not in state:
            return state
        parts = {key: capped(value) for key, value in state.items()}
        return state if all(parts[key] is value for key, value in state.items()) else parts
    if lists_all(state["n"], state["n_classes"]):
        return state
    classes, bins = len(state["positives"]), state["bins"]
    keys, counts = sparse.counted(sparse.flat(state["positives"], bins), sparse.flat(state["negatives"], bins))
    moved = joined_keys(keys, counts, bins, most_listed(state["n_classes"]))
    if moved is None:
        return state
    starts = np.flatnonzero(np.diff(moved, prepend=-1))
    positives, negatives = (
        sparse.from_flat((moved[starts][rows > 0], rows[rows > 0]), classes, bins)
        for rows in np.add.reduceat(counts, starts, axis=1)
    )
    return {**state, "positives": positives, "negatives": negatives, "joined": 1}


def lists_all(rows: int, classes: int) -> bool:
    """Say whether a classification's state of so many rows may list each of its bins."""
    return rows <= most_listed(classes)


def most_listed(classes: int) -> int:
    """Return how many bins of one class may be listed."""
    return max(MOST_LISTED // (1 if classes == 2 else classes), _FEWEST_LISTED)


def joined_keys(keys: NDArray[np.int64], counts: NDArray[np.int64], bins: int, most: int) -> NDArray[np.int64] | None:
    """Join bins of those of several histograms that list more than they may.

    Parameters
    ----------
    keys
        (filled,) rising: number of the histogram times `bins`, plus that of the bin, of those that hold rows.
    counts
        (2, filled) positives and negatives in each.
    most
        How many bins a histogram may list.

    Returns
    -------
    ndarray or None
        (filled,) not falling: the key of the joined bin that each bin goes to; None where all stay.
    """
    histogram = keys // bins
    chosen = np.flatnonzero(np.bincount(histogram)[histogram] > most)
    if not len(chosen):
        return None
    rows, (above, below) = counts[:, chosen].sum(axis=0), counts[:, chosen]
    begins = np.diff(histogram[chosen], prepend=-1) > 0
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(chosen))
    of_class, of_others = (np.add.reduceat(values, starts) for values in (above, below))
    if int((of_class + of_others).max()) >= _MOST_SHARED:
        above, below, of_class, of_others = (values.astype(object) for values in (above, below, of_class, of_others))
    # Each class weighs as much as the other; a bin that alone holds more than a share is one. In whole numbers, so that
    # it does not depend on the histograms beside.
    weight = above * np.repeat(np.maximum(of_others, 1), lengths) + below * np.repeat(np.maximum(of_class, 1), lengths)
    before = np.cumsum(weight) - weight
    before = before - np.repeat(before[starts], lengths)
    total = np.repeat(np.add.reduceat(weight, starts), lengths)
    share = ((2 * before + weight) * most // (2 * total)).astype(np.int64)
    first = np.flatnonzero(begins | (np.diff(share, prepend=-1) != 0))
    sizes = np.diff(first, append=len(chosen))
    offset = np.add.reduceat((keys[chosen] - np.repeat(keys[chosen][first], sizes)) * rows, first)
    middle = keys[chosen][first] + np.rint(offset / np.add.reduceat(rows, first)).astype(np.int64)
    moved = keys.copy()
    moved[chosen] = np.repeat(middle, sizes)
    return moved


def joins(state: Mapping[str, Any]) -> bool:
    """Return whether a metric state, of one target or several, has joined score bins."""
    return bool(state.get("joined")) or any(map(joins, state.get("tasks", {}).values()))


def listed(parts: Sequence[Part]) -> int:
    """Count the joined bins of the first class, over all sites."""
    return sum(map(_listed_by, parts))


def _listed_by(part: Part) -> int:
    if isinstance(part, Mapping):
        return int(part["listed"])
    positives, negatives, is_joined = part
    return len({*positives[0]["bins"], *negatives[0]["bins"]}) if is_joined else 0


def ends_of(
    positives: sparse.Histogram,
    negatives: sparse.Histogram,
    is_joined: bool,
    bins: int,
    moved: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
) -> tuple[list[_Rows], int, int]:
    """Return where the rows of one site may be, of one class and of the others, all of which adds up over sites.

    Parameters
    ----------
    positives, negatives
        As the site tells them.
    is_joined
        Whether it joined bins.
    bins
        Number of bins.
    moved
        To fewer bins, in which the ends are returned: from bins, in any order, to bins that rise with them.

    Returns
    -------
    rows : list
        The lowest and the highest bins of the positives, and of the negatives.
    above, not_above : int
        Pairs within the site of which the positive is above, and of which it is not, though by these ends it may or may
        not be.
    """
    places, above, below = sparse.paired(positives, negatives)
    low = high = places
    if is_joined and len(places):
        low = np.concatenate([[0], places[:-1] + 1])
        high = np.concatenate([places[1:] - 1, [bins - 1]])
    if moved is not None:
        low, high = moved(low), moved(high)
    surely = perhaps = 0
    if is_joined or moved is not None:
        surely = _pairs((places, above), (places, below), ties=False) - _pairs((low, above), (high, below), ties=False)
        perhaps = _pairs((high, above), (low, below), ties=True) - _pairs((places, above), (places, below), ties=True)
    return [(low, above), (high, above), (low, below), (high, below)], surely, perhaps


class Extents:
    """The lowest and the highest bins that the rows of one class and of the others may be in, over several sites.

    Parameters
    ----------
    parts
        What each site told, or several together.
    scored
        Which of the classes that have histograms.
    bins
        Number of bins.
    """

    def __init__(self, parts: Sequence[Part], scored: int, bins: int) -> None:
        ends: list[list[_Rows]] = [[], [], [], []]
        # Pairs within a site that the ends leave open, and whose order is known.
        self._not_above = self._above = 0
        for part in parts:
            if isinstance(part, Mapping):
                told = part["classes"][scored]
                found = [(np.array(told[name]["bins"], dtype=np.int64), np.array(told[name]["rows"])) for name in ENDS]
                above, not_above = (told[name] for name in KNOWN)
            else:
                found, above, not_above = ends_of(part[0][scored], part[1][scored], part[2], bins)
            self._above += above
            self._not_above += not_above
            for rows, of_part in zip(ends, found, strict=True):
                rows.append(of_part)
        self.positives_low, self.positives_high, self.negatives_low, self.negatives_high = map(_together, ends)

    def auroc(self) -> tuple[float, float]:
        """Return the least and the greatest AUROC that the rows may have."""
        pairs = int(self.positives_low[1].sum()) * int(self.negatives_low[1].sum())
        least = _pairs(self.positives_low, self.negatives_high, ties=False) + self._above
        most = _pairs(self.positives_high, self.negatives_low, ties=True) - self._not_above
        return least / pairs, most / pairs

    def best(self) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """Return bins with positives and negatives in each, where each positive is as high as may be."""
        return _paired(self.positives_high, self.negatives_low)

    def worst(self) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """Return the same where each positive is as low as may be, and each negative as high."""
        return _paired(self.positives_low, self.negatives_high)


def check_ends(ends: Any, rows: Sequence[tuple[int, int]], bins: int) -> None:
    """Refuse anything but what several sites told together; see `Part`.

    Parameters
    ----------
    rows
        Of each class, and of the others.
    """
    if not isinstance(ends, dict) or set(ends) != {"listed", "classes"} or not isinstance(ends["classes"], list):
        raise ValueError("ends of the metric state must have listed and a list of classes")
    require_count(ends["listed"], "listed")
    if len(ends["classes"]) != len(rows):
        raise ValueError(f"ends of the metric state must be of {len(rows)} classes")
    for told, (of_class, of_others) in zip(ends["classes"], rows, strict=True):
        if not isinstance(told, dict) or set(told) != {*ENDS, *KNOWN}:
            raise ValueError(f"ends of the metric state must be {', '.join((*ENDS, *KNOWN))}")
        for name, wanted in zip(ENDS, (of_class, of_class, of_others, of_others), strict=True):
            if sum(sparse.check([told[name]], 1, bins, name)[1].tolist()) != wanted:
                raise ValueError(f"{name} of the metric state must count the same rows as its histograms")
        if any(type(told[name]) is not int or not 0 <= told[name] <= of_class * of_others for name in KNOWN):
            raise ValueError("above and not_above of the metric state must be numbers of its pairs")


def _together(parts: Sequence[_Rows]) -> _Rows:
    """Add up rows of several sites by bin, in rising order."""
    return sparse.summed(parts, sum(int(rows.sum()) for _, rows in parts))


def _pairs(upper: _Rows, lower: _Rows, *, ties: bool) -> int:
    """Count pairs of rows of which the first is in a higher bin, or with `ties` in the same."""
    order = np.argsort(lower[0], kind="stable")
    counts, others = lower[1][order], upper[1]
    if int(counts.sum()) + int(others.sum()) >= _MOST_EXACT:
        counts, others = counts.astype(object), others.astype(object)
    below = np.concatenate([[0], np.cumsum(counts)])
    return int((others * below[np.searchsorted(lower[0][order], upper[0], side="right" if ties else "left")]).sum())


def _paired(positives: _Rows, negatives: _Rows) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    places = np.union1d(positives[0], negatives[0])
    counts = []
    for bins, rows in (positives, negatives):
        whole = np.zeros(len(places), dtype=rows.dtype)
        whole[np.searchsorted(places, bins)] = rows
        counts.append(whole)
    return places, counts[0], counts[1]
