"""What a site sends of a trained model: all of it, or its parameters as a compressed update."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from v6_algorithm import seeding
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.state.memory import RoundMemory
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
        check_run(self._run)
        # Gradients are updates already.
        self._received = {} if message.get("gradient") else {name: received[name].cpu().clone() for name in spec}

    def pack(self, state: Mapping[str, Tensor]) -> wire.Packed | wire.Held:
        """Return what is sent for the trained state."""
        if self._run is None:
            return self._work.pack(state)
        work, tensors = self._work, {name: tensor.detach().cpu() for name, tensor in state.items()}
        received = self._received or None
        content = compressed(
            work.context, work.experiment, work.site, work.round, self._fold, self._run, self._spec, tensors, received
        )
        return wire.pack(content)


def check_run(name: Any) -> None:
    """Raise WireError unless this is the name of a run, under which sites remember what compression left out."""
    if not isinstance(name, str) or not re.fullmatch(r"[0-9a-f]{1,32}", name):
        raise WireError("the strategy's name of the run must be at most 32 hexadecimal digits")


def compressed(
    context: SiteContext,
    experiment: Experiment,
    site: str,
    round: int,
    fold: int,
    run: str,
    spec: wire.StateSpec,
    tensors: Mapping[str, Tensor],
    received: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Return what a site sends of a trained state as a compressed update, and remember what was left out of it.

    Parameters
    ----------
    context, experiment, site, round, fold, run
        Whose update it is, of what.
    spec
        The tensors that are sent.
    tensors, received
        The state after training and before it, of the processor; None: the parameters are gradients, updates already.
    """
    from v6_algorithm.exchange.compression import create_compressor

    parameters = [name for name, item in spec.items() if item.kind == "parameter"]
    update = {name: tensors[name] - received[name] if received else tensors[name] for name in parameters}
    memory = RoundMemory(context, f"compression-{run}-{fold}")
    payload, kept = create_compressor(experiment.strategy.compress, spec).encode(
        update,
        memory.before(round),
        lambda what: seeding.torch_generator(experiment.seed, "compression", site, round, fold, what),
    )
    memory.keep(round, kept)
    return {name: tensors[name] for name in tensors if name not in update} | payload
