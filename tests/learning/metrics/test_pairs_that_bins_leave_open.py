"""Bounds where only bins are known, against a count of all pairs of rows, by what is said of where each may be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.learning.metrics.joined import Extents
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS, pairs_of_cells
from v6_algorithm.learning.metrics.survival.concordance import Binned, Exact
from v6_algorithm.learning.metrics.survival.joined_cells import between_sites
from v6_algorithm.learning.metrics.survival.state import _all_pairs, _joined_resolution, _resolution

# -- AUROC ---------------------------------------------------------------------------------------------------------

BINS = 9
SITE = st.tuples(
    st.dictionaries(st.integers(0, BINS - 1), st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1),
    st.booleans(),
)


def between(places, place, joined):
    """Return the first and last bin that the rows of one listed at `place` may be in."""
    if not joined:
        return place, place
    below, above = [p for p in places if p < place], [p for p in places if p > place]
    return max(below, default=-1) + 1, min(above, default=BINS) - 1


def sparse_of(rows):
    return {"bins": list(rows), "rows": list(rows.values())}


@given(st.lists(SITE, min_size=1, max_size=3))
@settings(max_examples=60)
def test_the_least_and_the_greatest_auroc_are_those_of_all_pairs(sites):
    parts, rows = [], []
    for number, (listed, joined) in enumerate(sites):
        kept = {place: listed[place] for place in sorted(listed) if any(listed[place])}
        above, below = ({p: n[kind] for p, n in kept.items() if n[kind]} for kind in (0, 1))
        parts.append(([sparse_of(above)], [sparse_of(below)], joined))
        for place, counts in kept.items():
            rows.append((number, place, *between(kept, place, joined), *counts))
    pairs = sum(a[4] for a in rows) * sum(b[5] for b in rows)
    if not pairs:
        return
    least = most = 0
    for site, place, low, high, positives, _ in rows:
        for other, where, lowest, highest, _, negatives in rows:
            # Within a site the order of two bins is known.
            surely = place > where if site == other else low > highest
            perhaps = place >= where if site == other else high >= lowest
            least, most = least + surely * positives * negatives, most + perhaps * positives * negatives
    extents = Extents(parts, 0, BINS)
    assert extents.auroc() == pytest.approx((least / pairs, most / pairs), abs=1e-12)
    for ends, of_positives, of_negatives in ((extents.best(), 3, 2), (extents.worst(), 2, 3)):
        places, positives, negatives = ends
        for counts, end, column in ((positives, of_positives, 4), (negatives, of_negatives, 5)):
            wanted = [sum(row[column] for row in rows if row[end] == place) for place in places.tolist()]
            assert counts.tolist() == wanted


# -- C-index -------------------------------------------------------------------------------------------------------

TIMES = 4
SCORES = [0, 1, 2, 255, SCORE_BINS - 2, SCORE_BINS - 1]
CELL = st.tuples(st.integers(0, TIMES - 1), st.sampled_from(SCORES))
CELLS = st.dictionaries(CELL, st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(any), min_size=1, max_size=6)


def listed(cells):
    return [[*place, *cells[place]] for place in sorted(cells)]


def ends_of(cells, place, joined):
    """Return the first and last bin of time, and of score, of the rows of a cell."""
    time, score = place
    if not joined:
        return time, time, score, score
    times = {t for t, _ in cells}
    scores = {s for t, s in cells if t == time}
    return (
        max((t for t in times if t < time), default=-1) + 1, min((t for t in times if t > time), default=TIMES) - 1,
        max((s for s in scores if s < score), default=-1) + 1,
        min((s for s in scores if s > score), default=SCORE_BINS) - 1,
    )  # fmt: skip


@given(st.lists(st.tuples(CELLS, st.booleans()), min_size=2, max_size=3))
@settings(max_examples=50)
def test_pairs_of_joined_cells_are_those_that_may_be_and_those_that_must_be(sites):
    rows = [
        (number, *ends_of(cells, place, joined), counts[0], sum(counts))
        for number, (cells, joined) in enumerate(sites)
        for place, counts in cells.items()
    ]
    wanted = [0, 0, 0, 0]
    for site, first, last, low, high, events, _ in rows:
        for other, earliest, latest, lowest, highest, _, count in rows:
            if site != other:
                sure, perhaps = earliest > last, latest >= first
                # In the right order perhaps, surely not though comparable; in the wrong order, the same.
                kinds = (
                    perhaps and high >= lowest,
                    sure and high < lowest,
                    perhaps and low <= highest,
                    sure and low > highest,
                )
                wanted = [total + kind * events * count for total, kind in zip(wanted, kinds, strict=True)]
    parts = [(listed(cells), joined) for cells, joined in sites]
    assert list(between_sites(parts, TIMES)) == wanted
    rising, never, falling, always = wanted
    state = {"edges": [1.0] * (TIMES - 1), "parts": parts, "exact": [10, 9, 0, 0]}
    greatest, least = (5 + rising) / (9 + rising + never), (5 + always) / (9 + always + falling)
    for c_index in (0.1, 0.5, 0.95):
        bound = max(greatest - c_index, c_index - least, 0.0)
        assert _joined_resolution(state, c_index) == pytest.approx(bound, abs=1e-12)


# In a cell of one site are rows with the event or without: what is bounded only otherwise is then counted.
PURE = st.dictionaries(
    CELL, st.sampled_from([(1, 0), (2, 0), (0, 1), (0, 3)]), min_size=1, max_size=6
)  # fmt: skip


@given(st.lists(PURE, min_size=2, max_size=3), st.data())
@settings(max_examples=60)
def test_the_c_index_and_its_resolution_are_those_of_all_pairs_between_sites(sites, data):
    both: dict[tuple[int, int], list[int]] = {}
    for cells in sites:
        for place, counts in cells.items():
            both[place] = [a + b for a, b in zip(both.get(place, [0, 0]), counts, strict=True)]
    within = [pairs_of_cells(np.array(listed(cells)), TIMES - 1) for cells in sites]
    binned = [sum(numbers) for numbers in zip(*within, strict=True)]
    # What each site counted by rows, of its pairs that share a bin of time: some.
    events = data.draw(st.integers(0, binned[3]))
    mixed = data.draw(st.integers(0, binned[4]))
    comparable = binned[1] + events + mixed
    exact = Exact(data.draw(st.integers(0, 2 * comparable)), comparable, events, mixed)
    state = {"edges": [1.0] * (TIMES - 1), "cells": listed(both), "exact": list(exact), "binned": binned}

    # Of pairs of different sites: in the right order twice, comparable, and the same at best and at worst.
    twice = whole = best = most = worst = least = Fraction(0)
    share = Fraction(events, binned[3]) if binned[3] else Fraction(1)
    often = Fraction(mixed, binned[4]) if binned[4] else Fraction(1, 2)
    for number, cells in enumerate(sites):
        for other, others in enumerate(sites):
            for (time, score), (count, _) in cells.items():
                for (when, where), (dead, alive) in others.items() if other != number else ():
                    order = (score > where) + (score >= where)
                    if when > time:
                        pairs = count * (dead + alive)
                        twice, whole = twice + order * pairs, whole + pairs
                        best, most = best + (score >= where) * pairs, most + pairs
                        worst, least = worst + (score > where) * pairs, least + pairs
                    elif when == time:
                        # Each pair of events comes twice, and one of them is first; of a censored one who knows.
                        half = Fraction(count * dead, 2)
                        twice, whole = twice + share * half, whole + share * half
                        best, most, least = best + half, most + half, least + half
                        pairs = count * alive
                        twice, whole = twice + often * order * pairs, whole + often * pairs
                        best, most = best + (score >= where) * pairs, most + (score >= where) * pairs
                        least += (score <= where) * pairs
    concordant, comparable = _all_pairs(state)
    assert comparable == pytest.approx(float(exact.comparable + whole))
    assert concordant == pytest.approx(float(exact.twice_concordant + twice) / 2)
    if comparable:
        middle = Fraction(concordant / comparable)
        ends = [
            (Fraction(exact.twice_concordant, 2) + right) / (exact.comparable + all_) if exact.comparable + all_ else 0
            for right, all_ in ((best, most), (worst, least))
        ]
        if all(exact.comparable + all_ for all_ in (most, least)):
            wanted = max(ends[0] - middle, middle - ends[1], 0)
            assert _resolution(state, float(middle)) == pytest.approx(float(wanted), abs=1e-12)


@given(CELLS)
@settings(max_examples=40)
def test_pairs_of_cells_are_those_of_their_rows(cells):
    rows = [
        (time, score, dead)
        for (time, score), (events, censored) in cells.items()
        for dead in [True] * events + [False] * censored
    ]
    wanted = dict.fromkeys(Binned._fields, 0)
    for number, (time, score, dead) in enumerate(rows):
        for other, (when, where, died) in enumerate(rows):
            if not dead or other == number:
                continue
            order = (score > where) + (score >= where)
            if when > time:
                wanted["twice_concordant"] += order
                wanted["comparable"] += 1
                wanted["tied"] += score == where
            elif when == time:
                # Each pair of two events is seen from both.
                wanted["events"] += died / 2
                wanted["mixed"] += not died
                wanted["twice_mixed"] += 0 if died else order
    assert pairs_of_cells(np.array(listed(cells)), TIMES - 1)._asdict() == wanted
