"""The replies of many simulated sites as one object, with arrays over the sites in place of a dictionary of each.

`site.together` makes it, the local engine hands it over whole, and the coordinator checks it and adds it up at once
where it can. Whoever asks for one site's reply gets what that site would have answered by itself: see `split`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire

if TYPE_CHECKING:
    import torch


# All that a reply made here says, but for how it begins: for the guard, which knows a rule for each key or stops it.
KEYS: dict[str, Any] = {
    "folds": [dict.fromkeys(("fold", "metrics", "baseline", "parameters", "rows", "loss", "steps", "strategy"))],
    "device": None,
    "timing": None,
}


class Table(Protocol):
    """The states of several sites, counted at once; see `metrics.by_site`."""

    def states(self) -> Sequence[dict[str, Any]]:
        """Return the state of each site."""


@dataclass
class JointTraining:
    """What training one model at several sites came to.

    Attributes
    ----------
    sites
        Their names, in the order of all lists here.
    rows, steps
        Training rows and optimiser steps of each.
    losses, seen
        The summed loss of each over the rows it has seen, and how many these are.
    stacks
        Tensors by name, (sites, …), and which of the sites, by number, each layer is of; every site is in one of them.
    names
        Which of the tensors leave the sites.
    checked
        What all of them are known to be, finite numbers among it.
    start, start_losses
        The model that all of them started from, and its mean loss over the training rows of each, where asked for.
    compressed
        What each sends in place of its tensors, where updates are compressed.
    """

    sites: list[str]
    rows: list[int]
    steps: list[int]
    losses: list[float]
    seen: list[int]
    stacks: Sequence[tuple[Mapping[str, torch.Tensor], list[int]]]
    names: list[str]
    checked: wire.StateSpec
    start: wire.Held | None = None
    start_losses: list[float] | None = None
    compressed: list[wire.Held] | None = None

    def check(self) -> None:
        """Check that rows, steps, losses and a model are there for each site; raises WireError."""
        counts = (self.rows, self.seen, self.steps, self.losses)
        if any(len(values) != len(self.sites) for values in counts):
            raise WireError("there must be rows, steps and a loss of each site")
        if min(self.rows) < 1 or min(self.seen) < 1 or min(self.steps) < 1:
            raise WireError("row counts and steps must be whole numbers from 1")
        if not all(map(math.isfinite, self.losses)):
            raise WireError("a training loss is not a finite number")
        if sorted(number for _, numbers in self.stacks for number in numbers) != list(range(len(self.sites))):
            raise WireError("a site has no model, or two")
        starts = self.start_losses
        if starts is not None and not (len(starts) == len(self.sites) and all(map(math.isfinite, starts))):
            raise WireError("a loss before training is not a finite number")

    def states(self, names: Collection[str]) -> list[wire.Stacked]:
        """Return each site's tensors, those of some names."""
        states: dict[int, wire.Stacked] = {}
        for stack, numbers in self.stacks:
            states |= {number: wire.Stacked(stack, layer).only(names) for layer, number in enumerate(numbers)}
        return [states[number] for number in range(len(self.sites))]

    def by_site(self) -> dict[str, dict[str, Any]]:
        """Return what each site's item of a reply says of it."""
        replies = {}
        for number, (site, state) in enumerate(zip(self.sites, self.states(self.names), strict=True)):
            replies[site] = {
                "parameters": wire.Held(state, self.checked) if self.compressed is None else self.compressed[number],
                "rows": self.rows[number],
                "loss": {"sum": self.losses[number], "rows": self.seen[number]},
                "steps": self.steps[number],
            }
            extras: dict[str, Any] = {} if self.start is None else {"start": self.start}
            extras |= {} if self.start_losses is None else {"start_loss": self.start_losses[number]}
            replies[site] |= {"strategy": extras} if extras else {}
        return replies


@dataclass
class JointStates:
    """How good a model is at several sites, of one hospital each.

    Attributes
    ----------
    sites, hospitals
        Their names, in one order.
    states
        Their states, in that order, where some are written out already; else the table makes them.
    table
        What all of them are counted from; see `metrics.by_site`.
    """

    sites: list[str]
    hospitals: list[str]
    states: Sequence[dict[str, Any]] | None = None
    table: Table | None = None

    def by_site(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each site and what its item of a reply says: the state by hospital."""
        states = self.states if self.table is None else self.table.states()
        for site, hospital, state in zip(self.sites, self.hospitals, states or [], strict=True):
            yield site, {hospital: state}


@dataclass
class JointItem:
    """The answers to one model of a fold.

    Attributes
    ----------
    fold
        Its number.
    places
        Site to the place of this item in its reply.
    metrics
        How good the model is, by part.
    baseline
        The sums of a baseline hazard over the training rows of each site, where these were asked for.
    training
        What training came to, where anybody trained.
    """

    fold: int
    places: dict[str, int]
    metrics: dict[str, JointStates] = field(default_factory=dict)
    baseline: JointStates | None = None
    training: JointTraining | None = None


@dataclass
class Joint:
    """The replies of several sites to one call; all of them are well.

    Attributes
    ----------
    heads
        Site to what its reply repeats of its request: site, round and attempt.
    items
        One for each model that was asked for.
    device, timing
        What all of them say of these.
    screen
        Lets a site's answer pass its guard, where that has anything to change.
    """

    heads: dict[str, dict[str, Any]]
    items: list[JointItem]
    device: dict[str, Any]
    timing: dict[str, float]
    screen: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None

    def split(self) -> dict[str, dict[str, Any]]:
        """Return each site's reply; what is the same at all sites is one object, which nobody changes."""
        folds: dict[str, dict[int, dict[str, Any]]] = {site: {} for site in self.heads}
        for item in self.items:
            for site, place in item.places.items():
                if site in folds:
                    folds[site][place] = {"fold": item.fold, "metrics": {}}
            for part, measured in item.metrics.items():
                for site, states in measured.by_site():
                    if site in folds:
                        folds[site][item.places[site]]["metrics"][part] = states
            for site, sums in item.baseline.by_site() if item.baseline is not None else ():
                if site in folds:
                    folds[site][item.places[site]]["baseline"] = sums
            for site, told in (item.training.by_site() if item.training is not None else {}).items():
                if site in folds:
                    folds[site][item.places[site]] |= told
        replies = {}
        for site, head in self.heads.items():
            body: dict[str, Any] = {
                "folds": [folds[site][place] for place in sorted(folds[site])], "device": self.device,
            }  # fmt: skip
            if self.screen is not None:
                body = self.screen(site, body)
            replies[site] = wire.message(**head, status="ok", **body, timing=self.timing)
        return replies
