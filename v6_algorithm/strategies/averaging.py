"""Combiners: how several sites' models become one.

The mean is a running sum, of which no more than one reply is in memory at a time. Rules that compare the sites with
each other, such as the median, hold all of a round's replies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from v6_algorithm.strategies.rules import Rule
from v6_algorithm.wire import StateSpec

State = dict[str, Tensor]


class Combiner(Protocol):
    """Takes the models of a round one by one, and gives what they come to."""

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Add one site's checked state with a weight >= 0; a weight of zero changes nothing."""

    def combined(self) -> State:
        """Return what they come to, floats in float64; raises ValueError when that is nothing."""


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

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
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

    def combined(self) -> State:
        """Return the mean in float64; raises ValueError when nothing was added."""
        _require(bool(self._total))
        return {
            name: value if self._spec[name].kind == "counter" else value / self._total
            for name, value in self._sums.items()
        }


class Gathered:
    """What a rule makes of all states at once, in which every site counts the same.

    The rule sees parameters and float buffers as one long vector of each site, so that it can measure how far apart
    sites are; of counters the median is kept (of an even number the lower), which no single site can set.

    Parameters
    ----------
    spec
        Kind, shape and dtype of every tensor.
    rule
        The rule.
    """

    def __init__(self, spec: StateSpec, rule: Rule) -> None:
        self._spec = spec
        self._rule = rule
        self._states: list[State] = []

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Add one site's checked state; a weight of zero leaves it out, other weights make no difference."""
        if weight > 0:
            self._states.append(dict(state))

    def combined(self) -> State:
        """Return what the rule says; raises ValueError when there are no states, or too few for the rule."""
        _require(bool(self._states))
        floats = [name for name, item in self._spec.items() if item.kind != "counter"]
        rows = [torch.cat([state[name].double().flatten() for name in floats]) for state in self._states]
        pieces = self._rule(torch.stack(rows)).split([self._states[0][name].numel() for name in floats])
        found = {name: piece.view(self._spec[name].shape) for name, piece in zip(floats, pieces, strict=True)}
        return {
            name: found[name] if name in found else torch.stack([state[name] for state in self._states]).median(0)[0]
            for name in self._spec
        }


def cast(state: Mapping[str, Tensor], spec: StateSpec) -> State:
    """Return a state in the dtypes of the model."""
    return {name: tensor.to(getattr(torch, spec[name].dtype)) for name, tensor in state.items()}


def _require(something: bool) -> None:
    if not something:
        raise ValueError("no site with a training row gave a model")
