"""Networks for rows of numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import MLP, LinearModel, Recurrent

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU}
_MOST_GROUPS = 8


def build_model(model: Any, inputs: int, outputs: int) -> nn.Module:
    """Build a network from (rows, inputs) to (rows, outputs), in float32 with torch's own initialisation."""
    if not isinstance(model, (LinearModel, MLP)):
        what = "sequences" if isinstance(model, Recurrent) else "images"
        raise ExperimentError(f"model.kind {model.kind} is for {what}, not for a table; allowed: linear, mlp")
    if isinstance(model, LinearModel):
        return nn.Linear(inputs, outputs)
    layers: list[nn.Module] = []
    for width in model.hidden:
        layers.append(nn.Linear(inputs, width))
        layers.extend(norm_layers(model.norm, width))
        layers.append(_ACTIVATIONS[model.activation]())
        if model.dropout:
            layers.append(nn.Dropout(model.dropout))
        inputs = width
    layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def norm_layers(kind: str, width: int) -> list[nn.Module]:
    """Return the normalisation of (rows, width) by name: one layer, or none."""
    if kind == "none":
        return []
    if kind == "layer":
        return [nn.LayerNorm(width)]
    if kind == "batch":
        return [nn.BatchNorm1d(width)]
    groups = next(n for n in range(min(_MOST_GROUPS, width), 0, -1) if width % n == 0)
    return [nn.GroupNorm(groups, width)]


def has_batch_norm(network: nn.Module) -> bool:
    """Say whether a batch of one row would fail in training mode."""
    return any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in network.modules())
