"""Large models published once: as the result of a subtask at `master`'s own node, which the sites fetch by themselves.

vantage6 4.15 moves a subtask's input across the server six times for each site, a result twice. So `master` leaves a
large model in its job's volume, a container of the same job there returns it (`RPC_publish`), and requests name the
subtask. Sites are asked at once, and wait for its result: their containers start while that one runs. In an encrypted
collaboration one organisation alone can read a result: models go in the requests there.

What is published is a safetensors file as it is: vantage6 writes every result in base64, and a model that is base64 in
JSON would go through that twice. Sites ask for it as a part of its task (`task/N?include=results`), an answer that a
node's proxy passes on as it comes; of `result?task_id=N` it parses, decodes and encodes all 48 megabytes.

The hub's container and the sites' import nothing but the standard library here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Characters from which on the container that it takes is worth it; measured at 20 and 50 million.
LEAST_CHARACTERS = 2**22
METHOD = "RPC_publish"
_FOLDER = "v6_algorithm-published"
_ALIVE = ("pending", "initializing", "active", "awaiting")
_WAIT_S, _POLL_S, _LOOK_S, _FETCH_S, _ATTEMPTS = 300.0, 0.1, 30.0, 600.0, 3


def publish(request: Any) -> dict[str, Any]:
    """Make a model that `master` left in this job's volume this container's output; `RPC_publish` calls it.

    Returns what is wrong; with the model in the output the process ends here, for the wrapper would write JSON over it.
    """
    name = request.get("model") if isinstance(request, Mapping) else None
    volume = os.environ.get("TEMPORARY_FOLDER")
    if not volume or not isinstance(name, str) or not re.fullmatch("[0-9a-f]{64}", name):
        return {"status": "error", "kind": "request", "message": "no model is published here under that name"}
    try:
        shutil.copyfile(os.path.join(volume, _FOLDER, name), os.environ["OUTPUT_FILE"])
    except (OSError, KeyError):
        return {"status": "error", "kind": "request", "message": "no model is published here under that name"}
    # vantage6's wrapper lets this through, and a run that ends with 0 is completed with what its output holds.
    raise SystemExit(0)


def fetch(environment: Mapping[str, str], token: str, task: int) -> str | None:
    """Fetch a published model through the node's proxy, as `pack` wrote it; None where there is none to be had.

    Parameters
    ----------
    environment, token
        Of the container.
    task
        The subtask whose result it is.
    """
    base = f"{environment.get('HOST', '')}:{environment.get('PORT', '')}{environment.get('API_PATH', '')}"
    url = f"{base}/task/{int(task)}?include=results"
    if not url.startswith(("http://", "https://")):
        return None
    if not _is_there(base, token, int(task)):
        return None
    for attempt in range(_ATTEMPTS):
        try:
            (run,) = _ask(url, token, _FETCH_S)["results"]
            # vantage6's base64 of the file is the model's text; its hash shows it.
            return run["result"] if isinstance(run["result"], str) else None
        except OSError:
            time.sleep(1 + attempt)
        except (ValueError, KeyError, TypeError):
            return None
    return None


def _is_there(base: str, token: str, task: int) -> bool:
    """Wait until a subtask has ended; returns whether it has a result."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        try:
            status = _ask(f"{base}/task/{task}/status", token, _LOOK_S).get("status")
        except OSError as error:
            if getattr(error, "code", 500) < 500:
                return False
            status = None  # a server that is away says nothing
        except (ValueError, AttributeError):
            return False
        if status == "completed":
            return True
        if status is not None and status not in _ALIVE:
            return False
        time.sleep(_POLL_S)
    return False


def _ask(url: str, token: str, timeout_s: float) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        return json.load(answer)


class Publisher:
    """Publishes models for one task; `master`'s engine has one.

    Parameters
    ----------
    client
        vantage6's, of the container.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._volume = os.environ.get("TEMPORARY_FOLDER")
        self._usable = self._volume is not None
        self._clear: bool | None = None
        # Hash of a model to the subtask that publishes it.
        self.tasks: dict[str, int] = {}
        # Subtask to the file that it returns.
        self._files: dict[int, str] = {}

    def publish(self, name: str, text: str) -> None:
        """Publish a model under its hash, so that `tasks` has it; what fails is not tried again in this run.

        Returns before it is there: whoever fetches it waits for it.
        """
        self._tidy()
        if name in self.tasks or not (self._usable and self.in_the_clear()):
            return
        place = os.path.join(self._volume or "", _FOLDER)
        path = os.path.join(place, name)
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
            with open(path, "wb") as file:
                file.write(base64.b64decode(text, validate=True))
            task = self._ask(name)
        except Exception:  # a full disk, a server that is away: the model goes in the requests then
            task = None
        if task is None:
            self._usable = False
            _remove(path)
        else:
            self.tasks[name], self._files[task] = task, path

    def in_the_clear(self) -> bool:
        """Say whether the collaboration's results are not encrypted; no, where that cannot be found out."""
        if self._clear is None:
            try:
                about = self._client.request(f"collaboration/{self._client.collaboration_id}")
                self._clear = isinstance(about, dict) and about.get("encrypted") in (False, 0)
            except Exception:  # whatever the network does
                self._clear = False
        return self._clear

    def close(self) -> None:
        """Take away what is left in the volume."""
        for path in self._files.values():
            _remove(path)
        self._files.clear()

    def _tidy(self) -> None:
        """Take away what has been published; where that failed nothing is published any more."""
        for task, path in list(self._files.items()):
            answer = None
            with suppress(Exception):  # whatever the network does, it is looked at again
                answer = self._client.request(f"task/{task}/status")
            status = answer.get("status") if isinstance(answer, dict) else None
            if status is None or status in _ALIVE:
                continue
            del self._files[task]
            _remove(path)
            if status != "completed":
                self._usable = False
                self.tasks = {name: number for name, number in self.tasks.items() if number != task}

    def _ask(self, name: str) -> int | None:
        """Ask a container at this node to return the model; returns the subtask."""
        created = self._client.task.create(
            input_={"method": METHOD, "kwargs": {"request": {"model": name}}},
            organizations=[self._client.organization_id],
            name="published model",
            description="",
        )
        if not isinstance(created, dict) or "id" not in created:
            return None
        return int(created["id"])


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
