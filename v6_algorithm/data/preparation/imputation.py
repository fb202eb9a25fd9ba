"""Multiple imputation by chained equations over sites: the regressions are the federation's, the draws each site's.

Each sweep the sites add up, for every column with empty cells, products of all columns over the rows in which it has a
value; `coordinator.preparation.imputation` draws a regression from what they come to, and the site draws its empty
cells from that. `Setup` carries the regressions of all sweeps, so a site remembers nothing: it makes the same cells
again, with the same draws, whenever it is asked.

A cell is the value of a row at the same site whose prediction is among the five nearest (predictive mean matching), so
that a column of 0 and 1 stays one; where a site has hardly any value of a column, it is drawn from the regression.

References
----------
van Buuren and Groothuis-Oudshoorn (2011), mice: multivariate imputation by chained equations in R, JSS 45(3).
Morris, White and Royston (2014), Tuning multiple imputation by predictive mean matching, BMC Med Res Methodol 14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.errors import WireError

Array = np.ndarray
DONORS = 5
_MOST_SWEEPS, _MOST_IMPUTATIONS = 50, 100
# Of the columns' products, which are nearly singular where categories add up to 1; mice has the same.
RIDGE = 1e-5


@dataclass(frozen=True)
class Imputation:
    """What all sites impute with.

    Attributes
    ----------
    columns
        Features with empty cells, in the order in which they are imputed.
    seed
        Of the draws.
    coefficients
        (sweeps, imputations, columns, 1 + inputs + 1) of each regression, on 1, scaled features, categories and the
        target; 0 at the column itself.
    deviations
        (sweeps, imputations, columns) residual standard deviations.
    """

    columns: list[str]
    seed: int
    coefficients: Array
    deviations: Array

    @classmethod
    def empty(cls, columns: Sequence[str], seed: int, imputations: int, width: int) -> Imputation:
        """Return what there is before the first sweep."""
        shape = (0, imputations, len(columns))
        return cls(list(columns), seed, np.zeros((*shape, width)), np.zeros(shape))

    @property
    def imputations(self) -> int:
        """How many tables are made."""
        return int(self.deviations.shape[1])

    def followed_by(self, coefficients: Array, deviations: Array) -> Imputation:
        """Return it with one sweep more: (imputations, columns, width) and (imputations, columns)."""
        return replace(
            self,
            coefficients=np.concatenate([self.coefficients, coefficients[None]]),
            deviations=np.concatenate([self.deviations, deviations[None]]),
        )

    def arrays(self) -> dict[str, Array]:
        """Return the arrays, for a message."""
        return {"coefficients": self.coefficients, "deviations": self.deviations}

    @classmethod
    def check(cls, content: Mapping[str, Any], arrays: Mapping[str, Array], features: Sequence[str], width: int,
              ) -> Imputation:  # fmt: skip
        """Read what a message holds; raises WireError unless it fits the columns."""
        columns = [str(name) for name in content["columns"]]
        coefficients, deviations = arrays["coefficients"], arrays["deviations"]
        if not set(columns) <= set(features) or len(set(columns)) < len(columns):
            raise WireError("imputation is of columns that are no features")
        fits = deviations.ndim == 3 and deviations.shape[2] == len(columns)
        # No more than an experiment may ask for.
        fits = fits and deviations.shape[0] <= _MOST_SWEEPS and deviations.shape[1] <= _MOST_IMPUTATIONS
        if not fits or coefficients.shape != (*deviations.shape, width):
            raise WireError("the regressions of the imputation are of other shapes")
        if not np.isfinite(coefficients).all() or not (deviations >= 0).all() or not np.isfinite(deviations).all():
            raise WireError("the regressions of the imputation must be finite numbers")
        return cls(columns, int(content["seed"]), coefficients, deviations)

    def complete(
        self, scaled: Array, others: Array, target: Array, features: Sequence[str], number: int, key: Sequence[str],
        donors: Array,
    ) -> Array:  # fmt: skip
        """Fill empty cells of one table.

        Parameters
        ----------
        scaled
            (rows, features) scaled values, NaN where a cell is empty.
        others, target
            (rows, categories) and (rows,), which have no empty cells.
        features
            Names of the columns.
        number
            Which of the imputations.
        key
            Whose rows these are.
        donors
            (rows,) bool: whose values may stand in another row.

        Returns
        -------
        ndarray
            (rows, features) without NaN; before the first sweep empty cells are 0, the mean.
        """
        empty = np.isnan(scaled)
        design = np.column_stack([np.ones(len(scaled)), np.where(empty, 0.0, scaled), others, target])
        places = [list(features).index(name) for name in self.columns]
        for sweep in range(len(self.deviations)):
            for column, place in enumerate(places):
                missing = empty[:, place]
                if not missing.any():
                    continue
                predicted = design @ self.coefficients[sweep, number, column]
                generator = seeding.numpy_generator(self.seed, "imputation", *key, number, sweep, column)
                known = ~missing & donors
                if known.sum() >= DONORS:
                    values = _matched(predicted[known], scaled[known, place], predicted[missing], generator)
                else:
                    values = predicted[missing] + self.deviations[sweep, number, column] * generator.normal(
                        size=int(missing.sum())
                    )
                design[missing, 1 + place] = values
        return design[:, 1 : 1 + scaled.shape[1]]


def _matched(known: Array, values: Array, wanted: Array, generator: np.random.Generator) -> Array:
    """Draw for each wanted prediction the value of one of the nearest known ones."""
    order = np.argsort(known, kind="stable")
    known, values = known[order], values[order]
    place = np.searchsorted(known, wanted)
    # At the ends a row would stand there more than once.
    first = np.clip(place - DONORS, 0, max(len(known) - 2 * DONORS, 0))
    near = np.minimum(first[:, None] + np.arange(2 * DONORS), len(known) - 1)
    distance = np.abs(known[near] - wanted[:, None])
    distance[:, 1:][near[:, 1:] == near[:, :-1]] = np.inf
    closest = np.argsort(distance, axis=1, kind="stable")[:, :DONORS]
    drawn = generator.integers(0, DONORS, len(wanted))
    chosen: Array = values[near[np.arange(len(wanted)), closest[np.arange(len(wanted)), drawn]]]
    return chosen


def products(completed: Array, others: Array, target: Array, known: Array) -> Array:
    """Return sums of products over rows in which a column has a value.

    Parameters
    ----------
    completed, others, target
        (rows, features), (rows, categories) and (rows,).
    known
        (rows, columns) bool: whether the cell is known, of each column that is imputed.

    Returns
    -------
    ndarray
        (columns, width, width), of 1, features, categories and target.
    """
    design = np.column_stack([np.ones(len(completed)), completed, others, target])
    sums: Array = np.stack([design[rows].T @ design[rows] for rows in known.T])
    return sums


def draw_regression(sums: Array, place: int, generator: np.random.Generator) -> tuple[Array, float]:
    """Draw the regression of one column on the others from its posterior under a flat prior; after Rubin, 1987.

    Parameters
    ----------
    sums
        (width, width) products over the rows in which the column is known.
    place
        Of the column.
    generator
        Whose draws.

    Returns
    -------
    tuple
        (width,) coefficients, 0 at the column itself, and the residual standard deviation.
    """
    others = np.delete(np.arange(len(sums)), place)
    # A column without values, such as a category that no row has, says nothing.
    others = others[np.diag(sums)[others] > 0]
    squares = sums[np.ix_(others, others)]
    inverse = np.linalg.inv(squares + RIDGE * np.diag(np.diag(squares)))
    inverse = (inverse + inverse.T) / 2
    cross = sums[others, place]
    best = inverse @ cross
    rest = max(float(sums[place, place] - 2 * best @ cross + best @ squares @ best), 0.0)
    freedom = max(float(sums[0, 0]) - len(others), 1.0)
    deviation = float(np.sqrt(rest / generator.chisquare(freedom)))
    values, vectors = np.linalg.eigh(inverse)
    noise = vectors @ (np.sqrt(np.maximum(values, 0)) * generator.normal(size=len(values)))
    coefficients = np.zeros(len(sums))
    coefficients[others] = best + deviation * noise
    return coefficients, deviation
