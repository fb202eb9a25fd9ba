"""Large linear layers that take their step in the backward pass, as soon as each one's gradient is known.

The gradient of such a layer is as large as its weights. Written to new memory, read by the optimiser and let go again
in each step, it costs more than the products that it is made of. Here plain SGD adds the product to the weights in
place, and other optimisers step from memory that all layers use in turn. Each step differs from the optimiser's by
rounding, so this is for simulations; see `learner.fused_steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm.experiment import Training
from v6_algorithm.learning.training.learner import TrainingContext, fuses, optimiser_of, tell_quicker
from v6_algorithm.learning.training.objectives import LocalObjective, step_error, take_step

# Weights of a layer from which on its gradient costs more than a call of Python.
_LARGE = 2**16
# What the result calls it.
IN_BACKWARD = "steps in the backward pass"
# Networks whose weights nothing uses but their layers.
_KINDS = ("linear", "mlp")


class SteppingLayers:
    """The large linear layers of a network that is being trained.

    Parameters
    ----------
    networks
        What is trained.
    trained
        The parameters that the optimiser gets to know.
    training, context
        By which each layer has an optimiser of its own, so that it can step by itself.
    objective
        Changes the gradients before a step.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        trained: list[nn.Parameter],
        training: Training,
        context: TrainingContext,
        objective: LocalObjective,
    ) -> None:
        known = {id(parameter) for parameter in trained}
        layers = [layer for layer in large_layers(networks) if id(layer.weight) in known]
        most = max((layer.weight.numel() for layer in layers), default=0)
        self._layers = [
            _Layer(layer, optimiser_of(training, [cast("nn.Parameter", layer.weight)], context), objective, most)
            for layer in layers
        ]
        memory: dict[torch.dtype, Tensor] = {}
        for layer in self._layers:
            layer.memory = memory
        if layers:
            tell_quicker(IN_BACKWARD)

    @contextmanager
    def at_work(self, pieces: int) -> Iterator[None]:
        """Let them step in the backward pass that comes, but where gradients of several pieces make one step."""
        if pieces > 1:
            yield
            return
        for layer in self._layers:
            layer.calls = 0
            layer.module.__dict__["forward"] = layer
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.module.__dict__["forward"]


def applies(kind: str, training: Training, context: TrainingContext, objective: LocalObjective) -> bool:
    """Say whether large layers may step in the backward pass, of a network of some `model.kind`."""
    return (
        fuses(training)
        and kind in _KINDS
        and context.device.kind == "cpu"
        and not context.device.mixed
        and objective.steps_by_layer
    )


def large_layers(networks: Mapping[str, nn.Module]) -> list[nn.Linear]:
    """Return the layers whose gradients are large, of which nothing but the layer itself uses the weights."""
    uses: dict[int, int] = {}
    modules = [module for network in networks.values() for module in network.modules()]
    for module in modules:
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return [
        module
        for module in modules
        if type(module) is nn.Linear and module.weight.numel() >= _LARGE and uses[id(module.weight)] == 1
    ]


class _Layer:
    """One of them, in the place of its forward."""

    def __init__(
        self, module: nn.Linear, optimiser: torch.optim.Optimizer, objective: LocalObjective, most: int
    ) -> None:
        self.module, self._optimiser, self._objective, self._most = module, optimiser, objective, most
        # How often it was used in this step, and gradients' memory by type, of which all layers have the same.
        self.calls, self.memory = 0, dict[torch.dtype, Tensor]()
        (group,) = optimiser.param_groups
        plain = isinstance(optimiser, torch.optim.SGD) and not group["nesterov"] and type(objective) is LocalObjective
        self._sgd: dict[str, Any] | None = group if plain else None
        self._velocity: Tensor | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the layer's output."""
        if not torch.is_grad_enabled():
            return functional.linear(inputs, self.module.weight, self.module.bias)
        self.calls += 1
        output: Tensor = _Linear.apply(inputs, self.module.weight, self.module.bias, self)
        return output

    def step(self, outgoing: Tensor, inputs: Tensor) -> None:
        """Step along the gradient, (rows, outputs) transposed times (rows, inputs)."""
        if self._sgd is not None:
            try:
                self._descend(outgoing.T, inputs, self._sgd)
            except RuntimeError as error:
                raise step_error(error) from None
            return
        weight = cast("nn.Parameter", self.module.weight)
        if weight.dtype not in self.memory:
            self.memory[weight.dtype] = torch.empty(self._most, dtype=weight.dtype)
        gradient = self.memory[weight.dtype][: weight.numel()].view(weight.shape)
        weight.grad = torch.mm(outgoing.T, inputs, out=gradient)
        self._objective.correct(weight)
        take_step(self._optimiser)
        weight.grad = None

    def _descend(self, left: Tensor, right: Tensor, group: Mapping[str, Any]) -> None:
        """Take a step of torch's SGD along ``left @ right``, which is added where it belongs and never made."""
        weight, lr, momentum, decay = self.module.weight, group["lr"], group["momentum"], group["weight_decay"]
        sign = -1 if group["maximize"] else 1
        if not momentum:
            weight.addmm_(left, right, beta=1 - lr * decay, alpha=-lr * sign)
            return
        if self._velocity is None:
            # Of the first step all counts, whatever is damped.
            part, self._velocity = 1.0, torch.zeros_like(weight)
        else:
            part = 1 - group["dampening"]
        self._velocity.addmm_(left, right, beta=momentum, alpha=part * sign)
        if decay:
            self._velocity.add_(weight, alpha=part * decay)
        weight.add_(self._velocity, alpha=-lr)


class _Linear(torch.autograd.Function):
    """A linear layer whose weights have stepped when the gradient of its input is handed on."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, layer: _Layer) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.layer = layer
        return functional.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *outgoing: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        given = outgoing[0]
        rows, of_rows = given.flatten(0, -2), inputs.flatten(0, -2)
        back = given @ weight if ctx.needs_input_grad[0] else None
        bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        if ctx.layer.calls > 1:
            # It is used for a batch more than once, and steps along the sum.
            return back, rows.T @ of_rows, bias, None
        ctx.layer.step(rows, of_rows)
        return back, None, bias, None
