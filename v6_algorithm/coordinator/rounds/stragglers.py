"""Which sites rest because they were late: asking one that is away costs the others a whole deadline, every round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from v6_algorithm.exchange.protocol import Missing, Replies


class Stragglers:
    """Books who was late. A site that was late n times in a row is left out of the next 2 ** n - 1 rounds: 1, 3, 7, …

    It is back sooner when it answers the call for which it was late: too late to count, but it is there again. So a
    site that went offline costs a few deadlines over a run, not one a round, and one that comes back is found.

    Parameters
    ----------
    overdue
        Says whether a site still owes an answer (`Federation.overdue`).
    """

    def __init__(self, overdue: Callable[[str], bool]) -> None:
        self._overdue = overdue
        self._times: dict[str, int] = {}
        self._until: dict[str, int] = {}
        # The round of the answer that each still owes, or owed when it was last looked at.
        self._owed: dict[str, int] = {}

    def rests(self, site: str, round: int) -> bool:
        """Say whether a site is left out of this round."""
        return round < self._until.get(site, 0) and self._overdue(site)

    def away(self, site: str) -> bool:
        """Say whether a site was late when it was last asked, and owes that answer to this moment."""
        return site in self._times and self._overdue(site)

    def came_too_late(self) -> list[tuple[str, int]]:
        """Return who has answered since, and to which round; each answer once."""
        there = [(site, round) for site, round in self._owed.items() if not self._overdue(site)]
        for site, _ in there:
            del self._owed[site]
        return there

    def name_resting(self, replies: Replies, sites: Iterable[str]) -> None:
        """Let the replies of a call say why these sites were not asked."""
        for site in sites:
            replies.missing[site] = Missing("resting", "it still owes the answer for which it was late")

    def book(self, replies: Replies, round: int) -> None:
        """Take in who of those asked was late."""
        for site in replies.requests:
            missing = replies.missing.get(site)
            if missing is not None and missing.kind == "late":
                self._times[site] = self._times.get(site, 0) + 1
                self._until[site] = round + 2 ** self._times[site]
                self._owed[site] = round
            else:
                self._times.pop(site, None)

    def state_dict(self) -> dict[str, Any]:
        """Return who was late how often in a row, and until which round each rests."""
        return {"times": self._times, "until": self._until, "owed": self._owed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._times, self._until = dict(state["times"]), dict(state["until"])
        self._owed = dict(state.get("owed", {}))
