"""Newton's method over sites: the next coefficients of a GLM or Cox model from sums over all sites' rows.

Of a GLM the sites' tensors are means over their rows (`learning.models.glm`), so their mean weighted by rows is that of
all rows together; of a Cox model the sums come beside the model (`learning.models.cox`). The step is the one that a
fit of the pooled rows would take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.coordinator.strategies.pipeline import FedAvg, Message, Reply
from v6_algorithm.data.preparation.setup import Setup, unpack_arrays
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Cox, Experiment, Glm
from v6_algorithm.learning.models.cox import Likelihood, RiskSums, likelihood
from v6_algorithm.learning.models.glm import NULL_SUMS, TOTALS, link_of

_DEVIANCE, _LOG_LIKELIHOOD = TOTALS.index("deviance"), TOTALS.index("log_likelihood")
# A column whose variance beside the others is less than this share of its own is a combination of them.
_ALIASED = 1e-9
# The squared length of the next step, in standard errors, below which a fit is done.
_DONE = 1e-20
# A negative binomial's dispersion, and the least of a first guess; below the lowest it is a Poisson model.
LOWEST_DISPERSION, _HIGHEST, _GUESS = 1e-6, 1e4, 0.05
# Of Firth's fit: the squared length of a step below which it is done, and the longest, as in R's logistf.
_DONE_FIRTH, _FARTHEST_FIRTH = 1e-18, 5.0
# The least share of the information's curvature that a step counts on where the penalty takes from it.
_CURVED = 0.1
# Of its logarithm in a step.
_FARTHEST = 2.0
# Of a Cox model's first step, in log-risks by standard deviation of an input.
_FIRST_STEP = 0.3
# Of a Cox model: the squared length of the next step, in standard errors, below which it is the last. It is taken, and
# what is left after it is about this long itself, not its root, so that a round to verify it would change nothing.
_LAST = 1e-13
# The least and the most of the information's curvature that is left where it is taken from halfway along a step.
_SECANT = (0.3, 3.0)
# Of a logistic regression's start: the rarest class, and the least share of the variance that is not explained.
_RARE, _SEPARATE = 0.01, 0.2
_NAMES = ("model.weight", "model.bias", "model.score", "model.information", "model.totals")


class Newton(FedAvg):
    """Solves for a GLM's coefficients, with half steps where the deviance would rise; done when no step is left.

    Attributes
    ----------
    offset
        Place among the coefficients, and value, of the one that is not estimated; None where all are.
    order
        Places of the coefficients, those first that are rather kept; see `independent`.
    fitted
        With errors over sites: `site_scores`, the score that each site's rows add up to at the coefficients sent.

    References
    ----------
    McCullagh and Nelder, Generalized Linear Models, 2nd ed., 1989.
    """

    offset: tuple[int, float] | None = None
    order: list[int] | None = None
    _halved = False

    def _begin(self) -> None:
        super()._begin()
        self._scores: dict[str, list[float]] = {}

    def add(self, reply: Reply) -> None:
        """Take in a reply, and each site's score by itself where errors are over sites."""
        super().add(reply)
        model = self.experiment.model
        if reply.rows and "model.score" in reply.state and model.errors == "site":  # type: ignore[union-attr]
            self._scores[reply.site] = (reply.state["model.score"].double() * reply.rows).tolist()

    def step(self, combined: State) -> State:
        """Return the model with the next coefficients; its buffers are the sums at those that were sent."""
        weight, bias, score, information, totals = (combined[name].double() for name in _NAMES)
        rows = sum(reply.rows for reply in self.seen)
        present = torch.cat([bias.reshape(1), weight])
        ridge = self.experiment.model.ridge / rows  # type: ignore[union-attr]
        penalty = torch.full_like(present, ridge)
        penalty[0] = 0
        # In the first round the sums are of a weighted least squares fit of the targets, which starts from nothing.
        first = "begun" not in self.kept
        self.kept["begun"] = {"flag": torch.ones(1)}
        if self._scores:
            self.fitted = {"site_scores": self._scores}
        if self.offset is not None:
            penalty[self.offset[0]] = 0
            if first:
                score = score - information[:, self.offset[0]] * self.offset[1]
        free = independent_but(information + torch.diag(penalty), self.offset, self.order)
        if first:
            self.kept["first"] = {"free": free.long()}
        elif "first" in self.kept:
            # What was no combination of the others at first, and is now: rows with it weigh nothing any more.
            lost = torch.nonzero(self.kept["first"]["free"].bool() & ~free)[:, 0].tolist()
            self.fitted = {**self.fitted, "separated": lost}
        misfit = float(totals[_DEVIANCE])
        if "model.dispersion" in combined:
            misfit = -2 * float(totals[_LOG_LIKELIHOOD])
        firth: State = {}
        if "model.inverse" in combined and not first:
            following, firth = self._firth(present, score * rows, information * rows, misfit * rows, free)
        else:
            following = self._following(present, score, information, misfit, penalty, free, rows, first=first)
            if first and self._starts_from_classes:
                following = discriminant(following, information, totals, free)
        if self.offset is not None:
            following[self.offset[0]] = self.offset[1]
        changed = {"model.weight": following[1:], "model.bias": following[0]}
        if "model.dispersion" in combined:
            changed |= self._dispersion(combined, first=first)
        if "model.null" in combined:
            changed |= self._null(combined, first=first)
        sums = {
            name: combined[name].double() * rows
            for name in (*_NAMES[2:], "model.curvature", "model.null_sums")
            if name in combined
        }
        return combined | sums | changed | firth

    def _firth(
        self, present: Tensor, score: Tensor, information: Tensor, deviance: float, free: Tensor
    ) -> tuple[Tensor, State]:
        """Return the coefficients that follow under Firth's penalty, and what sites need for its score at them.

        A step takes two rounds: the information at coefficients, whose inverse the sites need, and then the score.
        What is given are sums over all rows.
        """
        objective = deviance - log_determinant(information, free)
        kept = self.kept.setdefault("firth", {"measured": torch.tensor(0)})
        if not int(kept["measured"]):
            if "before" in kept and objective > float(kept["objective"]) + 1e-12 * (1 + abs(objective)):
                following = (present + kept["before"]) / 2
                self.converged = bool(torch.allclose(following, present, rtol=1e-14, atol=1e-14))
                return following, {}
            kept |= {"measured": torch.tensor(1), "objective": torch.tensor(objective, dtype=torch.float64)}
            return present, {"model.inverse": _inverse(information, free)}
        step = torch.zeros_like(present)
        step[free] = torch.linalg.solve(information[free][:, free], score[free])
        self.converged = float(score @ step) < _DONE_FIRTH * (1 + abs(objective))
        if self.converged:
            return present, {}
        kept |= {"measured": torch.tensor(0), "before": present}
        return present + step * min(1.0, _FARTHEST_FIRTH / max(float(step.abs().max()), 1e-300)), {}

    def _dispersion(self, combined: State, *, first: bool) -> State:
        """Return the logarithm of a negative binomial's dispersion that follows: a guess by moments, then Newton's."""
        totals, present = combined["model.totals"].double(), combined["model.dispersion"].double()
        if first:
            return {"model.dispersion": torch.log(_by_moments(totals))}
        kept = self.kept["newton"]
        if self._halved and "dispersion" in kept:
            following = (present + kept["dispersion"]) / 2
            self.converged = self.converged and bool(torch.allclose(following, present, rtol=1e-14, atol=1e-14))
            return {"model.dispersion": following}
        kept["dispersion"] = present
        following, small = _dispersion_step(present, *combined["model.curvature"].double())
        self.converged = self.converged and small
        return {"model.dispersion": following}

    def _null(self, combined: State, *, first: bool) -> State:
        """Return the intercept, and dispersion, that follow of the model with nothing else."""
        present, totals = combined["model.null"].double(), combined["model.totals"].double()
        if first:
            mean = totals[TOTALS.index("y")] / totals[TOTALS.index("weight")]
            return {"model.null": torch.stack([link_of(str(self._glm.link), mean), torch.log(_by_moments(totals))])}
        sums = dict(zip(NULL_SUMS, combined["model.null_sums"].double(), strict=True))
        change = sums["score"] / sums["information"].clamp_min(1e-300)
        following = present.clone()
        following[0] += change.clamp(-_FARTHEST, _FARTHEST)
        small = float(change * change * sums["information"]) < _DONE
        if "model.dispersion" in combined:
            following[1], done = _dispersion_step(present[1], sums["dispersion_score"], sums["dispersion_information"])
            small = small and done
        self.converged = self.converged and small
        return {"model.null": following}

    @property
    def _starts_from_classes(self) -> bool:
        model = self.experiment.model
        return isinstance(model, Glm) and (model.family, model.link) == ("binomial", "logit") and self.offset is None

    @property
    def _glm(self) -> Glm:
        model = self.experiment.model
        assert isinstance(model, Glm)  # noqa: S101
        return model

    def _following(
        self,
        present: Tensor,
        score: Tensor,
        information: Tensor,
        deviance: float,
        penalty: Tensor,
        free: Tensor,
        rows: int,
        *,
        first: bool = False,
    ) -> Tensor:
        """Return the coefficients that follow; all of these are means over `rows` rows, `free` those to estimate."""
        objective = deviance + float((penalty * present * present).sum())
        before, self._halved = self.kept.get("newton"), False
        if before is not None and int(before["rows"]) != rows:
            # Other sites answered: what the deviance was over those of the last round says nothing of this step.
            before = None
        if before is not None and objective > float(before["objective"]) + 1e-12 * (1 + abs(objective)):
            self._halved = True
            following = (present + before["coefficients"]) / 2
            self.converged = bool(torch.allclose(following, present, rtol=1e-14, atol=1e-14))
            return following
        gradient = score - penalty * present
        change = torch.zeros_like(present)
        change[free] = torch.linalg.solve((information + torch.diag(penalty))[free][:, free], gradient[free])
        following = change if first else present + change
        following[~free] = 0
        self.converged = not first and float(gradient[free] @ change[free]) < _DONE * (1 + abs(objective))
        if not first:
            self.kept["newton"] = {
                "coefficients": present,
                "objective": torch.tensor(objective, dtype=torch.float64),
                "rows": torch.tensor(rows),
            }
        return following


def discriminant(fitted: Tensor, information: Tensor, totals: Tensor, free: Tensor) -> Tensor:
    """Return where a logistic regression starts: the linear discriminant, which least squares of the classes gives.

    With the same covariance in both classes its coefficients are those of least squares over the residual variance, as
    Haggstrom has it (1983, Logistic regression and discriminant analysis by ordinary least squares, JBES 1(3)); nearer
    than least squares itself, so that a round is saved.

    Parameters
    ----------
    fitted
        (columns,) least squares of the first round, whose first means are ``(y + 1/2) / 2``.
    information, totals
        Of the first round: (columns, columns), of rows that weigh 3/16, and what `TOTALS` names; means or sums.
    free
        (columns,) bool: which coefficients are estimated.
    """
    weight, cases = (float(totals[TOTALS.index(name)]) for name in ("weight", "y"))
    share = cases / weight if weight > 0 else 0.0
    if not _RARE < share < 1 - _RARE:
        return fitted
    # The first round's working responses are ± these: of targets 0 and 1 the slopes are the same over twice that.
    of_classes = fitted / (2 * (math.log(3) + 4 / 3))
    means = information[0] / information[0, 0].clamp_min(1e-300)
    around = information / information[0, 0].clamp_min(1e-300) - torch.outer(means, means)
    explained = float(of_classes[free] @ around[free][:, free] @ of_classes[free])
    variance = share * (1 - share) - explained
    if variance < _SEPARATE * share * (1 - share):
        return fitted
    slopes = of_classes / variance
    slopes[0] = 0
    # Least squares' scores have means 1 and 0 apart by `explained / (share (1 - share))`, around that of all rows.
    centre = float(slopes @ means) + (1 - 2 * share) * explained / (2 * share * (1 - share) * variance)
    slopes[0] = math.log(share / (1 - share)) - centre
    return slopes


class CoxNewton(Newton):
    """Solves for a Cox model's coefficients from sums by event time, or from each site's score and information.

    Attributes
    ----------
    fitted
        At the coefficients that were sent in the round: `value` and `null` (log partial likelihoods, the latter at
        0), `score`, `information`, `events`, and for the test of proportional hazards `transformed` (sums over the
        events of a function of time, and of its square) and `residuals` (of its products with the Schoenfeld
        residuals); with one baseline for all sites also `rows`, `hazard` and `deaths` by event time.
    """

    def _begin(self) -> None:
        super()._begin()
        self._sums: dict[str, Any] = {}

    def message(self, site: str) -> Message:
        """Ask for the sums."""
        return {"sums": True}

    def read_sums(self, packed: Any) -> dict[str, Any]:
        """Check a site's sums: names, shapes, finite numbers."""
        sums = unpack_arrays(packed)
        width = int(self.spec["model.weight"].shape[0])
        model = self.experiment.model
        if isinstance(model, Cox) and model.strata == "site":
            shapes: dict[str, tuple[int, ...]] = {
                "value": (1,), "score": (width,), "information": (width, width), "events": (1,), "transformed": (2,),
                "residuals": (width,),
            } | ({"firth": (width,)} if model.firth else {})  # fmt: skip
        else:
            times, products = len(sums["rows"]), 1 + width + width * (width + 1) // 2
            products += width if isinstance(model, Cox) and model.firth else 0
            shapes = {
                "rows": (times,), "at_risk": (times, products), "tied": (times, products), "events": (times,),
                "columns": (times, width),
            }  # fmt: skip
        if {name: array.shape for name, array in sums.items()} != shapes:
            raise WireError("its sums of a Cox model have other names or shapes than were asked for")
        if not all((np.abs(array) <= LARGEST_NUMBER).all() for array in sums.values()):
            raise WireError("its sums of a Cox model are not finite")
        if self._sums and {name: array.shape for name, array in self._sums.items()} != shapes:
            raise WireError("its sums of a Cox model are at other event times than the other sites'")
        return sums

    def add(self, reply: Reply) -> None:
        """Add a site's sums to those of the others."""
        super().add(reply)
        if reply.rows and reply.sums is not None:
            self._sums = {name: self._sums.get(name, 0) + array for name, array in reply.sums.items()}
            if "score" in reply.sums:
                self._scores[reply.site] = reply.sums["score"].tolist()

    def step(self, combined: State) -> State:
        """Return the model with the next coefficients."""
        model = self.experiment.model
        rows = sum(reply.rows for reply in self.seen)
        present = combined["model.weight"].double()
        if isinstance(model, Cox) and model.strata == "site":
            sums = self._sums
            value, score, information = float(sums["value"][0]), sums["score"], sums["information"]
            firth = sums.get("firth")
            self.fitted = {"site_scores": self._scores, "events": float(sums["events"][0])} | {
                name: sums[name].tolist() for name in ("transformed", "residuals")
            }
        else:
            risk = RiskSums(**{item.name: self._sums[item.name] for item in fields(RiskSums)})
            inverse = combined["model.inverse"].double().numpy() if "model.inverse" in combined else None
            of_rows = likelihood(risk, present.numpy(), model.ties, inverse)  # type: ignore[union-attr]
            value, score, information = of_rows.value, of_rows.score, of_rows.information
            firth = of_rows.firth
            self.fitted = _by_time(of_rows, risk)
        first = "null" not in self.kept
        if first:
            self.kept["null"] = {"value": torch.tensor(value, dtype=torch.float64)}
        self.fitted |= {
            "value": value,
            "null": float(self.kept["null"]["value"]),
            "score": score.tolist(),
            "information": information.tolist(),
            "training_rows": rows,
        }
        penalty = torch.full_like(present, model.ridge / rows)  # type: ignore[union-attr]
        matrix = torch.from_numpy(information / rows)
        free = independent(matrix + torch.diag(penalty), intercept=False, order=self.order)
        if "model.inverse" in combined:
            changed = self._penalised(present, score, firth, torch.from_numpy(information), value, free)
            return combined | changed
        before = self.kept.get("newton")
        following = self._following(
            present, torch.from_numpy(score / rows), matrix, -2 * value / rows, penalty, free, rows
        )
        if not self._halved:
            self.kept["newton"]["information"] = matrix
            gradient = torch.from_numpy(score / rows) - penalty * present
            length = float(gradient @ (following - present)) * rows
            # Errors over sites are of the sites' scores, which move by as much as the step.
            self.converged = self.converged or (length < _LAST and model.errors != "site")  # type: ignore[union-attr]
            if before is not None and "information" in before and int(before["rows"]) == rows:
                following, at_end = _halfway(present, following, gradient, matrix, before, penalty, free)
                if self.converged:
                    self.fitted |= {"information": (at_end * rows).tolist()}
        if first and not self.converged:
            # From 0 a whole step goes too far where a column is skewed, and a few rows would carry a site's sums.
            largest = float((following - present).abs().max())
            following = present + (following - present) * min(1.0, _FIRST_STEP / max(largest, _FIRST_STEP))
        return combined | {"model.weight": following}

    def _penalised(
        self, present: Tensor, score: np.ndarray, firth: Any, information: Tensor, value: float, free: Tensor
    ) -> State:
        """Return the coefficients that follow under Firth's penalty, and the inverse that the sites need at them.

        As of a GLM a step takes two rounds: the information at coefficients, whose inverse the sites need, and then the
        penalty's score. Its curvature is learned from how that changes (symmetric rank one), for steps by the
        information alone go to and fro where there are few events. All are sums over all rows.
        """
        objective = -2 * value - log_determinant(information, free)
        kept = self.kept.setdefault(
            "firth",
            {"measured": torch.tensor(0), "null": torch.tensor(objective, dtype=torch.float64)}
            | {"curvature": torch.zeros_like(information)},
        )
        self.fitted = {**self.fitted, "penalised": -objective / 2, "penalised_null": -float(kept["null"]) / 2}
        if not int(kept["measured"]):
            if "before" in kept and objective > float(kept["objective"]) + 1e-12 * (1 + abs(objective)):
                following = (present + kept["before"]) / 2
                self.converged = bool(torch.allclose(following, present, rtol=1e-14, atol=1e-14))
                return {"model.weight": following}
            kept |= {"measured": torch.tensor(1), "objective": torch.tensor(objective, dtype=torch.float64)}
            return {"model.weight": present, "model.inverse": _inverse(information, free)}
        penalty = torch.from_numpy(np.array(firth, dtype=np.float64))
        if "before" in kept:
            kept["curvature"] = _rank_one(kept["curvature"], present - kept["before"], kept["penalty"] - penalty)
        gradient = torch.from_numpy(score) + penalty
        matrix = (information + kept["curvature"])[free][:, free]
        least = float(torch.linalg.eigvalsh(information[free][:, free])[0]) if bool(free.any()) else 0.0
        if bool(free.any()) and float(torch.linalg.eigvalsh(matrix)[0]) < _CURVED * least:
            matrix = information[free][:, free]
        step = torch.zeros_like(present)
        step[free] = torch.linalg.solve(matrix, gradient[free])
        self.converged = float(gradient[free] @ step[free]) < _DONE_FIRTH * (1 + abs(objective))
        if self.converged:
            return {}
        longest = _FARTHEST_FIRTH if "before" in kept else _FIRST_STEP
        kept |= {"measured": torch.tensor(0), "before": present, "penalty": penalty}
        return {"model.weight": present + step * min(1.0, longest / max(float(step.abs().max()), 1e-300))}


def _halfway(
    present: Tensor,
    following: Tensor,
    gradient: Tensor,
    information: Tensor,
    before: dict[str, Tensor],
    penalty: Tensor,
    free: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the coefficients that follow by the information halfway along Newton's step, and the information there.

    It is taken from how the information changed since the round before, by the share of that way which the step goes
    on along it, so that no more is asked of sites. Over both ends of a step the mean slope of the score is that in its
    middle but for the third order, and so steps come nearer than Newton's (Traub, 1964, Iterative methods for the
    solution of equations, chapter 8). Where the curvature would differ much, Newton's step stays. All are means over
    rows; (columns,) or (columns, columns), `free` bool: what is estimated.

    Returns
    -------
    tuple of Tensor
        (columns,) coefficients, and (columns, columns) the information at them.
    """
    curved = information + torch.diag(penalty)
    change, way = before["information"] - information, before["coefficients"] - present
    size = float(way @ curved @ way)
    if not size > 0 or not bool(free.any()):
        return following, information
    factor = torch.linalg.cholesky(curved[free][:, free])
    for _ in range(3):
        share = min(1.0, max(-1.0, float(way @ curved @ (following - present)) / size))
        middle = (curved + share / 2 * change)[free][:, free]
        of_newton = torch.linalg.solve_triangular(factor, middle, upper=False)
        of_newton = torch.linalg.solve_triangular(factor, of_newton.T, upper=False)
        least, *_, most = torch.linalg.eigvalsh(of_newton)[[0, -1]].tolist()
        if least < _SECANT[0] or most > _SECANT[1]:
            return following, information
        step = torch.zeros_like(present)
        step[free] = torch.linalg.solve(middle, gradient[free])
        following = present + step
    return following, information + share * change


def _rank_one(curvature: Tensor, moved: Tensor, change: Tensor) -> Tensor:
    """Return a symmetric matrix that has turned a step into a change, by the least change of itself (SR1)."""
    rest = change - curvature @ moved
    size = float(rest @ moved)
    if abs(size) < 1e-8 * float(rest.norm() * moved.norm()) or size == 0:
        return curvature
    return curvature + torch.outer(rest, rest) / size


def _by_moments(totals: Tensor) -> Tensor:
    """Return a negative binomial's dispersion by mean and variance of the targets."""
    sums = dict(zip(TOTALS, totals, strict=True))
    mean = sums["y"] / sums["weight"]
    variance = sums["y2"] / sums["weight"] - mean * mean
    return ((variance - mean) / (mean * mean).clamp_min(1e-12)).clamp(_GUESS, _HIGHEST)


def _dispersion_step(present: Tensor, score: Tensor, information: Tensor) -> tuple[Tensor, bool]:
    """Return the logarithm of the dispersion that follows, and whether it hardly moved."""
    # Where the likelihood is not concave, uphill all the same.
    change = score / information if information > 0 else torch.sign(score)
    change = change.clamp(-_FARTHEST, _FARTHEST)
    following = (present + change).clamp(math.log(LOWEST_DISPERSION), math.log(_HIGHEST))
    moved = float((following - present).abs())
    return following, moved * moved * abs(float(information)) < _DONE or moved < 1e-12


def log_determinant(information: Tensor, free: Tensor) -> float:
    """Return the logarithm of the determinant of the information on what is estimated."""
    return float(torch.linalg.slogdet(information[free][:, free])[1])


def _inverse(information: Tensor, free: Tensor) -> Tensor:
    """Return the inverse of the information on what is estimated, and nothing elsewhere."""
    inverse = torch.zeros_like(information)
    places = torch.nonzero(free)[:, 0]
    inverse[places[:, None], places] = torch.linalg.inv(information[free][:, free])
    return inverse


def _by_time(fitted: Likelihood, sums: RiskSums) -> dict[str, Any]:
    """Return what is told of each event time, and the sums of 1 - Kaplan-Meier for the test of proportional hazards."""
    survival = np.cumprod(1 - sums.events / np.maximum(sums.rows, 1))
    transformed = 1 - survival
    return {
        "events": float(sums.events.sum()),
        "transformed": [float(sums.events @ transformed), float(sums.events @ transformed**2)],
        "residuals": (transformed @ fitted.residuals).tolist(),
        "rows": sums.rows.tolist(),
        "deaths": sums.events.tolist(),
        "hazard": np.cumsum(fitted.hazard).tolist(),
    }


def fix_offset(strategy: FedAvg, experiment: Experiment, setup: Setup, fold: int) -> None:
    """Tell a GLM's strategy which coefficient is 1 in units of its column; raises ExperimentError without one.

    Also, where there are curves or products, which columns are rather kept than others that tell the same.
    """
    model = experiment.model
    if isinstance(strategy, Newton):
        strategy.order = elimination(setup, intercept=not isinstance(strategy, CoxNewton))
    if not isinstance(strategy, Newton) or not isinstance(model, Glm) or model.offset is None:
        return
    if model.offset not in setup.features or setup.preparation is None:
        raise ExperimentError(f"model.offset: '{model.offset}' is no numeric column that all sites have")
    place = setup.features.index(model.offset)
    strategy.offset = place + 1, float(setup.preparation.scale[fold][place])


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
    another one, of all places.
    """
    size = len(information)
    if order is None:
        order = [0, *range(size - 1, 0, -1)] if intercept else [*range(size - 1, -1, -1)]
    kept: list[int] = []
    factor = torch.zeros(size, size, dtype=torch.float64)
    for column in order:
        diagonal = information[column, column]
        if not diagonal > 0:
            continue
        row = torch.zeros(len(kept), dtype=torch.float64)
        if kept:
            lower = factor[: len(kept), : len(kept)]
            row = torch.linalg.solve_triangular(lower, information[kept, column][:, None], upper=False)[:, 0]
        rest = diagonal - row @ row
        if rest > tolerance * diagonal:
            factor[len(kept), : len(kept)] = row
            factor[len(kept), len(kept)] = torch.sqrt(rest)
            kept.append(column)
    free = torch.zeros(size, dtype=torch.bool)
    free[kept] = True
    return free
