"""The slope of a mean cross-entropy by its formula, p - y, for batches so small that autograd's graph costs more.

`together` asks for it where a stack's gradients are made layer by layer. Loss and slope are torch's to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, no_grad
from torch.nn import functional

from v6_algorithm.learning.problems.base import Problem

# From (rows, outputs) logits, (rows,) classes and each row's part in the sum, (rows, 1), to the rows' losses, (rows,),
# and the slope of the weighted sum, (rows, outputs).
Formula = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def formula_of(problem: Problem) -> Formula | None:
    """Return the formula of a problem whose loss is the plain cross-entropy; None of any other."""
    from v6_algorithm.learning.problems.tabular import Classification

    # A problem that is derived from it may have another loss.
    if not isinstance(problem, Classification) or type(problem).row_loss is not Classification.row_loss:
        return None
    wanted = problem.experiment.training.loss
    if (wanted is not None and wanted.kind == "focal") or problem.setup.class_weights is not None:
        return None
    return of_two if problem.classes == 2 else of_several


@no_grad()
def of_several(output: Tensor, target: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses and slope where each class has a logit; see `Formula`."""
    classes = target[:, None]
    # torch's softmax of a handful of columns takes three times as long as its pieces.
    logits = output - output.amax(1, keepdim=True)
    chances = logits.exp()
    total = chances.sum(1, keepdim=True)
    rows = total.log() - logits.gather(1, classes)
    slope = chances.mul_(parts / total).scatter_add_(1, classes, -parts)
    return rows.squeeze(1), slope


@no_grad()
def of_two(output: Tensor, target: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses and slope where one logit is that of class 1; see `Formula`."""
    wanted = target[:, None].to(output.dtype)
    rows = functional.binary_cross_entropy_with_logits(output, wanted, reduction="none")
    return rows.squeeze(1), (output.sigmoid() - wanted).mul_(parts)
