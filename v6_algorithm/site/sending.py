"""What a site sends of a trained model: all of it, or its parameters as a compressed update."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from v6_algorithm import seeding
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.site.memory import RoundMemory
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor


class Sender:
    """Packs the trained state of one fold.

    Parameters
    ----------
    work
        The request.
    fold
        Number of the fold.
    message
        The request's "strategy" for this fold; under "compress", if there, the name of the run.
    spec
        The model's tensors.
    received
        The state before training, of which a copy is kept if it is needed.

    Raises
    ------
    WireError
        When the message is malformed.
    """

    def __init__(
        self, work: Work, fold: int, message: Mapping[str, Any], spec: wire.StateSpec, received: Mapping[str, Tensor]
    ) -> None:
        self._work = work
        self._fold = fold
        self._spec = spec
        self._run = message.get("compress")
        if self._run is None:
            return
        if not isinstance(self._run, str) or not re.fullmatch(r"[0-9a-f]{1,32}", self._run):
            raise WireError("the strategy's name of the run must be at most 32 hexadecimal digits")
        # Gradients are updates already.
        self._received = {} if message.get("gradient") else {name: received[name].cpu().clone() for name in spec}

    def pack(self, state: Mapping[str, Tensor]) -> wire.Packed | wire.Held:
        """Return what is sent for the trained state."""
        if self._run is None:
            return self._work.pack(state)
        from v6_algorithm.exchange.compression import create_compressor

        work, tensors = self._work, {name: tensor.detach().cpu() for name, tensor in state.items()}
        parameters = [name for name, item in self._spec.items() if item.kind == "parameter"]
        update = {
            name: tensors[name] - self._received[name] if self._received else tensors[name] for name in parameters
        }
        memory = RoundMemory(work.context, f"compression-{self._run}-{self._fold}")
        payload, kept = create_compressor(work.experiment.strategy.compress, self._spec).encode(
            update,
            memory.before(work.round),
            lambda what: seeding.torch_generator(
                work.experiment.seed, "compression", work.site, work.round, self._fold, what
            ),
        )
        memory.keep(work.round, kept)
        return wire.pack({name: tensors[name] for name in tensors if name not in update} | payload)
