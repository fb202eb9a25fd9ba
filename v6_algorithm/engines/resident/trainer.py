"""The resident trainer of a site: one long-lived run of a job that has torch, data and model in memory.

`master` asks each site for one when a run starts. It listens on a Unix socket in the job's volume and answers what the
couriers of the rounds bring, one after the other, as their own containers would. It ends on `master`'s word, when the
task that asked for it is over, or when nobody has asked for long.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from v6_algorithm.engines.resident import courier, protocol
from v6_algorithm.exchange import frames

# At most so long may a request from the network let it wait for the next courier.
LONGEST_IDLE_S = 86_400.0
_LOOK_S, _PARENT_S, _READ_S, _SEND_S = 0.5, 10.0, 60.0, 600.0


def reside(data: Any, request: Any, mock_data: Any = None) -> dict[str, Any]:
    """Serve the couriers of this job until the end, or bring an end to who does; returns a reply that says why.

    Parameters
    ----------
    data, request, mock_data
        As vantage6 or its mock passes them: a message with ``idle_s``, or with ``end``: true. Who is handed a table
        does not serve: the couriers could not be.
    """
    if request is None:
        data, request = None, data
    if not isinstance(request, Mapping):
        return {"status": "error", "kind": "request", "message": "the request must be a message; task `master`"}
    head = {key: request.get(key) for key in ("schema", "site", "round", "attempt")}
    if request.get("end"):
        ended = "on request" if courier.end() else "there was none"
        _forget_models()
        return {**head, "status": "ok", "ended": ended}
    place = protocol.meeting_place(os.environ)
    if data is not None or mock_data is not None or place is None:
        return {**head, "status": "ok", "ended": "containers of this job share no folder, or tables are handed to them"}
    if protocol.switched_off(os.environ):
        return {**head, "status": "ok", "ended": f"{protocol.SWITCH} of this node is off"}
    # Before anything is loaded, so that what is read afterwards is not newer than what is promised here.
    environment, seen = dict(os.environ), protocol.surroundings(os.environ)
    try:
        held = protocol.lock(place)
    except OSError as error:
        return {**head, "status": "ok", "ended": f"no socket in the job's folder: {type(error).__name__}"}
    if held is None:
        return {**head, "status": "ok", "ended": "another one serves this job"}
    try:
        # Couriers that come while torch is loaded wait in the line.
        listener = protocol.listen(place)
        try:
            with listener:
                ended = Trainer(listener, seen, environment).serve(_seconds(request.get("idle_s")))
        finally:
            protocol.leave(place)
    except OSError as error:
        ended = f"no socket in the job's folder: {type(error).__name__}"
    finally:
        os.close(held)
    _forget_models()
    print(f"resident trainer: {ended}", flush=True)
    return {**head, "status": "ok", "ended": ended}


def _forget_models() -> None:
    """Take away what is kept of this job's models: nobody will name them any more."""
    from v6_algorithm.engines.known_models import forget

    if volume := os.environ.get("TEMPORARY_FOLDER"):
        forget(Path(volume, "v6_algorithm"))


def _seconds(value: Any) -> float:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return min(float(value), LONGEST_IDLE_S) if usable else 3600.0


def _text(said: Mapping[str, Any]) -> str:
    """Write an answer as JSON; a model in it needs no look at each character."""
    from v6_algorithm.exchange import wire

    try:
        return wire.to_text(said)
    except ValueError:
        return json.dumps(said)  # a number that is none: whoever reads it says so


class _ServerAwayError(Exception):
    """The trainer cannot ask who sent a request."""


class Trainer:
    """Answers couriers.

    Parameters
    ----------
    listener
        Where they knock.
    surroundings
        Code and settings at the start; a courier with others is sent away.
    environment
        The node's, at the start; the policy is read from it anew for each request.
    """

    def __init__(self, listener: socket.socket, surroundings: str, environment: Mapping[str, str]) -> None:
        self._listener, self._surroundings, self._environment = listener, surroundings, environment
        self._memory: dict[Any, Any] = {}
        # Of which experiment the memory is.
        self._experiment: Any = None
        # What the server said of tasks other than a courier's own, which does not change.
        self._facts: dict[str, Any] = {}
        self._over = threading.Event()

    def serve(self, idle_s: float) -> str:
        """Answer until the end; returns why it came."""
        if (refused := self._prepare()) is not None:
            return refused
        newest = time.monotonic()
        self._listener.settimeout(_LOOK_S)
        while True:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if self._over.is_set():
                    return "the task that asked for it is over"
                if time.monotonic() - newest > idle_s:
                    return f"nobody asked for {idle_s:g} s"
                continue
            with connection:
                last = self._visit(connection)
            if last:
                return "on request"
            newest = time.monotonic()

    def _prepare(self) -> str | None:
        """Check who asked and that there are data, then load what rounds need; returns why it will not serve."""
        from v6_algorithm.data.sources import source_from_node
        from v6_algorithm.engines.entry import check_sender
        from v6_algorithm.errors import SiteError
        from v6_algorithm.site.policy import Policy

        try:
            if Policy.from_environment(self._environment).request_chain:
                check_sender()
            source_from_node(self._environment)
        except SiteError as error:
            # Whether folders hold what an experiment names is not known yet.
            if error.kind != "data":
                return f"{error.kind}: {error}"
        threading.Thread(target=self._watch_parent, daemon=True).start()
        import pandas  # noqa: F401
        import torch  # noqa: F401

        from v6_algorithm.learning.problems import problem_class
        from v6_algorithm.learning.training import loop  # noqa: F401

        problem_class("classification")
        return None

    def _watch_parent(self) -> None:
        """Look from time to time whether the task that asked for this trainer goes on."""
        from v6_algorithm.engines.provenance import asking, own_identity
        from v6_algorithm.engines.vantage6.runs import ALIVE
        from v6_algorithm.errors import PolicyError

        token = courier._token()
        if token is None:
            return
        ask, parent = asking(self._environment, token), None
        while not self._over.wait(_PARENT_S):
            try:
                if parent is None:
                    task = ask(f"task/{own_identity(token)['task']}", {}) or {}
                    parent = (task.get("parent") or {}).get("id")
                    if parent is None:
                        return
                status = (ask(f"task/{parent}/status", {}) or {}).get("status")
            except PolicyError:
                return
            except (OSError, ValueError, AttributeError):
                continue  # a server that is away says nothing; the idle time ends it
            if isinstance(status, str) and status not in ALIVE:
                self._over.set()

    def _visit(self, connection: socket.socket) -> bool:
        """Answer one courier; returns whether it brought the word to end."""
        try:
            connection.settimeout(_READ_S)
            if not protocol.same_user(connection):
                return False
            message = protocol.receive(connection)
            last = message.get("protocol") == protocol.PROTOCOL and message.get("end") is True
            said: dict[str, Any] = {"ends": True} if last else self._answer(message)
            connection.settimeout(_SEND_S)
            parts: list[bytes] = []
            if message.get(frames.ASKED) is True:
                from v6_algorithm.exchange.wire import Packed

                said, parts = frames.take_out(said, Packed)
                said["parts"] = [len(part) for part in parts]
            protocol.send_text(connection, _text(said))
            for part in parts:
                connection.sendall(part)
            return last
        except (OSError, protocol.ProtocolError):
            return False  # the courier is gone, and with it who wanted to know

    def _answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if message.get("protocol") != protocol.PROTOCOL or message.get("surroundings") != self._surroundings:
            return {"refused": "it was started with another version or other settings of the node"}
        from v6_algorithm.engines.entry import run_site

        method, request, token = message.get("method"), message.get("request"), message.get("token")
        if method not in ("summary", "prepare", "train", "evaluate") or not isinstance(request, dict):
            return {"refused": "it does not know what was asked"}
        try:
            return {
                "reply": run_site(
                    method,
                    None,
                    request,
                    None,
                    provenance=self._provenance(token),
                    memory=self._remember(request),
                    token=token if isinstance(token, str) else None,
                    quiet=True,
                )
            }
        except _ServerAwayError:
            return {"refused": "it cannot ask the server who sent the request"}
        except Exception as error:  # the courier meets it itself, with its own traceback
            return {"refused": type(error).__name__}

    def _remember(self, request: Mapping[str, Any]) -> dict[Any, Any]:
        """Return the memory of the request's experiment; another experiment's, as in a search, is given up."""
        if request.get("experiment") != self._experiment:
            self._memory = {}
            self._experiment = request.get("experiment")
        return self._memory

    def _provenance(self, token: Any) -> Callable[[], None]:
        """Return what asks the server, with the courier's token, who sent its request."""

        def check() -> None:
            from urllib.error import HTTPError

            from v6_algorithm.engines.provenance import asking, check_chain, own_identity
            from v6_algorithm.errors import PolicyError

            identity = own_identity(str(token))
            silent: list[str] = []
            ask, task_path = asking(self._environment, str(token)), f"task/{identity['task']}"

            def remembered(path: str, parameters: Mapping[str, Any]) -> Any:
                key = f"{path} {sorted(parameters.items())}"
                if path != task_path and key in self._facts:
                    return self._facts[key]
                try:
                    answer = ask(path, parameters)
                except HTTPError:
                    raise
                except OSError:
                    silent.append(path)
                    raise
                if path != task_path:
                    self._facts[key] = answer
                return answer

            try:
                check_chain(remembered, identity["task"], identity["image"])
            except PolicyError:
                # This container's way to the server may be cut while the courier's is not.
                if silent:
                    raise _ServerAwayError from None
                raise

        return check
