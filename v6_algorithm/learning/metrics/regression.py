"""Regression metrics: one site's predictions become sums of errors and the moments of the target.
Problems fill `RegressionMetrics`; `states` calls the functions below it on what the sites sent."""

from collections.abc import Sequence
from math import fsum, isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics import intervals
from v6_algorithm.learning.metrics.checks import (
    LARGEST_ROW_VALUE,
    require_count,
    require_keys,
    require_nothing_without_rows,
    require_number,
)

SHAPE: tuple[str, ...] = ("huber_delta",)
_COUNTS = ("n", "non_finite")
_ERRORS = ("squared_error", "absolute_error", "huber")
_MOMENTS = ("target_mean", "target_m2")
_KEYS = frozenset(("kind", *SHAPE, *_COUNTS, "loss", *_ERRORS, *_MOMENTS))


class RegressionMetrics:
    """Collect the regression metrics of one part at one site.

    R2 needs the spread of the target over all sites. The textbook sums of y and y^2 lose every digit
    when the target is large against its spread, so the state carries the mean and the sum of squared
    deviations from it, M2, and merging corrects for the means' distance [1]_.

    Parameters
    ----------
    huber_delta : float
        Error beyond which the Huber metric grows linearly, in units of the target; above 0.

    References
    ----------
    .. [1] Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance: analysis and
       recommendations, The American Statistician 37(3), 242-247.
    """

    def __init__(self, huber_delta: float = 1.0) -> None:
        if not 0 < huber_delta <= LARGEST_ROW_VALUE:
            raise ValueError(f"huber_delta must be a finite number above 0, got {huber_delta}")
        self.huber_delta = float(huber_delta)
        self._non_finite = 0
        self._loss = 0.0
        self._errors = dict.fromkeys(_ERRORS, 0.0)
        self._moments = (0, 0.0, 0.0)

    def update(self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike) -> None:
        """Add a batch of rows.

        Rows whose prediction, target or loss is not finite are counted and left out.

        Parameters
        ----------
        prediction, target : array of float, shape (n,)
            In units of the target.
        loss : array of float, shape (n,)
            Loss of each row, as trained.

        Raises
        ------
        ValueError
            If the shapes differ or are not one-dimensional.
        """
        usable, actual, errors, losses = self._counted(prediction, target, loss)
        self._non_finite += int((~usable).sum())
        if not usable.any():
            return
        for name, values in errors.items():
            self._errors[name] += float(values.sum())
        self._loss += float(losses.sum())
        # Measured from the first row, so that a constant target has a spread of exactly 0.
        mean = float(actual[0] + (actual - actual[0]).mean())
        self._moments = _merge_moments([self._moments, (len(actual), mean, float(((actual - mean) ** 2).sum()))])

    def _counted(
        self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64], dict[str, NDArray[np.float64]], NDArray[np.float64]]:
        """Return which rows are usable, and of these the target, what adds up to each error, and the loss."""
        columns = [np.asarray(column, dtype=np.float64) for column in (prediction, target, loss)]
        shapes = [column.shape for column in columns]
        if any(len(shape) != 1 or shape != shapes[0] for shape in shapes):
            raise ValueError(f"prediction, target and loss must have one shape (n,), got {shapes}")
        usable = np.logical_and.reduce([np.abs(column) <= LARGEST_ROW_VALUE for column in columns])
        predicted, actual, losses = (column[usable] for column in columns)
        error = np.abs(predicted - actual)
        beyond = np.maximum(error - self.huber_delta, 0)
        within = error - beyond
        errors = {
            "squared_error": error**2, "absolute_error": error,
            "huber": within**2 / 2 + self.huber_delta * beyond,
        }  # fmt: skip
        return usable, actual, errors, losses

    def states_of(
        self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike, lengths: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return what collectors at several sites would tell; rows as for `update`, one site's after the other's.

        Equal to theirs but for the order in which floats are added up. `lengths` are the sites' numbers of rows.
        """
        usable, actual, errors, losses = self._counted(prediction, target, loss)
        sites = len(lengths)
        every = np.repeat(np.arange(sites), lengths)
        site = every[usable]
        rows = np.bincount(site, minlength=sites)
        first = np.zeros(sites)
        first[rows > 0] = actual[(np.cumsum(rows) - rows)[rows > 0]]
        mean = first + np.bincount(site, actual - first[site], sites) / np.maximum(rows, 1)
        sums = {"loss": losses, **errors, "target_m2": (actual - mean[site]) ** 2}
        columns = {
            "n": rows.tolist(),
            "non_finite": np.bincount(every[~usable], minlength=sites).tolist(),
            "target_mean": mean.tolist(),
            **{name: np.bincount(site, values, sites).tolist() for name, values in sums.items()},
        }
        empty = self.state()
        return [empty | dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def state(self) -> dict[str, Any]:
        """Return what the rows add up to, as plain JSON.

        Returns
        -------
        dict
            Sums over rows, except `target_mean`; `target_m2` is the sum of (y - target_mean)^2.
        """
        n, mean, m2 = self._moments
        return {
            "kind": "regression",
            "huber_delta": self.huber_delta,
            "n": n,
            "non_finite": self._non_finite,
            "loss": self._loss,
            **self._errors,
            "target_mean": mean,
            "target_m2": m2,
        }


def check(state: dict[str, Any]) -> None:
    """Refuse a state no `RegressionMetrics` can have produced."""
    require_keys(state, _KEYS)
    require_number(state["huber_delta"], "huber_delta", least=0.0, most=LARGEST_ROW_VALUE)
    for name in _COUNTS:
        require_count(state[name], name)
    require_number(state["loss"], "loss")
    for name in (*_ERRORS, "target_m2"):
        require_number(state[name], name, least=0.0)
    require_number(state["target_mean"], "target_mean", least=-LARGEST_ROW_VALUE, most=LARGEST_ROW_VALUE)
    require_nothing_without_rows(state, ("loss", *_ERRORS, *_MOMENTS))


def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up checked states of one shape; integers exactly, floats rounded once."""
    n, mean, m2 = _merge_moments([(state["n"], state["target_mean"], state["target_m2"]) for state in states])
    sums = {name: fsum(state[name] for state in states) for name in ("loss", *_ERRORS)}
    return {
        "kind": "regression",
        "huber_delta": states[0]["huber_delta"],
        "n": n,
        "non_finite": sum(state["non_finite"] for state in states),
        **sums,
        "target_mean": mean,
        "target_m2": m2,
    }


def scores(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Metrics of a checked state without their intervals."""
    return compute(state, alone=True)


def compute(state: dict[str, Any], *, alone: bool = False) -> dict[str, float | int | None]:
    """Metrics of a checked state; see `states.compute`. With `alone` the ends of intervals are None."""
    n = state["n"]
    if n == 0:
        empty = dict.fromkeys(("loss", "mse", "mae", "r2", "huber"))
        return {"n": 0, **empty, **intervals.ends("mae", None), **intervals.ends("r2", None)}
    mae, mse, r2 = state["absolute_error"] / n, state["squared_error"] / n, _r2(state)
    return {
        "n": n,
        "loss": state["loss"] / n,
        "mse": mse,
        "mae": mae,
        "r2": r2,
        "huber": state["huber"] / n,
        **intervals.ends("mae", None if alone else intervals.mae_interval(mae, mse, n)),
        **intervals.ends("r2", None if alone or r2 is None else intervals.r2_interval(r2, n)),
    }


def explain(state: dict[str, Any]) -> list[str]:
    """Sentences about what a checked state could not give; see `states.explain`."""
    notes = []
    if state["non_finite"]:
        notes.append(f"{state['non_finite']} rows had a non-finite prediction, target or loss and are left out")
    if state["n"] == 0:
        notes.append("no rows")
    elif _r2(state) is None:
        notes.append("r2: the target does not vary")
    return notes


def _r2(state: dict[str, Any]) -> float | None:
    if state["target_m2"] == 0:
        return None
    r2 = 1 - state["squared_error"] / state["target_m2"]
    # A spread near the smallest double overflows the ratio.
    return r2 if isfinite(r2) else None


def _merge_moments(parts: list[tuple[int, float, float]]) -> tuple[int, float, float]:
    """Merge (n, mean, M2) of any number of parts at once, after Chan, Golub and LeVeque (1983)."""
    filled = [part for part in parts if part[0]]
    n = sum(count for count, _, _ in filled)
    if n == 0:
        return 0, 0.0, 0.0
    # ModelEvaluation from the smallest mean: independent of the order, and exact when all means are equal.
    anchor = min(mean for _, mean, _ in filled)
    mean = anchor + fsum(count * (part_mean - anchor) for count, part_mean, _ in filled) / n
    return n, mean, fsum(m2 + count * (part_mean - mean) ** 2 for count, part_mean, m2 in filled)
