"""The local loop: one site's work on one model in one round, and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from v6_algorithm import seeding, wire
from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Training
from v6_algorithm.models.tabular import has_batch_norm
from v6_algorithm.problems.base import Accumulator, Problem
from v6_algorithm.training.augmentation import augment, measured
from v6_algorithm.training.device import Device, deterministic
from v6_algorithm.training.learner import Learner, Lesson, optimiser_of_round
from v6_algorithm.training.objectives import LocalObjective

# Numbers (0.1 GB) in one forward pass of an evaluation; bounds the memory, changes no result beyond rounding.
_EVALUATION_NUMBERS = 2**25


class Inputs(Protocol):
    """Prepared inputs by row: a tensor, or what makes one of the rows asked for when they are."""

    @property
    def nbytes(self) -> int:
        """Bytes that are held in memory."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return (rows, …) by row number."""


@dataclass(frozen=True)
class Rows:
    """Prepared rows: inputs (rows, …), target (rows,), and which member hospital each is from (rows,)."""

    inputs: Inputs
    target: Tensor
    member: Tensor


@dataclass(frozen=True)
class TrainingSums:
    """What local training tells: the summed loss over the rows seen, their number, and optimiser steps."""

    loss: float
    rows: int
    steps: int


def batches(rows: int, size: int | None, generator: torch.Generator, *, at_least: int = 1) -> Iterator[Tensor]:
    """Yield row numbers of one epoch, shuffled; a last batch of fewer than `at_least` rows joins the one before.

    A batch that holds all rows is not shuffled: its mean does not depend on their order, its rounding would.
    """
    if size is None or size >= rows:
        yield torch.arange(rows)
        return
    yield from _pieces(torch.randperm(rows, generator=generator), size, at_least)


def _pieces(order: Tensor, size: int, at_least: int) -> list[Tensor]:
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) < at_least:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


def _steps(
    rows: int, training: Training, generator: torch.Generator, at_least: int, epochs: int | None
) -> Iterator[list[Tensor]]:
    """Yield the batches of one optimiser step after another: `accumulate` of them, fewer at the end of an epoch."""
    epochs, steps = epochs or training.local_epochs, 0
    size = training.batch_size
    for _ in range(epochs) if epochs else iter(int, 1):
        for drawn in batches(rows, size and size * training.accumulate, generator, at_least=at_least):
            yield _pieces(drawn, size or rows, at_least)
            steps += 1
            if not epochs and steps == training.local_steps:
                return


def train(
    problem: Problem,
    networks: Mapping[str, nn.Module],
    rows: Rows,
    part: Tensor,
    *,
    site: str,
    round: int,
    fold: int,
    device: Device = Device(),
    epochs: int | None = None,
    objective: LocalObjective | None = None,
) -> TrainingSums:
    """Train `networks` in place on the rows numbered in `part`, for one round.

    The optimiser starts anew each round; a scheduler is wound forward to the round, so that a repeated round is
    the same round. With `accumulate` one step follows the gradient of the mean over the rows of several batches,
    which is that of one large batch (but for BatchNorm and losses over risk sets, which see each batch by itself).

    Parameters
    ----------
    problem, networks
        What is trained.
    rows
        The site's prepared rows, on the device.
    part
        (n,) numbers of the training rows.
    site, round, fold
        Who, when and what: batches, dropout and the images' changes are drawn for them.
    device
        Where the networks are.
    epochs
        Passes over the rows, instead of what the experiment says.
    objective
        What the strategy asks of the training; nothing if absent.

    Raises
    ------
    SiteError
        Of kind ``diverged`` when the loss is no longer a finite number.
    """
    training = problem.experiment.training
    lesson = Lesson(problem.experiment.seed, site, round, fold, device)
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    at_least = 2 if any(has_batch_norm(network) for network in networks.values()) else 1
    generator, changes = lesson.generator("batches"), lesson.generator("augmentation")
    total, seen, steps = torch.zeros((), dtype=torch.float64, device=device.kind), 0, 0
    with device.fork_rng(), deterministic(training.deterministic):
        # Dropout and its like draw from the global generator.
        torch.manual_seed(seeding.derive(lesson.seed, "training", site, round, fold))
        own = problem.learner(dict(networks), lesson)
        steppers = _Descent if own is None else partial(_Taught, own)
        stepper = steppers(problem, networks, rows, changes, lesson, objective or LocalObjective())
        for network in networks.values():
            network.train()
        for pieces in _steps(len(part), training, generator, at_least, epochs):
            total += stepper.step([part[drawn].to(device.kind) for drawn in pieces])
            seen += sum(map(len, pieces))
            steps += 1
        stepper.finish()
    finite = math.isfinite(total.item()) and all(wire.all_finite(value.detach()) for value in parameters)
    if not finite:
        raise SiteError(
            f"training diverged in round {round}: the loss or the model is not finite; lower training.optimizer.lr "
            f"(given: {training.optimizer.options().get('lr', 'torch default')})",
            "diverged",
        )
    return TrainingSums(total.item(), seen, steps)


class _Descent:
    """Steps down the mean of the rows' losses, of one batch or, with `accumulate`, of several together."""

    def __init__(
        self,
        problem: Problem,
        networks: Mapping[str, nn.Module],
        rows: Rows,
        changes: torch.Generator,
        lesson: Lesson,
        objective: LocalObjective,
    ) -> None:
        training = problem.experiment.training
        if problem.joint and any(kind.kind == "mixup" for kind in training.augmentation):
            raise SiteError(
                "training.augmentation: mixup needs a loss of each row by itself, this problem's is not", "request"
            )
        self._problem, self._networks, self._rows = problem, networks, rows
        self._changes, self._lesson, self._objective = changes, lesson, objective
        self._augmentation = training.augmentation
        parameters = [parameter for network in networks.values() for parameter in network.parameters()]
        self._optimiser = optimiser_of_round(training, parameters, lesson.round)
        objective.begin(networks)

    def step(self, batches: list[Tensor]) -> Tensor:
        """Take one step on batches of row numbers, on the device; return the summed loss of their rows, detached."""
        self._optimiser.zero_grad(set_to_none=True)
        of_step = sum(map(len, batches))
        losses = [self._backward(batch, 1.0 if len(batches) == 1 else len(batch) / of_step) for batch in batches]
        self._objective.step(self._optimiser)
        return torch.stack(losses).double().sum()

    def _backward(self, batch: Tensor, share: float) -> Tensor:
        problem, target = self._problem, self._rows.target
        device, fold = self._lesson.device, self._lesson.fold
        inputs, mix = self._rows.inputs[batch], None
        if self._augmentation:
            inputs, mix = augment(inputs, self._augmentation, self._changes)
        with device.forward():
            output, term = self._objective.forward(problem, self._networks, inputs)
        output = device.full(output)
        loss = problem.row_loss(output, target[batch], fold)
        if mix is not None:
            loss = mix.loss(loss, problem.row_loss(output, target[batch[mix.partner]], fold))
        mean = loss.mean() if term is None else loss.mean() + term
        (mean if share == 1 else mean * share).backward()
        return loss.detach().sum()

    def finish(self) -> None:
        """Do nothing: all is in the networks."""


class _Taught:
    """Gives each batch to a learner of the problem's own."""

    def __init__(
        self,
        learner: Learner,
        problem: Problem,
        networks: Mapping[str, nn.Module],
        rows: Rows,
        changes: torch.Generator,
        lesson: Lesson,
        objective: LocalObjective,
    ) -> None:
        training = problem.experiment.training
        mixes = any(kind.kind == "mixup" for kind in training.augmentation)
        if training.accumulate > 1 or mixes or type(objective) is not LocalObjective:
            raise SiteError(
                f"problem {problem.experiment.problem.kind} takes steps of its own: it goes with no "
                "training.accumulate, no mixup and no strategy that changes a site's steps",
                "request",
            )
        self._learner, self._rows = learner, rows
        self._augmentation, self._changes = training.augmentation, changes

    def step(self, batches: list[Tensor]) -> Tensor:
        """Give it one batch; return its summed loss."""
        (batch,) = batches
        inputs = self._rows.inputs[batch]
        if self._augmentation:
            inputs, _ = augment(inputs, self._augmentation, self._changes)
        return self._learner.step(inputs, self._rows.target[batch])

    def finish(self) -> None:
        """Let it leave in the networks what is to be kept."""
        self._learner.finish()


def mean_loss(problem: Problem, networks: Mapping[str, nn.Module], rows: Rows, part: Tensor, *, fold: int) -> float:
    """Return the mean loss over the rows numbered in `part`, in full precision and without dropout."""
    for network in networks.values():
        network.eval()
    part = part.to(rows.target.device)
    augmentation = problem.experiment.training.augmentation
    total = 0.0
    with torch.inference_mode(), deterministic(problem.experiment.training.deterministic):
        for chunk in torch.split(part, rows_at_once(problem, rows, part)):
            output = problem.forward(networks, measured(rows.inputs[chunk], augmentation))
            total += problem.row_loss(output, rows.target[chunk], fold).double().sum().item()
    if not math.isfinite(total):
        raise SiteError("the loss of the received model is not finite", "diverged")
    return total / len(part)


def evaluate(
    problem: Problem,
    networks: Mapping[str, nn.Module],
    rows: Rows,
    part: Tensor,
    members: list[str],
    *,
    fold: int,
    device: Device = Device(),
    accumulator: Callable[[], Accumulator] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the state of each member hospital over the rows numbered in `part`; in full precision, always.

    It is that of the problem's metrics, or of what else `accumulator` makes.
    """
    accumulators = {name: (accumulator or problem.accumulator)() for name in members}
    for network in networks.values():
        network.eval()
    part = part.to(device.kind)
    augmentation = problem.experiment.training.augmentation
    with torch.inference_mode(), deterministic(problem.experiment.training.deterministic):
        for chunk in torch.split(part, rows_at_once(problem, rows, part)) if len(part) else ():
            output = problem.forward(networks, measured(rows.inputs[chunk], augmentation))
            prediction, target, member = (
                problem.prediction_of(output, fold).cpu(),
                rows.target[chunk],
                rows.member[chunk],
            )
            for number, name in enumerate(members):
                own = member == number
                loss = problem.row_loss(output[own], target[own], fold).double().cpu()
                here = own.cpu()
                accumulators[name].update(prediction[here].numpy(), target[own].cpu().numpy(), loss.numpy())
    return {name: accumulator.state() for name, accumulator in accumulators.items()}


def rows_at_once(problem: Problem, rows: Rows, part: Tensor) -> int:
    """Return how many rows an evaluation works on together; a loss over risk sets needs a hospital's in one piece."""
    if problem.joint:
        return max(len(part), 1)
    numbers = max(rows.inputs[part[:1]].numel() * problem.expansion, 1)
    return max(min(problem.experiment.training.evaluation_batch_size, _EVALUATION_NUMBERS // numbers), 1)
