"""What `submit` and `watch` show while a task runs: the log of `master` as it grows, and who answered this round."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.errors import UnreachableError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.progress import wide_bar
from v6_algorithm.researcher.cli.terminal import say

if TYPE_CHECKING:
    from v6_algorithm.researcher.task import Look, Task

POLL_S = 1.0
# How long master may say nothing once every site has answered, before it is remarked on.
_QUIET_S = 180.0
_REMARK = (
    "note: all subtasks of task {task} ended {minutes:g} minutes ago, and master has said nothing since. It may be "
    "computing; or its node has lost the answer, as nodes of vantage6 5.0.3 do where two jobs end in the same second: "
    "then send the task again, or go on with a training by `v6-algorithm resume {task}`"
)
_ROUND = re.compile(r"round (\d+)/(\d+): ")
_MARKS = {"completed": "✓", "pending": "–", "initializing": "…", "active": "…"}
_CALLS = {"prepare": "preparing", "train": "training", "evaluate": "testing"}


def follow(
    task: Task, rounds: int | None = None, on_round: Callable[[Mapping[str, Any]], None] = lambda event: None
) -> None:
    """Show a task until it has ended; a server that does not answer is asked again.

    Parameters
    ----------
    task
        The task.
    rounds
        How many there are to be, where it is known; the log tells too, unless the hub's node keeps it.
    on_round
        Called with what the log tells of each round; not once the task is completed, for its result tells exactly.
    """
    bar = wide_bar()
    with bar if terminal.out.is_terminal else nullcontext():
        shown = bar.add_task("", title=f"task {task.id}", total=rounds, shown="waiting for the hub's node")
        silent = False
        quiet = Quiet(time.monotonic())
        while True:
            try:
                look = task.look()
            except UnreachableError as error:
                if not silent:
                    say(f"{error}; trying again …")
                silent = True
            else:
                silent = False
                for line in look.lines:
                    # The bar shows it too, but does not stay.
                    say(line)
                    if match := _ROUND.match(line):
                        bar.update(shown, completed=int(match[1]), total=int(match[2]))
                for event in look.rounds if look.status != "completed" else ():
                    on_round(event)
                if look.ended:
                    bar.update(shown, shown=look.status)
                    return
                bar.update(shown, shown=escape(_sites(look)))
                if quiet.is_remarkable(look, time.monotonic()):
                    say(_REMARK.format(task=task.id, minutes=_QUIET_S / 60))
            time.sleep(POLL_S)


class Quiet:
    """How long a task that runs has shown nothing new while no site is at work; remarked on once."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._seen: object = None
        self._is_said = False

    def is_remarkable(self, look: Look, now: float) -> bool:
        """Say whether to remark on it; `now` is in seconds of any clock."""
        seen = (look.status, look.call, dict(look.sites))
        if look.lines or seen != self._seen or look.call is None or runs.ALIVE & set(look.sites.values()):
            self._since, self._seen = now, seen
            return False
        is_due = not self._is_said and now - self._since >= _QUIET_S
        self._is_said |= is_due
        return is_due


def _sites(look: Look) -> str:
    if look.call is None:
        return "waiting for the hub's node" if look.status == "pending" else "starting"
    method, number = look.call
    doing = _CALLS.get(method, method) + (f", round {number}" if method == "train" else "")
    return f"{doing}: " + "  ".join(f"{site} {_MARKS.get(status, '✗')}" for site, status in look.sites.items())
