"""Networks for rows of numbers."""

from __future__ import annotations

from typing import Any

from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import MLP, LinearModel, Recurrent
from v6_algorithm.learning.models.normalisation import norm_layers

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU}


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
