"""What the researcher is told of columns with one value: they tell a model nothing, or only whose rows they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from v6_algorithm.data.preparation.statistics import Moments, is_constant
from v6_algorithm.data.rows.kind import listed

# Of the others' spread by subtraction: the square root of what a spread is rounded by.
_ROUNDING = 1e-6
# Of how many rows, and so many standard deviations, a site's one value is not by chance.
_FEWEST, _APART, _BY_CHANCE = 10, 2.0, 1e-3
_FEWEST_FILLED = 40


def tell_constant(features: Sequence[str], moments: Mapping[str, Moments], merged: Moments) -> list[str]:
    """Name the columns that have one value in all training rows, at each site, or at a site far from all others.

    Of the last kind is a cholesterol of 0 in every row. `merged` are all sites' moments; columns of which no site, or
    not every site, tells anything are in neither of the first two.
    """
    everywhere = np.atleast_1d((is_constant(merged.deviation, merged.mean) & (merged.count > 1)).all(axis=0))
    told = np.all([(of_site.count > 1).all(axis=0) for of_site in moments.values()], axis=0)
    at_each: np.ndarray = (
        np.all([is_constant(of_site.deviation, of_site.mean).all(axis=0) for of_site in moments.values()], axis=0)
        & told
        & ~everywhere
    )
    notes = []
    where = f"site '{next(iter(moments))}': " if len(moments) == 1 else ""
    if names := [name for name, is_one in zip(features, everywhere, strict=True) if is_one]:
        notes.append(f"{where}one value in all training rows, so nothing is learned from it: {listed(names)}")
    if names := [name for name, is_one in zip(features, at_each, strict=True) if is_one]:
        notes.append(
            "one value at each site, and another at some, so that it tells only whose rows these are: "
            f"{listed(names)}; data.exclude leaves it out"
        )
    told_of = set(np.flatnonzero(everywhere | at_each).tolist())
    for site, of_site in moments.items():
        apart = (
            is_constant(of_site.deviation, of_site.mean).all(axis=0)
            & (of_site.count >= _FEWEST).all(axis=0)
            & _is_apart(of_site, merged)
        )
        if names := [name for place, name in enumerate(features) if apart[place] and place not in told_of]:
            notes.append(
                f"site '{site}': one value in all training rows, unlike other sites: {listed(names)}; "
                "does it mean there that nothing is known? data.missing_values then makes it empty"
            )
    return notes


def _is_apart(of_site: Moments, merged: Moments) -> np.ndarray:
    """Say of each column whether a site's one value is far from the others' mean, or such as is not by chance.

    The others' moments are all sites' less this one's, the update of `merge_moments` solved for one of its two parts.
    """
    count = merged.count - of_site.count
    safe = np.maximum(count, 1)
    away = (merged.mean - of_site.mean) * merged.count / safe
    squares = merged.squares - of_site.squares - away**2 * of_site.count * count / np.maximum(merged.count, 1)
    deviation = np.sqrt(np.maximum(squares, 0) / safe)
    varies = deviation > _ROUNDING * np.abs(merged.mean)
    far = np.abs(away) > _APART * deviation
    # A share of rows of at least d^2 / (d^2 + s^2) has another value (Cauchy and Schwarz), so that a site has none of
    # them by chance at most so often. One of two codes, such as a sex, a site may well have alone.
    with np.errstate(divide="ignore", invalid="ignore"):
        rare = of_site.count * np.log1p((away / deviation) ** 2) > -np.log(_BY_CHANCE)
    mean = of_site.mean + away
    low = np.floor(mean)
    codes = np.isclose((mean - low) * (low + 1 - mean), deviation**2, rtol=1e-6, atol=1e-12)
    # Nor is one value of many rows, where it is neither a count of none or one, nor of a code: a temperature of 37.
    filled = (of_site.count >= _FEWEST_FILLED) & ~np.isin(of_site.mean, (0.0, 1.0))
    apart: np.ndarray = ((far | ((rare | filled) & ~codes)) & varies & (count >= _FEWEST)).all(axis=0)
    return apart
