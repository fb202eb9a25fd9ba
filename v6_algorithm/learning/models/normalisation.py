"""Normalising layers by name, which networks of all kinds of rows are built with."""

from __future__ import annotations

from torch import nn

_MOST_GROUPS = 8


def norm_layers(kind: str, width: int) -> list[nn.Module]:
    """Return the normalisation of (rows, width) by name: one layer, or none."""
    if kind == "none":
        return []
    if kind == "layer":
        return [nn.LayerNorm(width)]
    if kind == "batch":
        return [nn.BatchNorm1d(width)]
    return [nn.GroupNorm(groups_of(width), width)]


def groups_of(width: int) -> int:
    """Return into how many groups of equal size group norm puts so many channels: 8, or fewer where 8 do not fit."""
    return next(n for n in range(min(_MOST_GROUPS, width), 0, -1) if width % n == 0)


def has_batch_norm(network: nn.Module) -> bool:
    """Say whether a batch of one row would fail in training mode."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
