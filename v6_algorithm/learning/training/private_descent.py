"""A round's training under differential privacy: which units each step draws, and the noised step that follows.

`loop.train` takes its batches and its steps from here where a request's experiment asks for it. What it may cost is
booked before (`site/guard/privacy_account.py`); here is only what the booked steps do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.problems.base import Problem
from v6_algorithm.learning.training.augmentation import augment
from v6_algorithm.learning.training.freezing import trained
from v6_algorithm.learning.training.learner import TrainingContext, optimiser_of
from v6_algorithm.learning.training.objectives import LocalObjective
from v6_algorithm.learning.training.private_gradients import NoiseSource, clipped_sum, noised
from v6_algorithm.learning.training.state import parameters_of, state_of


@dataclass(frozen=True)
class PrivateSteps:
    """The noised steps of one fold in one round.

    Attributes
    ----------
    unit
        (n,) int64, which unit each training row is of, from 0 without gaps.
    units
        How many there are.
    rate
        Probability with which a unit is in a step's batch.
    noise_multiplier
        Standard deviation of the noise on the summed gradients, as a multiple of `clip`.
    clip
        Largest L2 norm of a unit's gradient.
    count
        Number of steps.
    """

    unit: Tensor
    units: int
    rate: float
    noise_multiplier: float
    clip: float
    count: int


class PrivateDescent:
    """Takes noised steps, of batches that it draws itself.

    Parameters
    ----------
    problem, networks
        What is trained, in place.
    inputs, target
        The site's prepared rows, by row number.
    part
        (n,) numbers of the training rows.
    context
        Whose training of which round it is.
    objective
        What the strategy asks of it.
    steps
        How many steps of what rate and noise.
    source
        For tests only: where batches and noise come from.

    Raises
    ------
    SiteError
        Of kind ``request`` for what has no gradient of each unit by itself.
    """

    def __init__(
        self,
        problem: Problem,
        networks: Mapping[str, nn.Module],
        inputs: Any,
        target: Tensor,
        part: Tensor,
        context: TrainingContext,
        objective: LocalObjective,
        steps: PrivateSteps,
        source: NoiseSource | None = None,
    ) -> None:
        if type(objective).forward is not LocalObjective.forward:
            raise SiteError("privacy.differential_privacy: the strategy adds a loss that is not noised", "request")
        self._problem, self._networks, self._inputs, self._target = problem, networks, inputs, target
        self._part, self._context, self._objective, self._plan = part, context, objective, steps
        self._augmentation = problem.experiment.training.augmentation
        self._changes = context.generator("augmentation")
        # Anew each time: a repeated round draws other batches and other noise, and is booked again.
        self._source = source or NoiseSource()
        parameters = set(map(id, trained(networks, context.frozen)))
        self._moved = {name: value for name, value in parameters_of(networks) if id(value) in parameters}
        self._optimiser = optimiser_of(problem.experiment.training, self._moved.values(), context)
        self._others = {name: value.clone() for name, value in state_of(networks).items() if name not in self._moved}
        objective.begin(networks)

    def draws(self) -> Iterator[list[Tensor]]:
        """Yield the batch of each step, as numbers of training rows; one may be empty, and is a step all the same."""
        for _ in range(self._plan.count):
            drawn = torch.zeros(self._plan.units, dtype=torch.bool)
            drawn[self._source.batch(self._plan.units, self._plan.rate)] = True
            yield [drawn[self._plan.unit].nonzero().flatten()]

    def step(self, batches: list[Tensor]) -> Tensor:
        """Take one step; return the summed loss of the rows drawn, without noise and detached."""
        (drawn,), plan, context = batches, self._plan, self._context
        numbers = self._part[drawn]
        inputs, batch = self._inputs[numbers], numbers.to(self._target.device)
        if self._augmentation and len(batch):
            inputs, _ = augment(inputs, self._augmentation, self._changes)
        summed, losses = clipped_sum(
            self._problem,
            self._networks,
            inputs,
            self._target[batch],
            plan.unit[drawn].to(batch.device),
            fold=context.fold,
            clip=plan.clip,
        )
        gradients = noised(summed, self._source, sd=plan.noise_multiplier * plan.clip, expected=plan.rate * plan.units)
        self._optimiser.zero_grad(set_to_none=True)
        for name, parameter in self._moved.items():
            parameter.grad = gradients[name]
        self._objective.step(self._optimiser)
        return losses.sum()

    def finish(self) -> None:
        """See that nothing but noised steps has changed the networks; raises SiteError where something has."""
        state = state_of(self._networks)
        if any(not state[name].equal(value) for name, value in self._others.items()):
            raise SiteError(
                "privacy.differential_privacy: the network keeps numbers of the rows that it sees, to which no noise "
                "is added (buffers, such as BatchNorm's)",
                "request",
            )


def try_private_gradients(problem: Problem, networks: Mapping[str, nn.Module], inputs: Tensor, target: Tensor) -> None:
    """See before anything is trained that each row has a gradient by itself.

    Parameters
    ----------
    problem, networks
        What will be trained; left as they are.
    inputs, target
        Two rows.

    Raises
    ------
    SiteError
        Of kind ``request``, naming what stands in the way.
    """
    modes = {network: network.training for network in networks.values()}
    try:
        for network in modes:
            network.train()
        clipped_sum(problem, networks, inputs, target, torch.arange(len(target)), fold=0, clip=1.0)
    except (RuntimeError, NotImplementedError) as error:
        # Of the shapes and names of the network; the rows are zeros.
        said = str(error).strip().splitlines()[0].split(". ")[0][:120]
        raise SiteError(
            f"privacy.differential_privacy: torch.func gives no gradient of each row of model "
            f"{problem.experiment.model.kind} ({said})",
            "request",
        ) from None
    finally:
        for network, training in modes.items():
            network.train(training)
