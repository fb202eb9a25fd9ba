"""How a problem learns from a batch by steps of its own: what the local loop asks of it, and what it is told.

`Problem.learner` makes one for each fold of a round. The loop keeps what all training shares: which batches there are,
their order and changes, the seeds, and the check that what came of it is finite.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from v6_algorithm import seeding
from v6_algorithm.experiment import Training
from v6_algorithm.lookup import build_optimiser, wind
from v6_algorithm.training.device import Device


@dataclass(frozen=True)
class Lesson:
    """One site's training of one fold in one round: whose it is, and where it happens."""

    seed: int
    site: str
    round: int
    fold: int
    device: Device = field(default_factory=Device)

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator of this lesson's own for a purpose: the same when the round is repeated."""
        return seeding.torch_generator(self.seed, purpose, self.site, self.round, self.fold)


class Learner(Protocol):
    """Learns from one batch after another, with optimisers of its own."""

    def step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Learn from a batch, (rows, …) and (rows,), on the device; return its summed loss, detached."""

    def finish(self) -> None:
        """End the round: leave in the networks what is to be kept of it."""


def optimiser_of_round(
    training: Training, parameters: Iterable[nn.Parameter], round: int, *, lr_factor: float = 1.0
) -> torch.optim.Optimizer:
    """Build the experiment's optimiser anew, with its learning rate times a factor and as scheduled for a round."""
    optimiser = build_optimiser(training.optimizer.kind, training.optimizer.options(), parameters)
    for group in optimiser.param_groups:
        group["lr"] *= lr_factor
    if training.scheduler is not None:
        wind(optimiser, training.scheduler.kind, training.scheduler.options(), round)
    return optimiser
