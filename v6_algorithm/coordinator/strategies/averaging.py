"""Combiners: how several sites' models become one.

The mean is a running sum, of which no more than one reply is in memory at a time. Rules that compare the sites with
each other, such as the median, hold all of a round's replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.wire import StateSpec

State = dict[str, Tensor]
# From one vector a site, and the sites' weights, to a float64 vector; raises TooFewSitesError.
Rule = Callable[[Sequence[Tensor], Tensor], Tensor]

# Of a large tensor, or a stack of many sites: their float64 copy, 1 MB, stays in the processor's caches.
_NUMBERS_AT_ONCE = 2**17


class Combiner(Protocol):
    """Takes the models of a round one by one, and gives what they come to."""

    @property
    def takes_stacks(self) -> bool:
        """Whether it has `add_stack`, for many models at once; see `WeightedMean`."""

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Add one site's checked state with a weight >= 0; a weight of zero changes nothing."""

    def combined(self) -> State:
        """Return what they come to, floats in float64; raises ValueError when that is nothing."""


class WeightedMean:
    """The weighted mean of states, added one by one.

    Parameters and float buffers (such as BatchNorm's running means) are averaged, in float64 and in the order in which
    they are added. A running variance is the variance of all rows: the mean of the sites' variances and the variance
    of their means, since two sites whose inputs differ spread further together than each does alone. Where statistics
    are moving averages, as BatchNorm's are, a site's are to a part still those that it was sent, the same at all; means
    differ by the share of its own batches in them, and count as far apart as those batches were. Of counters
    the maximum is kept, for the mean of two counts counts nothing. So it is of
    frozen tensors, which are all the same: their mean need not be, to the last bit.

    Parameters
    ----------
    spec
        Kind, shape and dtype of every tensor.
    moments
        Whether running variances get the variance of the means; else they are averaged as they are.
    start
        What the sites' statistics were before, of which those not there are 0, as of a new network; None: they are of
        the sites' own rows alone.
    """

    def __init__(self, spec: StateSpec, *, moments: bool = True, start: Mapping[str, Tensor] | None = None) -> None:
        self._spec = spec
        self._start = start
        # Name of a variance to that of its mean.
        self._mean_of = means_of_variances(spec) if moments else {}
        # By mean: the first site's, and the sums over sites of weight x share x (1, difference, square of it).
        self._first: State = {}
        self._apart: dict[str, tuple[float, Tensor, Tensor]] = {}
        self._sums: State = {}
        self._total = 0.0
        # Sites whose tensors are layers of the same stacks, which are added up at once; see `wire.Held`.
        self._waiting: list[tuple[wire.Stacked, float]] = []

    @property
    def takes_stacks(self) -> bool:
        """Whether `add_stack` may be called: of running variances the mean alone is not enough."""
        return not self._mean_of

    def add_stack(
        self,
        stacks: Mapping[str, Tensor],
        names: Sequence[str],
        weights: Sequence[float],
        scales: Sequence[float] | None = None,
        origin: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add several sites' checked states.

        Parameters
        ----------
        stacks, names
            Tensors by name, (sites, …), and which of them are added.
        weights
            Of each site.
        scales, origin
            By what each site's update is multiplied, the difference of its parameters from `origin`; None: by 1.

        Raises
        ------
        ValueError
            When `scales` are given without `origin`.
        """
        # A site of no weight has nothing to add, not even its counters.
        layers = [number for number, weight in enumerate(weights) if weight > 0]
        if not layers:
            return
        self._total += sum(weights)
        whole = len(layers) == len(weights)
        given = [weights[layer] for layer in layers]
        if scales is None:
            self._add_layers(stacks, names, layers, given, whole=whole)
            return
        if origin is None:
            raise ValueError("scales are given without origin, the parameters that updates are differences from")
        moved = [name for name in names if self._spec[name].kind == "parameter"]
        scaled = [weights[layer] * scales[layer] for layer in layers]
        self._add_layers(stacks, moved, layers, scaled, whole=whole)
        self._add_layers(stacks, [name for name in names if name not in moved], layers, given, whole=whole)
        for name in moved:
            self._sums[name].add_(origin[name].double(), alpha=sum(given) - sum(scaled))

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Add one site's checked state with a weight >= 0; a weight of zero changes nothing."""
        if weight <= 0:
            return
        if isinstance(state, wire.Stacked) and not self._mean_of:
            self._waiting.append((state, weight))
            self._total += weight
            return
        for name, tensor in state.items():
            counter = self._spec[name].kind in ("counter", "frozen")
            if name not in self._sums:
                self._sums[name] = (
                    tensor.clone() if counter else tensor.contiguous().to(torch.float64, copy=True).mul_(weight)
                )
            elif counter:
                torch.maximum(self._sums[name], tensor, out=self._sums[name])
            else:
                # Some numbers at a time, of which torch makes a float64 copy.
                pieces = (each.flatten().split(_NUMBERS_AT_ONCE) for each in (self._sums[name], tensor))
                for total, added in zip(*pieces, strict=True):
                    total.add_(added, alpha=weight)
        for variance, name in self._mean_of.items():
            share = self._share_of_own(variance, state)
            before = 0.0 if self._start is None else self._start.get(name, torch.zeros(())).double()
            own = before + (state[name].double() - before) / share
            # Measured from the first site's, so that large means lose no digits of small differences.
            shift = own - self._first.setdefault(name, own)
            counted = weight * share
            total, shifts, squares = self._apart.get(name, (0.0, torch.zeros(()), torch.zeros(())))
            self._apart[name] = total + counted, shifts + counted * shift, squares + counted * shift**2
        self._total += weight

    def combined(self) -> State:
        """Return the mean in float64, in the memory of the sums, which end; raises ValueError when there are none."""
        _require(bool(self._total))
        self._add_waiting()
        mean, self._sums = self._sums, {}
        for name, value in mean.items():
            if self._spec[name].kind not in ("counter", "frozen"):
                value.div_(self._total)
        for variance, name in self._mean_of.items():
            counted, shifts, squares = self._apart[name]
            mean[variance] = mean[variance] + ((squares - shifts**2 / counted) / self._total).clamp(min=0)
        return mean

    def _share_of_own(self, variance: str, state: Mapping[str, Tensor]) -> float:
        """Return which part of a site's statistics comes of its own batches, above 0; 1 where that is not known."""
        momentum = self._spec[variance].momentum
        counter = f"{variance.removesuffix('running_var')}num_batches_tracked"
        if momentum is None or self._start is None or counter not in state:
            return 1.0
        seen = int(state[counter])
        batches = seen - int(self._start.get(counter, torch.zeros(())))
        # None: they are those that were sent. Fewer: it began with an earlier model.
        if batches < 1:
            return 1.0
        return 1 - (1 - momentum) ** batches if momentum else batches / seen

    def _add_waiting(self) -> None:
        """Add what came as layers of stacks: of each stack the weighted sum of its layers, in float64."""
        by_stack: dict[int, list[tuple[wire.Stacked, float]]] = {}
        for state, weight in self._waiting:
            by_stack.setdefault(id(state.stacks), []).append((state, weight))
        self._waiting = []
        for members in by_stack.values():
            stacks = members[0][0].stacks
            whole = all(len(stack) == len(members) for stack in stacks.values())
            layers, weights = [state.layer for state, _ in members], [weight for _, weight in members]
            self._add_layers(stacks, list(members[0][0]), layers, weights, whole=whole)

    def _add_layers(
        self,
        stacks: Mapping[str, Tensor],
        names: Sequence[str],
        layers: Sequence[int],
        given: Sequence[float],
        *,
        whole: bool,
    ) -> None:
        """Add some layers of stacks with their weights; `whole` says that they are all."""
        places, weights = torch.tensor(layers), torch.tensor(given, dtype=torch.float64)
        if whole:
            # No layer has to be taken out: the weights are put in the stack's order.
            weights = torch.zeros_like(weights).index_add_(0, places, weights)
        for name in names:
            chosen = stacks[name] if whole else stacks[name][places]
            if self._spec[name].kind in ("counter", "frozen"):
                total = chosen.max(dim=0).values
                known = self._sums.get(name)
                self._sums[name] = total if known is None else torch.maximum(known, total)
                continue
            # Some columns at a time, which stay in the processor's cache as they get wider.
            columns = max(_NUMBERS_AT_ONCE // len(chosen), 1)
            pieces = chosen.flatten(1).split(columns, dim=1)
            on_device = weights.to(chosen.device)
            total = torch.cat([on_device @ piece.double() for piece in pieces]).view(chosen.shape[1:])
            self._sums[name] = self._sums[name] + total if name in self._sums else total


class Gathered:
    """What a rule makes of all states at once.

    The rule sees the parameters as one long vector of each site, so that it can measure how far apart sites are. Of
    buffers, whose scale would drown the parameters', and of counters the median is kept, which no single site can set.
    Of an even number of sites it is the mean of the two in the middle (of counters the lower): a buffer may be a
    network's average over training, and the lower of all its numbers would be another network.

    Parameters
    ----------
    spec
        Kind, shape and dtype of every tensor.
    rule
        The rule.
    origin
        Gives the state that the vectors are differences from, for a rule for which it matters.
    """

    def __init__(self, spec: StateSpec, rule: Rule, origin: Callable[[], State] | None = None) -> None:
        self.takes_stacks = False
        self._spec = spec
        self._rule = rule
        self._origin = origin
        self._states: list[State] = []
        self._weights: list[float] = []

    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Add one site's checked state; a weight of zero leaves it out."""
        if weight > 0:
            self._states.append(dict(state))
            self._weights.append(weight)

    def combined(self) -> State:
        """Return what the rule says; raises TooFewSitesError, or ValueError when there are no states."""
        _require(bool(self._states))
        names = [name for name, item in self._spec.items() if item.kind == "parameter"]
        origin = self._flat(self._origin(), names).double() if self._origin else 0.0
        rows = [self._flat(state, names) for state in self._states]
        moved = rows if self._origin is None else [row.double() - origin for row in rows]
        centre = self._rule(moved, torch.tensor(self._weights, dtype=torch.float64)) + origin
        pieces = centre.split([self._states[0][name].numel() for name in names])
        combined = {name: piece.view(self._spec[name].shape) for name, piece in zip(names, pieces, strict=True)}
        for name, item in self._spec.items():
            if item.kind != "parameter":
                ordered = torch.stack([state[name] for state in self._states]).sort(dim=0).values
                lower, upper = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
                combined[name] = (lower.double() + upper.double()) / 2 if item.kind == "buffer" else lower
        return {name: combined[name] for name in self._spec}

    @staticmethod
    def _flat(state: State, names: Sequence[str]) -> Tensor:
        return torch.cat([state[name].flatten() for name in names])


def means_of_variances(spec: StateSpec) -> dict[str, str]:
    """Return the name of each BatchNorm's running variance with that of its running mean."""
    pairs = {name: f"{name.removesuffix('running_var')}running_mean" for name in spec if name.endswith("running_var")}
    return {
        variance: mean
        for variance, mean in pairs.items()
        if mean in spec and spec[variance].kind == spec[mean].kind == "buffer"
    }


def cast(state: Mapping[str, Tensor], spec: StateSpec) -> State:
    """Return a state in the dtypes of the model; of one that nobody else holds, each tensor is given up in its turn."""
    rest = dict(state)
    del state
    return {name: rest.pop(name).to(getattr(torch, spec[name].dtype)) for name in list(rest)}


def _require(something: bool) -> None:
    if not something:
        raise ValueError("no site with a training row gave a model")
