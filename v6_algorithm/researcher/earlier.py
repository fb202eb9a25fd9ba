"""A task that was sent before and cut short, read back from the server so that a new one can go on from it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.errors import ExperimentError, ServerError
from v6_algorithm.experiment import Experiment

if TYPE_CHECKING:
    from v6_algorithm.researcher.server import Server


@dataclass(frozen=True)
class EarlierTask:
    """What a task was.

    Attributes
    ----------
    id, name, image
        The task's.
    collaboration, hub
        Ids of the collaboration, and of the organisation whose node ran `master`.
    databases
        What each site read.
    arguments
        What `master` was given; None where that cannot be read, because the collaboration is encrypted.
    """

    id: int
    name: str
    image: str
    collaboration: int
    hub: int
    databases: list[dict[str, str]]
    arguments: Mapping[str, Any] | None

    @classmethod
    def read(cls, server: Server, number: int) -> EarlierTask:
        """Ask the server for a task of `master` that has ended.

        Raises
        ------
        ServerError
            When there is none, it goes on, is done, or was of something else.
        """
        task = server.ask(f"task/{number}")
        if "id" not in task:
            raise ServerError(f"task {number}: {task.get('msg', 'is not there')}")
        listed = server.ask("run", params={"task_id": number}).get("data") or []
        if len(listed) != 1:
            raise ServerError(f"task {number}: has {len(listed)} runs; one of `master` has one")
        run = listed[0]
        if run["status"] in runs.ALIVE:
            raise ServerError(
                f"task {number}: is {run['status']}; to see how it goes: v6-algorithm watch {number}. If nothing runs "
                f"any more, v6-algorithm cancel {number}, which leaves what the sites answered, and resume it then"
            )
        return cls(
            number,
            str(task.get("name")),
            str(task["image"]),
            int(task["collaboration"]["id"]),
            int(run["organization"]["id"]),
            [_database(entry) for entry in task.get("databases") or []],
            _arguments(number, task, run),
        )

    def going_on(self, experiment: Experiment | None) -> dict[str, Any]:
        """Return the arguments of the task that goes on; the experiment is the file's, where there is one.

        Raises
        ------
        ExperimentError
            When what the task was given cannot be read, and there is no file.
        """
        if self.arguments is None and experiment is None:
            raise ExperimentError(
                f"task {self.id}: its input is encrypted for the hub's node; give its experiment with --file"
            )
        before = dict(self.arguments or {})
        earlier = before.get("resume") or []
        earlier = [earlier] if isinstance(earlier, int) else list(earlier)
        arguments = before | ({"experiment": experiment.for_task()} if experiment else {})
        return arguments | {"resume": [*earlier, self.id]}


def _database(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return a database as a task names it; the server adds keys of its own, and may keep options as JSON text.

    On vantage6 5 it is a dataframe of a session, which is named by its id.
    """
    if entry.get("dataframe_id") is not None:
        return {"dataframe_id": str(entry["dataframe_id"])}
    options = entry.get("parameters")
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except ValueError:
            options = None
    named = {**entry, **(options if isinstance(options, Mapping) else {})}
    named.setdefault("label", entry.get("database"))
    return {key: str(named[key]) for key in ("label", "query", "sheet_name") if named.get(key)}


def _arguments(number: int, task: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read what `master` was given, base64 JSON; None where it is encrypted.

    vantage6 4 keeps method and arguments in a run's input, 5 the method at the task and the arguments at the run.
    """
    of_version_5 = "method" in task
    try:
        content = json.loads(base64.b64decode(str(run.get("arguments" if of_version_5 else "input")), validate=True))
    except (binascii.Error, ValueError):
        return None
    if of_version_5:
        content = {"method": task["method"], "kwargs": content}
    if not isinstance(content, dict) or content.get("method") != "master":
        said = content.get("method") if isinstance(content, dict) else None
        raise ServerError(f"task {number}: was of `{said}`; only `master` can be gone on with")
    return dict(content.get("kwargs") or {})
