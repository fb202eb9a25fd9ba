"""Times that all sites cut at, from a histogram of event times that adds up over the sites.

Bins are 1/16 of a doubling of time, the same for every site and unit, so nothing has to be agreed on before counting,
and no smallest or longest time leaves a site. Survival problems cut intervals and metrics at quantiles of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from v6_algorithm.experiment import Experiment, SurvivalOptions

Array = np.ndarray
# From 5e-20 to 2e19 of any unit: a century in nanoseconds, and a second in ages of the universe.
_PER_DOUBLING = 16
_FIRST, _LAST = -64 * _PER_DOUBLING, 64 * _PER_DOUBLING
# The C-index counts pairs of different sites by so many bins of time; see `SurvivalMetrics`.
METRIC_BINS = 16


def count_times(times: Array) -> Array:
    """Count times: (bins,) float64."""
    places = np.ceil(_PER_DOUBLING * np.log2(times)).astype(np.int64)
    return np.bincount(np.clip(places, _FIRST, _LAST) - _FIRST, minlength=_LAST - _FIRST + 1).astype(np.float64)


def cut(counts: Array, parts: int) -> list[float]:
    """Return up to `parts` - 1 increasing times that cut the counted times into parts of about equal size.

    Each is right to 1/16 of a doubling, 4.4 %; of those that fall together one is left.
    """
    total = counts.sum()
    if not total:
        return []
    reached = np.cumsum(counts)
    places = np.searchsorted(reached, total * np.arange(1, parts) / parts, side="left")
    # A cut behind the last event would leave a part without any.
    last = np.flatnonzero(counts)[-1]
    return [float(2.0 ** ((place + _FIRST) / _PER_DOUBLING)) for place in np.unique(places) if place < last]


def metric_edges(sums: Mapping[str, Array]) -> list[float]:
    """Return the times between which metrics count rows: as a model's file has them, or from the counted times."""
    if "edges" in sums:
        return [float(edge) for edge in sums["edges"]]
    return cut(sums["event_times"], METRIC_BINS) if "event_times" in sums else []


def baseline_times(experiment: Experiment, counts: Array | None) -> list[float]:
    """Return the times at which a Cox model's baseline hazard is estimated; none of other problems.

    They are those of the metrics' bins, so that they tell no more about when rows leave than `cells` does.
    """
    cox = experiment.problem.kind == "survival" and experiment.problem.options().method == "cox"
    return cut(counts, METRIC_BINS) if cox and counts is not None else []


def horizons(options: SurvivalOptions, counts: Array) -> list[float]:
    """Return the ends of all intervals of a discrete-time model but the last, which has none."""
    if isinstance(options.intervals, list):
        return options.intervals
    return cut(counts, options.intervals)


def interval_count(options: SurvivalOptions) -> int:
    """Return how many hazards a discrete-time model gives; known before any time is."""
    return len(options.intervals) + 1 if isinstance(options.intervals, list) else options.intervals
