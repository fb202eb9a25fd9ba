"""A chain of stages over an update, with the memory of what they left out (error feedback)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression.lowrank import PowerSGD, RankDAD
from v6_algorithm.exchange.compression.quantise import Half, Int8
from v6_algorithm.exchange.compression.sparse import TopK
from v6_algorithm.exchange.compression.stage import Draw, Stage, State
from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.strategy.compression import Compression, PlugInStage

_RESIDUAL = "residual/"


class Compressor:
    """Encodes and decodes updates.

    With error feedback, what the chain leaves out of an update is added to the next one: over many rounds all of it
    arrives, so that the sum of what was decoded is the sum of the updates less the last residual.

    Parameters
    ----------
    stages
        The chain, in the order of encoding.
    spec
        Shape and dtype of every tensor of an update.
    feedback
        Whether there is error feedback.

    References
    ----------
    Karimireddy et al., Error Feedback Fixes SignSGD and other Gradient Compression Schemes, ICML 2019.
    """

    def __init__(self, stages: Sequence[Stage], spec: wire.StateSpec, *, feedback: bool) -> None:
        self._stages = stages
        self._spec = spec
        self._feedback = feedback

    def encode(self, update: Mapping[str, Tensor], memory: Mapping[str, Tensor], draw: Draw) -> tuple[State, State]:
        """Encode an update.

        Parameters
        ----------
        update
            Name to tensor, as in the spec.
        memory
            What the last round's call returned; empty in the first round, or where it was lost.
        draw
            Gives the generator for each purpose.

        Returns
        -------
        tuple of dict and dict
            The payload, and the memory for the next round.
        """
        whole = {name: update[name] for name in self._spec}
        if self._feedback:
            whole = {name: tensor + memory.get(_RESIDUAL + name, 0) for name, tensor in whole.items()}
        payload = dict(whole)
        kept = {name: tensor for name, tensor in memory.items() if not name.startswith(_RESIDUAL)}
        for stage in self._stages:
            payload = stage.encode(payload, kept, draw)
        if self._feedback:
            arrives = self.decode(payload)
            kept |= {_RESIDUAL + name: tensor - arrives[name] for name, tensor in whole.items()}
        return payload, kept

    def decode(self, payload: Mapping[str, Tensor]) -> State:
        """Return the update that a payload stands for, in the spec's dtypes.

        Raises
        ------
        WireError
            When the payload is not one of these stages for these tensors, or holds numbers that are not finite.
        """
        update = dict(payload)
        for stage in reversed(self._stages):
            update = stage.decode(update, self._spec)
        update = {
            name: tensor.to(getattr(torch, self._spec[name].dtype)) if name in self._spec else tensor
            for name, tensor in update.items()
        }
        wire.check(update, self._spec)
        return update


def create_compressor(section: Compression, spec: wire.StateSpec) -> Compressor:
    """Make what an experiment asks for, for updates of the parameters in `spec`."""
    makers: dict[str, Callable[[Any], Stage]] = {
        "powersgd": lambda stage: PowerSGD(stage.rank, warm=stage.warm),
        "rankdad": lambda stage: RankDAD(stage.rank, stage.tolerance, stage.iterations),
        "topk": lambda stage: TopK(stage.fraction),
        "int8": lambda stage: Int8(),
        "float16": lambda stage: Half("float16"),
        "bfloat16": lambda stage: Half("bfloat16"),
    }
    parameters = {name: item for name, item in spec.items() if item.kind == "parameter"}
    stages: list[Stage] = [
        plugins.compressor(stage.kind)(stage.options()) if isinstance(stage, PlugInStage) else makers[stage.kind](stage)
        for stage in section.stages
    ]
    return Compressor(stages, parameters, feedback=any(stage.feedback for stage in section.stages))
