"""Layers of many sites at once, whose parameters are stacks of the sites'; `together` makes networks of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

# What a BatchNorm gathers.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def linear(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return (sites, rows, outputs) of (sites, rows, features), by a stack of weights or by those of all sites."""
    if weight.dim() == 2:
        return functional.linear(values, weight, bias)
    by_column = weight.transpose(1, 2)
    return values @ by_column if bias is None else torch.baddbmm(bias.unsqueeze(1), values, by_column)


def batch_norm(
    layer: nn.BatchNorm1d, path: str, values: Tensor, parameters: Mapping[str, Tensor], parts: Tensor | None
) -> Tensor:
    """Return (sites, rows, features) normalised: by each site's batch, whose statistics are gathered, or by those.

    `parts` (sites, rows) is 1 / rows of a site's rows and 0 of what fills up; None: by what was gathered.
    """
    weight, bias, mean, variance, batches = (parameters[f"{path}.{name}"] for name in ("weight", "bias", *STATISTICS))
    if parts is None:
        centred = values - mean.unsqueeze(1)
    else:
        share = parts.unsqueeze(2)
        of_batch = (values * share).sum(1, keepdim=True)
        centred = values - of_batch
        spread = (centred.square() * share).sum(1)
        with torch.no_grad():
            rows = (parts > 0).sum(1, keepdim=True)
            mean.lerp_(of_batch[:, 0], layer.momentum or 0.0)
            variance.lerp_(spread * (rows / (rows - 1)), layer.momentum or 0.0)
            batches.add_(1)
        variance = spread
    return centred * ((variance + layer.eps).rsqrt() * weight).unsqueeze(1) + bias.unsqueeze(1)
