"""What `master` knows of a federation: its sites, and a call that asks some of them and yields their replies.

Engines only move text. Parsing, checking, ordering and counting of replies are here, once for all engines, so that a
run gives the same bits on each of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from v6_algorithm.errors import FederationError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.in_file import TextFile
from v6_algorithm.exchange.joint import Joint
from v6_algorithm.exchange.text import printable

_LONGEST_S = 1e9


@dataclass(frozen=True)
class Site:
    """One participant: its name in the experiment and results, and its id in the engine."""

    name: str
    id: int


@dataclass(frozen=True)
class Missing:
    """Why a site gave no usable reply.

    `kind` is ``data``, ``refused``, ``absent``, ``diverged``, ``request`` or ``bug`` when the site said so itself,
    ``refused`` also when its node's policy did;
    ``wrong`` for a reply that failed the checks; ``late``, ``crashed`` or ``unreachable`` when the engine got none;
    ``resting`` when it was not asked because it had been late, ``quarantined`` because it had failed several times.
    """

    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass
class Arrival:
    """What an engine got from one site: the text of its reply, or why there is none, and what asking took.

    A large text lies in a file.

    `reply` is the reply itself, where engine and site are one process and no text was made; `joint` those of all sites
    of the call at once.
    """

    site: str
    text: str | TextFile | None
    missing: Missing | None = None
    create_s: float | None = None
    reply: dict[str, Any] | None = None
    joint: Joint | None = None


@dataclass(frozen=True)
class Belated:
    """An answer to an earlier call, for which its site was late."""

    site: str
    method: str
    request: dict[str, Any]
    text: str | TextFile


@dataclass
class Replies:
    """The replies of one call, yielded in the sites' order as soon as each can be.

    Iterate once. A reply that comes before its turn waits as text, a large one in a file, so that sums are made in one
    order on every engine while no more than the early ones are held. What was missing is complete after the iteration.
    """

    requests: Mapping[str, dict[str, Any]]
    arrivals: Iterator[Arrival]
    bytes_sent: dict[str, int]
    missing: dict[str, Missing] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    bytes_received: dict[str, int] = field(default_factory=dict)
    site_s: dict[str, float] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    # Site to seconds that asking it took, and from the call's beginning until its answer was here.
    create_s: dict[str, float] = field(default_factory=dict)
    arrived_s: dict[str, float] = field(default_factory=dict)
    decode_s: float = 0.0
    # Site to why answers of it were dropped beside the first: a second one, or of a site that was not asked.
    dropped: dict[str, list[str]] = field(default_factory=dict)
    # Site to what was made of its answer to an earlier round.
    belated: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    busy_s: float = 0.0
    begun: float = field(default_factory=time.perf_counter)
    # Sends the requests, where an engine can do so before anybody looks for replies.
    send: Callable[[], None] | None = None
    # Whether nobody has looked for them yet, and others are still looked for.
    ahead: bool = False
    # After so many answers nobody waits for a site that cannot answer, as its engine knows; None: all are waited for.
    enough: int | None = None
    over: bool = False
    # Sites that earlier calls lost and this one did not ask, with the reason of each; who books the calls knows.
    lost_before: Callable[[], Mapping[str, str]] | None = None
    # The last timing that a reply had, with its phases and their sum.
    _timing: tuple[dict[str, Any], dict[str, float], float] | None = None

    def send_ahead(self) -> None:
        """Send the requests now, while the replies of the call before are still on their way."""
        self.ahead = True
        if self.send is not None:
            self.send()

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for site, reply in self.taken():
            if isinstance(reply, Joint):
                yield from reply.split().items()
            else:
                yield site, reply

    def taken(self) -> Iterator[tuple[str, dict[str, Any] | Joint]]:
        """Yield what iterating does, but the replies of several sites as one, by no name, where they came so."""
        self.ahead = False
        start = time.perf_counter()
        turn = deque(self.requests)
        early: dict[str, str | TextFile | dict[str, Any] | None] = {}
        for arrival in self.arrivals:
            if arrival.joint is not None:
                self._book(arrival.joint, round(time.perf_counter() - start, 4))
                turn = deque(site for site in turn if site not in arrival.joint.heads)
                given = time.perf_counter()
                yield "", arrival.joint
                self.busy_s += time.perf_counter() - given
                continue
            if arrival.site not in self.requests or arrival.site in self.arrived_s:
                why = "a second answer" if arrival.site in self.requests else "an answer that nobody asked for"
                self.dropped.setdefault(printable(arrival.site, 200), []).append(why)
                continue
            if arrival.missing is not None:
                self.missing[arrival.site] = arrival.missing
            # Who made the arrival may hold it while the reply is used: what is large must not live on there.
            early[arrival.site] = arrival.text if arrival.reply is None else arrival.reply
            arrival.text = arrival.reply = None
            self.arrived_s[arrival.site] = round(time.perf_counter() - start, 4)
            if arrival.create_s is not None:
                self.create_s[arrival.site] = round(arrival.create_s, 4)
            while turn and turn[0] in early:
                site = turn.popleft()
                begun = time.perf_counter()
                reply = self._read(site, early.pop(site))
                self.decode_s += time.perf_counter() - begun
                if reply is not None:
                    given = time.perf_counter()
                    yield site, reply
                    self.busy_s += time.perf_counter() - given
        self.seconds = time.perf_counter() - start
        self.over = True

    @classmethod
    def of(cls, calls: Sequence[Replies]) -> Replies:
        """Put the books of several calls together, which are over; a site is missing if any of them missed it."""
        if len(calls) == 1:
            return calls[0]
        missing = {site: reason for call in calls for site, reason in call.missing.items()}
        requests = {site: request for call in calls for site, request in call.requests.items()}
        answered = [site for site in requests if site not in missing and any(site in call.answered for call in calls)]
        return cls(requests, iter(()), {}, missing, answered)

    def _read(self, site: str, given: str | TextFile | dict[str, Any] | None) -> dict[str, Any] | None:
        if given is None:
            return None
        if isinstance(given, dict):
            reply = given
        else:
            self.bytes_received[site] = len(given)
            try:
                reply = wire.read_reply(given, self.requests[site])
            except WireError as error:
                self.reject(site, str(error))
                return None
        if reply["status"] == "error":
            # A site's words reach terminals and logs.
            self.missing[site] = Missing(printable(reply.get("kind"), 40), printable(reply.get("message")))
            return None
        self.answered.append(site)
        timing = reply.get("timing")
        if isinstance(timing, dict):
            self.phases[site], self.site_s[site] = self._seconds_of(timing)
        return reply

    def _seconds_of(self, timing: dict[str, Any]) -> tuple[dict[str, float], float]:
        """Return the phases of a site's work in seconds, and their sum."""
        # Of sites that were simulated together it is one.
        if self._timing is None or self._timing[0] is not timing:
            phases = {printable(name, 40): round(s, 6) for name, s in timing.items() if _are_seconds(s)}
            self._timing = timing, phases, round(sum(phases.values()), 6)
        return self._timing[1:]

    def _book(self, joint: Joint, arrived_s: float) -> None:
        """Book the replies of all sites."""
        phases, seconds = self._seconds_of(joint.timing)
        self.answered += joint.heads
        self.arrived_s |= dict.fromkeys(joint.heads, arrived_s)
        self.phases |= dict.fromkeys(joint.heads, phases)
        self.site_s |= dict.fromkeys(joint.heads, seconds)

    def reject(self, site: str, reason: str) -> None:
        """Drop a reply that failed the caller's checks: it is counted as missing, and named."""
        self.missing[site] = Missing("wrong", printable(reason))
        if site in self.answered:
            self.answered.remove(site)

    def require(self, quorum: int, what: str) -> None:
        """Raise FederationError, naming every missing site, when fewer than `quorum` sites gave a usable reply."""
        if len(self.answered) < quorum:
            reasons = "".join(f"\n  {site}: {missing}" for site, missing in sorted(self.missing.items()))
            if self.lost_before is not None:
                before = sorted(self.lost_before().items())
                reasons += "".join(f"\n  {site} was lost before: {reason}" for site, reason in before)
            raise FederationError(
                f"{what}: {len(self.answered)} of {len(self.requests)} sites answered, {quorum} are needed "
                f"(participation.minimum){reasons}"
            )


def _are_seconds(value: Any) -> bool:
    """Say whether this is a time that a call may take."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LONGEST_S


class Federation(Protocol):
    """A set of sites that can be asked."""

    def sites(self) -> Sequence[Site]:
        """Return the sites in their order, which is by name on every engine."""

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Send one request to each named site.

        Parameters
        ----------
        method
            ``RPC_summary``, ``RPC_prepare``, ``RPC_train`` or ``RPC_evaluate``.
        requests
            Site name to message, in the order in which replies are yielded.
        deadline_s
            Seconds after which sites that have not answered are ``late``.
        """

    def overdue(self, site: str) -> bool:
        """Say whether a site was late with its last answer, and has not given it since."""

    def belated(self) -> Sequence[Belated]:
        """Return what sites have answered by now to the last call for which they were late; each answer once."""


def check_names(sites: Sequence[Site]) -> list[Site]:
    """Sort sites by name; raises FederationError when two have the same."""
    known: set[str] = set()
    for site in sites:
        if site.name in known:
            raise FederationError(f"two sites are named '{site.name}'; names must differ")
        known.add(site.name)
    return sorted(sites, key=lambda site: site.name)
