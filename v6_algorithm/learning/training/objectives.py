"""What a strategy asks of a site's training, beside the loss: the hooks that the local loop calls.

`site` makes one for each fold of a request from what the request says under the key "strategy". What is needed comes
with the request, so nothing has to last from round to round: a site whose folder is lost trains on as if it were not.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm.errors import SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.learning.problems.base import Networks, Problem
from v6_algorithm.learning.training.state import load_state, parameters_of, state_of


def take_step(optimiser: torch.optim.Optimizer) -> None:
    """Step; raises SiteError where a rate that a scheduler raised is more than the parameters' number format holds."""
    try:
        optimiser.step()
    except RuntimeError as error:
        raise step_error(error) from None


def step_error(error: RuntimeError) -> Exception:
    """Return what is raised for an error of a step: a SiteError where what it is multiplied by is too large."""
    if "without overflow" not in str(error):
        return error
    return SiteError(
        "training.optimizer: a learning rate, or what else a step is multiplied by, is larger than the number "
        "format of the parameters holds; lower it, or what training.scheduler makes of it",
        "diverged",
    )


class LocalObjective:
    """Plain training. Others override the hook in which they differ.

    Attributes
    ----------
    steps_by_layer
        Whether a step may be taken layer by layer, each with `correct` before it, in the place of `step`.
    """

    steps_by_layer = True

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """See the networks as they were received, before the first step of a round."""

    def forward(
        self, problem: Problem, networks: Mapping[str, nn.Module], inputs: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output for a batch, and what is added to the mean of its rows' losses; None for nothing."""
        return problem.forward(networks, inputs), None

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Step, with the gradients of the loss in place."""
        take_step(optimiser)

    def correct(self, parameter: nn.Parameter) -> None:
        """Change the gradient of one parameter before it steps."""

    def finish(self, optimiser: torch.optim.Optimizer) -> None:
        """End the round: the last gradients, as large as the model, are let go."""
        optimiser.zero_grad(set_to_none=True)

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
    shared
        Names of the parameters that are sent; layers of a site's own are trained as they are.
    """

    def __init__(self, mu: float, correction: Mapping[str, Tensor], shared: Collection[str]) -> None:
        self.mu = mu
        self._shared = shared
        self.correction = correction
        self._terms: dict[nn.Parameter, tuple[Tensor, Tensor | None]] = {}

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Keep a copy of what was received: of the parameters themselves the difference would always be zero."""
        for name, parameter in parameters_of(networks):
            if name not in self._shared:
                continue
            correction = self.correction.get(name)
            term = correction.to(parameter.device) if correction is not None else None
            self._terms[parameter] = parameter.detach().clone(), term

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Change the gradients, and step."""
        for parameter in self._terms:
            self.correct(parameter)
        take_step(optimiser)

    @torch.no_grad()
    def correct(self, parameter: nn.Parameter) -> None:
        """Add both terms to the gradient, of a parameter that is sent."""
        if parameter.grad is None or parameter not in self._terms:
            return
        received, correction = self._terms[parameter]
        if self.mu:
            parameter.grad.add_(parameter - received, alpha=self.mu)
        if correction is not None:
            parameter.grad.add_(correction)


class Contrastive(LocalObjective):
    """Adds μ times the contrastive loss of features, of the model as received and of the site's own last (MOON).

    Both are asked without dropout and with the statistics that BatchNorm has gathered, and neither changes.

    Parameters
    ----------
    mu
        Weight of the loss.
    tau
        Its temperature.
    own
        ``network.tensor`` of the site's own last model, all of them.
    """

    # It copies the networks, and asks each layer more than once.
    steps_by_layer = False

    def __init__(self, mu: float, tau: float, previous: Mapping[str, Tensor]) -> None:
        self.mu, self.tau = mu, tau
        self.own = previous
        self._references: list[Networks] = []

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Copy the networks twice: as they were received, and with the tensors of the site's own last model."""
        received, previous = copy.deepcopy(dict(networks)), copy.deepcopy(dict(networks))
        devices = {name: tensor.device for name, tensor in state_of(networks).items()}
        load_state(previous, {name: tensor.to(devices[name]) for name, tensor in self.own.items()})
        self._references = [received, previous]
        for network in (*received.values(), *previous.values()):
            network.eval()

    def forward(
        self, problem: Problem, networks: Mapping[str, nn.Module], inputs: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output for a batch, and μ times the mean of its rows' contrastive losses."""
        output, features = with_features(problem, networks, inputs)
        with torch.no_grad():
            received, previous = (with_features(problem, reference, inputs)[1] for reference in self._references)
        return output, self.mu * contrastive_loss(features, received, previous, self.tau).mean()


class OneGradient(LocalObjective):
    """Sends the gradient of the one step of a round, and takes no step (FedSGD).

    Parameters
    ----------
    names
        Of the parameters whose gradients are sent; the others are sent as they are.
    """

    # Nothing steps.
    steps_by_layer = False

    def __init__(self, names: Collection[str]) -> None:
        self.names = names
        self._parameters: dict[str, nn.Parameter] = {}

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """See whose gradients are sent."""
        self._parameters = {name: value for name, value in parameters_of(networks) if name in self.names}

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Leave the networks as they are."""

    def finish(self, optimiser: torch.optim.Optimizer) -> None:
        """Keep the gradients, which are sent."""

    def outgoing(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the gradients in place of the parameters; a parameter without one has zeros."""
        gradients = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in self._parameters.items()
        }
        return {**state, **gradients}


def contrastive_loss(features: Tensor, received: Tensor, previous: Tensor, tau: float) -> Tensor:
    """Return MOON's loss of each row, (rows,), from features of three models, (rows, width) each.

    It is −log(eᵍ / (eᵍ + eᵒ)) with the cosines of the features to those `received` and to the `own`, over `tau`.
    """
    towards, away = (functional.cosine_similarity(features, other, dim=1) for other in (received, previous))
    return -functional.logsigmoid((towards - away) / tau)


def head_of(problem: Problem, networks: Mapping[str, nn.Module]) -> nn.Module:
    """Return the layer whose input are the features; raises SiteError of kind ``request`` where there is none."""
    head = problem.head(networks)
    if head is None:
        raise SiteError(
            f"strategy {problem.experiment.strategy.kind} compares features, and problem "
            f"{problem.experiment.problem.kind} with these networks does not say which they are (Problem.head)",
            "request",
        )
    return head


def with_features(problem: Problem, networks: Mapping[str, nn.Module], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output for a batch, and the (rows, width) features that it was made of, in full precision.

    They are caught on the way, for a second pass would draw other dropout, and count a batch twice in BatchNorm.
    """
    caught: list[Tensor] = []
    hook = head_of(problem, networks).register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    try:
        output = problem.forward(networks, inputs)
    finally:
        hook.remove()
    if len(caught) != 1:
        raise SiteError(
            f"Problem.head of problem {problem.experiment.problem.kind} is a layer that is called {len(caught)} times "
            "for a batch; it must be once",
            "request",
        )
    features = caught[0].flatten(1)
    return output, features.to(torch.promote_types(features.dtype, torch.float32))


def create_objective(message: Mapping[str, Any], spec: wire.StateSpec) -> LocalObjective:
    """Make what a request's "strategy" asks for, of the shared tensors; raises WireError where it is malformed."""
    if not isinstance(message, Mapping):
        raise WireError("what the strategy asks must be a mapping")
    if not message:
        return LocalObjective()
    mu = message.get("mu", 0.0)
    if isinstance(mu, bool) or not isinstance(mu, (int, float)) or not 0 <= mu < float("inf"):
        raise WireError("the strategy's mu must be a finite number from 0")
    parameters = {name: item for name, item in spec.items() if item.kind == "parameter"}
    if message.get("gradient"):
        return OneGradient(set(parameters))
    if "contrast" in message:
        return _contrastive(message["contrast"], spec)
    correction = wire.unpack(message["correction"], parameters) if "correction" in message else {}
    return Corrected(mu, correction, set(parameters)) if mu or correction else LocalObjective()


def _contrastive(content: Any, spec: wire.StateSpec) -> Contrastive:
    if not isinstance(content, Mapping) or set(content) != {"mu", "tau", "own"}:
        raise WireError("the strategy's contrast must have mu, tau and own, and no more")
    for name in ("mu", "tau"):
        value = content[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise WireError(f"the {name} of the strategy's contrast must be a finite number above 0")
    return Contrastive(content["mu"], content["tau"], wire.unpack(content["own"], spec))
