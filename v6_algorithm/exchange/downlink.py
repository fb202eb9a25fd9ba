"""The model on its way to the sites in fewer bytes: `strategy.compress_down`.

The coordinator keeps its model as it is, sends a rounded copy, and counts the sites' updates from that copy, so that
steps smaller than the rounding are not lost. `coordinator.rounds` rounds; the sites read, and so does the coordinator,
where it needs the model that a reply began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire

if TYPE_CHECKING:
    from torch import Tensor

# The key of a request's item that names the type of the rounded numbers; without it they are whole.
ROUNDED = "rounded"
KINDS = ("float16", "bfloat16")
# Buffers and counters stay as they are: their updates are not counted, so a moving average would lose small ones.
_SHORTENED = ("parameter", "frozen")


def pack_rounded(tensors: Mapping[str, Tensor], spec: wire.StateSpec, kind: str) -> wire.Packed:
    """Pack a model with its parameters rounded to the nearest number of two bytes; the text carries its tensors.

    The relative error is at most 2⁻¹¹ (``float16``, of numbers from 6e-5 to 65,504 in size) or 2⁻⁸ (``bfloat16``).

    Raises
    ------
    WireError
        Naming the first tensor that has a number beyond the largest of `kind`.
    """
    import torch

    rounded = {}
    for name, item in _short(spec, kind).items():
        rounded[name] = tensors[name].to(getattr(torch, item.dtype))
        if item != spec[name] and not wire.all_finite(rounded[name]):
            largest = torch.finfo(rounded[name].dtype).max
            raise WireError(
                f"tensor '{name}' has a number that {kind} has not, whose largest is {largest:,.6g}; use "
                f"strategy.compress_down: {'bfloat16' if kind == 'float16' else 'null'}"
            )
    return wire.pack(rounded, keep=True)


def read_sent(item: Mapping[str, Any], spec: wire.StateSpec) -> dict[str, Tensor]:
    """Return the model that an item of a request carries, in the dtypes of `spec`; raises WireError as `unpack`."""
    import torch

    kind = item.get(ROUNDED)
    if kind is None:
        return wire.unpack(item["parameters"], spec)
    if kind not in KINDS:
        raise WireError(f"the model is said to be rounded to '{str(kind)[:40]}'; allowed: {', '.join(KINDS)}")
    tensors = wire.unpack(item["parameters"], _short(spec, kind))
    return {name: tensors[name].to(getattr(torch, expected.dtype)) for name, expected in spec.items()}


def _short(spec: wire.StateSpec, kind: str) -> wire.StateSpec:
    """Return what the tensors of a rounded model look like."""
    return {
        name: replace(item, dtype=kind) if item.kind in _SHORTENED and item.dtype in ("float32", "float64") else item
        for name, item in spec.items()
    }
