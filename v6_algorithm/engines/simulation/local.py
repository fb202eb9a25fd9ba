"""The engine of `v6-algorithm run`: all sites in this process, one after another, without copies of their data.

How requests and replies pass is one of `WAYS`. As ``wire`` each goes through JSON text, as on a node. As ``exact``
those of the preparation and of round 1 do, and from then on the objects themselves are handed over: what passed once as
text passes on a node, and the arithmetic is the same bit for bit, which tests hold. As ``fast`` sites that share
network and batches are also trained together, in one batched computation; see `site.together`. A network too large for
that is moved by its optimiser in one pass over the memory, and images lie channels last for a `cnn` without BatchNorm.
All of these differ from the rest by rounding. Of round 1 only the first site of each kind (of those that are asked the
same) goes as text then, or the next one where that fails.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any, Literal

from v6_algorithm.engines.simulation.message_sizes import MessageSizes, kind_of
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.joint import Joint
from v6_algorithm.exchange.protocol import Arrival, Belated, Missing, Replies, Site, check_names
from v6_algorithm.learning.metrics import CheckedState
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.together import answer_together, open_together
from v6_algorithm.site.together.quicker import quicker, quicker_steps
from v6_algorithm.site.together.run import know_run, why_alone

Way = Literal["wire", "exact", "fast"]
WAYS: tuple[Way, ...] = ("wire", "exact", "fast")
# Calls that come round after round; what is asked once goes as text.
_REPEATED = ("train", "evaluate")
# What a result says of ``fast``: of whose messages a text was made.
AS_TEXT = "preparation; of round 1 the first site of each kind; of an evaluation the first site"


class AnswersInTurn:
    """A federation whose sites answer when somebody looks for their replies, one after another."""

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Ask the sites in turn, each when its reply is looked for; see `Federation.call`."""
        sent: dict[str, int] = {}
        replies = Replies(requests, iter(()), sent)
        replies.arrivals = self._answer(method.removeprefix("RPC_"), requests, deadline_s, replies)
        return replies

    def overdue(self, site: str) -> bool:
        """Nobody owes an answer here: a site that is late was not asked, since the others took the time."""
        return False

    def belated(self) -> Sequence[Belated]:
        """Nothing: who is late here was not asked."""
        return ()

    def _answer(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, replies: Replies
    ) -> Iterator[Arrival]:
        raise NotImplementedError


class LocalFederation(AnswersInTurn):
    """Sites simulated in this process.

    Attributes
    ----------
    takes_held
        Says that what strategies send need not be text; see `wire.Held`.

    Parameters
    ----------
    contexts
        Site name to its data, policy and memory.
    way
        How requests and replies pass, one of `WAYS`.
    temporary
        A folder of the sites' that is to last as long as this object.
    """

    takes_held = True

    def __init__(
        self, contexts: Mapping[str, SiteContext], way: Way = "wire", temporary: TemporaryDirectory[str] | None = None
    ) -> None:
        self._temporary = temporary
        # What all sites of a process may share: what the experiment says, and nothing of anybody's data.
        shared: dict[Any, Any] = {}
        self._contexts = {name: replace(context, lasting=True, shared=shared) for name, context in contexts.items()}
        self._way, self._shared, self._sizes = way, shared, MessageSizes()

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        return check_names([Site(name, number) for number, name in enumerate(self._contexts)])

    def how(self) -> dict[str, Any]:
        """Tell how the answers were made, for the result: `together` is None where no round was, so that none knows."""
        made: dict[str, Any] = {"engine": "local", "way": self._way}
        if self._way != "fast":
            return made
        reason = self.alone()
        made |= {"together": None if reason is None else not reason, "because": reason or None}
        return made | {"quicker": self.quicker(), "as_text": AS_TEXT}

    def alone(self) -> str | None:
        """Say why sites are not trained together: see `why_alone`."""
        return why_alone(self._contexts, self._shared)

    def quicker(self) -> list[str]:
        """Name the steps that differ by rounding from those on a node, of sites that are not trained together."""
        return quicker_steps(self._shared)

    def close(self) -> None:
        """Nothing: there is no other process."""

    def _answer(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, replies: Replies
    ) -> Iterator[Arrival]:
        texts = texts_of(self._way, method, requests)
        for arrivals in self.answers(method, requests, deadline_s, replies, texts, whole=True):
            yield from arrivals

    def answers(
        self,
        method: str,
        requests: Mapping[str, dict[str, Any]],
        deadline_s: float,
        replies: Replies,
        texts: Collection[str],
        *,
        whole: bool = False,
    ) -> Iterator[list[Arrival]]:
        """Answer requests; yields what is there at one time: first the answers of the sites that went together.

        Parameters
        ----------
        method
            ``summary``, ``prepare``, ``train`` or ``evaluate``.
        requests, deadline_s
            See `Federation.call`.
        replies
            Gets the bytes that passed as text.
        texts
            Sites whose requests go as text.
        whole
            Whether the answers of all sites may come as one.
        """
        end = time.monotonic() + deadline_s
        spoken: dict[str, Arrival] = {}
        together: dict[str, dict[str, Any]] = {}
        if self._way == "fast" and method in _REPEATED:
            begins = _begins(method, requests)
            if texts or begins:
                # Which steps are quicker has to be known before the first of them.
                know_run(requests, self._contexts, self._shared)
            if begins and len(texts) < len(requests):
                spoken = self._first_of_each_kind(method, requests, texts, replies, end)
                texts = spoken
            passing = {site: body for site, body in requests.items() if site not in texts}
            joint = answer_together(method, passing, self._contexts, self._shared)
            # Of an evaluation the first site's goes as text, and is looked at before the others.
            first = list(requests)[: len(texts)]
            if whole and isinstance(joint, Joint) and set(first) <= set(texts) and time.monotonic() <= end:
                for site in first:
                    yield [spoken[site] if site in spoken else self._by_text(method, site, requests[site], replies)]
                self._sizes.book(method, passing, replies, joint.split)
                yield [Arrival("", None, joint=joint)]
                self._open(method, requests, texts)
                return
            together = joint.split() if isinstance(joint, Joint) else joint
        if together:
            late = _late(deadline_s) if time.monotonic() > end else None
            self._sizes.book(method, () if late else together, replies, lambda: together)
            yield [
                Arrival(site, None, reply=reply) if late is None else Arrival(site, None, late)
                for site, reply in together.items()
            ]
        for site, request in requests.items():
            if site in together:
                continue
            if site in spoken:
                yield [spoken.pop(site)]
            elif time.monotonic() > end:
                yield [Arrival(site, None, _late(deadline_s))]
            elif site in texts:
                yield [self._by_text(method, site, request, replies)]
            else:
                yield [self._handed_over(method, site, request, replies)]
        if method == "prepare":
            # Of tables as they were read, which nobody holds any more.
            wire.give_back()
        self._open(method, requests, texts)

    def _first_of_each_kind(
        self,
        method: str,
        requests: Mapping[str, dict[str, Any]],
        texts: Collection[str],
        replies: Replies,
        end: float,
    ) -> dict[str, Arrival]:
        """Ask sites by text: those that have to, and one of each kind that answers, where any does."""
        spoken: dict[str, Arrival] = {}
        answered: set[Any] = set()
        for site, request in requests.items():
            if (kind := kind_of(request)) in answered and site not in texts:
                continue
            if time.monotonic() > end:
                break
            spoken[site] = self._by_text(method, site, request, replies)
            if self._sizes.last_passed is request:
                answered.add(kind)
        return spoken

    def _open(self, method: str, requests: Mapping[str, dict[str, Any]], texts: Collection[str]) -> None:
        """Let those that went as text in round 1 read their tables for the rounds that all of them train together."""
        if self._way == "fast" and texts and _begins(method, requests):
            open_together(method, requests, self._contexts, self._shared)

    def _by_text(self, method: str, site: str, request: dict[str, Any], replies: Replies) -> Arrival:
        asked, replies.bytes_sent[site] = wire.as_read(request)
        context = self._contexts[site]
        context.by_reference = False
        with self._steps():
            reply = handle(method, asked, context, raise_bugs=True)
        # A model's text is larger than the model.
        del asked
        answer = wire.to_text(reply)
        if reply["status"] == "ok":
            self._sizes.passed(method, request, len(answer))
        return Arrival(site, answer)

    def _handed_over(self, method: str, site: str, request: dict[str, Any], replies: Replies) -> Arrival:
        context = self._contexts[site]
        context.by_reference = True
        with self._steps():
            reply = handle(method, request, context, raise_bugs=True)
        for item in reply.get("folds", []):
            for states in item["metrics"].values():
                for name, state in states.items():
                    # It comes from the collector, in this process.
                    states[name] = CheckedState(state)
        self._sizes.book(method, [site], replies, lambda: {site: reply})
        return Arrival(site, None, reply=reply)

    def _steps(self) -> AbstractContextManager[None]:
        """Let what is done here be trained as the way has it."""
        return quicker(self._shared) if self._way == "fast" else nullcontext()


def texts_of(way: Way, method: str, requests: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the sites whose requests go as text, but for the first of each kind in round 1 as ``fast``.

    Of training these are all in round 1 as ``exact``, of an evaluation the first. It depends on the requests alone, so
    that a run that was interrupted goes on to the same bits.
    """
    if way == "wire" or method not in _REPEATED:
        return set(requests)
    first = next(iter(requests), None)
    return {
        site
        for site, request in requests.items()
        if "secure_aggregation" in request
        or (way == "exact" and request["round"] <= 1 if method == "train" else site == first)
    }


def _begins(method: str, requests: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether this is the training of round 1, in which each kind of message passes as text."""
    return method == "train" and any(request["round"] <= 1 for request in requests.values())


def _late(deadline_s: float) -> Missing:
    return Missing("late", f"no answer within {deadline_s:g} s")
