"""What `master`'s container leaves in its job's volume, so that a container that the node runs again goes on.

A node that was stopped and started runs `master` anew: same task, same input, same volume. What it finds here is the
checkpoint of the last round, from which it goes on, or the result, which it returns at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from v6_algorithm.coordinator.checkpoint import NAME, Checkpoints, write_whole
from v6_algorithm.engines.vantage6 import session
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import CheckpointError, UnreachableError
from v6_algorithm.experiment import Experiment

_RESULT, _BEGUN = "result.json", "begun"


class Journal:
    """The journal of one task.

    Parameters
    ----------
    folder
        Where it is; None where nothing outlives the process, as with the mock: then nothing is kept.
    federation
        The sites; it takes over what the sites were asked before.
    experiment
        What is run.
    say
        Writes a line to the task's log.
    """

    def __init__(
        self, folder: Path | None, federation: Vantage6Federation, experiment: Experiment, say: Callable[[str], None]
    ) -> None:
        self._folder, self._federation, self._experiment, self._say = folder, federation, experiment, say
        self.checkpoints = None if folder is None else Checkpoints(folder / NAME, federation.state_dict)

    def begin(self, earlier_tasks: Sequence[int] = ()) -> dict[str, Any] | None:
        """Find out what is done; returns the result where that is all of it.

        Parameters
        ----------
        earlier_tasks
            Tasks that did the first part of this run, whose answers are taken instead of asking the sites again.
        """
        replayed = 0
        if self._folder is not None and self.checkpoints is not None:
            if (result := self._result_of_before(self._folder / _RESULT)) is not None:
                self._say("this task was done before its container was run again")
                return result
            # Of a first start nobody has to ask the server what there is.
            if (self._folder / _BEGUN).exists():
                replayed += self._find(self._restore(self.checkpoints))
            with suppress(OSError):
                write_whole(self._folder / _BEGUN, [])
        for task in earlier_tasks:
            replayed += self._find(0, task)
        if replayed:
            self._say(f"{replayed} answers of sites, given before or on their way, are taken over")
        return None

    def finish(self, result: dict[str, Any]) -> None:
        """Keep a result that is complete: the node may not have collected it when it runs the container again."""
        if self._folder is not None and result["status"] == "completed":
            content = {"experiment": self._experiment.resolved(), "result": result}
            with suppress(OSError):
                write_whole(self._folder / _RESULT, [json.dumps(content).encode()])

    def _result_of_before(self, path: Path) -> dict[str, Any] | None:
        """Read the result that `finish` kept; None where there is none, or one of another experiment.

        A server that was set up anew counts its tasks from 1 again, and its nodes may have kept their folders.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            result, experiment = dict(content["result"]), content["experiment"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if experiment != self._experiment.resolved():
            self._say("a task of this number left the result of another experiment here; the run begins anew")
            return None
        return result

    def _restore(self, checkpoints: Checkpoints) -> int:
        """Take over what the federation knew; returns the newest subtask of the last round that was over."""
        try:
            saved = checkpoints.load(self._experiment)
        except CheckpointError as error:
            self._say(f"{error}; the run begins anew")
            checkpoints.path.unlink(missing_ok=True)
            return 0
        self._say("the container was run again; " + ("going on" if saved else "nothing was trained yet"))
        return self._federation.load_state_dict(saved["federation"]) if saved else 0

    def _find(self, since: int, task: int | None = None) -> int:
        try:
            return self._federation.take_over(since, task)
        except UnreachableError as error:
            self._say(f"{error}; the sites are asked anew")
            return 0


def journal_folder(task: int | None) -> Path | None:
    """Return the folder of a task's journal in the volume that a node gives a job or session; None elsewhere."""
    if (master := session.journal_place()) is not None:
        return master / str(task or "task")
    place = os.environ.get("TEMPORARY_FOLDER")
    if not place or "TOKEN_FILE" not in os.environ:
        return None
    return Path(place, "v6_algorithm-master", str(task or "task"))
