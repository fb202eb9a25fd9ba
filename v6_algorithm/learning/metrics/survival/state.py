"""What can be done with the states of `SurvivalMetrics`: check one, add several up, compute the metrics and explain
them. Called by `states`, which picks the module by the state's kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics import intervals
from v6_algorithm.learning.metrics.checks import (
    LARGEST_ROW_VALUE,
    require_count,
    require_counts,
    require_keys,
    require_nothing_without_rows,
    require_number,
)
from v6_algorithm.learning.metrics.survival.collector import (
    SCORE_BINS,
    SQUARE_UNITS,
    counts_of_cells,
    pairs_of_cells,
)
from v6_algorithm.learning.metrics.survival.concordance import Binned, Exact
from v6_algorithm.learning.metrics.survival.joined_cells import Part, between_sites, check_ends, listed

SHAPE: tuple[str, ...] = ("edges", "horizons")
_KEYS = frozenset(
    (
        "kind",
        *SHAPE,
        "n",
        "non_finite",
        "joined",
        "loss",
        "cells",
        "exact",
        "binned",
        "leaving",
        "early",
        "late",
        "expected",
    )
)
# Of fewer joined cells of all sites, an interval has the worst case in it.
_FEWEST_JOINED = 8
# A C-index that bins leave open by more is told.
_COARSE = 0.05
# Pairs of more rows than this would overflow 64 bits.
_MOST_ROWS = 10**9
_MOST_TIMES = 200


def check(state: dict[str, Any]) -> None:
    """Refuse a state no `SurvivalMetrics` can have produced."""
    require_keys(state, _KEYS | ({"ends"} & state.keys()))
    for name in SHAPE:
        times = state[name]
        if not isinstance(times, list) or len(times) > _MOST_TIMES:
            raise ValueError(f"{name} of the metric state must be a list of at most {_MOST_TIMES} times")
        for time in times:
            require_number(time, f"each entry of {name}", least=0.0, most=LARGEST_ROW_VALUE)
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError(f"{name} of the metric state must increase")
    require_count(state["n"], "n")
    require_count(state["non_finite"], "non_finite")
    require_count(state["joined"], "joined")
    if state["n"] > _MOST_ROWS:
        raise ValueError(f"n of the metric state must be at most {_MOST_ROWS}")
    require_number(state["loss"], "loss")
    require_nothing_without_rows(state, ("loss",))
    _check_cells(state)
    if "ends" in state:
        with_event = sum(cell[2] for cell in state["cells"])
        check_ends(state["ends"], with_event, state["n"], len(state["edges"]) + 1)
    _check_pairs(state)
    _check_brier(state)


def _check_cells(state: dict[str, Any]) -> None:
    cells = state["cells"]
    if not isinstance(cells, list):
        raise ValueError("cells of the metric state must be a list")
    require_counts(cells, len(cells), 4, "cells")
    places = [(time, score) for time, score, _, _ in cells]
    if any(time > len(state["edges"]) or score >= SCORE_BINS for time, score in places):
        raise ValueError("cells of the metric state must be of bins that there are")
    if any(later <= earlier for earlier, later in pairwise(places)):
        raise ValueError("cells of the metric state must be in order, each once")
    if sum(events + censored for _, _, events, censored in cells) != state["n"]:
        raise ValueError("cells of the metric state must add up to n")


def _check_pairs(state: dict[str, Any]) -> None:
    require_counts([state["exact"]], 1, 4, "exact")
    require_counts([state["binned"]], 1, 6, "binned")
    exact, binned = Exact(*state["exact"]), Binned(*state["binned"])
    if exact.twice_concordant > 2 * exact.comparable:
        raise ValueError("exact of the metric state contradicts itself")
    # Between sites are the pairs of the cells that are not within.
    if any(within > both for within, both in zip(binned, _pairs(state), strict=True)):
        raise ValueError("binned of the metric state must be among the pairs of its cells")
    if (
        exact.comparable - exact.events - exact.mixed != binned.comparable
        or exact.events > binned.events
        or exact.mixed > binned.mixed
    ):
        raise ValueError("exact and binned of the metric state must count the same pairs")


def _check_brier(state: dict[str, Any]) -> None:
    horizons = len(state["horizons"])
    require_counts(state["leaving"], 2, horizons + 1, "leaving")
    require_counts(state["early"], horizons, horizons, "early")
    require_counts([state["late"]], 1, horizons, "late")
    require_counts([state["expected"]], 1, horizons, "expected")
    if any(risk > SQUARE_UNITS * state["n"] for risk in state["expected"]):
        raise ValueError("expected of the metric state must be sums of risks of its rows")
    events, censored = state["leaving"]
    with_event = sum(cell[2] for cell in state["cells"])
    if (sum(events), sum(censored)) != (with_event, state["n"] - with_event):
        raise ValueError("leaving of the metric state must count the same rows as its cells")
    for number, row in enumerate(state["early"]):
        if any(row[:number]) or any(square > SQUARE_UNITS * events[number] for square in row):
            raise ValueError("early of the metric state must be sums of squares of the rows that left before")
    there = state["n"]
    for number, square in enumerate(state["late"]):
        there -= events[number] + censored[number]
        if square > SQUARE_UNITS * there:
            raise ValueError("late of the metric state must be sums of squares of the rows still there")


def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up checked states of one shape; integers exactly, floats rounded once."""
    cells: dict[tuple[int, int], list[int]] = {}
    for state in states:
        for time, score, events, censored in state["cells"]:
            counts = cells.setdefault((time, score), [0, 0])
            counts[0] += events
            counts[1] += censored
    merged: dict[str, Any] = {"kind": "survival"} | {name: states[0][name] for name in SHAPE}
    merged |= {name: sum(state[name] for state in states) for name in ("n", "non_finite", "joined")}
    merged["loss"] = fsum(state["loss"] for state in states)
    merged["cells"] = [[*place, *counts] for place, counts in sorted(cells.items())]
    merged |= {name: _add([state[name] for state in states]) for name in ("exact", "binned", "late", "expected")}
    if merged["joined"]:
        # Where a site's rows may be is known from that site's joined cells only, not from their sum.
        merged["parts"] = [part for state in states for part in _parts(state)]
    return merged | {
        name: [_add(list(rows)) for rows in zip(*(state[name] for state in states), strict=True)]
        for name in ("leaving", "early")
    }


def _parts(state: dict[str, Any]) -> list[Part]:
    return _told(state) or [(state["cells"], bool(state["joined"]))]


def _told(state: dict[str, Any]) -> list[Part]:
    """Return what is known of where rows are that joined cells stand for; nothing of one site, or where none joins."""
    return state.get("parts") or ([state["ends"]] if "ends" in state else [])


def scores(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Metrics of a checked state without what goes with them: the resolution and the interval of the C-index."""
    return compute(state, alone=True)


def scores_of_sites(states: Sequence[Mapping[str, Any]]) -> list[dict[str, float | int | None]]:
    """Return the `scores` of several states, each of a single site, where no pairs are between sites."""
    briers = _briers(states) if states else []
    scores = []
    for state, brier in zip(states, briers, strict=True):
        n, (twice, comparable, _, _) = state["n"], state["exact"]
        c_index = twice / (2 * comparable) if comparable else None
        values = {
            "n": n, "loss": state["loss"] / n if n else None, "c_index": c_index, "c_index_within": c_index,
            "c_index_resolution": None, **intervals.ends("c_index", None),
        }  # fmt: skip
        scores.append(values | ({"brier": brier} if state["horizons"] else {}))
    return scores


def compute(state: dict[str, Any], *, alone: bool = False) -> dict[str, float | int | None]:
    """Metrics of a checked state; see `states.compute`. With `alone`, what goes with the scores is None."""
    n = state["n"]
    concordant, comparable = _all_pairs(state)
    values: dict[str, float | int | None] = {
        "n": n,
        "loss": state["loss"] / n if n else None,
        "c_index": concordant / comparable if comparable else None,
        "c_index_within": state["exact"][0] / (2 * state["exact"][1]) if state["exact"][1] else None,
        "c_index_resolution": _resolution(state, concordant / comparable) if comparable and not alone else None,
    }
    # As of the AUROC, an interval has what bins leave open as they are told, and not the worst that joining may hide.
    allowed = values["c_index_resolution"]
    if comparable and not alone and (parts := _told(state)):
        values["c_index_resolution"] = _joined_resolution(state, concordant / comparable)
        if listed(parts) < _FEWEST_JOINED:
            allowed = values["c_index_resolution"]
    values |= intervals.ends("c_index", _interval(state, values["c_index"], allowed))
    return values | ({"brier": integrated_brier(state)} if state["horizons"] else {})


def _interval(state: dict[str, Any], c_index: float | None, resolution: float | None) -> intervals.Interval | None:
    if c_index is None or resolution is None:
        return None
    events, censored = counts_of_cells(_cells(state), len(state["edges"]))
    return intervals.c_index_interval(c_index, events, censored, resolution)


def explain(state: dict[str, Any]) -> list[str]:
    """Sentences about what a checked state could not give; see `states.explain`."""
    notes = []
    if state["non_finite"]:
        notes.append(f"{state['non_finite']} rows had a non-finite prediction, target or loss and are left out")
    if state["n"] == 0:
        return [*notes, "no rows"]
    if not _all_pairs(state)[1]:
        notes.append("c_index: no event was seen before another row's time, so no pair can be compared")
    resolution = compute(state)["c_index_resolution"]
    if resolution is not None and resolution > _COARSE:
        notes.append(f"c_index: binned, within {resolution:.3f} of the exact value")
    if state["joined"] and any(isinstance(part, Mapping) for part in _told(state)):
        notes.append(
            f"c_index: {state['joined']} sites joined cells of time and risk before secure aggregation added them up; "
            "its resolution contains what that may have moved"
        )
    if state["horizons"] and integrated_brier(state) is None:
        notes.append("brier: all rows are censored before the first horizon")
    return notes


def integrated_brier(state: dict[str, Any]) -> float | None:
    """Mean over time of the Brier score for censored data [1]_, or None where no horizon can be judged.

    At a horizon t the squared error of the predicted survival is weighted by 1 / G, the chance not to be censored until
    the row's event, or until t where there was none before. G is from a life table over the intervals between horizons,
    in which those who leave do so halfway; what that costs against a G from every single time is below 0.01 in the
    tests. Horizons after which everyone is censored are left out; the mean is by the trapezoidal rule.

    References
    ----------
    .. [1] Graf, Schmoor, Sauerbrei and Schumacher (1999), Assessment and comparison of prognostic classification
       schemes for survival data, Statistics in Medicine 18(17-18), 2529-2545.
    """
    return _briers([state])[0]


def _briers(states: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return `integrated_brier` of several states of the same horizons."""
    times = np.asarray(states[0]["horizons"])
    if not len(times):
        return [None] * len(states)
    rows, leaving, early, late = (
        np.array([state[name] for state in states], dtype=np.float64) for name in ("n", "leaving", "early", "late")
    )
    events, censored = leaving[:, 0, :-1], leaving[:, 1, :-1]
    left = events + censored
    at_risk = rows[:, None] - (np.cumsum(left, axis=1) - left)
    exposed = at_risk - events / 2
    stay = 1 - np.divide(censored, exposed, out=np.zeros_like(exposed), where=exposed > 0)
    uncensored = np.cumprod(stay, axis=1)
    # The first horizons; what is divided by 1 at the others is not looked at.
    judged = (uncensored > 0) & (rows > 0)[:, None]
    uncensored = np.where(judged, uncensored, 1.0)
    before = np.concatenate([np.ones((len(rows), 1)), uncensored[:, :-1]], axis=1)
    sums = (np.where(judged, early.transpose(2, 0, 1), 0.0) / np.sqrt(before * uncensored)).sum(axis=2).T
    scores = (sums + late / uncensored) / (np.maximum(rows, 1) * SQUARE_UNITS)[:, None]
    last = judged.sum(axis=1) - 1
    areas = np.where(judged[:, 1:], np.diff(times) * (scores[:, 1:] + scores[:, :-1]) / 2, 0.0).sum(axis=1)
    spans = times[np.maximum(last, 0)] - times[0]
    means = np.divide(areas, spans, out=scores[:, 0].copy(), where=spans > 0)
    return [mean if place >= 0 else None for mean, place in zip(means.tolist(), last.tolist(), strict=True)]


def _pairs(state: dict[str, Any]) -> Binned:
    return pairs_of_cells(_cells(state), len(state["edges"]))


def _cells(state: dict[str, Any]) -> NDArray[np.int64]:
    return np.asarray(state["cells"], dtype=np.int64).reshape(-1, 4)


def _between(state: dict[str, Any]) -> Binned:
    """Pairs of rows of different sites, by their bins."""
    return Binned(*(both - within for both, within in zip(_pairs(state), Binned(*state["binned"]), strict=True)))


def _all_pairs(state: dict[str, Any]) -> tuple[float, float]:
    """Concordant and comparable pairs, within the sites and between them."""
    exact, binned, between = Exact(*state["exact"]), Binned(*state["binned"]), _between(state)
    # As often comparable as the sites' own; without any, as often as times that are drawn from a bin at random.
    events = between.events * (exact.events / binned.events if binned.events else 1.0)
    often = exact.mixed / binned.mixed if binned.mixed else 0.5
    # Of two events in one bin either may be the first.
    twice = exact.twice_concordant + between.twice_concordant + events + often * between.twice_mixed
    comparable = exact.comparable + between.comparable + events + often * between.mixed
    return twice / 2, comparable


def _resolution(state: dict[str, Any], c_index: float) -> float:
    """Bound on the difference between `c_index` and that of the rows themselves, whatever the bins leave open.

    Of a pair between sites with scores in one bin the order is open, of one with times in one bin also whether it can
    be compared. The greatest C-index has every open pair that can be concordant, and none that cannot; the least one
    the reverse.
    """
    exact, between = Exact(*state["exact"]), _between(state)
    events, censored = counts_of_cells(_cells(state), len(state["edges"]))
    # Of an event and a censored row in one bin of time, those in one bin of score too: no more than in all cells.
    same = min(int((events * censored).sum()), between.mixed)
    twice = exact.twice_concordant + between.twice_concordant
    comparable = exact.comparable + between.comparable + between.events
    rising = min((between.twice_mixed + same) / 2, between.mixed)
    falling = min(between.mixed - (between.twice_mixed - same) / 2, between.mixed)
    most = twice / 2 + between.tied / 2 + between.events + rising, comparable + rising
    least = twice / 2 - between.tied / 2, comparable + falling
    greatest, smallest = (part / whole if whole else c_index for part, whole in (most, least))
    return max(greatest - c_index, c_index - smallest, 0.0)


def _joined_resolution(state: dict[str, Any], c_index: float) -> float:
    """Bound the same where sites joined cells, by all that these rows may be; see `joined_cells`."""
    exact = Exact(*state["exact"])
    rising, never, falling, always = between_sites(_told(state), len(state["edges"]) + 1)
    ends = []
    for right, wrong in ((rising, never), (always, falling)):
        pairs = exact.comparable + right + wrong
        ends.append((exact.twice_concordant / 2 + right) / pairs if pairs else c_index)
    greatest, smallest = ends
    return max(greatest - c_index, c_index - smallest, 0.0)


def _add(rows: list[list[int]]) -> list[int]:
    # Python integers: no site can make them overflow.
    return [sum(cells) for cells in zip(*rows, strict=True)]
