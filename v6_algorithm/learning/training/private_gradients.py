"""Clipped, noised sums of units' gradients (DP-SGD): what a private training steps along instead of a batch's mean.

A unit is a row, or a patient with all of its rows. Batches and noise come from `NoiseSource`, never from the
experiment's seed: whoever knows the noise can take it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.models.normalisation import has_batch_norm
from v6_algorithm.learning.problems.base import Problem

# Numbers in the per-row gradients, or in what the networks make of the rows, that are held at once: 0.1 GB in float32.
_NUMBERS_AT_ONCE = 2**25


class NoiseSource:
    """Draws batches and noise from the operating system's cryptographic generator, all of their bits.

    A generator such as numpy's or torch's can be run backwards from enough of its numbers, and whoever knows all rows
    but one knows nearly all of the noise.

    Parameters
    ----------
    entropy
        For tests only: the seed of numpy's generator in its place.
    """

    def __init__(self, entropy: int | None = None) -> None:
        self._bytes: Callable[[int], bytes] = os.urandom if entropy is None else np.random.default_rng(entropy).bytes

    def batch(self, units: int, rate: float) -> Tensor:
        """Return the numbers of the units drawn, each by itself with a probability (Poisson); there may be none."""
        return torch.from_numpy(np.flatnonzero(self._uniform(units) < rate))

    def normal(self, like: Tensor, sd: float) -> Tensor:
        """Return normal noise of a tensor's shape, dtype and device, by Box and Muller's transform."""
        half = (like.numel() + 1) // 2
        length, angle = np.sqrt(-2 * np.log(self._uniform(half))), 2 * np.pi * self._uniform(half)
        drawn = np.concatenate([length * np.cos(angle), length * np.sin(angle)])[: like.numel()]
        return torch.from_numpy(sd * drawn).view(like.shape).to(like)

    def _uniform(self, count: int) -> np.ndarray:
        """Return (count,) float64 between 0 and 1, of 52 bits and never either."""
        whole = np.frombuffer(self._bytes(8 * count), dtype=np.uint64) >> np.uint64(12)
        numbers: np.ndarray = (whole + 0.5) * 2.0**-52
        return numbers


class _Loss(nn.Module):
    """A problem's loss of one row, as a module, whose parameters can be replaced by name."""

    def __init__(self, problem: Problem, networks: Mapping[str, nn.Module], fold: int) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self._problem, self._fold = problem, fold

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        output = self._problem.forward(dict(self.networks.items()), inputs[None])
        return self._problem.row_loss(output, target[None], self._fold)[0]


def clipped_sum(
    problem: Problem,
    networks: Mapping[str, nn.Module],
    inputs: Tensor,
    target: Tensor,
    unit: Tensor,
    *,
    fold: int,
    clip: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the sum over units of their gradients, each clipped to an L2 norm over all parameters, and the losses.

    Parameters
    ----------
    inputs, target
        (rows, …) and (rows,) of the batch; no rows give zeros.
    unit
        (rows,) which unit each row is of. A unit's gradient is the mean of its rows'.
    clip
        The largest norm.

    Returns
    -------
    tuple of dict and Tensor
        ``network.tensor`` of each parameter that is trained to the sum, and the (rows,) losses, detached.

    Raises
    ------
    SiteError
        Of kind ``request`` for BatchNorm, in which a row's gradient depends on the others, and for losses over rows;
        of kind ``diverged`` where a unit's gradient is not finite.

    References
    ----------
    Abadi et al., Deep Learning with Differential Privacy, CCS 2016, algorithm 1.
    """
    if problem.joint or any(has_batch_norm(network) for network in networks.values()):
        raise SiteError(
            "privacy.differential_privacy needs a gradient of each row by itself; BatchNorm and losses over several "
            "rows have none; take model.norm layer or group, and another loss",
            "request",
        )
    loss = _Loss(problem, networks, fold)
    moving = {name: value.detach() for name, value in loss.named_parameters() if value.requires_grad}
    fixed = {name: value.detach() for name, value in loss.named_parameters() if not value.requires_grad}

    def one(parameters: dict[str, Tensor], row: Tensor, wanted: Tensor) -> Tensor:
        value: Tensor = functional_call(loss, {**parameters, **fixed}, (row, wanted))
        return value

    per_row = vmap(grad_and_value(one), in_dims=(None, 0, 0), randomness="different")
    if any(isinstance(module, nn.RNNBase) for module in loss.modules()):
        # torch.func has no batching rule for them: row after row, which is as right and slower.
        per_row = _row_after_row(loss)
    summed = {name: torch.zeros_like(value) for name, value in moving.items()}
    losses = torch.empty(len(target), dtype=torch.float64, device=target.device)
    of_row = max(1, sum(value.numel() for value in moving.values()), inputs[:1].numel() * problem.expansion)
    at_once = max(1, _NUMBERS_AT_ONCE // of_row)
    for rows in _whole_units(unit, at_once):
        gradients, values = per_row(moving, inputs[rows], target[rows])
        losses[rows] = values.double()
        names, place = torch.unique(unit[rows], return_inverse=True)
        share = 1 / torch.bincount(place, minlength=len(names)).double()
        means = {
            name: torch.zeros(len(names), *value.shape[1:], dtype=value.dtype, device=value.device).index_add_(
                0, place, value * share[place].to(value).view(-1, *[1] * (value.ndim - 1))
            )
            for name, value in gradients.items()
        }
        norm = torch.stack([value.flatten(1).double().norm(dim=1) for value in means.values()]).norm(dim=0)
        if not torch.isfinite(norm).all():
            # No norm to be clipped; left out, it would be missed by nobody. Which unit it is, is not told.
            raise SiteError(
                f"privacy.differential_privacy: a gradient is not finite, so it cannot be clipped; lower "
                f"training.optimizer.lr, or look for values that are too large for {next(iter(means.values())).dtype}",
                "diverged",
            )
        factor = (clip / norm.clamp_min(1e-12)).clamp_max(1.0)
        for name, value in means.items():
            summed[name] += torch.einsum("u...,u->...", value, factor.to(value))
    return {name.removeprefix("networks."): value for name, value in summed.items()}, losses


def _row_after_row(loss: _Loss) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    """Return what gives the gradients and losses of rows as `vmap` does, one by one."""
    parameters = {name: value for name, value in loss.named_parameters() if value.requires_grad}

    def per_row(_: dict[str, Tensor], inputs: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        gradients: dict[str, list[Tensor]] = {name: [] for name in parameters}
        values = []
        for row, wanted in zip(inputs, target, strict=True):
            value = loss(row, wanted)
            for name, gradient in zip(
                parameters, torch.autograd.grad(value, list(parameters.values()), materialize_grads=True), strict=True
            ):
                gradients[name].append(gradient)
            values.append(value.detach())
        return {name: torch.stack(rows) for name, rows in gradients.items()}, torch.stack(values)

    return per_row


def noised(summed: Mapping[str, Tensor], source: NoiseSource, *, sd: float, expected: float) -> dict[str, Tensor]:
    """Return the sums with noise of a standard deviation, over the expected number of units, not the number drawn."""
    return {name: (value + source.normal(value, sd)) / expected for name, value in summed.items()}


def _whole_units(unit: Tensor, at_once: int) -> list[Tensor]:
    """Cut row numbers into pieces of about so many rows, none of which parts a unit."""
    order = torch.argsort(unit, stable=True)
    if not len(order):
        return []
    _, sizes = torch.unique_consecutive(unit[order], return_counts=True)
    pieces, start, length = [], 0, 0
    for size in sizes.tolist():
        if length and length + size > at_once:
            pieces.append(order[start : start + length])
            start, length = start + length, 0
        length += size
    return [*pieces, order[start:]]
