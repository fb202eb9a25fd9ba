"""What the stages of a compression have in common; the stages implement it, `compressor` chains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire

State = dict[str, Tensor]
# From what is drawn for, such as a tensor's name, to the generator for it.
Draw = Callable[[str], torch.Generator]


class Stage(Protocol):
    """One stage: tensors by name become others, named ``name:what``, and those become the first again."""

    def encode(self, tensors: Mapping[str, Tensor], memory: State, draw: Draw) -> State:
        """Return what is sent for `tensors`; what it leaves in `memory` comes back in the next round."""

    def decode(self, payload: Mapping[str, Tensor], spec: wire.StateSpec) -> State:
        """Return the tensors again, as near as they were sent; raises WireError where the payload is malformed.

        `spec` describes the update's tensors. Entries that are not of this stage are passed on.
        """


def take(payload: State, name: str, what: str) -> Tensor:
    """Remove and return the entry ``name:what`` of a payload; raises WireError where it is missing."""
    try:
        return payload.pop(f"{name}:{what}")
    except KeyError:
        raise WireError(f"the compressed tensor '{name}' has no '{what}'") from None
