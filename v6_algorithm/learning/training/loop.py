"""The local loop: one site's work on one model in one round, and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from v6_algorithm.errors import SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Training
from v6_algorithm.learning.models.normalisation import has_batch_norm
from v6_algorithm.learning.problems.base import Accumulator, Problem
from v6_algorithm.learning.training.augmentation import augment, measured
from v6_algorithm.learning.training.device import Device, deterministic
from v6_algorithm.learning.training.fitting import Fitting, in_chunks, pieces_of
from v6_algorithm.learning.training.freezing import in_training, trained
from v6_algorithm.learning.training.learner import Learner, TrainingContext, optimiser_of
from v6_algorithm.learning.training.objectives import LocalObjective
from v6_algorithm.learning.training.private_descent import PrivateDescent, PrivateSteps
from v6_algorithm.learning.training.stepping_layers import SteppingLayers, applies

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
    """Prepared rows: inputs (rows, …), target (rows,), which member hospital each is from, and weights, if any."""

    inputs: Inputs
    target: Tensor
    member: Tensor
    weights: Tensor | None = None


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
    yield from pieces_of(torch.randperm(rows, generator=generator), size, at_least)


def steps_of(
    rows: int, training: Training, generator: torch.Generator, at_least: int, epochs: int | None, round: int
) -> Iterator[list[Tensor]]:
    """Yield the batches of one optimiser step after another: `accumulate` of them, fewer at the end of an epoch."""
    epochs, most, steps = epochs or training.epochs_in(round), training.steps_in(round), 0
    size = training.batch_size
    for _ in range(epochs) if epochs else iter(int, 1):
        for drawn in batches(rows, size and size * training.accumulate, generator, at_least=at_least):
            yield [drawn] if training.accumulate == 1 else pieces_of(drawn, size or rows, at_least)
            steps += 1
            if not epochs and steps == most:
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
    frozen: Collection[str] = (),
    lr: float | None = None,
    fitting: Fitting | None = None,
    purpose: str = "training",
    seed: int | None = None,
    private: PrivateSteps | None = None,
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
    frozen
        Names of tensors that stay as they are.
    lr
        The learning rate of this round, where that follows from validation.
    fitting
        How many rows the device takes at once; learned anew if absent.
    purpose
        What for, where a round trains more than once: batches and the rest are drawn for it.
    seed
        What they are drawn with, where it is not the experiment's: a node may mix in a secret of its own.
    private
        Noised steps under differential privacy, in place of the experiment's batches; these follow no seed. The loss
        that is told is then the mean over the rows drawn, as of all training rows.

    Raises
    ------
    SiteError
        Of kind ``diverged`` when the loss is no longer a finite number, of kind ``request`` when memory does not do.
    """
    training = problem.experiment.training
    seed = problem.experiment.seed if seed is None else seed
    context = TrainingContext(seed, site, round, fold, device, purpose, frozenset(frozen), lr)
    objective, fitting = objective or LocalObjective(), fitting or Fitting()
    learner = problem.learner(dict(networks), context)
    drawn: Iterator[list[Tensor]] | None = None
    stepper: _Steps
    if private is not None:
        if learner is not None:
            raise SiteError("privacy.differential_privacy: this problem takes steps of its own", "request")
        descent = PrivateDescent(problem, networks, rows.inputs, rows.target, part, context, objective, private)
        stepper, drawn = descent, descent.draws()
    elif learner is None:
        stepper = _GradientDescent(problem, networks, rows, part, context, objective, fitting)
    else:
        stepper = _LearnerSteps(learner, problem, rows, part, context, objective, fitting)
    generator = context.generator("batches")
    total, seen, steps = torch.zeros((), dtype=torch.float64, device=device.kind), 0, 0
    with device.fork_rng(), deterministic(training.deterministic), in_training(networks, frozen):
        # Dropout and its like draw from the global generator.
        device.seed(context.derive("training"))
        for batch in drawn or steps_of(len(part), training, generator, fewest_rows(networks), epochs, round):
            total += stepper.step(batch)
            seen += sum(map(len, batch))
            steps += 1
        stepper.finish()
    parameters = trained(networks, frozen)
    finite = math.isfinite(total.item()) and all(wire.all_finite(value.detach()) for value in parameters)
    if not finite:
        raise diverged(training, round)
    if private is not None:
        # How many rows were drawn is not told, and where none was there is a loss all the same.
        mean = total.item() / seen if seen else mean_loss(problem, networks, rows, part, fold=fold)
        return TrainingSums(mean * len(part), len(part), steps)
    return TrainingSums(total.item(), seen, steps)


def diverged(training: Training, round: int) -> SiteError:
    """Return what is raised where a round's training left the finite numbers."""
    return SiteError(
        f"training diverged in round {round}: the loss or the model is not finite; lower training.optimizer.lr "
        f"(given: {training.optimizer.options().get('lr', 'torch default')})",
        "diverged",
    )


class _Steps(Protocol):
    """Takes one step of a training after another."""

    def step(self, batches: list[Tensor]) -> Tensor:
        """Take one step on batches, of numbers in the training rows; return the summed loss of their rows."""

    def finish(self) -> None:
        """End the round."""


class _GradientDescent:
    """Steps down the mean of the rows' losses, of one batch or, with `accumulate`, of several together."""

    def __init__(
        self,
        problem: Problem,
        networks: Mapping[str, nn.Module],
        rows: Rows,
        part: Tensor,
        context: TrainingContext,
        objective: LocalObjective,
        fitting: Fitting,
    ) -> None:
        training = problem.experiment.training
        if problem.joint and any(kind.kind == "mixup" for kind in training.augmentation):
            raise SiteError(
                "training.augmentation: mixup needs a loss of each row by itself, this problem's is not", "request"
            )
        self._problem, self._networks, self._rows, self._part = problem, networks, rows, part
        self._context, self._objective, self._fitting = context, objective, fitting
        self._augmentation, self._changes = training.augmentation, context.generator("augmentation")
        self._least = fewest_rows(networks)
        parameters = trained(networks, context.frozen)
        self._optimiser = optimiser_of(training, parameters, context)
        self._stepping: SteppingLayers | None = None
        if applies(problem.experiment.model.kind, training, context, objective):
            self._stepping = SteppingLayers(networks, parameters, training, context, objective)
        objective.begin(networks)

    def step(self, batches: list[Tensor]) -> Tensor:
        """Take one step on batches, in pieces that fit; return the summed loss of their rows, detached."""
        summed = self._fitting.attempt(batches, self._gradients, least=self._least, whole=self._problem.joint)
        self._objective.step(self._optimiser)
        return summed

    def _gradients(self, pieces: list[Tensor]) -> Tensor:
        """Put the gradients of one step in place, and return its summed loss; large layers may step at once."""
        with nullcontext() if self._stepping is None else self._stepping.at_work(len(pieces)):
            return self._backward(pieces)

    def _backward(self, pieces: list[Tensor]) -> Tensor:
        problem, device, fold = self._problem, self._context.device, self._context.fold
        self._optimiser.zero_grad(set_to_none=True)
        summed, of_step = torch.zeros((), dtype=torch.float64, device=device.kind), sum(map(len, pieces))
        for drawn in pieces:
            numbers = self._part[drawn]
            # Images are read by numbers that are on the CPU: to ask a GPU for them is to wait for the steps before.
            inputs, mix = self._rows.inputs[numbers], None
            batch = numbers.to(device.kind)
            if self._augmentation:
                inputs, mix = augment(inputs, self._augmentation, self._changes)
            with device.forward():
                output, term = self._objective.forward(problem, self._networks, inputs)
            output = device.full(output)
            loss = _batch_loss(problem, output, self._rows, batch, fold)
            if mix is not None:
                loss = mix.loss(loss, problem.row_loss(output, self._rows.target[batch[mix.partner]], fold))
            mean = loss.mean() if term is None else loss.mean() + term
            (mean if len(pieces) == 1 else mean * (len(drawn) / of_step)).backward()
            summed += loss.detach().sum()
        return summed

    def finish(self) -> None:
        """Let go of what only the steps needed: all is in the networks."""
        self._objective.finish(self._optimiser)


class _LearnerSteps:
    """Gives each batch to a learner of the problem's own, which cannot be cut: its networks have stepped by then."""

    def __init__(
        self,
        learner: Learner,
        problem: Problem,
        rows: Rows,
        part: Tensor,
        context: TrainingContext,
        objective: LocalObjective,
        fitting: Fitting,
    ) -> None:
        training = problem.experiment.training
        mixes = any(kind.kind == "mixup" for kind in training.augmentation)
        if training.accumulate > 1 or mixes or type(objective) is not LocalObjective:
            raise SiteError(
                f"problem {problem.experiment.problem.kind} takes steps of its own: it goes with no "
                "training.accumulate, no mixup and no strategy that changes a site's steps",
                "request",
            )
        self._learner, self._rows, self._part, self._device = learner, rows, part, context.device
        self._fitting, self._stratified = fitting, problem.stratified
        self._augmentation, self._changes = training.augmentation, context.generator("augmentation")

    def step(self, batches: list[Tensor]) -> Tensor:
        """Give it one batch; return its summed loss."""
        return self._fitting.attempt(batches, self._learn, least=1, whole=True)

    def _learn(self, pieces: list[Tensor]) -> Tensor:
        (drawn,) = pieces
        numbers = self._part[drawn]
        batch = numbers.to(self._device.kind)
        inputs, target, member = self._rows.inputs[numbers], self._rows.target[batch], self._rows.member[batch]
        if self._augmentation:
            inputs, _ = augment(inputs, self._augmentation, self._changes)
        if self._rows.weights is not None:
            # Only a regression's rows have weights, and its learner takes them.
            return self._learner.step(inputs, target, self._rows.weights[batch])  # type: ignore[call-arg]
        hospitals = member.unique() if self._stratified else member[:1]
        if len(hospitals) < 2:
            return self._learner.step(inputs, target)
        # One site holds several hospitals, which are strata.
        return sum(
            (self._learner.step(inputs[member == hospital], target[member == hospital]) for hospital in hospitals),
            start=torch.zeros((), dtype=torch.float64, device=self._device.kind),
        )

    def finish(self) -> None:
        """Let it leave in the networks what is to be kept."""
        self._learner.finish()


def fewest_rows(networks: Mapping[str, nn.Module]) -> int:
    """Return the rows that a batch must have: BatchNorm needs two."""
    return 2 if any(has_batch_norm(network) for network in networks.values()) else 1


def mean_loss(problem: Problem, networks: Mapping[str, nn.Module], rows: Rows, part: Tensor, *, fold: int) -> float:
    """Return the mean loss over the rows numbered in `part`, in full precision and without dropout."""
    for network in networks.values():
        network.eval()
    part = part.to(rows.target.device)
    augmentation = problem.experiment.training.augmentation
    losses: list[float] = []

    def add(chunk: Tensor) -> None:
        output = problem.forward(networks, measured(rows.inputs[chunk], augmentation))
        losses.append(_batch_loss(problem, output, rows, chunk, fold).double().sum().item())

    with torch.inference_mode(), deterministic(problem.experiment.training.deterministic):
        in_chunks(part, rows_at_once(problem, rows, part), add, whole=problem.joint)
    total = sum(losses)
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

    def add(chunk: Tensor) -> None:
        output = problem.forward(networks, measured(rows.inputs[chunk], augmentation))
        prediction, target, member = problem.prediction_of(output, fold).cpu(), rows.target[chunk], rows.member[chunk]
        results = []
        for number, name in enumerate(members):
            member_rows = member == number
            loss = problem.row_loss(output[member_rows], target[member_rows], fold).double().cpu()
            predicted = prediction[member_rows.cpu()]
            if problem.stratified:
                predicted = problem.prediction_at(output[member_rows], fold, name).cpu()
            results.append((name, predicted.numpy(), target[member_rows].cpu().numpy(), loss.numpy()))
        # All are computed before any is counted: where memory runs out, this is done again with fewer rows.
        for name, values, true, lost in results:
            accumulators[name].update(values, true, lost)

    with torch.inference_mode(), deterministic(problem.experiment.training.deterministic):
        if len(part):
            in_chunks(part, rows_at_once(problem, rows, part), add, whole=problem.joint)
    return {name: accumulator.state() for name, accumulator in accumulators.items()}


def _batch_loss(problem: Problem, output: Tensor, rows: Rows, batch: Tensor, fold: int) -> Tensor:
    """Return each row's loss; where hospitals are strata and one site holds several, of each hospital's rows alone."""
    target, member = rows.target[batch], rows.member[batch]
    hospitals = member.unique() if problem.stratified else member[:1]
    if len(hospitals) < 2:
        return problem.row_loss(output, target, fold)
    places = [torch.nonzero(member == hospital)[:, 0] for hospital in hospitals]
    losses = [problem.row_loss(output[place], target[place], fold) for place in places]
    return torch.zeros_like(output[:, 0], dtype=losses[0].dtype).index_copy(0, torch.cat(places), torch.cat(losses))


def rows_at_once(problem: Problem, rows: Rows, part: Tensor) -> int:
    """Return how many rows an evaluation works on together; a loss over risk sets needs a hospital's in one piece."""
    return max(len(part), 1) if problem.joint else rows_at_once_of(problem, rows.inputs[part[:1]])


def rows_at_once_of(problem: Problem, inputs: Tensor) -> int:
    """Return how many rows like the first of `inputs` an evaluation works on together."""
    numbers = max(inputs[:1].numel() * problem.expansion, 1)
    return max(min(problem.experiment.training.evaluation_batch_size, _EVALUATION_NUMBERS // numbers), 1)
