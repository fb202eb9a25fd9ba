"""The engine of `v6-algorithm run`: all sites in this process, one after another, without copies of their data.

Every request and reply still goes through JSON text, so what passes here passes on a node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Belated, Missing, Replies, Site, check_names
from v6_algorithm.site import SiteContext, handle


class LocalFederation:
    """Sites simulated in this process.

    Parameters
    ----------
    contexts
        Site name to its data, policy and memory.
    """

    def __init__(self, contexts: Mapping[str, SiteContext]) -> None:
        self._contexts = {name: replace(context, lasting=True) for name, context in contexts.items()}

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        return check_names([Site(name, number) for number, name in enumerate(self._contexts)])

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Ask the sites in turn, each when its reply is looked for; see `Federation.call`."""
        sent: dict[str, int] = {}
        return Replies(requests, self._answer(method.removeprefix("RPC_"), requests, deadline_s, sent), sent)

    def overdue(self, site: str) -> bool:
        """Nobody owes an answer here: a site that is late was not asked, since the others took the time."""
        return False

    def belated(self) -> Sequence[Belated]:
        """Nothing: who is late here was not asked."""
        return ()

    def _answer(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, sent: dict[str, int]
    ) -> Iterator[Arrival]:
        end = time.monotonic() + deadline_s
        for site, request in requests.items():
            if time.monotonic() > end:
                yield Arrival(site, None, Missing("late", f"no answer within {deadline_s:g} s"))
                continue
            text = wire.to_text(request)
            sent[site] = len(text)
            yield Arrival(site, wire.to_text(handle(method, json.loads(text), self._contexts[site], raise_bugs=True)))
