"""Averaging: a running sum over the sites' replies, of which no more than one is in memory at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from v6_algorithm.wire import StateSpec

State = dict[str, Tensor]


class WeightedMean:
    """The weighted mean of states, added one by one.

    Parameters and float buffers (such as BatchNorm's running statistics) are averaged, in float64 and in the order
    in which they are added; of counters the maximum is kept, for the mean of two counts counts nothing.

    Parameters
    ----------
    spec
        Kind, shape and dtype of every tensor.
    """

    def __init__(self, spec: StateSpec) -> None:
        self._spec = spec
        self._sums: State = {}
        self._total = 0.0

    def add(self, state: State, weight: float) -> None:
        """Add one site's checked state with a weight >= 0; a weight of zero changes nothing."""
        if weight <= 0:
            return
        for name, tensor in state.items():
            counter = self._spec[name].kind == "counter"
            if name not in self._sums:
                self._sums[name] = tensor.clone() if counter else tensor.double() * weight
            elif counter:
                torch.maximum(self._sums[name], tensor, out=self._sums[name])
            else:
                self._sums[name].add_(tensor, alpha=weight)
        self._total += weight

    def result(self) -> State:
        """Return the mean in the dtypes of the model; raises ValueError when nothing was added."""
        if not self._total:
            raise ValueError("no site with a training row gave a model")
        return {
            name: value if self._spec[name].kind == "counter" else self._cast(name, value)
            for name, value in self._sums.items()
        }

    def _cast(self, name: str, total: Tensor) -> Tensor:
        return (total / self._total).to(getattr(torch, self._spec[name].dtype))
