"""One site's part in a call on vantage6: a subtask to be created, a node that is offline, an unreadable result."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from v6_algorithm.exchange.protocol import Arrival, Missing

# Looks at a finished run before its result is given up for there being none, and seconds before it is for trouble.
READS, OUTAGE_S = 3, 120.0
LONGEST_PAUSE_S = 15.0
# Seconds for which the server calls a node offline before nobody waits for it: one that is started anew is back sooner.
OFFLINE_S = 90.0


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


class OfflineNodes:
    """Subtasks that nobody has begun, and since when the server calls the nodes that are to do so offline."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._since: dict[int, float] = {}

    def are_all(self, tasks: Collection[int]) -> bool:
        """Say whether the server has called the nodes of all these subtasks offline for `OFFLINE_S`."""
        now = time.monotonic()
        since = [self._since.setdefault(task, now) if self._is_offline(task) else None for task in tasks]
        for task, begun in zip(tasks, since, strict=True):
            if begun is None:
                self._since.pop(task, None)
        return all(begun is not None and now - begun >= OFFLINE_S for begun in since)

    def _is_offline(self, task: int) -> bool:
        try:
            (run,) = self._client.run.from_task(task)
            return bool(run["node"]["status"] == "offline")
        except Exception:  # who says nothing does not call it offline
            return False


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
