"""`master`'s side of the resident trainers: it asks each site for one when a run starts, and sends the word to end.

The entry functions use it around a run. That a site has none is never an error: its containers then do the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Site

MOST_AT_ONCE = 8
_METHOD = "RPC_reside"
# Longer than a round in which the others waited a whole deadline for somebody else.
_BEYOND_DEADLINE_S = 600.0


class Residents:
    """The resident trainers of one task.

    Parameters
    ----------
    client
        vantage6's, of the container.
    sites
        Who is asked for one.
    """

    def __init__(self, client: Any, sites: Sequence[Site]) -> None:
        self._client, self._sites = client, sites
        self._tasks: dict[int, int] = {}

    def start(self, deadline_s: float) -> list[str]:
        """Ask each site for one, without waiting; returns a sentence for each that could not be asked."""
        asked = self._at_once(self._sites, {"idle_s": deadline_s + _BEYOND_DEADLINE_S})
        self._tasks = {site.id: int(task["id"]) for site, task in asked.items() if "id" in task}
        return [
            f"site '{site.name}' was not asked for a resident trainer: {str(task.get('msg'))[:200]}"
            for site, task in asked.items()
            if "id" not in task
        ]

    def end(self) -> None:
        """Send the word to end to those that go on, without waiting."""
        self._at_once([site for site in self._sites if site.id in self._tasks and self._goes_on(site)], {"end": True})
        self._tasks.clear()

    def _goes_on(self, site: Site) -> bool:
        try:
            answer = self._client.request(f"task/{self._tasks[site.id]}/status")
            return answer.get("status") in runs.ALIVE
        except Exception:  # whatever the network does: it sees by itself that this task is over
            return False

    def _at_once(self, sites: Sequence[Site], body: Mapping[str, Any]) -> dict[Site, dict[str, Any]]:
        def ask(site: Site) -> dict[str, Any]:
            request = wire.message(site=site.name, round=0, attempt=1, **body)
            try:
                task = self._client.task.create(
                    input_={"method": _METHOD, "kwargs": {"request": request}},
                    organizations=[site.id],
                    name=f"resident trainer at {site.name}" if "idle_s" in body else f"end at {site.name}",
                    description="",
                )
            except Exception as error:  # a site without one is served by its containers
                return {"msg": type(error).__name__}
            return task if isinstance(task, dict) else {"msg": "no answer from the server"}

        if not sites:
            return {}
        with ThreadPoolExecutor(min(MOST_AT_ONCE, len(sites))) as pool:
            return dict(zip(sites, pool.map(ask, sites), strict=True))


@contextmanager
def residents(
    client: Any, sites: Sequence[Site], *, wanted: bool, deadline_s: float, say: Callable[[str], None]
) -> Iterator[None]:
    """Have resident trainers at the sites inside the block, where they are `wanted` and there is a real network."""
    if not wanted or not hasattr(client, "request"):
        yield
        return
    trainers = Residents(client, sites)
    for sentence in trainers.start(deadline_s):
        say(sentence)
    try:
        yield
    finally:
        trainers.end()
