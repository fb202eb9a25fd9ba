"""A task at a vantage6 4.x server, as the researcher who sent it sees it: how far it is, and what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.errors import ExperimentError, FederationError, ServerError

# Subtasks that one look at a running task asks for; the newest come first.
_NEWEST = 60
# How Python ends the traceback of an error of ours; it may have several lines.
_OWN_ERROR = re.compile(r"^v6_algorithm\.errors\.(\w+): (.*)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Look:
    """What one look at a task shows.

    Attributes
    ----------
    status
        Of the run of `master`: pending, active, completed, ….
    lines
        Of its log, since the last look.
    call
        Method and round of the newest call to the sites; None before the first.
    sites
        The sites that were asked in that call, and the status of each.
    rounds
        The numbers of the rounds that its log tells since the last look, as events of `master.run` have them.
    """

    status: str
    lines: Sequence[str]
    call: tuple[str, int] | None
    sites: Mapping[str, str]
    rounds: Sequence[Mapping[str, Any]] = ()

    @property
    def ended(self) -> bool:
        """Whether the task runs no more."""
        return self.status not in runs.ALIVE


class Task:
    """A task that was sent.

    Parameters
    ----------
    client
        vantage6's own, logged in.
    ask
        One request to the server, which raises UnreachableError when there is no answer now.
    id, name
        The task's.
    """

    def __init__(self, client: Any, ask: Callable[..., dict[str, Any]], id: int, name: str) -> None:
        self.id, self.name = id, name
        # As the server names it; empty of a task that this process sends, which knows it anyway.
        self.image = ""
        self._client, self._ask = client, ask
        self._seen = 0

    def look(self) -> Look:
        """Ask how far it is; raises UnreachableError when the server does not answer now."""
        run = self._run()
        lines = runs.progress_lines(run.get("log"))
        # While the run lasts its log grows; at its end the whole log is written once more.
        new, self._seen = lines[self._seen :], max(self._seen, len(lines))
        shown = [line for line in new if not runs.tells_scores(line)]
        rounds = [event for line in new if (event := runs.read_scores_line(line))]
        parameters = {"parent_id": self.id, "sort": "-id", "per_page": _NEWEST}
        children = self._ask("task", params=parameters).get("data", [])
        named = [(runs.read_subtask_name(str(child["name"])), str(child["status"])) for child in children]
        calls = [(name, status) for name, status in named if name is not None]
        call = calls[0][0][:2] if calls else None
        sites = {name[2]: status for name, status in calls if name[:2] == call}
        return Look(str(run["status"]), shown, call, dict(sorted(sites.items())), rounds)

    def result(self, method: str = "master", key: str = "status") -> dict[str, Any]:
        """Fetch what `master` returned, or another central function, whose results have `key`.

        Raises
        ------
        ExperimentError
            When `master` found the experiment, or the sites' data, wrong.
        FederationError
            When the task has not ended, failed, or its result cannot be read; with the end of the log.
        """
        run = self._run()
        status, log = str(run["status"]), run.get("log")
        if status in runs.ALIVE:
            raise FederationError(f"task {self.id} has not ended; it is {status}")
        if status != "completed":
            raise self._failure(run, status, log)
        answer = self._client.result.from_task(self.id)
        texts = [item.get("result") for item in answer.get("data", [])] if isinstance(answer, dict) else []
        if not texts or texts[0] is None:
            raise FederationError(f"task {self.id} has no result{runs.last_line(log)}")
        try:
            result = json.loads(texts[0])
        except (TypeError, ValueError):
            raise FederationError(
                f"the result of task {self.id} cannot be read; if the collaboration is encrypted, give --private-key "
                "with the key of the organisation that sent the task"
            ) from None
        if not isinstance(result, dict) or "schema" not in result or key not in result:
            raise FederationError(f"task {self.id} did not return a result of v6_algorithm's {method}")
        return result

    def _run(self) -> dict[str, Any]:
        answer = self._ask("run", params={"task_id": self.id})
        if not answer.get("data"):
            raise ServerError(f"task {self.id}: {answer.get('msg', 'it has no run')}")
        run: dict[str, Any] = answer["data"][0]
        return run

    def _failure(self, run: Mapping[str, Any], status: str, log: str | None) -> Exception:
        """Make the error of a failed run: what `master` itself said where it did, else what vantage6 says."""
        match = _OWN_ERROR.search("\n".join(runs.log_lines(log)))
        if match:
            kind = ExperimentError if match[1] == "ExperimentError" else FederationError
            return kind(match[2])
        organization = self._ask(f"organization/{(run.get('organization') or {}).get('id')}").get("name")
        where = f" at {organization}" if organization else ""
        return FederationError(
            f"task {self.id} failed{where}: {runs.reason(status)}{runs.last_line(log)}\n  to go on from what the sites "
            f"have answered: v6-algorithm resume {self.id}"
        )
