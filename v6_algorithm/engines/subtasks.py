"""One site's part in a call on vantage6: the subtask that is to be created, and a result that cannot be read yet."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from v6_algorithm.exchange.protocol import Arrival, Missing

# Looks at a finished run before its result is given up for there being none, and seconds before it is for trouble.
READS, OUTAGE_S = 3, 120.0
LONGEST_PAUSE_S = 15.0


@dataclass
class Creation:
    """A subtask that is to be created."""

    method: str
    request: dict[str, Any]
    organization: int
    question: str
    characters: int = 0
    task: int | None = None
    attempts: int = 0
    due: float = 0.0
    seconds: float = 0.0
    trouble: str = "it was not tried"

    def failed(self, trouble: str, pause_s: float) -> None:
        """Try again after a pause, twice as long each time."""
        self.attempts += 1
        self.trouble = trouble
        self.due = time.monotonic() + min(pause_s * 2 ** (self.attempts - 1), LONGEST_PAUSE_S)

    def missing(self, when: str = "") -> Missing:
        """Say that there is none."""
        return Missing("unreachable", f"no subtask was created{when}: {self.trouble}")


class Unread:
    """Runs that are completed and whose results cannot be read: how often, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}

    def give_up(self, site: str, trouble: str) -> Arrival | None:
        """Return what is made of it; None is 'look again'."""
        looks, since = self._since.get(site, (0, time.monotonic()))
        self._since[site] = looks + 1, since
        if trouble == "it has none":
            done = looks + 1 >= READS
            return (
                Arrival(site, None, Missing("wrong", "its run completed without a readable result")) if done else None
            )
        if time.monotonic() - since < OUTAGE_S:
            return None
        return Arrival(site, None, Missing("unreachable", f"its result cannot be fetched ({trouble})"))
