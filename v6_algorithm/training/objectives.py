"""What a strategy asks of a site's training, beside the loss: the hooks that the local loop calls.

`site` makes one for each fold of a request from what the request says under the key "strategy". What is needed comes
with the request, so nothing has to last from round to round: a site whose folder is lost trains on as if it were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from v6_algorithm import wire
from v6_algorithm.errors import WireError


class LocalObjective:
    """Plain training. Others override the hook in which they differ."""

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """See the networks as they were received, before the first step of a round."""

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Step, with the gradients of the loss in place."""
        optimiser.step()

    def outgoing(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what is sent for the trained state, of the same names, shapes and dtypes."""
        return state


class Corrected(LocalObjective):
    """Steps along g + μ(w − w_received) + correction: the gradient with a pull (FedProx) and a constant (SCAFFOLD).

    The first is the gradient of μ/2 ‖w − w_received‖², which is squared: its pull fades where it started.

    Parameters
    ----------
    mu
        Strength of the pull.
    correction
        ``network.tensor`` of each parameter to what is added to its gradient; or empty.
    """

    def __init__(self, mu: float, correction: Mapping[str, Tensor]) -> None:
        self._mu = mu
        self._correction = correction
        self._terms: list[tuple[nn.Parameter, Tensor, Tensor | None]] = []

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Keep a copy of what was received: of the parameters themselves the difference would always be zero."""
        for name, parameter in _parameters(networks).items():
            correction = self._correction.get(name)
            own = correction.to(parameter.device) if correction is not None else None
            self._terms.append((parameter, parameter.detach().clone(), own))

    @torch.no_grad()
    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Change the gradients, and step."""
        for parameter, received, correction in self._terms:
            if parameter.grad is None:
                continue
            if self._mu:
                parameter.grad.add_(parameter - received, alpha=self._mu)
            if correction is not None:
                parameter.grad.add_(correction)
        optimiser.step()


class OneGradient(LocalObjective):
    """Sends the gradient of the one step of a round, and takes no step (FedSGD)."""

    def __init__(self) -> None:
        self._parameters: dict[str, nn.Parameter] = {}

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """See whose gradients are sent."""
        self._parameters = _parameters(networks)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Leave the networks as they are."""

    def outgoing(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the gradients in place of the parameters; a parameter without one has zeros."""
        gradients = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in self._parameters.items()
        }
        return {**state, **gradients}


def create_objective(message: Mapping[str, Any], spec: wire.StateSpec) -> LocalObjective:
    """Make what a request's "strategy" asks for; raises WireError where it is malformed."""
    if not isinstance(message, Mapping):
        raise WireError("what the strategy asks must be a mapping")
    mu = message.get("mu", 0.0)
    if isinstance(mu, bool) or not isinstance(mu, (int, float)) or not 0 <= mu < float("inf"):
        raise WireError("the strategy's mu must be a finite number from 0")
    if message.get("gradient"):
        return OneGradient()
    parameters = {name: item for name, item in spec.items() if item.kind == "parameter"}
    correction = wire.unpack(message["correction"], parameters) if "correction" in message else {}
    return Corrected(mu, correction) if mu or correction else LocalObjective()


def _parameters(networks: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    return {f"{name}.{key}": value for name, network in networks.items() for key, value in network.named_parameters()}
