"""The local loop: one site's work on one model in one round, and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from v6_algorithm import seeding, wire
from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Training
from v6_algorithm.lookup import build_optimiser, build_scheduler
from v6_algorithm.models.tabular import has_batch_norm
from v6_algorithm.problems.base import Problem

# Rows, and numbers in them (0.1 GB), in one forward pass of an evaluation; bounds the memory, changes no result beyond
# rounding.
_EVALUATION_ROWS = 8192
_EVALUATION_CELLS = 2**25


@dataclass(frozen=True)
class Rows:
    """Prepared rows: inputs (rows, …), target (rows,), and which member hospital each is from (rows,)."""

    inputs: Tensor
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
    order = torch.randperm(rows, generator=generator)
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) < at_least:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    yield from pieces


def _local_batches(rows: int, training: Training, generator: torch.Generator, at_least: int) -> Iterator[Tensor]:
    steps = 0
    for _ in range(training.local_epochs) if training.local_epochs else iter(int, 1):
        for batch in batches(rows, training.batch_size, generator, at_least=at_least):
            yield batch
            steps += 1
            if steps == training.local_steps:
                return


def train(
    problem: Problem, networks: Mapping[str, nn.Module], rows: Rows, part: Tensor, *, site: str, round: int, fold: int
) -> TrainingSums:
    """Train `networks` in place on the rows numbered in `part`, for one round.

    The optimiser starts anew each round; a scheduler is wound forward to the round, so that a repeated round is
    the same round.

    Raises
    ------
    SiteError
        Of kind ``diverged`` when the loss is no longer a finite number.
    """
    training, seed = problem.experiment.training, problem.experiment.seed
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    optimiser = build_optimiser(training.optimizer.kind, training.optimizer.options(), parameters)
    if training.scheduler is not None:
        _wind(training, optimiser, round)
    at_least = 2 if any(has_batch_norm(network) for network in networks.values()) else 1
    generator = seeding.torch_generator(seed, "batches", site, round, fold)
    total, seen, steps = torch.zeros((), dtype=torch.float64), 0, 0
    with torch.random.fork_rng(devices=[]):
        # Dropout and its like draw from the global generator.
        torch.manual_seed(seeding.derive(seed, "training", site, round, fold))
        for network in networks.values():
            network.train()
        for drawn in _local_batches(len(part), training, generator, at_least):
            batch = part[drawn]
            optimiser.zero_grad(set_to_none=True)
            loss = problem.row_loss(problem.forward(networks, rows.inputs[batch]), rows.target[batch], fold)
            loss.mean().backward()
            optimiser.step()
            total += loss.detach().sum()
            seen += len(batch)
            steps += 1
    finite = math.isfinite(total.item()) and all(wire.all_finite(value.detach()) for value in parameters)
    if not finite:
        raise SiteError(
            f"training diverged in round {round}: the loss or the model is not finite; lower training.optimizer.lr "
            f"(given: {training.optimizer.options().get('lr', 'torch default')})",
            "diverged",
        )
    return TrainingSums(total.item(), seen, steps)


def _wind(training: Training, optimiser: torch.optim.Optimizer, round: int) -> None:
    import warnings

    if training.scheduler is None:
        return
    scheduler = build_scheduler(training.scheduler.kind, training.scheduler.options(), optimiser)
    with warnings.catch_warnings():
        # torch warns that the optimiser did not step in between: it did, in the rounds before.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(round - 1):
            scheduler.step()


def evaluate(
    problem: Problem, networks: Mapping[str, nn.Module], rows: Rows, part: Tensor, members: list[str], *, fold: int
) -> dict[str, dict[str, Any]]:
    """Return the metric state of each member hospital over the rows numbered in `part`."""
    accumulators = {name: problem.accumulator() for name in members}
    for network in networks.values():
        network.eval()
    width = rows.inputs[:1].numel()
    step = max(1, min(_EVALUATION_ROWS, _EVALUATION_CELLS // max(width, 1)))
    with torch.inference_mode():
        for chunk in torch.split(part, step) if len(part) else ():
            target, member = rows.target[chunk], rows.member[chunk]
            output = problem.forward(networks, rows.inputs[chunk])
            loss = problem.row_loss(output, target, fold).double()
            prediction = problem.prediction(output)
            for number, name in enumerate(members):
                own = member == number
                accumulators[name].update(prediction[own].numpy(), target[own].numpy(), loss[own].numpy())
    return {name: accumulator.state() for name, accumulator in accumulators.items()}
