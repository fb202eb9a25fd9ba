"""Ridge, LASSO and elastic net of a GLM over sites: coordinate descent here, on the sums that Newton's method has.

The sites' sums at the present coefficients make a quadratic of the log-likelihood; its penalised minimum is found by
coordinate descent without another call, and is where the next round's sums are asked for. Where the strength of the
penalty is to be found by cross-validation, the coefficients of all strengths and of all parts that are left out are
sent in the same rounds: `learning.models.glm` adds up sums for each of them, and the deviance of the rows left out.

References
----------
Friedman, Hastie and Tibshirani (2010), Regularization paths for generalized linear models via coordinate descent,
Journal of Statistical Software 33(1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.coordinator.strategies.newton import Newton
from v6_algorithm.coordinator.strategies.newton.steps import risen
from v6_algorithm.experiment.terms import Penalty
from v6_algorithm.learning.models.glm import PATH_FIT, TOTALS, link_of

Array = np.ndarray
# The smallest strength of a path beside the largest, under which all coefficients but the intercept are 0.
_SHORTEST = 1e-3
# Of a path of ridge, which has no such largest strength, as in glmnet.
_LEAST_MIXING = 1e-3
# The squared length of the next step, in the units of the mean log-likelihood, below which a fit is done.
_DONE = 1e-20
# Sweeps of coordinate descent before the equations of what is not 0 are tried, and how often.
_SWEEPS, _CYCLES = 50, 200
_CLOSE, _SLACK = 1e-14, 1e-11
_START, _NULL, _PATH, _FIT = range(4)


class PenalisedNewton(Newton):
    """Solves for penalised coefficients: a start, where the strength is looked for a path of strengths, and the fit.

    The objective is the mean over rows of the negative log-likelihood (of gaussian half the squared error), plus
    ``strength * (mixing * |b| + (1 - mixing) / 2 * b²)`` summed over the coefficients b of scaled inputs, but for the
    intercept: that of glmnet and, of gaussian, of scikit-learn's ElasticNet.

    Attributes
    ----------
    fitted
        With cross-validation: `strengths`, `deviance` (mean over rows that were left out), `deviance_error` (its
        standard error over the parts), `terms` (coefficients that are not 0), and the places `minimum` and
        `one_standard_error`. Always: `strength`.
    """

    def step(self, combined: State) -> State:
        """Return the model with the next coefficients."""
        rows = sum(reply.rows for reply in self.seen)
        totals = dict(zip(TOTALS, combined["model.totals"].double().tolist(), strict=True))
        kept = self.kept.setdefault("penalty", {"phase": torch.tensor(_START)})
        phase = int(kept["phase"])
        present = torch.cat([combined["model.bias"].double().reshape(1), combined["model.weight"].double()]).numpy()
        size = totals["weight"]
        score = combined["model.score"].double().numpy() / size
        information = combined["model.information"].double().numpy() / size
        changed: State = {}
        following = present
        if phase == _START:
            mean = torch.tensor(totals["y"] / size, dtype=torch.float64)
            following = np.zeros_like(present)
            following[0] = float(link_of(str(self._glm.link), mean))
            kept["phase"] = torch.tensor(_FIT if self._penalty.strength is not None else _NULL)
            if self._penalty.strength is not None:
                kept["strength"] = torch.tensor(self._penalty.strength, dtype=torch.float64)
        elif phase == _NULL:
            strengths = self._strengths(score)
            kept |= {"phase": torch.tensor(_PATH), "strengths": torch.from_numpy(strengths)}
            path = np.tile(present, (len(combined["model.path"]), 1))
            changed = {"model.path": torch.from_numpy(path), "model.path_on": torch.ones((), dtype=torch.float64)}
        elif phase == _PATH:
            path, done = self._path(combined, kept)
            changed = {"model.path": torch.from_numpy(path)}
            if done:
                place = self._choose(combined, path, kept)
                kept |= {"phase": torch.tensor(_FIT), "strength": kept["strengths"][place].clone()}
                following = path[self._penalty.folds * len(kept["strengths"]) + place]
                # Nobody needs them any more, and no file has them.
                changed = {name: torch.zeros_like(combined[name]) for name in combined if ".path" in name}
        else:
            following = self._fit(present, score, information, totals["deviance"] / size, kept)
        if "strength" in kept:
            self.fitted = {**kept_report(kept), "strength": float(kept["strength"])}
        sums = {name: combined[name].double() * rows for name in ("model.score", "model.information", "model.totals")}
        weight = torch.from_numpy(np.array(following))
        return combined | sums | changed | {"model.weight": weight[1:], "model.bias": weight[0]}

    @property
    def _penalty(self) -> Penalty:
        penalty = self._glm.penalty
        assert penalty is not None  # noqa: S101
        return penalty

    def _strengths(self, score: Array) -> Array:
        """Return strengths, the largest first, from that under which no coefficient is left."""
        largest = max(float(np.abs(score[1:]).max(initial=0.0)) / max(self._penalty.share, _LEAST_MIXING), 1e-12)
        return np.geomspace(largest, largest * _SHORTEST, self._penalty.strengths)

    def _fit(self, present: Array, score: Array, information: Array, deviance: float, kept: State) -> Array:
        strength = np.array([float(kept["strength"])])
        before = {name: kept[name].numpy() for name in ("fit", "fit_objective") if name in kept}
        following, state, done = descend(
            present[None], score[None], information[None], np.array([deviance]), strength, self._penalty.share,
            before.get("fit"), before.get("fit_objective"),
        )  # fmt: skip
        kept |= {"fit": torch.from_numpy(state[0]), "fit_objective": torch.from_numpy(state[1])}
        self.converged = bool(done.all())
        return following[0]

    def _path(self, combined: State, kept: State) -> tuple[Array, bool]:
        """Return the coefficients of all strengths and parts that follow, and whether none moves any more."""
        present = combined["model.path"].double().numpy()
        fit = dict(zip(PATH_FIT, combined["model.path_fit"].double().numpy().T, strict=True))
        size = np.maximum(fit["weight"], 1e-300)
        strengths = np.tile(kept["strengths"].numpy(), self._penalty.folds + 1)
        following, state, done = descend(
            present,
            combined["model.path_score"].double().numpy() / size[:, None],
            combined["model.path_information"].double().numpy() / size[:, None, None],
            fit["deviance"] / size,
            strengths,
            self._penalty.share,
            kept["path"].numpy() if "path" in kept else None,
            kept["path_objective"].numpy() if "path_objective" in kept else None,
        )
        kept |= {"path": torch.from_numpy(state[0]), "path_objective": torch.from_numpy(state[1])}
        return following, bool(done.all())

    def _choose(self, combined: State, path: Array, kept: State) -> int:
        """Return the place of the strength that predicts best, or of the strongest that is as good within an error."""
        folds, number = self._penalty.folds, len(kept["strengths"])
        fit = dict(zip(PATH_FIT, combined["model.path_fit"].double().numpy().T, strict=True))
        held = fit["held_deviance"][: folds * number].reshape(folds, number)
        weight = np.maximum(fit["held_weight"][: folds * number].reshape(folds, number), 1e-300)
        mean = held.sum(axis=0) / weight.sum(axis=0)
        apart = (held / weight - mean) ** 2 * weight
        error = np.sqrt(apart.sum(axis=0) / weight.sum(axis=0) / (folds - 1))
        best = int(mean.argmin())
        simplest = int(np.flatnonzero(mean <= mean[best] + error[best])[0])
        kept |= {
            "deviance": torch.from_numpy(mean),
            "deviance_error": torch.from_numpy(error),
            "terms": torch.from_numpy((path[folds * number :, 1:] != 0).sum(axis=1)),
            "minimum": torch.tensor(best),
            "one_standard_error": torch.tensor(simplest),
        }
        return best if self._penalty.choose == "minimum" else simplest


def kept_report(kept: dict[str, Tensor]) -> dict[str, Any]:
    """Return what cross-validation came to, as JSON; nothing where there was none."""
    if "deviance" not in kept:
        return {}
    names = ("strengths", "deviance", "deviance_error", "terms", "minimum", "one_standard_error")
    return {name: kept[name].tolist() for name in names}


def descend(
    present: Array,
    score: Array,
    information: Array,
    deviance: Array,
    strengths: Array,
    share: float,
    earlier: Array | None,
    objective_before: Array | None,
) -> tuple[Array, tuple[Array, Array], Array]:
    """Take the next step of several penalised fits.

    Parameters
    ----------
    present, score, information, deviance
        (fits, columns) coefficients, the intercept first, with score, (fits, columns, columns) information and (fits,)
        deviance at them, as means over rows.
    strengths, share
        (fits,) of the penalty, and how much of it is of absolute values.
    earlier, objective_before
        (fits, columns) coefficients that were the last to fit better than those before, and (fits,) how well.

    Returns
    -------
    tuple
        Coefficients that follow; `earlier` and `objective_before` for the next call; which fits, (fits,) bool, move no
        more.
    """
    absolute, square = strengths[:, None] * share, strengths[:, None] * (1 - share)
    free = np.ones(present.shape[1])
    free[0] = 0.0
    penalty = (absolute * np.abs(present) + square / 2 * present**2) @ free
    objective = deviance / 2 + penalty
    worse = np.zeros(len(present), dtype=bool)
    if earlier is not None and objective_before is not None:
        worse = risen(objective, objective_before)
    wanted = np.einsum("fij,fj->fi", information, present) + score
    following = coordinate_descent(information, wanted, absolute * free, square * free, present)
    if earlier is not None:
        following[worse] = (present[worse] + earlier[worse]) / 2
    step = following - present
    moved = np.einsum("fi,fij,fj->f", step, information, step)
    done = moved < _DONE * (1 + np.abs(objective))
    base = present.copy()
    best = objective.copy()
    if earlier is not None and objective_before is not None:
        base[worse], best[worse] = earlier[worse], objective_before[worse]
    return following, (base, best), done


def coordinate_descent(information: Array, wanted: Array, absolute: Array, square: Array, start: Array) -> Array:
    """Minimise ``b' I b / 2 - wanted' b + absolute' |b| + square' b² / 2`` for several fits at once.

    Parameters
    ----------
    information
        (fits, columns, columns), of which a column of zeros has a coefficient of 0.
    wanted, absolute, square, start
        (fits, columns).
    """
    solution = start.copy()
    diagonal = np.einsum("fii->fi", information)
    # What has no curvature has a coefficient of 0.
    divisor = np.where(diagonal + square > 0, diagonal + square, np.inf)
    size = np.sqrt(np.maximum(diagonal, 0))
    open_fits = np.arange(len(start))
    for _ in range(_CYCLES):
        part = solution[open_fits]
        slope = np.einsum("fij,fj->fi", information[open_fits], part)
        for _ in range(_SWEEPS):
            largest = 0.0
            for column in range(part.shape[1]):
                pull = wanted[open_fits, column] - slope[:, column] + diagonal[open_fits, column] * part[:, column]
                value = np.sign(pull) * np.maximum(np.abs(pull) - absolute[open_fits, column], 0.0)
                value = value / divisor[open_fits, column]
                change = value - part[:, column]
                if change.any():
                    slope += information[open_fits, :, column] * change[:, None]
                    part[:, column] = value
                    largest = max(largest, float(np.abs(change * size[open_fits, column]).max()))
            if largest < _CLOSE * max(1.0, float(np.abs(part * size[open_fits]).max(initial=0.0))):
                break
        solution[open_fits] = part
        unsolved = []
        for fit in open_fits.tolist():
            exact = _solved(information[fit], wanted[fit], absolute[fit], square[fit], solution[fit])
            if exact is None:
                unsolved.append(fit)
            else:
                solution[fit] = exact
        open_fits = np.array(unsolved, dtype=np.int64)
        if not len(open_fits):
            break
    return solution


def _solved(information: Array, wanted: Array, absolute: Array, square: Array, near: Array) -> Array | None:
    """Solve for the coefficients that are not 0, which descent reaches slowly; None: others are, or of another sign."""
    active = near != 0
    exact = np.zeros_like(near)
    try:
        exact[active] = np.linalg.solve(
            information[np.ix_(active, active)] + np.diag(square[active]),
            wanted[active] - absolute[active] * np.sign(near[active]),
        )
    except np.linalg.LinAlgError:
        return None
    if (np.sign(exact) != np.sign(near)).any():
        return None
    pull = wanted - information @ exact
    beyond = np.abs(pull[~active]) > absolute[~active] + _SLACK * (1 + np.abs(wanted[~active]))
    return None if beyond.any() else exact
