"""Estimates from single rows by their definitions, for tests and benchmarks: what sums over sites must come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

Stratum = tuple[np.ndarray, np.ndarray, np.ndarray]


def delong(event: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the difference of two AUROCs over the same rows and its standard error, by the placements of rows."""
    placed = []
    for risk in (first, second):
        order = np.sign(risk[event][:, None] - risk[~event]) / 2 + 0.5
        placed.append((order.mean(axis=1), order.mean(axis=0)))
    (a, b), (c, d) = placed
    error = np.sqrt(np.var(a - c, ddof=1) / len(a) + np.var(b - d, ddof=1) / len(b))
    return float(a.mean() - c.mean()), float(error)


def cox_firth(strata: Sequence[Stratum], *, gtol: float = 1e-8) -> tuple[np.ndarray, np.ndarray, float]:
    """Maximise a Cox model's penalised partial likelihood, Efron's ties, from rows of each stratum.

    Parameters
    ----------
    strata
        Columns (rows, columns), times and whether the event was seen, (rows,) each.
    gtol
        Where the search ends.

    Returns
    -------
    tuple
        Coefficients, their errors, and by how much the penalised likelihood is above that of zeros.
    """

    def penalised(b: np.ndarray) -> tuple[float, np.ndarray]:
        total, information = 0.0, np.zeros((len(b), len(b)))
        for x, time, died in strata:
            risk = np.exp(x @ b)
            for moment in np.unique(time[died]):
                dies = (time == moment) & died
                total += x[dies].sum(axis=0) @ b
                for number in range(dies.sum()):
                    weight = risk * ((time >= moment) - number / dies.sum() * dies)
                    mean = weight @ x / weight.sum()
                    total -= np.log(weight.sum())
                    information += (x.T * weight) @ x / weight.sum() - np.outer(mean, mean)
        return total + np.linalg.slogdet(information)[1] / 2, information

    zeros = np.zeros(strata[0][0].shape[1])
    best = minimize(lambda b: -penalised(b)[0], zeros, method="BFGS", options={"gtol": gtol}).x
    value, information = penalised(best)
    return best, np.sqrt(np.diag(np.linalg.inv(information))), value - penalised(zeros)[0]
