"""Federated ComBat: features without the location and scale that a site, its scanner or its laboratory, gives them.

ComBat (Johnson et al. 2007; for images Fortin et al. 2017) has, for feature f of row j at site s with covariates x,

    y = alpha_f + x beta_f + gamma_sf + delta_sf e,    e ~ N(0, sigma_f^2)

and gives back ``alpha + x beta + (y - alpha - x beta - sigma gamma*) / delta*``, where gamma* and delta* are the site's
own location and scale, shrunk towards their mean over the features by empirical Bayes. A design with an intercept for
each site has the same beta, alpha and sigma as the sums of every site's centred cross products (Frisch and Waugh
1933); so sites send `Sums`, which add up, get `Combat` back, and find gamma* and delta* by themselves: they are in no
message, and no site learns another's. The result is that of ComBat on the pooled rows (as distributed ComBat, Chen et
al. 2022, has it) up to rounding.

When it goes wrong: where a covariate, or the target, is distributed differently at the sites, what is taken for the
site's effect is partly theirs. Name what differs and matters as a covariate. The target itself cannot be one: it is
not known for the rows that are to be predicted, and would be written into the inputs of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from v6_algorithm.data.preparation.statistics import Arrays, check_arrays, is_constant
from v6_algorithm.errors import DataError, WireError

Array = np.ndarray
# The fixed point is found when nothing moves by more than this part of itself: the original's.
_CONVERGED = 1e-4
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Sums(Arrays):
    """Sums over the training rows of one or more hospitals, for each fold; they add up to the federation's.

    `hospitals` and `rows` (folds,) count; `x` (folds, covariates) and `y` (folds, features) are sums; `xx`, `xy` and
    `yy` (folds, covariates, covariates), (folds, covariates, features) and (folds, features) are sums of products of
    deviations from the hospital's own means.
    """

    hospitals: Array
    rows: Array
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: Array

    @classmethod
    def of(cls, folds: Iterable[Iterable[tuple[Array, Array]]]) -> Sums:
        """Measure: for each fold and hospital its (rows, features) filled values and (rows, covariates) covariates."""
        return cls(*(np.stack(parts) for parts in zip(*(_add_up(hospitals) for hospitals in folds), strict=True)))

    @classmethod
    def check(cls, arrays: Mapping[str, Array], folds: int, features: int, covariates: int) -> Sums:
        """Read what a site sent; raises WireError unless shapes fit and all numbers are finite."""
        c, f = covariates, features
        shapes = {"hospitals": (), "rows": (), "x": (c,), "y": (f,), "xx": (c, c), "xy": (c, f), "yy": (f,)}
        check_arrays(arrays, {name: (folds, *shape) for name, shape in shapes.items()})
        if (arrays["yy"] < 0).any() or (arrays["rows"] < arrays["hospitals"]).any() or (arrays["hospitals"] < 0).any():
            raise WireError("the statistics contradict themselves")
        return cls(**arrays)


def _add_up(hospitals: Iterable[tuple[Array, Array]]) -> tuple[Array, ...]:
    total: tuple[Array, ...] = ()
    for values, covariates in hospitals:
        y, x = values.astype(np.float64), covariates.astype(np.float64)
        rows = max(len(y), 1)
        # Deviations, not raw squares: a volume of a million and a spread of a thousand would cancel.
        dy, dx = y - y.sum(axis=0) / rows, x - x.sum(axis=0) / rows
        counts = np.array(float(len(y) > 0)), np.array(float(len(y)))
        site_sums = (*counts, x.sum(axis=0), y.sum(axis=0), dx.T @ dx, dx.T @ dy, (dy**2).sum(axis=0))
        total = tuple(a + b for a, b in zip(total, site_sums, strict=True)) if total else site_sums
    return total


def merge_sums(parts: Iterable[Sums]) -> Sums:
    """Add up sites."""
    listed = list(parts)
    return Sums(*(np.sum([getattr(part, item.name) for part in listed], axis=0) for item in fields(Sums)))


@dataclass(frozen=True)
class Combat(Arrays):
    """What all sites share, for each fold: `beta` (covariates, features), `alpha` and `sigma` (features,).

    A `sigma` of 0 is a feature that is left as it is: a covariate, or one that is constant within every site.
    """

    beta: Array
    alpha: Array
    sigma: Array

    @classmethod
    def fit(cls, sums: Sums, *, untouched: Array) -> Combat:
        """Fit the common part of the model; `untouched` (features,) bool marks features that stay as they are."""
        # Covariates that depend on each other, such as age and year of birth, have no single solution: any will do.
        beta = np.linalg.pinv(sums.xx, hermitian=True) @ sums.xy
        rows = sums.rows[:, None]
        alpha = (sums.y - (sums.x[:, None, :] @ beta)[:, 0]) / rows
        residual = sums.yy - (beta * (2 * sums.xy - sums.xx @ beta)).sum(axis=1)
        sigma = np.sqrt(np.maximum(residual, 0) / rows)
        constant = is_constant(sigma, alpha)
        return cls(beta, alpha, np.where(constant | untouched, 0.0, sigma))

    def adjust(self, values: Array, covariates: Array, fold: int, basis: Array) -> Array:
        """Take one hospital's location and scale out of its rows.

        Parameters
        ----------
        values
            (rows, features), filled.
        covariates
            (rows, covariates).
        fold
            Whose common part to use.
        basis
            Numbers of the rows by which location and scale are estimated: the training rows, and of a hospital that
            has none, all rows.

        Returns
        -------
        Array
            (rows, features) float64.

        Raises
        ------
        DataError
            When there are fewer than two rows to estimate from.
        """
        values = values.astype(np.float64)
        touched = self.sigma[fold] > 0
        if not len(values) or touched.sum() < 2:
            return values
        if len(basis) < 2:
            raise DataError("data.harmonisation combat needs at least 2 training rows here to know the site's spread")
        expected = (self.alpha[fold] + covariates @ self.beta[fold])[:, touched]
        scaled = (values[:, touched] - expected) / self.sigma[fold][touched]
        location, scale = empirical_bayes(scaled[basis])
        adjusted = values.copy()
        adjusted[:, touched] = expected + self.sigma[fold][touched] * (scaled - location) / scale
        return adjusted


def empirical_bayes(scaled: Array) -> tuple[Array, Array]:
    """Estimate location and scale of each feature, shrunk towards their mean over the features.

    Parameters
    ----------
    scaled
        (rows, features) with the federation's mean and spread taken out; at least two rows and features.

    Returns
    -------
    tuple of Array
        gamma* and delta* (features,): the posterior means of location and of the standard deviation, under a normal
        prior for locations and an inverse gamma prior for variances whose parameters are the features' moments.
    """
    rows = len(scaled)
    location, variance = scaled.mean(axis=0), scaled.var(axis=0, ddof=1)
    # As in the original: a feature that is constant at this site says nothing about scale.
    variance = np.where(variance > 0, variance, 1.0)
    centre, between = location.mean(), location.var(ddof=1)
    mean, spread = variance.mean(), variance.var(ddof=1)
    squares = ((scaled - location) ** 2).sum(axis=0)
    gamma, delta = location, variance
    for _ in range(_MOST_STEPS):
        new_gamma = (between * rows * location + delta * centre) / (between * rows + delta)
        if spread > 0:
            shape, rate = (2 * spread + mean**2) / spread, (mean * spread + mean**3) / spread
            about = squares + rows * (location - new_gamma) ** 2
            new_delta = (about / 2 + rate) / (rows / 2 + shape - 1)
        else:
            new_delta = variance  # all features vary alike, and the prior is that one number
        moved = [np.abs(new - old) > _CONVERGED * np.abs(old) for new, old in ((new_gamma, gamma), (new_delta, delta))]
        gamma, delta = new_gamma, new_delta
        if not np.any(moved):
            break
    return gamma, np.sqrt(delta)
