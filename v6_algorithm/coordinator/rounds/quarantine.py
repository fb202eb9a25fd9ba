"""Which sites are left out because they fail again and again, and when each is asked anew.

A site whose every answer is wrong, or whose container ends in a crash each time, costs the others its waiting and hides
in the table among the unlucky. Lateness has rules of its own: see `stragglers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from v6_algorithm.exchange.protocol import Missing, Replies

# Rests double up to this many rounds, so that a site that was repaired is found again.
_LONGEST_REST = 15
# The deadline, or the choice not to ask: no failure of an answer.
_NO_FAILURE = ("late", "resting", "quarantined")


class Quarantine:
    """Books who failed. After `after` failures in a row a site is left out of 1 round, after each further one of twice
    as many, 15 at most; one good answer and all is forgotten.

    Parameters
    ----------
    after
        Failures in a row; None: nobody is left out.
    """

    def __init__(self, after: int | None) -> None:
        self._after = after
        self._rounds: dict[str, list[int]] = {}
        self._until: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def holds(self, site: str, round: int) -> bool:
        """Say whether a site is left out of this round."""
        return round < self._until.get(site, 0)

    def name(self, replies: Replies, sites: Iterable[str]) -> None:
        """Let the replies of a call say why these sites were not asked, and when they will be."""
        for site in sites:
            rounds = self._rounds[site]
            replies.missing[site] = Missing(
                "quarantined",
                f"it failed {len(rounds)} times in a row, last in round {rounds[-1]} ({self._last[site]}); it is asked "
                f"again in round {self._until[site]}",
            )

    def book(self, replies: Replies, round: int) -> None:
        """Take in who of those asked failed."""
        if self._after is None:
            return
        for site in replies.requests:
            missing = replies.missing.get(site)
            if missing is None:
                for book in (self._rounds, self._until, self._last):
                    book.pop(site, None)
            elif missing.kind not in _NO_FAILURE:
                self._rounds.setdefault(site, []).append(round)
                self._last[site] = str(missing)
                if (over := len(self._rounds[site]) - self._after) >= 0:
                    self._until[site] = round + 1 + min(2**over, _LONGEST_REST)

    def state_dict(self) -> dict[str, Any]:
        """Return who failed when, and until which round each is left out."""
        return {"rounds": self._rounds, "until": self._until, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._rounds = {site: list(rounds) for site, rounds in state.get("rounds", {}).items()}
        self._until, self._last = dict(state.get("until", {})), dict(state.get("last", {}))
