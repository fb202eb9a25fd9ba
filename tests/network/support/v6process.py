"""Children of the tests: start them, end them, wait for what they do. Knows nothing of vantage6."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

STOP_TIMEOUT_S = 20
START_TIMEOUT_S = 180


class Process:
    """A child in a process group of its own, its output in a file."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command, self.log = [str(part) for part in command], log
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.running:
            return
        with self.log.open("ab") as file:
            self._process = subprocess.Popen(
                self.command, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def stop(self, gracefully: bool = True) -> None:
        """End the process; not gracefully: it and all it started die at once, as when a machine loses power."""
        if self._process is None:
            return
        if gracefully and self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def output(self) -> str:
        """All that the process printed, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.output().splitlines()[-lines:])


def free_ports(number: int) -> list[int]:
    """TCP ports that nothing listens on now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_for(
    condition: Callable[[], bool],
    what: str,
    processes: Iterable[Process] = (),
    timeout_s: float = START_TIMEOUT_S,
    poll_s: float = 0.2,
) -> None:
    """Poll until the condition holds.

    Raises
    ------
    TimeoutError
        With the end of the logs of the processes that matter.
    """
    processes = list(processes)
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {process.log}\n{process.tail()}" for process in processes)
            raise TimeoutError(f"waited {timeout_s:g} s for {what}\n{logs}")
        time.sleep(poll_s)
