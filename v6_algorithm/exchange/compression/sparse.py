"""Of each tensor only the numbers of largest size, with where they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression.stage import Draw, State, take

_VALUES, _INDICES = "values", "indices"
# Bytes of a number and of an index; one of each is what an entry costs.
_NUMBER, _INDEX = 4, 4


class TopK:
    """The share `fraction` of each tensor's numbers, at least one; the rest is left to error feedback.

    A tensor of which that would be no smaller is sent whole.

    Parameters
    ----------
    fraction
        From above 0 to 1.

    References
    ----------
    Stich, Cordonnier, Jaggi, Sparsified SGD with Memory, NeurIPS 2018.
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction

    def encode(self, tensors: Mapping[str, Tensor], memory: State, draw: Draw) -> State:
        """Pick the numbers."""
        payload: State = {}
        for name, tensor in tensors.items():
            count = self._count(tensor.numel())
            if count is None:
                payload[name] = tensor
                continue
            flat = tensor.flatten()
            indices = flat.abs().topk(count).indices.sort().values
            payload |= {f"{name}:{_VALUES}": flat[indices], f"{name}:{_INDICES}": indices.to(torch.int32)}
        return payload

    def decode(self, payload: Mapping[str, Tensor], spec: wire.StateSpec) -> State:
        """Put the numbers back where they were, and zeros elsewhere."""
        rest = dict(payload)
        for name, item in spec.items():
            count = self._count(math.prod(item.shape))
            if count is None:
                continue
            values, indices = take(rest, name, _VALUES), take(rest, name, _INDICES)
            if values.shape != (count,) or indices.shape != (count,) or indices.dtype != torch.int32:
                raise WireError(f"tensor '{name}' needs {count} numbers, and an int32 index for each")
            if bool((indices.diff() <= 0).any()) or int(indices[0]) < 0 or int(indices[-1]) >= math.prod(item.shape):
                raise WireError(f"tensor '{name}' has indices that do not ascend within its numbers")
            flat = torch.zeros(math.prod(item.shape), dtype=values.dtype)
            flat[indices.long()] = values
            rest[name] = flat.reshape(item.shape)
        return rest

    def _count(self, numbers: int) -> int | None:
        count = math.ceil(self._fraction * numbers)
        return count if count * (_NUMBER + _INDEX) < numbers * _NUMBER else None
