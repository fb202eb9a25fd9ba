"""Newton's method over sites for a Cox model, also with Firth's penalty: the next coefficients from sums."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.coordinator.strategies.newton.design import independent, inverse, log_determinant
from v6_algorithm.coordinator.strategies.newton.glm import DONE_FIRTH, FARTHEST_FIRTH, Newton
from v6_algorithm.coordinator.strategies.newton.steps import risen, shortened, taken_back
from v6_algorithm.coordinator.strategies.reply import Message, Reply
from v6_algorithm.data.preparation.setup import unpack_arrays
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Cox
from v6_algorithm.learning.models.cox import Likelihood, RiskSums, likelihood

# The length of the first step, in log-risks by standard deviation of an input.
_FIRST_STEP = 0.3
# The squared length of the next step, in standard errors, below which it is the last. It is taken, and
# what is left after it is about this long itself, not its root, so that a round to verify it would change nothing.
_LAST = 1e-13
# The least and the most of the information's curvature that is left where it is taken from halfway along a step.
_SECANT = (0.3, 3.0)
# The least share of the information's curvature that a step counts on where Firth's penalty takes from it.
_CURVED = 0.1


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
        self._tell_separated(free, first=first)
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
            following = present + shortened(following - present, _FIRST_STEP)
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
            if "before" in kept and risen(objective, float(kept["objective"])):
                following, self.converged = taken_back(present, kept["before"])
                return {"model.weight": following}
            kept |= {"measured": torch.tensor(1), "objective": torch.tensor(objective, dtype=torch.float64)}
            return {"model.weight": present, "model.inverse": inverse(information, free)}
        penalty = torch.from_numpy(np.array(firth, dtype=np.float64))
        if "before" in kept:
            kept["curvature"] = _rank_one(kept["curvature"], present - kept["before"], kept["penalty"] - penalty)
        gradient = torch.from_numpy(score) + penalty
        plain = information[free][:, free]
        matrix = plain + kept["curvature"][free][:, free]
        if bool(free.any()) and torch.linalg.eigvalsh(matrix)[0] < _CURVED * torch.linalg.eigvalsh(plain)[0]:
            matrix = plain
        step = torch.zeros_like(present)
        step[free] = torch.linalg.solve(matrix, gradient[free])
        self.converged = float(gradient[free] @ step[free]) < DONE_FIRTH * (1 + abs(objective))
        if self.converged:
            return {}
        longest = FARTHEST_FIRTH if "before" in kept else _FIRST_STEP
        kept |= {"measured": torch.tensor(0), "before": present, "penalty": penalty}
        return {"model.weight": present + shortened(step, longest)}


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
    if abs(size) <= 1e-8 * float(rest.norm() * moved.norm()):
        return curvature
    return curvature + torch.outer(rest, rest) / size


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
