"""Numbers written shorter: in a byte each with one scale a tensor, or in two bytes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression.stage import Draw, State, take

_BYTES, _SCALE, _HALF = "int8", "scale", "half"
_LARGEST = 127
# Tensors of fewer numbers are sent whole: to describe another entry costs as much.
_WORTH = 64


class Int8:
    """Multiples of a tensor's largest size / 127, rounded up or down with the chances that make the mean right.

    So it is unbiased, and the mean over sites and rounds comes out without error feedback. What it does to a number
    is of the order of the largest in its tensor, however small the number is.

    References
    ----------
    Alistarh et al., QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding, NeurIPS 2017.
    """

    def encode(self, tensors: Mapping[str, Tensor], memory: State, draw: Draw) -> State:
        """Round the tensors of numbers with a fraction."""
        payload: State = {}
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or tensor.numel() < _WORTH:
                payload[name] = tensor
                continue
            scale = tensor.abs().max().double() / _LARGEST
            steps = tensor.double() / scale if scale > 0 else torch.zeros_like(tensor, dtype=torch.float64)
            chance = torch.rand(tensor.shape, generator=draw(f"{name}:{_BYTES}"), dtype=torch.float64)
            # A double of the largest number may come out a hair above 127, and must not be rounded up.
            rounded = (steps + chance).floor().clamp(-_LARGEST, _LARGEST)
            payload |= {f"{name}:{_BYTES}": rounded.to(torch.int8), f"{name}:{_SCALE}": scale}
        return payload

    def decode(self, payload: Mapping[str, Tensor], spec: wire.StateSpec) -> State:
        """Multiply by the scale."""
        rest = dict(payload)
        for path in payload:
            name, _, what = path.rpartition(":")
            if what != _BYTES:
                continue
            steps, scale = take(rest, name, _BYTES), take(rest, name, _SCALE)
            if steps.dtype != torch.int8 or scale.dtype != torch.float64 or scale.dim():
                raise WireError(f"tensor '{name}' needs int8 numbers and one float64 scale")
            rest[name] = steps.double() * scale
        return rest


class Half:
    """Numbers in two bytes, rounded to the nearest; those beyond the format's largest become that.

    Relative error up to 2⁻¹¹ (float16, of numbers from 6e-5 in size) or 2⁻⁸ (bfloat16, of all that float32 has).

    Parameters
    ----------
    kind
        ``float16`` or ``bfloat16``.
    """

    def __init__(self, kind: str) -> None:
        self._dtype: torch.dtype = getattr(torch, kind)

    def encode(self, tensors: Mapping[str, Tensor], memory: State, draw: Draw) -> State:
        """Round the tensors of numbers with a fraction."""
        largest = torch.finfo(self._dtype).max
        return {
            (f"{name}:{_HALF}" if tensor.is_floating_point() else name): (
                tensor.clamp(-largest, largest).to(self._dtype) if tensor.is_floating_point() else tensor
            )
            for name, tensor in tensors.items()
        }

    def decode(self, payload: Mapping[str, Tensor], spec: wire.StateSpec) -> State:
        """Write them long again."""
        rest = dict(payload)
        for path in payload:
            name, _, what = path.rpartition(":")
            if what != _HALF:
                continue
            short = take(rest, name, _HALF)
            if short.dtype != self._dtype:
                raise WireError(f"tensor '{name}' needs numbers of {str(self._dtype).removeprefix('torch.')}")
            rest[name] = short.double()
        return rest
