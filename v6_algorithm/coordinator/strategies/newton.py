"""Fisher scoring over sites: the next coefficients of a GLM from all sites' score and information.

The sites' tensors are means over their rows (`learning.models.glm`), so their mean weighted by rows is that of all rows
together, and the step is the one that a fit of the pooled rows would take.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.learning.models.glm import TOTALS

_DEVIANCE = TOTALS.index("deviance")
# A column whose variance beside the others is less than this share of its own is a combination of them.
_ALIASED = 1e-9
# The squared length of the next step, in standard errors, below which a fit is done.
_DONE = 1e-20
_NAMES = ("model.weight", "model.bias", "model.score", "model.information", "model.totals")


class Newton(FedAvg):
    """Solves for a GLM's coefficients, with half steps where the deviance would rise; done when no step is left.

    References
    ----------
    McCullagh and Nelder, Generalized Linear Models, 2nd ed., 1989.
    """

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
        objective = float(totals[_DEVIANCE] + (penalty * present * present).sum())
        before = self.kept.get("newton")
        if before is not None and int(before["rows"]) != rows:
            # Other sites answered: what the deviance was over those of the last round says nothing of this step.
            before = None
        if before is not None and objective > float(before["objective"]) + 1e-12 * (1 + abs(objective)):
            following = (present + before["coefficients"]) / 2
            self.converged = bool(torch.allclose(following, present, rtol=1e-14, atol=1e-14))
        else:
            gradient = score - penalty * present
            free = independent(information + torch.diag(penalty))
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
        sums = {name: combined[name].double() * rows for name in _NAMES[2:]}
        return combined | sums | {"model.weight": following[1:], "model.bias": following[0]}


def independent(information: Tensor, tolerance: float = _ALIASED) -> Tensor:
    """Say which columns of a design are no combination of the others: (columns,) bool, from its information matrix.

    The intercept comes first and then the columns from the last to the first: of a category's 0/1 columns, which
    add up to the intercept, the first one is the one that is left out, and so the reference.
    """
    size = len(information)
    order = [0, *range(size - 1, 0, -1)]
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


def names_of(terms: Sequence[str], mask: Tensor) -> list[str]:
    """Return the terms that a mask, (columns,), marks."""
    return [term for term, marked in zip(terms, mask.tolist(), strict=True) if marked]
