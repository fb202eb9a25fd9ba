"""The engine on vantage6 4.x: the container's `AlgorithmClient`, or vantage6's own `MockAlgorithmClient`.

The client's own gathering is not used: one failed run of a shared subtask cancels the others, results come without
their organisation, and its polling backs off to minutes. Here every site gets a subtask of its own, is looked at
in a fixed rhythm, and has a named reason when it does not answer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from v6_algorithm.engines import runs
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Belated, Missing, Replies, Site, check_names

# Looks at a finished run's result before it is given up.
_READS = 3


class Vantage6Federation:
    """The organisations of a vantage6 collaboration.

    Parameters
    ----------
    client
        What vantage6 hands to `master`.
    organizations
        Ids or names of those that take part; None: all of the collaboration.
    names
        Organisation id to the site's name in the results; None: the organisations' own names.
    poll_s
        Seconds between two looks at the subtasks.
    """

    def __init__(
        self,
        client: Any,
        *,
        organizations: Sequence[int | str] | None = None,
        names: Mapping[int, str] | None = None,
        poll_s: float = 0.5,
    ) -> None:
        self._client = client
        self._poll_s = poll_s
        self._real = hasattr(client, "request")
        self._sites = self._find(organizations, names or {})
        # Site to the last subtask for which it was late, and what that asked.
        self._owed: dict[str, tuple[int, str, dict[str, Any]]] = {}

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        return self._sites

    def _find(self, wanted: Sequence[int | str] | None, names: Mapping[int, str]) -> list[Site]:
        listed = self._client.organization.list()
        if not isinstance(listed, list) or not all(isinstance(item, dict) and "id" in item for item in listed):
            raise FederationError("the server did not list the collaboration's organisations")
        sites = [Site(names.get(int(item["id"]), str(item["name"])), int(item["id"])) for item in listed]
        if wanted is not None:
            for key in wanted:
                if not any(key in (site.id, site.name) for site in sites):
                    known = ", ".join(f"{site.id} ({site.name})" for site in sites)
                    raise FederationError(f"organisation {key!r} is not in the collaboration; it has: {known}")
            sites = [site for site in sites if site.id in wanted or site.name in wanted]
        return check_names(sites)

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Create one subtask a site, then wait for them; see `Federation.call`."""
        sent: dict[str, int] = {}
        return Replies(requests, self._answer(method, requests, deadline_s, sent), sent)

    def overdue(self, site: str) -> bool:
        """Look whether the subtask for which a site was late is still open; see `Federation.overdue`."""
        return site in self._owed and self._end(self._owed[site][0]) is None

    def belated(self) -> Sequence[Belated]:
        """Collect the results of late subtasks that have ended; see `Federation.belated`."""
        found = []
        for site, (task_id, method, request) in list(self._owed.items()):
            end = self._end(task_id)
            if end is None:
                continue
            del self._owed[site]
            text = self._collect(site, task_id, end).text
            if text is not None:
                found.append(Belated(site, method, request, text))
        return found

    def _answer(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, sent: dict[str, int]
    ) -> Iterator[Arrival]:
        deadline = time.monotonic() + deadline_s
        ids = {site.name: site.id for site in self._sites}
        tasks: dict[str, int] = {}
        for site, request in requests.items():
            text = wire.to_text(request)
            sent[site] = len(text)
            try:
                # Parsed again so that the mock, which does not serialise inputs, gets what a node would.
                task = self._create(method, json.loads(text), ids[site])
            except SystemExit:
                # The mock runs the site's code in here, and the tools call exit().
                yield Arrival(site, None, Missing("crashed", runs.reason("crashed")))
            except Exception as error:
                yield Arrival(site, None, Missing("crashed", f"{runs.reason('crashed')}: {type(error).__name__}"))
            else:
                if "id" in task:
                    tasks[site] = task["id"]
                else:
                    yield Arrival(site, None, Missing("unreachable", f"no subtask was created: {task.get('msg')}"))
        while tasks:
            for site, task_id in list(tasks.items()):
                end = self._end(task_id)
                if end is None:
                    continue
                del tasks[site]
                yield self._collect(site, task_id, end)
            if not tasks:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(self._poll_s)
        for site, task_id in tasks.items():
            status = self._status(task_id) or "unknown"
            offline = "; its node seems to be offline" if status == "pending" else ""
            reason = f"no answer within {deadline_s:g} s (its run is {status}{offline})"
            self._owed[site] = task_id, method, requests[site]
            yield Arrival(site, None, Missing("late", reason))

    def _create(self, method: str, request: dict[str, Any], organization: int) -> dict[str, Any]:
        task = self._client.task.create(
            input_={"method": method, "kwargs": {"request": request}},
            organizations=[organization],
            name=runs.subtask_name(method, request["round"], request["site"]),
        )
        # Errors come back as dictionaries with a message.
        return task if isinstance(task, dict) else {"msg": "no answer from the server"}

    def _end(self, task_id: int) -> str | None:
        """Return the status that a subtask ended with; None while it is open, or cannot be asked for."""
        status = self._status(task_id)
        return None if status in runs.ALIVE else status

    def _status(self, task_id: int) -> str | None:
        """Ask for a subtask's status; None is 'ask again', for the proxy also fails in passing."""
        if not self._real:
            return "completed"
        try:
            answer = self._client.request(f"task/{task_id}/status")
        except Exception:  # whatever the network does, the next look may succeed; the deadline ends it
            return None
        return answer.get("status") if isinstance(answer, dict) else None

    def _collect(self, site: str, task_id: int, status: str) -> Arrival:
        if status != "completed":
            kind = "refused" if status == "not allowed" else "crashed"
            return Arrival(site, None, Missing(kind, f"{runs.reason(status)}{self._last_line(task_id)}"))
        for attempt in range(_READS):
            if attempt:
                time.sleep(self._poll_s)
            try:
                results = self._client.result.from_task(task_id)
            except Exception:  # the proxy fails in passing; a round's work is not lost to that
                results = None
            if isinstance(results, list) and len(results) == 1 and results[0] is not None:
                return Arrival(site, json.dumps(results[0]))
        return Arrival(site, None, Missing("wrong", "its run completed without a readable result"))

    def _last_line(self, task_id: int) -> str:
        """Return the last line of a failed run's log; the node decides whether there is one."""
        try:
            return runs.last_line(self._client.run.from_task(task_id)[0].get("log"))
        except Exception:  # no log is no reason to lose the round
            return ""


def container_client() -> Any:
    """Return the client of the vantage6 container that this is; raises ExperimentError elsewhere."""
    if "TOKEN_FILE" not in os.environ:
        raise ExperimentError("client: there is none, and this is no vantage6 container; to run here: v6-algorithm run")
    from vantage6.algorithm.client import AlgorithmClient

    token = Path(os.environ["TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    return AlgorithmClient(
        token=token, host=os.environ["HOST"], port=os.environ["PORT"], path=os.environ.get("API_PATH", "")
    )
