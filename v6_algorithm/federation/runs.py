"""What vantage6 4.x says about a run, and what it means: shared by `master`'s side and the researcher's."""

from __future__ import annotations

import re
from itertools import takewhile

ALIVE = {"pending", "initializing", "active", "awaiting"}
_REASONS = {
    "crashed": "the algorithm container crashed",
    "failed": "the node could not run the algorithm",
    "start failed": "the node could not start the container",
    "non-existing Docker image": "the node could not get the image",
    "not allowed": "the node's policy does not allow this image or user",
    "killed by user": "the run was killed",
}
# The wrapper's own lines, such as `info > Importing module`; after an error it prints the None of its own print call.
_WRAPPER = re.compile(r"(debug|info|warn) > |error > None$")
# Where the wrapper starts to tell of an error, with a traceback.
_TROUBLE = re.compile(r"error > |Traceback ")
_MOST_CHARACTERS = 300


def reason(status: str) -> str:
    """Say what a run's last status means."""
    return _REASONS.get(status, f"its run ended as '{status}'")


def log_lines(log: str | None) -> list[str]:
    """Return the algorithm's own lines of a run's log, which is empty where the node does not share it."""
    lines = (line.rstrip() for line in (log or "").splitlines())
    return [line for line in lines if line and not _WRAPPER.match(line)]


def progress_lines(log: str | None) -> list[str]:
    """Return the lines of a log up to where it tells of an error."""
    return list(takewhile(lambda line: not _TROUBLE.match(line), log_lines(log)))


def last_line(log: str | None) -> str:
    """Return how a log ends, as the end of a sentence; empty when there is none."""
    lines = log_lines(log)
    return f"; its log ends with: {lines[-1].strip()[:_MOST_CHARACTERS]}" if lines else ""


def subtask_name(method: str, round: int, site: str) -> str:
    """Name a subtask so that whoever lists them sees which round it belongs to, and whose it is."""
    return f"{method} round {round} at {site}"


def read_subtask_name(name: str) -> tuple[str, int, str] | None:
    """Return method, round and site of a subtask's name; None when `subtask_name` did not make it."""
    match = re.fullmatch(r"RPC_(\w+) round (\d+) at (.+)", name, flags=re.DOTALL)
    return (match[1], int(match[2]), match[3]) if match else None
