"""How a problem learns from a batch by steps of its own: what the local loop asks of it, and what it is told.

`Problem.learner` makes one for each fold of a round. The loop keeps what all training shares: which batches there are,
their order and changes, the seeds, and the check that what came of it is finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from v6_algorithm import seeding
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Training
from v6_algorithm.experiment.optimisers import build_optimiser, wind
from v6_algorithm.learning.training.device import Device

# Optimisers of torch that have a step in one pass over the memory, which differs from theirs by rounding.
_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
# Gets the names of further quicker steps that were taken; None: all steps are exact.
_quicker: ContextVar[set[str] | None] = ContextVar("quicker", default=None)


@contextmanager
def fused_steps(told: set[str] | None = None) -> Iterator[None]:
    """Let optimisers that are made here take each step in one pass, where torch has it: for simulations, not exact.

    `told` gets the names of further quicker steps that are taken with it, as `stepping_layers` does.
    """
    token = _quicker.set(set() if told is None else told)
    try:
        yield
    finally:
        _quicker.reset(token)


def fuses(training: Training) -> bool:
    """Say whether the experiment's optimiser is let take steps that differ by rounding, and has them."""
    return _quicker.get() is not None and has_fused_step(training)


def tell_quicker(name: str) -> None:
    """Keep for the result that a quicker step was taken."""
    if (told := _quicker.get()) is not None:
        told.add(name)


def has_fused_step(training: Training) -> bool:
    """Say whether the experiment's optimiser has a step in one pass, that `fused_steps` would let it take on a CPU."""
    options = training.optimizer.options()
    known = {each.__name__.lower() for each in _FUSED}
    return training.optimizer.kind.lower() in known and not (options.get("foreach") or options.get("differentiable"))


@dataclass(frozen=True)
class TrainingContext:
    """One site's training of one fold in one round: whose it is, where it happens, and what is not as always.

    Attributes
    ----------
    seed, site, round, fold
        What everything is drawn for.
    device
        Where the networks are.
    purpose
        What for, where a round trains more than once.
    frozen
        Names of tensors that stay as they are.
    lr
        The learning rate, where that follows from validation.
    """

    seed: int
    site: str
    round: int
    fold: int
    device: Device = field(default_factory=Device)
    purpose: str = "training"
    frozen: frozenset[str] = frozenset()
    lr: float | None = None

    def derive(self, what: str) -> int:
        """Return a seed of this training's own for something: the same when the round is repeated."""
        return seeding.derive(self.seed, what, *self._keys)

    def generator(self, what: str) -> torch.Generator:
        """Return a CPU generator of this training's own for something."""
        return seeding.torch_generator(self.seed, what, *self._keys)

    @property
    def _keys(self) -> tuple[str | int, ...]:
        keys = (self.site, self.round, self.fold)
        return keys if self.purpose == "training" else (*keys, self.purpose)


class Learner(Protocol):
    """Learns from one batch after another, with optimisers of its own."""

    def step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Learn from a batch, (rows, …) and (rows,), on the device; return its summed loss, detached."""

    def finish(self) -> None:
        """End the round: leave in the networks what is to be kept of it."""


def optimiser_of(
    training: Training, parameters: Iterable[nn.Parameter], context: TrainingContext, *, lr_factor: float = 1.0
) -> torch.optim.Optimizer:
    """Build the experiment's optimiser anew, with its learning rate of the round times a factor."""
    try:
        optimiser = build_optimiser(training.optimizer.kind, training.optimizer.options(), parameters)
    except (ValueError, TypeError) as error:
        # A site takes what `master` tried for granted, and a request may come from elsewhere.
        raise ExperimentError(f"training.optimizer: {error}") from None
    if training.scheduler is not None:
        try:
            wind(optimiser, training.scheduler.kind, training.scheduler.options(), context.round)
        except (ValueError, TypeError) as error:
            raise ExperimentError(f"training.scheduler: {error}") from None
    for group in optimiser.param_groups:
        group["lr"] = (group["lr"] if context.lr is None else context.lr) * lr_factor
        chosen = group.get("foreach") or group.get("differentiable") or isinstance(group["lr"], torch.Tensor)
        if _quicker.get() is not None and isinstance(optimiser, _FUSED) and not chosen:
            on_cpu = all(value.device.type == "cpu" and value.is_floating_point() for value in group["params"])
            group["fused"] = group.get("fused") or on_cpu or None
    return optimiser
