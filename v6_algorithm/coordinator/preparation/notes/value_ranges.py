"""What the researcher is told of columns whose values, or codes, differ between sites as those of two units do.

`negotiate` makes the notes, from the moments of the training rows and from what sites say of columns with few codes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from v6_algorithm.coordinator.preparation.event_times import OTHER_UNIT
from v6_algorithm.data.description.describe import MOST_CODES, MOST_HINTED
from v6_algorithm.data.measurements import Measurement, measurement_of
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Data

# Hospitals' patients differ, but hardly by so many standard deviations; nor by such a factor, where the spread differs
# by about as much. Glucose in mg/dL is 18-fold that in mmol/L, and 3 of its standard deviations away.
_APART, _FACTOR, _ALIKE, _WIDEST = 3.0, 4.0, 2.5, 1.0
# Pounds in a kilogram, centimetres in an inch: mean and spread differ by these.
_KNOWN, _NEAR, _NEAR_SPREAD, _KNOWN_APART = (2.2046, 2.54), 0.05, 0.25, 1.5
_FACTOR_MIXED = 10.0
_FACTOR_LOGARITHM = 100.0
# Of a column that is called as a measurement of two units (`data.measurements`): how far sites' means may be from the
# ratio of these units, by that ratio, and how unlike their relative spread. A unit changes no relative spread; children
# weigh half of what adults do, and spread more.
_NEAR_NAMED = ((2.3, 1.2, 1.5), (4.0, 1.3, 1.6), (20.0, 1.5, 2.0), (np.inf, 2.2, 3.0))
_NEAR_MEANS = 1.35
_LEAST_NAMED = 1.3
# Values around 0, such as of an ECG, have means that tell nothing: what differs with their unit is their spread.
_AROUND_ZERO, _FACTOR_SPREAD = 0.5, 30.0
_FEWEST = 10
# Of products and quotients, far more than they are rounded by.
_ROUNDING = 1e-9
_SHOWN_SITES = 10


def tell_ranges(features: Sequence[str], moments: Mapping[str, Moments]) -> list[str]:
    """Name the columns of which two sites' values lie so far apart that they are most likely in other units.

    Of each site it is mean and standard deviation of the first fold's training rows. Sites with few values, or with one
    value only, are passed over.
    """
    if len(moments) < 2:
        return []
    sites = list(moments)
    count = np.stack([of_site.count[0] for of_site in moments.values()])
    mean = np.stack([of_site.mean[0] for of_site in moments.values()])
    deviation = np.stack([of_site.deviation[0] for of_site in moments.values()])
    seen = (count >= _FEWEST) & (deviation > 1e-9 * np.abs(mean))
    notes = []
    may_be_apart, may_be_units = _may_be_apart(mean, deviation, seen), _may_be_units(features, mean, seen)
    for place in np.flatnonzero(may_be_apart | may_be_units).tolist():
        ranked = sorted(np.flatnonzero(seen[:, place]).tolist(), key=lambda site: mean[site, place])
        known = measurement_of(features[place]) if may_be_units[place] else None
        as_units = ""
        if known is not None and _in_its_units(known, mean[ranked, place], deviation[ranked, place]):
            as_units = f"as those in {known.units[0]} and in {known.units[1]} do"
        lowest, highest = ranked[0], ranked[-1]
        apart = may_be_apart[place] and (
            _differ(*mean[[lowest, highest], place].tolist(), *deviation[[lowest, highest], place].tolist())
            or _spread_apart(mean[ranked, place], deviation[ranked, place])
        )
        if not apart and not as_units:
            continue
        how = f"lie far apart{', ' if as_units else ''}{as_units}" if apart else f"differ {as_units}"
        shown = ranked if len(ranked) <= _SHOWN_SITES else [*ranked[: _SHOWN_SITES // 2], *ranked[-_SHOWN_SITES // 2 :]]
        listing = ", ".join(f"{sites[site]} {mean[site, place]:.3g} ± {deviation[site, place]:.3g}" for site in shown)
        notes.append(
            f"column '{features[place]}': the sites' values {how} (mean ± standard deviation: {listing}); are they in "
            "one unit? Convert them there, or leave the column out with data.exclude"
        )
    return notes


def _may_be_apart(means: np.ndarray, deviations: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Say which columns, (columns,) bool of (sites, columns), have to be looked at one by one: of a wide table few."""
    low, high = np.where(seen, means, np.inf).min(axis=0), np.where(seen, means, -np.inf).max(axis=0)
    least, most = np.where(seen, deviations, np.inf).min(axis=0), np.where(seen, deviations, 0.0).max(axis=0)
    # What `_differ` and `_spread_apart` ask for at least, whichever site the numbers are of.
    factor = min(_FACTOR, _FACTOR_MIXED, *((1 - _NEAR) * known for known in _KNOWN))
    several = seen.sum(axis=0) > 1
    with np.errstate(invalid="ignore"):
        # Without a site all of these are infinite.
        apart = (high - low > _APART * least * (1 - _ROUNDING)) | ((low > 0) & (high >= factor * low * (1 - _ROUNDING)))
    may: np.ndarray = several & (apart | (most >= _FACTOR_SPREAD * least * (1 - _ROUNDING)))
    return may


def _may_be_units(features: Sequence[str], means: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Say which columns, (columns,) bool, may be in the two units of what they are called; none of a table of genes."""
    low, high = np.where(seen, means, np.inf).min(axis=0), np.where(seen, means, -np.inf).max(axis=0)
    may: np.ndarray = (seen.sum(axis=0) > 1) & (low > 0) & (high >= _LEAST_NAMED * low)
    return may if len(features) <= MOST_HINTED else np.zeros_like(may)


def _in_its_units(known: Measurement, means: np.ndarray, deviations: np.ndarray) -> bool:
    """Say whether any of the ascending (sites,) means differs from the lowest or highest as the two units do."""
    spread = deviations / means
    near, alike = next((near, alike) for below, near, alike in _NEAR_NAMED if known.ratio < below)
    if known.means is not None:
        (low, high), (larger, largest) = known.means
        near = _NEAR_MEANS if low < means[0] < high and larger < means[-1] < largest else near
    for end in (0, -1):
        off = np.maximum(means / means[end], means[end] / means) / known.ratio
        unlike = np.maximum(spread / spread[end], spread[end] / spread)
        if ((off < near) & (off > 1 / near) & (unlike < alike)).any():
            return True
    return False


def _differ(low: float, high: float, low_deviation: float, high_deviation: float) -> bool:
    """Say whether two sites' means and standard deviations are as of two units."""
    widest = max(low_deviation, high_deviation)
    if high - low > _APART * widest:
        return True
    if low <= 0 or high - low <= 0:
        return False
    factor, spread = high / low, high_deviation / low_deviation
    if any(abs(factor / known - 1) < _NEAR and abs(spread / known - 1) < _NEAR_SPREAD for known in _KNOWN):
        return high - low > _KNOWN_APART * widest
    relative = low_deviation / low, high_deviation / high
    # Numbers here and their logarithms there.
    if factor >= _FACTOR_LOGARITHM and relative[0] < _AROUND_ZERO:
        return True
    alike = max(relative) < _WIDEST and max(relative) < _ALIKE * min(relative)
    if factor >= _FACTOR and alike:
        return True
    # Where one site has rows in both units, its spread is wide.
    return factor >= _FACTOR_MIXED and max(relative) < _WIDEST


def _spread_apart(means: np.ndarray, deviations: np.ndarray) -> bool:
    """Say whether (sites,) standard deviations are as of two units, among the sites whose values are around 0."""
    spreads = deviations[np.abs(means) < _AROUND_ZERO * deviations]
    return len(spreads) > 1 and bool(spreads.max() >= _FACTOR_SPREAD * spreads.min())


def tell_target_sizes(data: Data, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say so where a target's numbers differ so much in size between sites that they are most likely in other units.

    Also where they differ as the two units of what the column is called, and where a site has one number in all rows.
    """
    notes = []
    for key, column in data.target_columns.items():
        told = {site: schema["target_sizes"][column] for site, schema in schemas.items()
                if column in schema.get("target_sizes", {})}  # fmt: skip
        if alike := [site for site, (_, mean, _) in told.items() if mean is None]:
            notes.append(
                f"data.{key}: column '{column}' has one number in all rows at {listed(alike)}: what is learned there "
                "is that number"
            )
        below, above = ([site for site, (*_, of) in told.items() if of == sign] for sign in (-1, 1))
        if below and above:
            notes.append(
                f"data.{key}: all numbers of column '{column}' are below 0 at {listed(below)}, and above it at "
                f"{listed(above)}: do they mean the same?"
            )
        sizes = {site: 2.0**mean for site, (_, mean, _) in told.items() if mean is not None}
        if len(sizes) > 1 and (note := _tell_sizes(key, column, sizes)):
            notes.append(note)
    return notes


def _tell_sizes(key: str, column: str, sizes: Mapping[str, float]) -> str:
    ranked = sorted(sizes, key=lambda site: sizes[site])
    known = measurement_of(column)
    means = np.array([sizes[site] for site in ranked])
    if means[-1] < OTHER_UNIT * means[0] and not (known is not None and _in_its_units(known, means, means)):
        return ""
    listing = ", ".join(f"{site} {sizes[site]:.3g}" for site in ranked[:_SHOWN_SITES])
    return (
        f"data.{key}: the sites' targets differ {means[-1] / means[0]:.2g}-fold in size (geometric "
        f"means: {listing}); are they in one unit?"
    )


def check_codes(codes: Any, columns: Collection[str]) -> None:
    """Raise WireError unless a site tells of its own columns two to ten whole numbers each, ascending."""
    if not isinstance(codes, dict) or not set(codes) <= set(columns):
        raise WireError("its columns of codes must be some of its columns")
    for held in codes.values():
        whole = isinstance(held, (list, tuple)) and all(type(code) is int for code in held)
        if not whole or not 2 <= len(held) <= MOST_CODES or list(held) != sorted(set(held)):
            raise WireError(f"codes of a column must be 2 to {MOST_CODES} whole numbers, ascending")


def tell_event_codes(data: Data, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the codes of survival's event column where they differ between sites: 1 is an event here, and none there."""
    column = data.target_columns.get("target.event")
    by_codes: dict[tuple[int, ...], list[str]] = {}
    for site, schema in schemas.items():
        if column in schema.get("codes", {}):
            by_codes.setdefault(tuple(schema["codes"][column]), []).append(site)
    if len(by_codes) < 2 or data.positive is None:
        return []
    listing = "; ".join(
        f"{' and '.join(map(str, codes))} at {listed(sites)}" for codes, sites in sorted(by_codes.items())
    )
    return [
        f"column '{column}' (data.target.event) holds {listing}: does data.positive '{data.positive}' mean at all of "
        "these that the event was seen?"
    ]


def tell_codes(schemas: Mapping[str, Mapping[str, Any]], used: Collection[str]) -> list[str]:
    """Name the columns of which one site's codes are not another's: 0 and 1 here, 1 and 2 there; 0 to 3, and 1 to 4."""
    notes = []
    coded = {name for schema in schemas.values() for name in schema.get("codes", {})}
    for name in (name for name in used if name in coded):
        by_codes: dict[tuple[int, ...], list[str]] = {}
        for site, schema in schemas.items():
            if name in schema.get("codes", {}):
                by_codes.setdefault(tuple(schema["codes"][name]), []).append(site)
        # Of more than two, a site may lack the lowest or the highest: as many, from another number on, are other codes.
        lengths = [len(codes) for codes in by_codes]
        held = {codes: sites for codes, sites in by_codes.items() if lengths.count(len(codes)) > 1}
        if held:
            listing = "; ".join(
                f"{codes[0]} {'and' if len(codes) == 2 else 'to'} {codes[-1]} at {listed(sites)}"
                for codes, sites in sorted(held.items())
            )
            notes.append(
                f"column '{name}' holds {listing}: are these codes for the same? They are learned from as numbers; "
                "code them alike there, or list it under data.categorical"
            )
    return notes
