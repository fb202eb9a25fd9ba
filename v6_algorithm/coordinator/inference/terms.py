"""What several terms of a regression say together: units, tests of categories, curves and products, and the curves.

`coefficients` calls it, for GLMs and Cox models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.distributions import chi_square_p
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.preparation.terms import DesignTerms
from v6_algorithm.learning.metrics.intervals.proportions import Z

# Of a standard deviation of its column: what a coefficient moves by beside another that grows, but for rounding.
_GROWING = 1e-3
# Points of a curve.
_POINTS = 41


def units(plan: Plan, fold: int) -> np.ndarray:
    """Return the matrix that turns coefficients of scaled inputs into those of the columns as they are."""
    setup, preparation = plan.setup, plan.setup.preparation
    assert preparation is not None  # noqa: S101
    terms = setup.terms or DesignTerms({}, [])
    return terms.units(setup.features, setup.categories, preparation.shift[fold], preparation.scale[fold])


def without_aliased(units: np.ndarray, information: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return the matrix of the units with nothing for columns that are left out.

    Unscaled, a product has a share in the columns that it is made of. Where such a column is left out, for others tell
    it, those others take that share: what it comes to follows from the information, for the columns as they are.
    """
    if not np.abs(units[~free][:, free]).sum():
        return units
    back = np.linalg.inv(units)
    as_they_are = back.T @ information @ back
    shares = np.zeros_like(units)
    shares[np.ix_(free, free)] = np.eye(int(free.sum()))
    shares[np.ix_(free, ~free)] = np.linalg.lstsq(
        as_they_are[np.ix_(free, free)], as_they_are[np.ix_(free, ~free)], rcond=None
    )[0]
    cleaned: np.ndarray = shares @ units
    return cleaned


def growing(units: np.ndarray, information: np.ndarray, free: np.ndarray, lost: Sequence[int]) -> set[int]:
    """Return which coefficients grow without end: those lost while it was fitted, and all that grow with them.

    Where two columns differ in rows that weigh nothing any more, one is lost, and what the other tells is only the sum
    of both.

    Parameters
    ----------
    units
        (columns, columns) as of `units`.
    information
        (columns, columns) of scaled inputs, at the last coefficients.
    free
        (columns,) bool: what could be estimated there.
    lost
        Places of what could be at first.
    """
    told: set[int] = set()
    for place in lost:
        way = np.zeros(len(free))
        way[place] = 1.0
        way[free] = -np.linalg.lstsq(information[np.ix_(free, free)], information[free, place], rcond=None)[0]
        least = _GROWING * np.maximum(np.abs(np.diag(units)), np.abs(units) @ np.abs(way))
        told |= {place, *np.flatnonzero(np.abs(units @ way) > least).tolist()}
    return told


def joint_tests(
    setup: Setup, terms: list[str], estimates: np.ndarray, covariance: np.ndarray, free: np.ndarray
) -> list[dict[str, Any]]:
    """Test terms together by Wald's chi-square: of each category, curve (all of it, and what is not straight), product.

    A curve is tested as a whole only where no product has it; a category's or curve's test is at 0 of the others.
    """
    tests = []
    for name, members in _together(setup).items():
        places = [place for place, term in enumerate(terms) if term in members and free[place]]
        # A single coefficient has its own p, but for what is not straight in a curve.
        if not places or (len(places) == 1 and not name.endswith(_NOT_STRAIGHT)):
            continue
        block = covariance[np.ix_(places, places)]
        # So that units do not decide which direction is nothing but rounding.
        size = np.sqrt(np.diag(block))
        size[size == 0] = 1.0
        correlation = block / np.outer(size, size)
        freedom = int(np.linalg.matrix_rank(correlation, tol=1e-10, hermitian=True))
        scaled = estimates[places] / size
        chi2 = float(scaled @ np.linalg.pinv(correlation, rcond=1e-10, hermitian=True) @ scaled)
        tests.append({"column": name, "chi2": chi2, "freedom": freedom, "p": chi_square_p(chi2, freedom)})
    return tests


_NOT_STRAIGHT = " (not straight)"


def _together(setup: Setup) -> dict[str, set[str]]:
    """Return the names of terms that belong together."""
    groups = {
        column: {f"{column}={value}" for value in values} for column, values in setup.categories.items() if values
    }
    if setup.terms is None:
        return groups
    for column in setup.terms.splines:
        curve = set(setup.terms.curve_columns(column))
        groups |= {column: {column} | curve, column + _NOT_STRAIGHT: curve}
    columns = {column: [column] for column in setup.features}
    columns |= {column: [column, *setup.terms.curve_columns(column)] for column in setup.terms.splines}
    columns |= {column: [f"{column}={value}" for value in values] for column, values in setup.categories.items()}
    for part in setup.terms.products:
        names = [""]
        for column in part:
            names = [f"{name} * {factor}" if name else factor for name in names for factor in columns[column]]
        groups[" * ".join(part)] = set(names)
    return groups


def spline_effects(
    setup: Setup, fold: int, terms: list[str], estimates: np.ndarray, covariance: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Return the curves of columns that are in no product: the linear predictor against that at the middle knot.

    Each has `reference` and, from the first to the last knot, `x`, `estimate`, `low` and `high` (95 %).
    """
    if setup.terms is None:
        return {}
    inside = {column for part in setup.terms.products for column in part}
    effects = {}
    for column in setup.terms.splines:
        if column in inside:
            continue
        knots = setup.terms.knots[column][fold]
        reference = float(knots[len(knots) // 2] if len(knots) % 2 else knots[len(knots) // 2 - 1])
        x = np.linspace(knots[0], knots[-1], _POINTS)
        names = [column, *setup.terms.curve_columns(column)]
        places = [terms.index(name) for name in names]
        basis = np.column_stack([x, setup.terms.curve(column, x, fold)])
        at_reference = np.array([[reference]])
        middle = np.column_stack([at_reference, setup.terms.curve(column, at_reference[0], fold)])
        contrast = basis - middle
        value = contrast @ estimates[places]
        reach = Z * np.sqrt(
            np.clip(np.einsum("ij,jk,ik->i", contrast, covariance[np.ix_(places, places)], contrast), 0, None)
        )
        effects[column] = {
            "reference": reference,
            "x": x.tolist(),
            "estimate": value.tolist(),
            "low": (value - reach).tolist(),
            "high": (value + reach).tolist(),
        }
    return effects
