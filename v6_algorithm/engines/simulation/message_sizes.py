"""How long the messages of simulated sites are that are handed over, of which nobody makes a text; `local` asks.

A request is written once a call for all sites that are asked the same, which differ by their names. A reply is as long
as the one that passed as text of a site that was asked to do the same: it differs by the digits of its numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.learning.metrics import CheckedState

Request = Mapping[str, Any]


def kind_of(request: Request) -> tuple[Any, ...]:
    """Return what a request asks for, without what is sent for it: sites with one kind do the same."""
    return tuple(
        (item["fold"], bool(item.get("train", True)), tuple(item.get("evaluate", ())), len(item), item.get("epochs"))
        for item in request.get("folds", ())
    )


class MessageSizes:
    """Bytes of messages, as the text would have them.

    Attributes
    ----------
    last_passed
        The newest request that was answered well as text.
    """

    def __init__(self) -> None:
        self.last_passed: Request | None = None
        # By method, and whether each item was trained and compressed: how long a reply was, but for its site's name.
        self._replies: dict[Any, int] = {}

    def passed(self, method: str, request: Request, length: int) -> None:
        """Take in how long the text of a good reply was; the newest is kept."""
        self.last_passed = request
        self._replies[_reply_kind(method, request)] = length - _of_name(request["site"])

    def book(
        self,
        method: str,
        sites: Iterable[str],
        replies: Replies,
        answers: Callable[[], Mapping[str, Mapping[str, Any]]],
    ) -> None:
        """Book the bytes of messages that were handed over; of replies of which none passed as text none are known.

        `answers` gives the replies by site, and is asked where updates are compressed for the first time.
        """
        requests: dict[Any, int] = {}
        for site in sites:
            request, name = replies.requests[site], _of_name(site)
            if (kind := kind_of(request)) not in requests:
                requests[kind] = wire.text_length(request) - name
            replies.bytes_sent[site] = requests[kind] + name
            reply_kind = _reply_kind(method, request)
            known = self._replies.get(reply_kind)
            if known is None and any(compressed for _, compressed in reply_kind[1:]):
                reply = answers().get(site, {})
                if reply.get("status") == "ok":
                    known = self._replies[reply_kind] = wire.text_length(_written(reply)) - name
            if known is not None:
                replies.bytes_received[site] = known + name


def _written(reply: Request) -> dict[str, Any]:
    """Return a reply with the states in it written out."""
    folds = [
        item
        | {
            "metrics": {
                part: {name: dict(state.whole()) if isinstance(state, CheckedState) else state for name, state in of}
                for part, states in item["metrics"].items()
                for of in [states.items()]
            }
        }
        for item in reply["folds"]
    ]
    return {**reply, "folds": folds}


def _reply_kind(method: str, request: Request) -> tuple[Any, ...]:
    return method, *(
        (bool(item.get("train", True)), "compress" in (item.get("strategy") or {})) for item in request.get("folds", ())
    )


def _of_name(site: str) -> int:
    """Return how long a site's name is in a message, where it stands once."""
    return len(json.dumps(site))
