"""Which columns of a design can be estimated, from its information matrix, and that matrix on these columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from v6_algorithm.data.preparation.setup import Setup

# A column whose variance beside the others is less than this share of its own is a combination of them.
_ALIASED = 1e-9
# Rounding of one product, with room for those that add up.
_ROUNDING = 16 * torch.finfo(torch.float64).eps


def elimination(setup: Setup, *, intercept: bool = True) -> list[int] | None:
    """Return the order of a design with curves or products for `independent`; None where it has none."""
    if setup.terms is None:
        return None
    places = setup.terms.elimination(setup.features, setup.categories)
    return [0, *(place + 1 for place in places)] if intercept else places


def independent_but(
    information: Tensor, offset: tuple[int, float] | None, order: Sequence[int] | None = None
) -> Tensor:
    """Return `independent` of a design with an intercept, and False of the coefficient that is not estimated."""
    if offset is None:
        return independent(information, order=order)
    others = torch.arange(len(information)) != offset[0]
    free = torch.zeros(len(information), dtype=torch.bool)
    places = None if order is None else [place - (place > offset[0]) for place in order if place != offset[0]]
    free[others] = independent(information[others][:, others], order=places)
    return free


def independent(
    information: Tensor,
    tolerance: float = _ALIASED,
    *,
    intercept: bool = True,
    order: Sequence[int] | None = None,
) -> Tensor:
    """Say which columns of a design are no combination of the others: (columns,) bool, from its information matrix.

    The intercept, where there is one, comes first and then the columns from the last to the first: of a category's 0/1
    columns, which add up to the intercept, the first one is the one that is left out, and so the reference. `order` is
    another one, of all places. Where rows of the reference hardly weigh, as they do when all are of one class, what is
    left of its column beside the others is rounding.
    """
    size = len(information)
    if order is None:
        order = [0, *reversed(range(1, size))] if intercept else [*reversed(range(size))]
    kept: list[int] = []
    factor = torch.zeros(size, size, dtype=torch.float64)
    # How much of each kept column's rest may be rounding, as a share: much, where little was left of it.
    unsure = torch.zeros(size, dtype=torch.float64)
    for column in order:
        diagonal = information[column, column]
        row = torch.zeros(len(kept), dtype=torch.float64)
        if kept:
            lower = factor[: len(kept), : len(kept)]
            row = torch.linalg.solve_triangular(lower, information[kept, column][:, None], upper=False)[:, 0]
        rest = diagonal - row @ row
        if rest > tolerance * diagonal + row.square() @ unsure[: len(kept)]:
            unsure[len(kept)] = _ROUNDING * diagonal / rest
            factor[len(kept), : len(kept)] = row
            factor[len(kept), len(kept)] = torch.sqrt(rest)
            kept.append(column)
    free = torch.zeros(size, dtype=torch.bool)
    free[kept] = True
    return free


def log_determinant(information: Tensor, free: Tensor) -> float:
    """Return the logarithm of the determinant of the information on what is estimated."""
    return float(torch.linalg.slogdet(information[free][:, free])[1])


def inverse(information: Tensor, free: Tensor) -> Tensor:
    """Return the inverse of the information on what is estimated, and nothing elsewhere."""
    inverse = torch.zeros_like(information)
    places = torch.nonzero(free)[:, 0]
    inverse[places[:, None], places] = torch.linalg.inv(information[free][:, free])
    return inverse
