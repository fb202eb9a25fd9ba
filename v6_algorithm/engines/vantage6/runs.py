"""What vantage6 4.x says about a run, and what it means: shared by `master`'s side and the researcher's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

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
_SCORES = "scores {"


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


def scores_line(event: Mapping[str, Any]) -> str:
    """Write an event of `master.run`, a round, as a line of the log that trackers are fed with.

    It holds what the round's line for readers holds, for each site too, to six digits; the names stand once, so that
    it stays far below the 16 KiB at which Docker cuts a line in two.
    """
    names, scores = list(event["metrics"]), event["scores"]
    content = {
        "round": event["round"],
        "validated_round": event["validated_round"],
        "names": names,
        "pooled": [_rounded(scores["pooled"].get(name)) for name in names],
        "sites": {site: [_rounded(values.get(name)) for name in names] for site, values in scores["sites"].items()},
    }
    return _SCORES + json.dumps(content, separators=(",", ":"))[1:]


def tells_scores(line: str) -> bool:
    """Say whether a line is one of `scores_line`, for programs and not for readers."""
    return line.startswith(_SCORES)


def read_scores_line(line: str) -> dict[str, Any] | None:
    """Read a line of `scores_line` back as an event; None for any other line, and for one that was cut or changed."""
    if not tells_scores(line):
        return None
    try:
        content = json.loads(line[len(_SCORES) - 1 :])
        names = [name for name in content["names"] if name.startswith(("train_", "validation_"))]
        return {
            "event": "round",
            "round": int(content["round"]),
            "validated_round": int(content["validated_round"]),
            "scores": {
                "pooled": _by_name(names, content["pooled"]),
                "sites": {site: _by_name(names, values) for site, values in content["sites"].items()},
            },
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _by_name(names: list[str], values: list[Any]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True) if value is not None}
