"""Multiple imputation by chained equations over sites: the regressions are the federation's, the draws each site's.

Each sweep the sites add up, for every column with empty cells, products of all columns over the rows in which it has a
value; `coordinator.preparation.imputation` draws a regression from what they come to, and the site draws its empty
cells from that. `Setup` carries the regressions of all sweeps, so a site remembers nothing: it makes the same cells
again, with the same draws, whenever it is asked.

A cell is the value of a row at the same site whose prediction is among the five nearest (predictive mean matching), so
that a column of 0 and 1 stays one; where a site has hardly any value of a column, it is drawn from the regression.

A category is imputed as a whole: the columns of its values are regressed together on everything else, and a row takes
those of a row whose predictions are near. Where a node's rules forbid matching they are drawn from the joint normal
distribution: shares that add up to 1 and are not rounded. Whole values drawn there would put rows into a sum or leave
them out, and sums of many tables are then a hidden subset sum problem, which can be solved for the rows; of normal
draws they tell products of the rows and no more.

Of a Cox model the outcome is the event and the Nelson-Aalen cumulative hazard of the site's rows at each row's time.

References
----------
van Buuren and Groothuis-Oudshoorn (2011), mice: multivariate imputation by chained equations in R, JSS 45(3).
Morris, White and Royston (2014), Tuning multiple imputation by predictive mean matching, BMC Med Res Methodol 14.
White and Royston (2009), Imputing missing covariate values for the Cox model, Stat Med 28(15).
Horton, Lipsitz and Parzen (2003), A potential for bias when rounding in multiple imputation, Am Stat 57(4).
Nguyen and Stern (1999), The hardness of the hidden subset sum problem, CRYPTO.
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
# Of rows that lend a category, and of rows that are compared with them at once.
_MOST_CANDIDATES, _BLOCK_ROWS = 2000, 1000
# Of the columns' products, which are nearly singular where categories add up to 1; mice has the same.
RIDGE = 1e-5


@dataclass(frozen=True)
class Imputation:
    """What all sites impute with.

    Attributes
    ----------
    columns
        Features with empty cells, and categories, in the order in which they are imputed.
    seed
        Of the draws.
    coefficients
        (sweeps, imputations, places, width) of each regression, on 1, scaled features, categories and the outcome; a
        place is a feature, or one of a category's values. 0 at what is imputed itself.
    deviations
        (sweeps, imputations, places, most) residual standard deviation of a feature; of a category the rows of a square
        root of the residual covariance. `most` is the largest number of values.
    """

    columns: list[str]
    seed: int
    coefficients: Array
    deviations: Array

    @classmethod
    def empty(
        cls, columns: Sequence[str], seed: int, imputations: int, width: int, blocks: Sequence[Array] | None = None
    ) -> Imputation:
        """Return what there is before the first sweep; `blocks` as `blocks_of` has them, of features alone None."""
        sizes = [1] * len(columns) if blocks is None else [len(block) for block in blocks]
        shape = (0, imputations, sum(sizes))
        return cls(list(columns), seed, np.zeros((*shape, width)), np.zeros((*shape, max(sizes))))

    @property
    def imputations(self) -> int:
        """How many tables are made."""
        return int(self.deviations.shape[1])

    def followed_by(self, coefficients: Array, deviations: Array) -> Imputation:
        """Return it with one sweep more: (imputations, places, width) and (imputations, places, most)."""
        return replace(
            self,
            coefficients=np.concatenate([self.coefficients, coefficients[None]]),
            deviations=np.concatenate([self.deviations, deviations[None]]),
        )

    def arrays(self) -> dict[str, Array]:
        """Return the arrays, for a message."""
        return {"coefficients": self.coefficients, "deviations": self.deviations}

    @classmethod
    def check(
        cls,
        content: Mapping[str, Any],
        arrays: Mapping[str, Array],
        features: Sequence[str],
        categories: Mapping[str, Sequence[Any]],
    ) -> Imputation:
        """Read what a message holds; raises WireError unless it fits the columns."""
        columns = [str(name) for name in content["columns"]]
        coefficients, deviations = arrays["coefficients"], arrays["deviations"]
        if not set(columns) <= {*features, *categories} or len(set(columns)) < len(columns) or not columns:
            raise WireError("imputation is of columns that are no features")
        sizes = [len(categories[name]) if name in categories else 1 for name in columns]
        inputs = 1 + len(features) + sum(map(len, categories.values()))
        fits = deviations.ndim == 4 and deviations.shape[2:] == (sum(sizes), max(sizes)) and min(sizes) > 0
        # No more than an experiment may ask for.
        fits = fits and deviations.shape[0] <= _MOST_SWEEPS and deviations.shape[1] <= _MOST_IMPUTATIONS
        # The outcome is one number, or an event and a hazard.
        widths = [(*deviations.shape[:3], inputs + outcomes) for outcomes in (1, 2)]
        if not fits or coefficients.shape not in widths:
            raise WireError("the regressions of the imputation are of other shapes")
        if not np.isfinite(coefficients).all() or not np.isfinite(deviations).all():
            raise WireError("the regressions of the imputation must be finite numbers")
        return cls(columns, int(content["seed"]), coefficients, deviations)

    def complete(
        self, scaled: Array, others: Array, outcome: Array, blocks: Sequence[Array], number: int, key: Sequence[str],
        donors: Array,
    ) -> Array:  # fmt: skip
        """Fill empty cells of one table.

        Parameters
        ----------
        scaled, others
            (rows, features) scaled values and (rows, categories) of 0 and 1, NaN where a cell is empty.
        outcome
            (rows, 1), or of survival (rows, 2) events and cumulative hazards; without empty cells.
        blocks
            Places of each of `columns`, of `blocks_of`.
        number
            Which of the imputations.
        key
            Whose rows these are.
        donors
            (rows,) bool: whose values may stand in another row.

        Returns
        -------
        ndarray
            (rows, features + categories) without NaN; before the first sweep empty cells are 0, the mean, and of a
            category the same share of each value.
        """
        inputs = np.column_stack([scaled, others])
        empty, features = np.isnan(inputs), scaled.shape[1]
        inputs[:, :features][empty[:, :features]] = 0
        for block in blocks:
            if len(block) > 1 or block[0] > features:
                rows = empty[:, block[0] - 1]
                inputs[np.ix_(rows, block - 1)] = 1 / len(block)
        design = np.column_stack([np.ones(len(inputs)), inputs, outcome])
        if design.shape[1] != self.coefficients.shape[3]:
            raise WireError("the regressions of the imputation are of other shapes")
        if np.isnan(design).any():
            raise WireError("the imputation leaves out a category with empty cells")
        ends = np.cumsum([len(block) for block in blocks])
        for sweep in range(len(self.deviations)):
            for column, block in enumerate(blocks):
                missing = empty[:, block[0] - 1]
                if not missing.any():
                    continue
                slots = slice(ends[column] - len(block), ends[column])
                regressions = self.coefficients[sweep, number, slots]
                # A vector's product and a matrix's differ in the last digit.
                predicted = (design @ regressions[0])[:, None] if len(block) == 1 else design @ regressions.T
                generator = seeding.numpy_generator(self.seed, "imputation", *key, number, sweep, column)
                known = ~missing & donors
                spread = self.deviations[sweep, number, slots, : len(block)]
                if known.sum() < DONORS:
                    drawn = generator.normal(size=(int(missing.sum()), len(block)))
                    values = predicted[missing] + drawn @ spread.T
                elif len(block) == 1:
                    column_values = inputs[known, block[0] - 1]
                    values = _matched(predicted[known, 0], column_values, predicted[missing, 0], generator)[:, None]
                else:
                    chosen = _nearest(predicted[known], predicted[missing], generator)
                    values = inputs[known][:, block - 1][chosen]
                design[np.ix_(missing, block)] = values
        return design[:, 1 : 1 + inputs.shape[1]]


def blocks_of(columns: Sequence[str], features: Sequence[str], categories: Mapping[str, Sequence[Any]]) -> list[Array]:
    """Return the places of each column in a design of 1, features and values of categories: several of a category."""
    ends = np.cumsum([1 + len(features), *map(len, categories.values())])
    places = {name: np.arange(start, end) for name, start, end in zip(categories, ends[:-1], ends[1:], strict=True)}
    places |= {name: np.array([1 + place]) for place, name in enumerate(features)}
    return [places[name] for name in columns]


def outcome_of(target: Array, train: Array, member: Array) -> Array:
    """Return what an imputation knows of the outcome, (rows, 1); of survival (rows, 2), the event and the hazard.

    The hazard is Nelson and Aalen's of the training rows of each row's hospital, up to the row's time.
    """
    if target.ndim == 1:
        return target.astype(np.float64)[:, None]
    duration, event = target[:, :2].astype(np.float64).T
    hazard = np.zeros(len(target))
    for number in np.unique(member):
        rows, trained = np.flatnonzero(member == number), train[member[train] == number]
        times, counts = np.unique(duration[trained][event[trained] == 1], return_counts=True)
        at_risk = len(trained) - np.searchsorted(np.sort(duration[trained]), times, side="left")
        summed = np.concatenate([[0.0], np.cumsum(counts / np.maximum(at_risk, 1))])
        hazard[rows] = summed[np.searchsorted(times, duration[rows], side="right")]
    return np.column_stack([event, hazard])


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


def _nearest(known: Array, wanted: Array, generator: np.random.Generator) -> Array:
    """Draw for each row of wanted predictions the number of one of the nearest known rows; all (rows, values).

    Of very many known rows the nearest of some that are drawn; in a drawn order, for many may be as near.
    """
    candidates = generator.permutation(len(known))[:_MOST_CANDIDATES]
    lengths = (known[candidates] ** 2).sum(axis=1)
    chosen = np.empty(len(wanted), dtype=np.int64)
    drawn = generator.integers(0, DONORS, len(wanted))
    for start in range(0, len(wanted), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        distance = lengths - 2 * wanted[rows] @ known[candidates].T
        closest = np.argsort(distance, axis=1, kind="stable")[:, :DONORS]
        chosen[rows] = candidates[closest[np.arange(len(closest)), drawn[rows]]]
    return chosen


def products(completed: Array, outcome: Array, known: Array) -> Array:
    """Return sums of products over rows in which a column has a value.

    Parameters
    ----------
    completed, outcome
        (rows, features + categories) and (rows, 1 or 2).
    known
        (rows, columns) bool: whether the cell is known, of each column that is imputed.

    Returns
    -------
    ndarray
        (columns, width, width), of 1, features, categories and outcome.
    """
    design = np.column_stack([np.ones(len(completed)), completed, outcome])
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
    inverse = _inverse(squares)
    cross = sums[others, place]
    best = inverse @ cross
    rest = max(float(sums[place, place] - 2 * best @ cross + best @ squares @ best), 0.0)
    freedom = max(float(sums[0, 0]) - len(others), 1.0)
    deviation = float(np.sqrt(rest / generator.chisquare(freedom)))
    # The symmetric root, for the signs of eigenvectors change with the last digit: under masks other draws would come.
    noise = _root(inverse) @ generator.normal(size=len(inverse))
    coefficients = np.zeros(len(sums))
    coefficients[others] = best + deviation * noise
    return coefficients, deviation


def draw_category(sums: Array, block: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Draw the regressions of a category's values on everything else, together, under a flat prior; Schafer, 1997.

    Parameters
    ----------
    sums
        (width, width) products over the rows in which the category is known.
    block
        (values,) its places.
    generator
        Whose draws.

    Returns
    -------
    tuple
        (values, width) coefficients, which add up to 1 at the constant and to 0 elsewhere, and (values, values) a root
        of the residual covariance, whose rows add up to 0.
    """
    size = len(block) - 1
    coefficients, spread = np.zeros((len(block), len(sums))), np.zeros((len(block), len(block)))
    coefficients[-1, 0] = 1.0
    others = np.setdiff1d(np.arange(len(sums)), block)
    others = others[np.diag(sums)[others] > 0]
    if not size or not len(others):
        return coefficients, spread
    squares = sums[np.ix_(others, others)]
    inverse = _inverse(squares)
    cross = sums[np.ix_(others, block[:-1])]
    best = inverse @ cross
    rest = sums[np.ix_(block[:-1], block[:-1])] - best.T @ cross - cross.T @ best + best.T @ squares @ best
    freedom = float(sums[0, 0]) - len(others)
    # The covariance is root (A A')^-1 root', of A after Bartlett: (A A') is a Wishart matrix.
    triangle = np.tril(generator.normal(size=(size, size)), -1)
    triangle += np.diag(np.sqrt([generator.chisquare(max(freedom - place, 1.0)) for place in range(size)]))
    root = _root((rest + rest.T) / 2) @ np.linalg.inv(triangle).T
    drawn = best + _root(inverse) @ generator.normal(size=(len(others), size)) @ root.T
    coefficients[:-1, others] = drawn.T
    coefficients[-1] -= coefficients[:-1].sum(axis=0)
    spread[:-1, :size] = root
    spread[-1] = -spread[:-1].sum(axis=0)
    return coefficients, spread


def _inverse(squares: Array) -> Array:
    """Invert sums of products, (columns, columns), with a ridge of `RIDGE`; symmetric to the last bit."""
    inverse = np.linalg.inv(squares + RIDGE * np.diag(np.diag(squares)))
    symmetric: Array = (inverse + inverse.T) / 2
    return symmetric


def _root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    root: Array = vectors @ np.diag(np.sqrt(np.maximum(values, 0)))
    return root
