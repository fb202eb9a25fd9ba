"""Subtasks that are there already: those that an earlier start of `master`, or an earlier task, has created.

vantage6 runs `master` anew when its node starts again, and its subtasks go on meanwhile. Each subtask carries a
fingerprint of what it asks; whoever asks the very same again takes that one, and its answer, instead of a new one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from v6_algorithm.engines import known_models
from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.errors import UnreachableError
from v6_algorithm.exchange import wire

_MARK = "request "
_PAGE = 50
# Tries to list subtasks, with twice the pause each time: two minutes in all.
_TRIES, _PAUSE_S = 8, 1.0


def fingerprint(method: str, request: Mapping[str, Any]) -> str:
    """Return a fingerprint of a request: the same question at the same site has the same.

    The name under which a site remembers its compression is left out: it is drawn anew for each run.
    """
    named = known_models.named_alike(request)
    if folds := named.get("folds"):
        named["folds"] = [_without_run(item) for item in folds]
    return hashlib.sha256(f"{method} {wire.to_text(named)}".encode()).hexdigest()[:32]


def _is_compressed(item: Mapping[str, Any]) -> bool:
    return "compress" in item.get("strategy", {})


def _without_run(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**item, "strategy": {**item["strategy"], "compress": True}} if _is_compressed(item) else item


def describe(question: str) -> str:
    """Write the fingerprint as the description of a subtask."""
    return f"{_MARK}{question}"


@dataclass(frozen=True)
class _Child:
    id: int
    status: str
    # Method and round, by the subtask's name.
    call: tuple[str, int] | None


class Children:
    """Subtasks by what they ask.

    Parameters
    ----------
    client
        vantage6's, of the container.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._by_question: dict[str, list[_Child]] = {}

    def find(self, parent: int, since: int = 0) -> int:
        """Look for the subtasks of a task with an id above `since`; returns how many there are.

        Only those count that the organisation of this container has created: another one's could be anything.

        Raises
        ------
        UnreachableError
            When the server does not list them.
        """
        organization = getattr(self._client, "organization_id", None)
        listed = sorted(self._list(parent), key=lambda task: int(task["id"]))
        calls = {int(task["id"]): runs.read_subtask_name(str(task.get("name"))) for task in listed}
        known = {child.id for children in self._by_question.values() for child in children}
        taken = 0
        for task in listed:
            number, text = int(task["id"]), str(task.get("description"))
            creator = (task.get("init_org") or {}).get("id")
            if number <= since or number in known or creator != organization or not text.startswith(_MARK):
                continue
            name = calls[number]
            call = name[:2] if name else None
            status = str(task.get("status"))
            # A failure of a call that was over stays one; in the call that was under way the site is asked again.
            over = any(later > number and other and other[:2] != call for later, other in calls.items())
            if status in runs.ALIVE or status == "completed" or over:
                child = _Child(number, status, call)
                self._by_question.setdefault(text.removeprefix(_MARK), []).append(child)
                taken += 1
        return taken

    def take(self, question: str) -> int | None:
        """Return the id of a subtask that asks this, one that is completed before others; None where there is none."""
        children = self._by_question.pop(question, [])
        order = sorted(children, key=lambda child: (child.status != "completed", child.id))
        return order[0].id if order else None

    def _list(self, parent: int) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        page = 1
        while True:
            page_items = self._ask({"parent_id": parent, "page": page, "per_page": _PAGE})
            listed += page_items
            if len(page_items) < _PAGE:
                return listed
            page += 1

    def _ask(self, parameters: dict[str, int]) -> list[dict[str, Any]]:
        pause = _PAUSE_S
        for attempt in range(_TRIES):
            try:
                answer = self._client.request("task", params=parameters)
                if isinstance(answer, dict) and isinstance(answer.get("data"), list):
                    return list(answer["data"])
            except Exception:  # noqa: S110 - whatever the network does: asked again
                pass
            if attempt < _TRIES - 1:
                time.sleep(pause)
                pause *= 2
        raise UnreachableError("the server does not list the subtasks")
