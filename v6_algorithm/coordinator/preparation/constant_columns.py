"""What the researcher is told of columns with one value: they tell a model nothing, or only whose rows they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import listed

# As `unit_where_constant` has it.
_ROUNDING = 1e-12


def tell_constant(features: Sequence[str], moments: Mapping[str, Moments], merged: Moments) -> list[str]:
    """Name the columns that have one value in all training rows of all sites, and those that have one at each site.

    `merged` are all sites' moments; columns of which no site, or not every site, tells anything are in neither.
    """
    everywhere = np.atleast_1d((_is_constant(merged) & (merged.count > 1)).all(axis=0))
    told = np.all([(of_site.count > 1).all(axis=0) for of_site in moments.values()], axis=0)
    at_each: np.ndarray = (
        np.all([_is_constant(of_site).all(axis=0) for of_site in moments.values()], axis=0) & told & ~everywhere
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
    return notes


def _is_constant(moments: Moments) -> np.ndarray:
    """Say of (folds, columns) whether values differ by no more than rounding."""
    constant: np.ndarray = moments.deviation <= _ROUNDING * np.abs(moments.mean)
    return constant
