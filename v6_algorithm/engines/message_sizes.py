"""How long the messages of simulated sites are that are handed over, of which nobody makes a text; `local` asks.

A request is written once a call for all sites that are asked the same, which differ by their names. A reply is as long
as the one that passed as text of a site that was asked to do the same: it differs by the digits of its numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Replies

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
        # By method, and whether each item was trained: how long a reply was, but for its site's name.
        self._replies: dict[Any, int] = {}

    def passed(self, method: str, request: Request, length: int) -> None:
        """Take in how long the text of a good reply was; the newest is kept."""
        self.last_passed = request
        self._replies[_reply_kind(method, request)] = length - _of_name(request["site"])

    def book(self, method: str, sites: Iterable[str], replies: Replies) -> None:
        """Book the bytes of messages that were handed over; of replies of which none passed as text none are known."""
        requests: dict[Any, int] = {}
        for site in sites:
            request, name = replies.requests[site], _of_name(site)
            if (kind := kind_of(request)) not in requests:
                requests[kind] = wire.text_length(request) - name
            replies.bytes_sent[site] = requests[kind] + name
            if (known := self._replies.get(_reply_kind(method, request))) is not None:
                replies.bytes_received[site] = known + name


def _reply_kind(method: str, request: Request) -> tuple[Any, ...]:
    return method, *(bool(item.get("train", True)) for item in request.get("folds", ()))


def _of_name(site: str) -> int:
    """Return how long a site's name is in a message, where it stands once."""
    return len(json.dumps(site))
