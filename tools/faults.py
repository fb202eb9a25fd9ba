"""Faults put into a federation by a seeded plan: for the soak (`python -m tools.soak`) and the tests, nobody else.

It is no part of the package: nothing that is installed can inject a fault. A plan says for each round and site what
goes wrong, by the seed alone, so that a run that is killed and goes on meets the same faults.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Belated, Federation, Missing, Replies, Site
from v6_algorithm.experiment import Experiment

# What can go wrong with one site's answer; each is as an engine, or a node, would show it.
SITE_FAULTS = (
    "kill site",  # its container ends before it answers
    "kill site after training",  # and after the work was done
    "drop",  # the answer is lost on the way
    "delay",  # it comes after the deadline, some rounds later
    "slow",  # it comes last, and counts
    "cut",  # half a text
    "error page",  # a proxy's HTML in its place
    "not a number",  # NaN among the numbers
    "other shape",  # a model of another shape
    "stale",  # the answer to the round before
    "other attempt",
    "other site",
    "duplicate",  # twice
    "unasked",  # an answer of a site that is not in the federation
    "out of memory",  # the site's device holds no more
)
# What takes the whole round, or the coordinator.
RUN_FAULTS = ("kill master before", "kill master in the middle", "restart server", "full disk")
# After these a site's answer counts all the same.
HARMLESS = ("slow", "duplicate", "unasked")


class Killed(BaseException):
    """What SIGKILL is to the coordinator: nothing is caught, nothing is written any more."""


class FaultPlan:
    """What goes wrong where.

    Parameters
    ----------
    seed
        Of the draws.
    site_rate, run_rate
        Share of the answers, and of the rounds, that meet a fault.
    spared
        Sites whose answers always come, so that a quorum is left.
    """

    def __init__(self, seed: int, site_rate: float = 0.12, run_rate: float = 0.06, spared: Sequence[str] = ()) -> None:
        self._seed, self._site_rate, self._run_rate, self._spared = seed, site_rate, run_rate, set(spared)

    def _draw(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *place])

    def at_site(self, round: int, number: int, site: str) -> str | None:
        """Return what goes wrong with the answer of a site, whose number it is, in a round."""
        draw = self._draw(1, round, number)
        if draw.random() >= self._site_rate:
            return None
        kinds = HARMLESS if site in self._spared else SITE_FAULTS
        return str(draw.choice(kinds))

    def in_run(self, round: int) -> str | None:
        """Return what goes wrong with the whole round."""
        draw = self._draw(2, round)
        return str(draw.choice(RUN_FAULTS)) if draw.random() < self._run_rate else None

    def delay(self, round: int, number: int) -> int:
        """Return after how many rounds a delayed answer is there."""
        return int(self._draw(3, round, number).integers(1, 4))

    def order(self, round: int, sites: Sequence[str]) -> list[str]:
        """Return the order in which answers arrive."""
        return [str(site) for site in self._draw(4, round).permutation(list(sites))]


class FaultyFederation:
    """A federation whose training rounds meet the faults of a plan; preparation and evaluation go well.

    Parameters
    ----------
    federation
        The sites; its requests and replies go as text.
    plan
        What goes wrong.
    fired
        The faults of whole rounds that were met already: each once, also when the run is killed and goes on. Changed.
    """

    def __init__(self, federation: Federation, plan: FaultPlan, fired: set[int] | None = None) -> None:
        self._federation, self._plan = federation, plan
        self._fired = set() if fired is None else fired
        self._numbers = {site.name: number for number, site in enumerate(federation.sites())}
        self.met: Counter[str] = Counter()
        self.round = 0
        self._owed: dict[str, tuple[int, Belated]] = {}

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        return self._federation.sites()

    def overdue(self, site: str) -> bool:
        """Say whether a delayed answer is still on its way."""
        return site in self._owed and self._owed[site][0] > self.round

    def belated(self) -> Sequence[Belated]:
        """Return the delayed answers that are there by now."""
        return [self._owed.pop(site)[1] for site in list(self._owed) if not self.overdue(site)]

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Ask the sites; what the plan has for this round happens to their answers."""
        if method != "RPC_train":
            return self._federation.call(method, requests, deadline_s=deadline_s)
        self.round = number = next(iter(requests.values()))["round"]
        fault = self._plan.in_run(number)
        if fault is not None:
            if number in self._fired:
                fault = None
            else:
                self._fired.add(number)
                self.met[fault] += 1
        if fault == "kill master before":
            raise Killed
        sent: dict[str, int] = {}
        return Replies(requests, self._arrivals(method, requests, deadline_s, fault), sent)

    def _arrivals(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, fault: str | None
    ) -> Iterator[Arrival]:
        number = self.round
        order, slow = self._plan.order(number, list(requests)), []
        for place, site in enumerate(order):
            if place == len(order) // 2:
                if fault == "kill master in the middle":
                    raise Killed
                if fault == "restart server":
                    for rest in order[place:]:
                        yield Arrival(rest, None, Missing("unreachable", "the server was restarted"))
                    break
            kind = self._plan.at_site(number, self._numbers[site], site)
            if kind is not None:
                self.met[kind] += 1
            if kind == "slow":
                slow.append(site)
                continue
            yield from self._one(method, site, requests[site], deadline_s, kind)
        for site in slow:
            if not (fault == "restart server" and site in order[len(order) // 2 :]):
                yield from self._one(method, site, requests[site], deadline_s, None)

    def _one(
        self, method: str, site: str, request: dict[str, Any], deadline_s: float, kind: str | None
    ) -> Iterator[Arrival]:
        """Ask one site and let its answer meet the fault."""
        if kind == "kill site":
            yield Arrival(site, None, Missing("crashed", "the container was killed"))
            return
        (arrival,) = self._federation.call(method, {site: request}, deadline_s=deadline_s).arrivals
        text = wire.to_text(arrival.reply) if arrival.text is None and arrival.reply else str(arrival.text)
        if kind == "delay":
            after = self._plan.delay(request["round"], self._numbers[site])
            self._owed[site] = request["round"] + after, Belated(site, method, request, text)
            yield Arrival(site, None, Missing("late", f"no answer within {deadline_s:g} s"))
        elif kind == "kill site after training":
            yield Arrival(site, None, Missing("crashed", "the container was killed"))
        elif kind == "drop":
            yield Arrival(site, None, Missing("unreachable", "the answer could not be fetched"))
        elif kind == "unasked":
            yield Arrival("nobody", text)
            yield Arrival(site, text)
        elif kind == "duplicate":
            yield Arrival(site, text)
            yield Arrival(site, text)
        else:
            yield Arrival(site, damaged(text, kind) if kind else text)


def damaged(text: str, kind: str) -> str:
    """Return a reply's text as a fault leaves it."""
    if kind == "cut":
        return text[: len(text) // 2]
    if kind == "error page":
        return "<html><h1>502 Bad Gateway</h1></html>"
    reply = json.loads(text)
    head = {key: reply[key] for key in ("schema", "site", "round", "attempt")}
    if kind == "not a number":
        reply["folds"][0]["loss"]["sum"] = float("nan")
        return json.dumps(reply)
    if kind == "other shape":
        tensors = wire.unpack(reply["folds"][0]["parameters"])
        first = next(iter(tensors))
        tensors[first] = tensors[first].flatten()[:1]
        reply["folds"][0]["parameters"] = wire.pack(tensors)
    elif kind == "stale":
        reply["round"] -= 1
    elif kind == "other attempt":
        reply["attempt"] += 1
    elif kind == "other site":
        reply["site"] = "nobody"
    elif kind == "out of memory":
        words = "the memory of this site's device does not hold the model; take a smaller one, or training.device cpu"
        reply = head | {"status": "error", "kind": "request", "message": words}
    else:
        raise ValueError(f"{kind!r} does not damage a reply")
    return wire.to_text(reply)


class FullDisk(Checkpoints):
    """A checkpoint on a disk that is full in some rounds: the one before stays."""

    def __init__(self, path: Path, federation: FaultyFederation, plan: FaultPlan) -> None:
        super().__init__(path)
        self._faulty, self._plan = federation, plan

    def save(self, experiment: Experiment, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, or fail as a full disk does."""
        if self._faulty.round and self._plan.in_run(self._faulty.round) == "full disk":
            self.trouble = f"the checkpoint could not be written: {OSError(errno.ENOSPC, 'No space left').strerror}"
            return
        super().save(experiment, state)


class Replay:
    """The same sites without any fault, of which each call has exactly those that a book names.

    Parameters
    ----------
    federation
        The sites.
    book
        The participation table of a result.
    """

    def __init__(self, federation: Federation, book: Sequence[Mapping[str, Any]]) -> None:
        self._federation = federation
        self._trained = {entry["round"]: entry["answered"] for entry in book if entry["call"] == "train"}
        # Who was late in the last round is not waited for at the end.
        self._evaluated = [entry["answered"] for entry in book if entry["call"] == "evaluate"]

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        return self._federation.sites()

    def overdue(self, site: str) -> bool:
        """Nobody owes an answer."""
        return False

    def belated(self) -> Sequence[Belated]:
        """Nothing."""
        return ()

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Ask those of the book; the others took no part."""
        if method == "RPC_prepare":
            return self._federation.call(method, requests, deadline_s=deadline_s)
        number = next(iter(requests.values()))["round"]
        named = self._trained[number] if method == "RPC_train" else self._evaluated.pop(0)
        there = {site: request for site, request in requests.items() if site in named}
        inner = self._federation.call(method, there, deadline_s=deadline_s).arrivals

        def arrivals() -> Iterator[Arrival]:
            yield from inner
            for site in requests.keys() - there.keys():
                yield Arrival(site, None, Missing("resting", "it took no part in the run that is replayed"))

        return Replies(requests, arrivals(), {})
