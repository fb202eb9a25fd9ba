"""The event times of all sites, at which a Cox model's risk sets are added up; `negotiate` has them from statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from v6_algorithm.data.preparation.setup import Setup, unpack_arrays
from v6_algorithm.data.preparation.times import doublings
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.experiment import Cox, Data, Experiment

# Numbers (256 MB) that a site would send in each round.
_MOST_NUMBERS = 2**25
# Hospitals differ by a factor of a few; days and weeks by 7, months and years by 12, days and months by 30.
OTHER_UNIT = 5.0
# Names by which 1 would be a patient without an event.
_NO_EVENT = re.compile(
    r"(is[_ .-]?)?(right[_ .-]?)?(censored|zensiert|gecensureerd|censur[eé]|censurado|alive|lebt|vivant|vivo)", re.I
)
# Sites of so many rows, of which at one at most, at another at least such a share has an event: one of them may have
# coded it the other way round.
_FEWEST_ROWS, _FEW_EVENTS, _MANY_EVENTS, _UNLIKE_EVENTS = 20, 0.4, 0.6, 0.35
_SHOWN_SITES = 10


def needs_times(experiment: Experiment) -> bool:
    """Say whether the sites tell event times: of a Cox model with one baseline for all of them."""
    return isinstance(experiment.model, Cox) and experiment.model.strata == "none"


def agree_on_times(
    answers: Mapping[str, tuple[np.ndarray, list[int]]], setup: Setup, condition: str | None = None
) -> tuple[Setup, list[str]]:
    """Return the setup with all sites' times, and sentences on coarse times; the answers are as of `check_times`.

    `condition` is that of `data.positive` which says an event.

    Raises
    ------
    ExperimentError
        When no site has an event, or there are so many times that their sums would be too large to send.
    """
    times = np.unique(np.concatenate([times for times, _ in answers.values()]))
    if not len(times):
        met = "" if condition is None else f": none meets data.positive '{condition}'; is it written so in the tables?"
        raise ExperimentError(f"model cox: no training row of any site has an event{met}")
    width = len(setup.inputs)
    numbers = len(times) * (1 + width + width * (width + 1) // 2) * 2
    if numbers > _MOST_NUMBERS:
        raise ExperimentError(
            f"model cox: sums at {len(times)} event times for {width} columns are {numbers} numbers a round, more than "
            f"{_MOST_NUMBERS}; round the duration column, take fewer columns, or model.strata site, which needs none"
        )
    notes = [
        f"site '{site}': its node joins event times: each of its {len(cells)} stands for at least {cell[0]} events and "
        f"{cell[1]} rows, so estimates are near those of exact times, not equal; model.strata site is exact without"
        for site, (cells, cell) in answers.items()
        if cell != [1, 1]
    ]
    if exact := [site for site, (_, cell) in answers.items() if cell == [1, 1]]:
        notes.append(
            f"model cox: {', '.join(exact)} told the times of single events and sums over who was left then, which "
            "describe single patients to whoever runs master; a node's policy standard joins times, model.strata site "
            "needs none"
        )
    return replace(setup, event_times=times), notes


def check_times(reply: Mapping[str, Any]) -> tuple[np.ndarray, list[int]]:
    """Check a site's event times; return them, (times,), and the fewest events and rows that each stands for."""
    times, cell = unpack_arrays(reply["event_times"])["times"], reply["cell"]
    if times.ndim != 1 or not np.isfinite(times).all() or (times < 0).any() or (np.diff(times) <= 0).any():
        raise WireError("its event times are not increasing finite times from 0 on")
    if not (isinstance(cell, list) and len(cell) == 2 and all(type(least) is int and least >= 1 for least in cell)):
        raise WireError("its fewest events and rows of a cell must be whole numbers from 1")
    return times, cell


def tell_units(schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say so where the sites' event times differ so much that they are most likely in other units."""
    # Sites with fewer events than a cell tell 0 of them, and a mean of nothing.
    said = {site: schema["log_times"] for site, schema in schemas.items() if "log_times" in schema}
    means = {site: 2.0**mean for site, (events, mean) in said.items() if events}
    if len(means) < 2 or max(means.values()) < OTHER_UNIT * min(means.values()):
        return []
    listing = ", ".join(f"{site} {means[site]:.3g}" for site in sorted(means, key=lambda site: means[site]))
    return [
        f"the sites' event times differ {max(means.values()) / min(means.values()):.0f}-fold (geometric means: "
        f"{listing}); are they in the same unit of time?"
    ]


def tell_units_by_bins(sums: Mapping[str, Mapping[str, np.ndarray]], middle: float) -> list[str]:
    """Say the same by the sites' counts of events in bins of time, where no node told a mean (`middle` is 0)."""
    places = {
        site: place for site, of in sums.items() if "event_times" in of and (place := doublings(of["event_times"]))
    }
    if middle or len(places) < 2 or 2 ** (max(places.values()) - min(places.values())) < OTHER_UNIT:
        return []
    first, last = (least(places, key=lambda site: places[site]) for least in (min, max))
    return [
        f"the sites' event times differ {2 ** (places[last] - places[first]):.0f}-fold (by bins of time; shortest at "
        f"{first}, longest at {last}); are they in the same unit of time?"
    ]


def tell_met(experiment: Experiment, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the sites where no row, or every row, meets the condition that says an event, of those that tell of it.

    Without a condition: say so where the name of the event's column says that there is none.
    """
    condition, notes = experiment.data.positive, []
    event = getattr(experiment.data.target, "event", None)
    if condition is None and event is not None and _NO_EVENT.fullmatch(event):
        notes.append(
            f"data.target.event: column '{event}' is 1 where the event is seen, though its name may say the opposite; "
            "data.positive: '== 0' takes 0 for the event"
        )
    for site, schema in schemas.items() if condition is not None else ():
        events = schema["log_times"][0] if "log_times" in schema else None
        # Fewer than its cells have are told as none.
        met = "no row, or only few," if events == 0 else "every row" if events == schema["rows"] else None
        if met is not None:
            meets = "meet" if events == 0 else "meets"
            notes.append(f"site '{site}': {met} {meets} data.positive '{condition}'; is it written so there?")
    return notes


def tell_event_shares(
    experiment: Experiment,
    sums: Mapping[str, Mapping[str, np.ndarray]],
    rows: Mapping[str, Sequence[Mapping[str, int]]],
) -> list[str]:
    """Say so where an event is rare at one site and usual at another, as where 1 means at one of them: not seen.

    `sums` has each site's counts of event times over all training rows, `rows` its rows by part for each fold.
    """
    data, shares = experiment.data, {}
    for site, of in sums.items():
        # Over several folds each row trains in some.
        trained = rows[site][0]["train"] if len(rows[site]) == 1 else sum(rows[site][0].values())
        if "event_times" in of and trained >= _FEWEST_ROWS:
            shares[site] = min(float(of["event_times"].sum()) / trained, 1.0)
    ranked = sorted(shares, key=lambda site: shares[site])
    if len(ranked) < 2 or experiment.privacy.secure_aggregation is not None:
        return []
    few, many = shares[ranked[0]], shares[ranked[-1]]
    if few > _FEW_EVENTS or many < _MANY_EVENTS or many - few < _UNLIKE_EVENTS:
        return []
    shown = ranked if len(ranked) <= _SHOWN_SITES else [*ranked[: _SHOWN_SITES // 2], *ranked[-_SHOWN_SITES // 2 :]]
    listing = ", ".join(f"{site} {shares[site]:.0%}" for site in shown)
    return [
        f"the sites' shares of training rows with an event, which is {event_of(data)}, differ as where one of them "
        f"codes it the other way round ({listing}); does this mean everywhere that it was seen?"
    ]


def event_of(data: Data) -> str:
    """Return the condition that says an event, such as ``died == 1``."""
    return f"{data.target_columns['target.event']} {data.positive or '== 1'}"


def tell_no_events(sums: Mapping[str, np.ndarray]) -> list[str]:
    """Say so where no training row has an event, of which nothing can be learned, or all have it at one time."""
    if "event_times" not in sums:
        return []
    if (filled := np.count_nonzero(sums["event_times"])) == 1:
        return [
            "all events of the training rows are at one time, to 4.4 %: survival curves, the Brier score and the AUROC "
            "over time need events at several times, and are left out unless problem.intervals are given"
        ]
    if filled:
        return []
    return [
        "no training row of any site has an event after time 0, so nothing is learned of when they happen; is "
        "data.target.event the right column, and data.positive right?"
    ]
