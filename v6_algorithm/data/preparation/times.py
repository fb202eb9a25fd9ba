"""Times that all sites cut at, from a histogram of event times that adds up over the sites.

Bins are 1/16 of a doubling of time, counted from a middle: the mean logarithm of the sites' event times, so that the
same data in days and in milliseconds fall into the same bins (`middle_of`). Where no site may tell that, from 1 of the
unit; then cuts are the same only to a bin. No smallest or longest time leaves a site. Survival problems cut intervals
and metrics at quantiles of the histogram.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Experiment, SurvivalOptions

Array = np.ndarray
# From 5e-20 to 2e19 of the middle.
_PER_DOUBLING = 16
_FIRST, _LAST = -64 * _PER_DOUBLING, 64 * _PER_DOUBLING
# The C-index counts pairs of different sites by so many bins of time; see `SurvivalMetrics`.
METRIC_BINS = 16
# An edge of a bin never is the middle, which event times that are all the same would stand on.
_SHIFT = 0.381966 / _PER_DOUBLING


def log_times(times: Array) -> tuple[int, float]:
    """Return how many times are above 0, and the mean of their binary logarithms; 0 of none."""
    logs = np.log2(times[times > 0])
    return len(logs), float(logs.mean()) if len(logs) else 0.0


def middle_of(sites: Iterable[tuple[int, float] | None]) -> float:
    """Return the mean binary logarithm of all event times, from what `log_times` says of each site.

    0, at which bins are counted from 1, of no events, and where a site does not tell (None): it counts from 1 only.
    """
    given = []
    for site in sites:
        if site is None:
            return 0.0
        given.append(site)
    events = sum(count for count, _ in given)
    return sum(count * mean for count, mean in given) / events if events else 0.0


def count_times(times: Array, middle: float = 0.0) -> Array:
    """Count times in bins around a `middle`: (bins,) float64. Those of 0 are in no bin: no others are cut at 0.

    Raises
    ------
    DataError
        When most are so far from the middle that they would all be in the outer bins, and nothing could be cut.
    """
    times = times[times > 0]
    places = np.ceil(_PER_DOUBLING * (np.log2(times) - _start(middle))).astype(np.int64)
    beyond = (places < _FIRST) | (places > _LAST)
    if beyond.sum() > len(places) / 2:
        raise DataError(
            "most event times here are below 5e-20 or above 2e19, beyond what times are counted in; write them in "
            "another unit"
        )
    return np.bincount(np.clip(places, _FIRST, _LAST) - _FIRST, minlength=_LAST - _FIRST + 1).astype(np.float64)


def doublings(counts: Array) -> float | None:
    """Return the mean place of `count_times` bins in doublings from their beginning; None of no time."""
    total = float(counts.sum())
    return float(counts @ np.arange(len(counts))) / total / _PER_DOUBLING if total > 0 else None


def _start(middle: float) -> float:
    """Return the binary logarithm at which bin 0 ends."""
    return middle + _SHIFT if middle else 0.0


def cut(counts: Array, parts: int, middle: float = 0.0) -> list[float]:
    """Return up to `parts` - 1 increasing times that cut the counted times into parts of about equal size.

    Each is right to 1/16 of a doubling, 4.4 %. Where several fall together, the fullest other parts are halved instead,
    as long as there are bins to cut between.
    """
    total = counts.sum()
    if not total:
        return []
    reached = np.cumsum(counts)
    places = np.searchsorted(reached, total * np.arange(1, parts) / parts, side="left")
    filled = np.flatnonzero(counts)
    # A cut behind the last event would leave a part without any.
    chosen = [int(place) for place in np.unique(places) if place < filled[-1]]
    while len(chosen) < min(parts, len(filled)) - 1:
        chosen = sorted([*chosen, _halving(reached, filled, chosen)])
    start = _start(middle)
    return [float(2.0 ** ((place + _FIRST) / _PER_DOUBLING + start)) for place in chosen]


def _halving(reached: Array, filled: Array, chosen: list[int]) -> int:
    """Return the filled bin whose end halves the fullest part that holds several; `reached` is counted up to each."""
    # Places among the filled bins of each part's last one.
    ends = np.searchsorted(filled, [*chosen, filled[-1]])
    starts = np.concatenate([[-1], ends[:-1]])
    up_to = np.concatenate([[0.0], reached[filled]])
    rows = np.where(ends - starts > 1, up_to[ends + 1] - up_to[starts + 1], 0)
    part = int(rows.argmax())
    inside = up_to[starts[part] + 2 : ends[part] + 1]
    return int(filled[starts[part] + 1 + np.abs(inside - up_to[starts[part] + 1] - rows[part] / 2).argmin()])


def metric_edges(sums: Mapping[str, Array], middle: float = 0.0) -> list[float]:
    """Return the times between which metrics count rows: as a model's file has them, or from the counted times."""
    if "edges" in sums:
        return [float(edge) for edge in sums["edges"]]
    return cut(sums["event_times"], METRIC_BINS, middle) if "event_times" in sums else []


def baseline_times(experiment: Experiment, counts: Array | None, middle: float = 0.0) -> list[float]:
    """Return the times at which a Cox model's baseline hazard is estimated; none of other problems.

    They are those of the metrics' bins, so that they tell no more about when rows leave than `cells` does.
    """
    cox = experiment.problem.kind == "survival" and experiment.problem.options().method == "cox"
    return cut(counts, METRIC_BINS, middle) if cox and counts is not None else []


def horizons(options: SurvivalOptions, counts: Array, middle: float = 0.0) -> list[float]:
    """Return the ends of all intervals of a discrete-time model but the last, which has none."""
    if isinstance(options.intervals, list):
        return options.intervals
    return cut(counts, options.intervals, middle)


def interval_count(options: SurvivalOptions) -> int:
    """Return how many hazards a discrete-time model gives; known before any time is."""
    return len(options.intervals) + 1 if isinstance(options.intervals, list) else options.intervals


def coarse_times(time: Array, event: Array, events: int, rows: int, causes: Array | None = None) -> Array:
    """Return times of which each stands for several rows, for a site that may not tell when single ones leave.

    Rows in order of time are cut into cells of at least `events` events and `rows` rows. The events of a cell are at
    the mean of their times, and its censored rows at the mean of theirs, where either are `rows` rows or more; else all
    of the cell leave at the mean of its event times. Rows that are watched after the last event are a cell of their
    own where they are as many. Rows of the same time stay in one cell.

    Parameters
    ----------
    time, event
        (rows,) times observed, and whether the event was seen (bool).
    events, rows
        Fewest of a cell; with fewer than that in all, everything is one cell.
    causes
        (rows, causes) bool: whether the event was of a cause; a cell then has as many events of each that occurs. None:
        all events are of one.
    """
    distinct, place = np.unique(time, return_inverse=True)
    leaving = np.bincount(place, minlength=len(distinct))
    dying = np.bincount(place, event, minlength=len(distinct))
    occurring = [event] if causes is None else [cause for cause in causes.T if cause.any()]
    # (times, causes) events, of which a cell needs enough of each.
    needed = np.stack([np.bincount(place, cause, minlength=len(distinct)) for cause in occurring or [event]], axis=1)
    # Places after the last event, where they are enough for a cell.
    tail = int(np.flatnonzero(dying)[-1]) + 1 if dying.any() else 0
    if leaving[tail:].sum() < rows:
        tail = len(distinct)
    cell = np.zeros(len(distinct), dtype=np.int64)
    number, have_events, have_rows = 0, np.zeros(needed.shape[1]), 0
    events_left, rows_left = needed[:tail].sum(axis=0), int(leaving[:tail].sum())
    for index in range(tail):
        full = (have_events >= events).all() and have_rows >= rows
        if full and (events_left >= events).all() and rows_left >= rows:
            number, have_events, have_rows = number + 1, np.zeros(needed.shape[1]), 0
        cell[index] = number
        have_events, have_rows = have_events + needed[index], have_rows + int(leaving[index])
        events_left, rows_left = events_left - needed[index], rows_left - int(leaving[index])
    if have_rows < rows:
        # The events are too few rows for a cell without those that were watched longer.
        tail = len(distinct)
    cell[tail:] = number + 1
    of_row = cell[place]
    died, censored = np.bincount(of_row, event), np.bincount(of_row, ~event)
    mean_of_events = np.bincount(of_row, event * time) / np.maximum(died, 1)
    mean_of_others = np.bincount(of_row, ~event * time) / np.maximum(censored, 1)
    apart = (died == 0) | ((died >= rows) & (censored >= rows))
    coarse: Array = np.where(event | ~apart[of_row], mean_of_events[of_row], mean_of_others[of_row])
    return coarse


def coarse_entries(entry: Array, coarse: Array, rows: int) -> Array:
    """Return entries at which several rows join, for a site whose rows leave at `coarse` times.

    An entry is moved to the nearest of 0 and those times, but before the row leaves; where fewer than `rows` rows would
    join at a time they join at the one before. So a difference of numbers at risk is over as many rows as those of the
    leaving times, and entries tell no times of their own.

    Parameters
    ----------
    entry, coarse
        (rows,) times at which rows join, and leave; see `coarse_times`.
    rows
        Fewest that join at a time other than 0.
    """
    grid = np.concatenate([[0.0], np.unique(coarse)])
    above = np.clip(np.searchsorted(grid, entry, side="left"), 1, len(grid) - 1)
    nearest = np.where(entry - grid[above - 1] <= grid[above] - entry, above - 1, above)
    place = np.minimum(nearest, np.searchsorted(grid, coarse) - 1)
    for number in reversed(range(1, len(grid))):
        joining = place == number
        if joining.sum() < rows:
            place[joining] = number - 1
    if 0 < (place == 0).sum() < rows and len(place) >= rows:
        # Those that are there from the start are too few by themselves: those who join next are with them.
        for number in range(1, len(grid)):
            place[place == number] = 0
            if (place == 0).sum() >= rows:
                break
    moved: Array = grid[place]
    return moved


def coarse_watching(
    time: Array, event: Array, entry: Array, patient: Array | None, events: int, rows: int
) -> tuple[Array, Array]:
    """Return coarse ends and entries of rows that are watched from one time to another; see `coarse_times`.

    Of a patient with several rows, each beginning when the one before ends, the last row leaves and the first one
    joins; the times between are moved to the nearest time at which others leave. A row that is then watched for no time
    has an entry that is not before its end, and is in no risk set.

    Parameters
    ----------
    time, event, entry
        (rows,) ends, whether the event was seen then (bool), and entries.
    patient
        (rows,) numbers of the patients; None: each row is one.
    events, rows
        Fewest of a cell.
    """
    first, last = np.ones(len(time), dtype=bool), np.ones(len(time), dtype=bool)
    order = np.arange(len(time))
    if patient is not None:
        order = np.lexsort((entry, patient))
        same = (patient[order][1:] == patient[order][:-1]) & (time[order][:-1] == entry[order][1:])
        same &= ~event[order][:-1]
        last[order[:-1][same]], first[order[1:][same]] = False, False
    ends, starts = time.astype(np.float64), entry.astype(np.float64)
    ends[last] = coarse_times(time[last], event[last], events, rows)
    # The number of each row's chain: its place among the last rows, in the order of patients and entries.
    chain = np.empty(len(time), dtype=np.int64)
    chain[order] = np.concatenate([[0], np.cumsum(last[order])[:-1]])
    chain_end, chain_entry = np.empty(int(last.sum())), np.empty(int(last.sum()))
    chain_end[chain[last]], chain_entry[chain[first]] = ends[last], starts[first]
    joined = coarse_entries(chain_entry, chain_end, rows)
    grid = np.concatenate([[0.0], np.unique(chain_end)])
    for rows_of, moved in ((~last, ends), (~first, starts)):
        if rows_of.any():
            above = np.clip(np.searchsorted(grid, moved[rows_of], side="left"), 1, len(grid) - 1)
            near = moved[rows_of] - grid[above - 1] <= grid[above] - moved[rows_of]
            most = np.searchsorted(grid, chain_end[chain[rows_of]]) - 1
            place = np.minimum(np.where(near, above - 1, above), most)
            moved[rows_of] = np.maximum(grid[place], joined[chain[rows_of]])
    starts[first] = joined[chain[first]]
    return ends, starts
