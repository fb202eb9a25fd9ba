"""Steps of the server: an optimiser that is fed the negated mean update of a round, as if it were a gradient.

Parameters only: buffers and counters never come here. All numbers are float64, whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.experiment.optimisers import build_optimiser, group_in_round


class ServerStep(Protocol):
    """A step from the model that was sent towards the mean that came back."""

    def step(
        self, sent: Mapping[str, Tensor], mean: Mapping[str, Tensor], number: int, lr: float | None = None
    ) -> State:
        """Return the parameters of the next model, float64; `number` is the round, `lr` the rate of its training."""

    def state_dict(self) -> State:
        """Return what it remembers from round to round."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""


class TorchServer:
    """Any torch optimiser. With ``sgd`` and ``lr: 1`` the step is the mean itself; with momentum it is FedAvgM.

    Parameters
    ----------
    kind, options
        As in the experiment's `training.optimizer`.
    scheduler
        Kind and options of a learning-rate scheduler, which steps once a round; or None.

    References
    ----------
    Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 1.
    Hsu et al., Measuring the Effects of Non-Identical Data Distribution, 2019 (FedAvgM).
    """

    def __init__(self, kind: str, options: dict[str, Any], scheduler: tuple[str, dict[str, Any]] | None = None) -> None:
        self._kind, self._options, self._scheduler = kind, options, scheduler
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._optimiser: torch.optim.Optimizer | None = None
        self._pending: dict[str, dict[str, Tensor]] = {}

    def step(
        self, sent: Mapping[str, Tensor], mean: Mapping[str, Tensor], number: int, lr: float | None = None
    ) -> State:
        """Let the optimiser step from `sent`, the gradient being `sent` less `mean`."""
        optimiser = self._optimiser or self._build(sent)
        if self._scheduler:
            optimiser.param_groups[0].update(group_in_round(self._kind, self._options, self._scheduler, number, lr))
        for name, parameter in self._parameters.items():
            parameter.data = sent[name].clone()
            parameter.grad = sent[name] - mean[name]
        optimiser.step()
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def _build(self, sent: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        self._parameters = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in sent.items()}
        self._optimiser = build_optimiser(self._kind, self._options, self._parameters.values())
        for name, kept in self._pending.items():
            self._optimiser.state[self._parameters[name]].update(kept)
        return self._optimiser

    def state_dict(self) -> State:
        """Return the optimiser's memory as ``tensor:what``."""
        if self._optimiser is None:
            return {f"{name}:{key}": value for name, kept in self._pending.items() for key, value in kept.items()}
        return {
            f"{name}:{key}": torch.as_tensor(value).clone()
            for name, parameter in self._parameters.items()
            for key, value in self._optimiser.state[parameter].items()
            if value is not None
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        self._optimiser, self._pending = None, {}
        for path, tensor in state.items():
            name, _, key = path.rpartition(":")
            self._pending.setdefault(name, {})[key] = tensor.clone()


class AdaptiveServer:
    """FedAdam, FedYogi and FedAdagrad as their paper has them.

    With the mean update Δ: m ← β₁m + (1 − β₁)Δ; v ← v + Δ² (Adagrad), v − (1 − β₂)Δ² sign(v − Δ²) (Yogi) or
    β₂v + (1 − β₂)Δ² (Adam); x ← x + ηm / (√v + τ). v starts at τ². Unlike torch's, the first steps are not corrected
    for m and v having started small, so they are of about η(1 − β₁) / √(1 − β₂) for each number, whatever Δ is.

    Parameters
    ----------
    kind
        ``fedadam``, ``fedyogi`` or ``fedadagrad``.
    lr, beta1, beta2, tau
        η, β₁, β₂ and τ of the paper.

    References
    ----------
    Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2.
    """

    def __init__(self, kind: str, lr: float, beta1: float, beta2: float, tau: float) -> None:
        self._kind, self._lr, self._beta1, self._beta2, self._tau = kind, lr, beta1, beta2, tau
        self._m: State = {}
        self._v: State = {}

    def step(
        self, sent: Mapping[str, Tensor], mean: Mapping[str, Tensor], number: int, lr: float | None = None
    ) -> State:
        """Step from `sent`; Δ is `mean` less `sent`."""
        following = {}
        for name, tensor in sent.items():
            delta = mean[name] - tensor
            m = self._m.get(name, torch.zeros_like(delta))
            v = self._v.get(name, torch.full_like(delta, self._tau**2))
            self._m[name] = m = self._beta1 * m + (1 - self._beta1) * delta
            self._v[name] = v = self._second_moment(v, delta * delta)
            following[name] = tensor + self._lr * m / (v.sqrt() + self._tau)
        return following

    def _second_moment(self, v: Tensor, squares: Tensor) -> Tensor:
        if self._kind == "fedadagrad":
            return v + squares
        if self._kind == "fedyogi":
            return v - (1 - self._beta2) * squares * torch.sign(v - squares)
        return self._beta2 * v + (1 - self._beta2) * squares

    def state_dict(self) -> State:
        """Return both moments as ``tensor:m`` and ``tensor:v``."""
        moments = (("m", self._m), ("v", self._v))
        return {f"{name}:{key}": tensor.clone() for key, kept in moments for name, tensor in kept.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        self._m = {path[:-2]: tensor.clone() for path, tensor in state.items() if path.endswith(":m")}
        self._v = {path[:-2]: tensor.clone() for path, tensor in state.items() if path.endswith(":v")}
