"""Times that stand for several rows: against a plain reading of what is promised, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from v6_algorithm.data.preparation.times import coarse_entries, coarse_times

ROWS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=16)


def entries_by_hand(entry, coarse, rows):
    """Move each entry to the nearest of 0 and the times, then those of too few rows to the time before."""
    grid = sorted({0.0, *coarse})
    place = []
    for at, end in zip(entry, coarse, strict=True):
        before = [number for number, time in enumerate(grid) if time < end]
        place.append(min(before, key=lambda number: (abs(grid[number] - at), number)))
    for number in range(len(grid) - 1, 0, -1):
        if 0 < place.count(number) < rows:
            place = [number - 1 if where == number else where for where in place]
    if 0 < place.count(0) < rows <= len(place):
        for number in range(1, len(grid)):
            place = [0 if where == number else where for where in place]
            if place.count(0) >= rows:
                break
    return [grid[where] for where in place]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=12), st.integers(1, 5))
@example([(3, 2), (0, 1), (0, 2)], 1)
@settings(max_examples=200)
def test_entries_are_moved_as_is_said(drawn, rows):
    # Halves, so that some are as near to the time before as to the one after.
    entry = np.array([at / 2 for at, _ in drawn])
    # Of a cell whose mean is before it a row may leave earlier than it joined.
    coarse = np.array([float(at % 3 + after) for at, after in drawn])
    moved = coarse_entries(entry, coarse, rows)
    assert moved.tolist() == entries_by_hand(entry.tolist(), coarse.tolist(), rows)
    assert (moved < coarse).all()
    times, counts = np.unique(moved, return_counts=True)
    assert (counts[times > 0] >= rows).all()
    if len(drawn) >= rows:
        assert counts[times == 0].sum() == 0 or counts[times == 0].sum() >= rows


def test_those_who_are_there_from_the_start_and_too_few_take_in_who_joins_next():
    entry, coarse = np.array([0.0, 3, 3, 3, 6, 6, 6]), np.array([3.0, 6, 6, 6, 9, 9, 9])
    assert coarse_entries(entry, coarse, 2).tolist() == [0, 0, 0, 0, 6, 6, 6]
    assert coarse_entries(entry, coarse, 3).tolist() == [0, 0, 0, 0, 6, 6, 6]
    assert coarse_entries(entry, coarse, 5).tolist() == [0] * 7
    # As many as a cell has, no fewer.
    assert coarse_entries(entry[[0, 0, 1, 1]], coarse[[0, 0, 1, 1]], 2).tolist() == [0, 0, 3, 3]
    assert coarse_entries(entry[[0, 0, 1, 1]], coarse[[0, 0, 1, 1]], 4).tolist() == [0, 0, 0, 0]
    assert coarse_entries(np.zeros(0), np.zeros(0), 3).tolist() == []


def cells_by_hand(time, event, causes, events, rows):
    """Cut the rows, in order of time, into cells; a cell ends as soon as it and all that is left are enough."""

    def enough(part):
        return sum(part) >= rows and all(sum(part & cause) >= events for cause in causes)

    distinct = sorted(set(time.tolist()))
    last = max(time[event], default=-1.0)
    tail = time > last
    cells, present = [], np.zeros(len(time), dtype=bool)
    if not event.any() or tail.sum() < rows:
        tail[:] = not event.any() and len(time) >= rows
    body = ~tail
    for at in distinct:
        here = body & (time == at)
        if not here.any():
            continue
        left = body & (time >= at)
        if present.any() and enough(present) and enough(left):
            cells.append(present)
            present = np.zeros(len(time), dtype=bool)
        present = present | here
    if present.any():
        if tail.any() and present.sum() < rows:
            present, tail = present | tail, np.zeros(len(time), dtype=bool)
        cells.append(present)
    return [*cells, tail] if tail.any() else cells


@given(ROWS, st.integers(1, 2), st.integers(1, 4), st.booleans())
@settings(max_examples=300)
def test_times_of_a_cell_are_the_means_of_its_events_and_of_its_others(drawn, events, rows, competing):
    time, event = np.array([float(at) for at, _ in drawn]), np.array([dead for _, dead in drawn])
    kinds = np.arange(len(time)) % 2 == 0
    causes = [event & kinds, event & ~kinds] if competing else [event]
    causes = [cause for cause in causes if cause.any()] or [event]
    coarse = coarse_times(
        time, event, events, rows, np.stack([event & kinds, event & ~kinds], axis=1) if competing else None
    )
    for cell in cells_by_hand(time, event, causes, events, rows):
        dead, alive = cell & event, cell & ~event
        if not dead.any():
            assert coarse[cell] == pytest.approx(time[cell].mean())
        else:
            assert coarse[dead] == pytest.approx(time[dead].mean())
            apart = dead.sum() >= rows and alive.sum() >= rows
            assert coarse[alive] == pytest.approx((time[alive] if apart else time[dead]).mean() if alive.any() else 0)
