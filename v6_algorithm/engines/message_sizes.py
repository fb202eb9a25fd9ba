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
        # By method, and whether each item was trained: a site's name, and how long its reply was.
        self._replies: dict[Any, tuple[str, int]] = {}

    def passed(self, method: str, request: Request, length: int) -> None:
        """Take in how long the text of a good reply was; the newest is kept."""
        self.last_passed = request
        self._replies[_reply_kind(method, request)] = request["site"], length

    def book(self, method: str, sites: Iterable[str], replies: Replies) -> None:
        """Book the bytes of messages that were handed over; those of replies that none passed of as text are unknown."""
        requests: dict[Any, tuple[str, int]] = {}
        for site in sites:
            request = replies.requests[site]
            if (kind := kind_of(request)) not in requests:
                requests[kind] = site, wire.text_length(request)
            replies.bytes_sent[site] = _of_site(site, *requests[kind])
            if (known := self._replies.get(_reply_kind(method, request))) is not None:
                replies.bytes_received[site] = _of_site(site, *known)


def _reply_kind(method: str, request: Request) -> tuple[Any, ...]:
    return method, *(bool(item.get("train", True)) for item in request.get("folds", ()))


def _of_site(site: str, like: str, length: int) -> int:
    """Return the length of one site's message from that of another, which names itself once."""
    return length if len(site) == len(like) and site.isascii() else length + len(json.dumps(site)) - len(json.dumps(like))
