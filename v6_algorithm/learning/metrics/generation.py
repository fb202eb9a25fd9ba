"""Metrics of synthetic images: one site's features of real rows and of made ones become sums, and no row leaves.

Whoever evaluates a generative problem fills `GenerationMetrics`; `generation_state` works on what the sites sent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics.generation_state import pack

# A row beyond this counts as non-finite: the fourth power of its norm must be far from overflow.
_LARGEST_FEATURE = 1e15


class GenerationMetrics:
    """Collect what FID and KID need of one part at one site.

    Both compare real and synthetic rows by the mean and the products of their features, so that sums are enough [1]_
    [2]_; see `generation_state` for the formulas. Sums over few rows nearly describe them: over fewer than `least` rows
    nothing is told but how many there were.

    Parameters
    ----------
    dimensions : int
        Numbers that a row's features are.
    least : int, optional
        Fewest real rows that any sum may be over; never fewer than `dimensions`.

    References
    ----------
    .. [1] Heusel et al. (2017), GANs trained by a two time-scale update rule converge to a local Nash equilibrium.
    .. [2] Bińkowski et al. (2018), Demystifying MMD GANs.
    """

    def __init__(self, dimensions: int, least: int = 0) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions must be 1 or more, got {dimensions}")
        self._dimensions = dimensions
        self._least = max(dimensions, least)
        self._non_finite = 0
        self._real, self._made = _Sums(dimensions), _Sums(dimensions)

    def update(self, real: ArrayLike, made: ArrayLike) -> None:
        """Add a batch of real rows, and the synthetic rows that they are compared with.

        Parameters
        ----------
        real, made : array of float, shape (n, dimensions)
            Features of as many rows each. Where one of a pair is not finite, the pair is counted and left out.

        Raises
        ------
        ValueError
            If the shapes are not as above.
        """
        both = [np.asarray(rows, dtype=np.float64) for rows in (real, made)]
        if any(rows.shape != (len(both[0]), self._dimensions) for rows in both):
            raise ValueError(f"real and made must have one shape (n, {self._dimensions})")
        usable = np.logical_and.reduce([(np.abs(rows) <= _LARGEST_FEATURE).all(axis=1) for rows in both])
        self._non_finite += int((~usable).sum())
        self._real.add(both[0][usable])
        self._made.add(both[1][usable])

    def state(self) -> dict[str, Any]:
        """Return what the rows add up to, as plain JSON.

        Returns
        -------
        dict
            `n` real and as many synthetic rows; of each kind the sum of the features, the upper triangle of the sum of
            their products, and the sum of the squares of their squared norms. `withheld` rows are too few to be told.
        """
        enough = self._real.n >= self._least
        real, made = (self._real, self._made) if enough else (_Sums(self._dimensions), _Sums(self._dimensions))
        return {
            "kind": "generation",
            "dimensions": self._dimensions,
            "n": real.n,
            "withheld": 0 if enough else self._real.n,
            "non_finite": self._non_finite,
            "real": real.packed(),
            "made": made.packed(),
        }


class _Sums:
    """Sums over rows of features, in float64."""

    def __init__(self, dimensions: int) -> None:
        self.n = 0
        self._total: NDArray[np.float64] = np.zeros(dimensions)
        self._products: NDArray[np.float64] = np.zeros((dimensions, dimensions))
        self._quartic = 0.0

    def add(self, rows: NDArray[np.float64]) -> None:
        self.n += len(rows)
        self._total += rows.sum(axis=0)
        self._products += rows.T @ rows
        self._quartic += float(((rows**2).sum(axis=1) ** 2).sum())

    def packed(self) -> str:
        return pack(self._total, self._products, self._quartic)
