"""The calls of one run: each is sent, and booked: who answered, who did not and why, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from v6_algorithm.coordinator.secure_aggregation import SummingFederation
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Federation, Replies
from v6_algorithm.experiment import Experiment

Event = dict[str, Any]


class Caller:
    """Sends calls, and keeps the book on them.

    Parameters
    ----------
    federation
        The sites and the way to them.
    experiment
        What every request carries.
    on_event
        Called with a small dictionary when something is done.
    """

    def __init__(self, federation: Federation, experiment: Experiment, on_event: Callable[[Event], None]) -> None:
        self._federation = federation
        self._experiment = experiment
        # The same at every call.
        self._for_sites = experiment.for_sites()
        self.on_event = on_event
        self.participation: list[dict[str, Any]] = []
        self.timing: list[dict[str, Any]] = []
        self._calls: list[tuple[str, int, Replies]] = []
        # The real sites, where they are asked as one.
        self.taking_part: list[str] = []

    @property
    def takes_held(self) -> bool:
        """Whether what is sent need not be text; see `wire.Held`."""
        return bool(getattr(self._federation, "takes_held", False))

    def prepare(self, sites: Sequence[str], body: dict[str, Any]) -> Replies:
        """Send one RPC_prepare message to each site; one that is offline, and may join later, is not waited for."""
        replies = self.call("RPC_prepare", 0, dict.fromkeys(sites, body))
        if self._experiment.may_join:
            replies.enough = self._experiment.participation.minimum
        return replies

    def call(
        self,
        method: str,
        number: int,
        bodies: dict[str, dict[str, Any]],
        *,
        together: int | None = None,
        ahead: bool = False,
    ) -> Replies:
        """Send one message to each site; the experiment and the round go with it.

        `together` is the smallest number of sites that any sum of this call is over; all that are asked if absent.
        With `ahead` the messages go out at once, while the replies of the call before are still waited for.
        """
        self.close_books(over=ahead)
        common = {"experiment": self._for_sites, "sites": len(bodies) if together is None else together}
        requests = {
            site: wire.message(site=site, round=number, attempt=1, **common, **body) for site, body in bodies.items()
        }
        if method == "RPC_train" and not self.takes_held:
            for request in requests.values():
                if "folds" in request:
                    request["folds"] = [wire.with_texts(item) for item in request["folds"]]
        replies = self._federation.call(method, requests, deadline_s=self._experiment.participation.deadline_s)
        self._book(method, number, replies)
        replies.lost_before = lambda: self._lost_before(bodies)
        if ahead:
            replies.send_ahead()
        return replies

    def sum_over(self, sites: Sequence[str], minimum: int) -> SummingFederation:
        """Ask these sites from now on as one, whose numbers are sums under masks."""
        self.close_books()
        self._federation = summing = SummingFederation(self._federation, self._experiment, sites, minimum, self._book)
        self.taking_part = summing.names
        return summing

    def _lost_before(self, asked: Collection[str]) -> dict[str, str]:
        """Return the sites that were missing in a booked call and are not asked any more, with their last reasons."""
        lost = {site: reason for entry in self.participation for site, reason in entry["missing"].items()}
        return {site: reason for site, reason in lost.items() if site not in asked}

    def _book(self, method: str, number: int, replies: Replies) -> None:
        self._calls.append((method.removeprefix("RPC_"), number, replies))

    def overdue(self, site: str) -> bool:
        """Say whether a site still owes the answer to a call for which it was late."""
        return self._federation.overdue(site)

    def belated(self, method: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield site, request and reply of each answer to an earlier call of `method` that has come too late for it."""
        for late in self._federation.belated():
            if late.method != method:
                continue
            with suppress(WireError):  # as good as none
                reply = wire.read_reply(late.text, late.request)
                if reply["status"] == "ok":
                    yield late.site, late.request, reply

    def close_books(self, *, over: bool = False) -> None:
        """Book the calls that are over, or that nobody will look at any more; with `over` only the former.

        What was sent ahead stays open until its replies are looked for.
        """
        begun = [*(replies.begun for _, _, replies in self._calls), time.perf_counter()][1:]
        open_calls, self._calls = self._calls, []
        for (call, number, replies), end in zip(open_calls, begun, strict=True):
            if replies.ahead or (over and not replies.over):
                self._calls.append((call, number, replies))
                continue
            self._close(call, number, replies, end)

    def _close(self, call: str, number: int, replies: Replies, end: float) -> None:
        """Book one call; `end` is when the next one began."""
        missing = {site: str(reason) for site, reason in sorted(replies.missing.items())}
        booked = {"round": number, "call": call, "answered": sorted(replies.answered), "missing": missing}
        booked |= {"belated": replies.belated} if replies.belated else {}
        self.participation.append(booked | ({"dropped": replies.dropped} if replies.dropped else {}))
        self.timing.append(
            {
                "round": number,
                "call": call,
                "seconds": round(replies.seconds, 4),
                # Until the next call: with what `master` made of the answers, and its checkpoint.
                "round_s": round(end - replies.begun, 4),
                "waiting_s": round(replies.seconds - replies.busy_s, 4),
                "create_s": replies.create_s,
                "arrived_s": replies.arrived_s,
                "decode_s": round(replies.decode_s, 4),
                "aggregate_s": round(replies.busy_s, 4),
                "site_s": replies.site_s,
                "phases": replies.phases,
                "bytes_sent": replies.bytes_sent,
                "bytes_received": replies.bytes_received,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the books of all calls, which must be over."""
        self.close_books()
        return {"participation": self.participation, "timing": self.timing}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.participation, self.timing = list(state["participation"]), list(state["timing"])
        self._calls.clear()
