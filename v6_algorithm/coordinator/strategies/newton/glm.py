"""Newton's method over sites for a GLM, also with Firth's penalty: the next coefficients from means over all rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.coordinator.strategies.newton.design import independent_but, inverse, log_determinant
from v6_algorithm.coordinator.strategies.newton.steps import risen, shortened, taken_back
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.coordinator.strategies.reply import Reply
from v6_algorithm.experiment import Glm
from v6_algorithm.learning.models.glm import NULL_SUMS, TOTALS, link_of

_DEVIANCE, _LOG_LIKELIHOOD = TOTALS.index("deviance"), TOTALS.index("log_likelihood")
# The squared length of the next step, in standard errors, below which a fit is done.
_DONE = 1e-20
# A negative binomial's dispersion, and the least of a first guess; below the lowest it is a Poisson model.
LOWEST_DISPERSION, _HIGHEST, _GUESS = 1e-6, 1e4, 0.05
# Of its logarithm in a step.
_FARTHEST = 2.0
# Of Firth's fit: the squared length of a step below which it is done, and the longest, as in R's logistf.
DONE_FIRTH, FARTHEST_FIRTH = 1e-18, 5.0
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
        if self.offset is not None and first:
            score = score - information[:, self.offset[0]] * self.offset[1]
        free = independent_but(information + torch.diag(penalty), self.offset, self.order)
        self._tell_separated(free, first=first)
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

    def _tell_separated(self, free: Tensor, *, first: bool) -> None:
        """Note what was no combination of the others at first, and is now: rows that differ weigh nothing any more."""
        if first:
            self.kept["first"] = {"free": free.long()}
        elif "first" in self.kept:
            lost = torch.nonzero(self.kept["first"]["free"].bool() & ~free)[:, 0].tolist()
            self.fitted = {**self.fitted, "separated": lost}

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
            if "before" in kept and risen(objective, float(kept["objective"])):
                following, self.converged = taken_back(present, kept["before"])
                return following, {}
            kept |= {"measured": torch.tensor(1), "objective": torch.tensor(objective, dtype=torch.float64)}
            return present, {"model.inverse": inverse(information, free)}
        step = torch.zeros_like(present)
        step[free] = torch.linalg.solve(information[free][:, free], score[free])
        self.converged = float(score @ step) < DONE_FIRTH * (1 + abs(objective))
        if self.converged:
            return present, {}
        kept |= {"measured": torch.tensor(0), "before": present}
        return present + shortened(step, FARTHEST_FIRTH), {}

    def _dispersion(self, combined: State, *, first: bool) -> State:
        """Return the logarithm of a negative binomial's dispersion that follows: a guess by moments, then Newton's."""
        totals, present = combined["model.totals"].double(), combined["model.dispersion"].double()
        if first:
            return {"model.dispersion": torch.log(_by_moments(totals))}
        kept = self.kept["newton"]
        if self._halved and "dispersion" in kept:
            following, still = taken_back(present, kept["dispersion"])
            self.converged = self.converged and still
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
        if before is not None and risen(objective, float(before["objective"])):
            self._halved = True
            following, self.converged = taken_back(present, before["coefficients"])
            return following
        gradient = score - penalty * present
        change = torch.zeros_like(present)
        change[free] = torch.linalg.solve((information + torch.diag(penalty))[free][:, free], gradient[free])
        following = change if first else present + change
        # What grows without end stays where rows ceased to weigh: at 0 they would weigh again.
        growing = self.kept["first"]["free"].bool() if "first" in self.kept else torch.zeros_like(free)
        following[~(free | growing)] = 0
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
