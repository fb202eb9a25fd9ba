"""The engine on vantage6 5.x: HQ's `AlgorithmClient`, or the one of vantage6's own `MockNetwork`.

`entry` chooses it where `session` says so; `session` also has the site's side. A subtask is created with a method and
its arguments. A site's container has no token: nothing there may last longer than its run, and nobody there can ask HQ.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.engines.vantage6.children import describe
from v6_algorithm.engines.vantage6.session import JOB
from v6_algorithm.engines.vantage6.subtasks import Creation
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange.protocol import Missing

# Refusals after which a site is given up where HQ answers other questions.
_REFUSALS = 3


class SessionFederation(Vantage6Federation):
    """The organisations of a vantage6 5 collaboration; parameters as for `Vantage6Federation`."""

    _fetches = False

    @contextmanager
    def residents(self, wanted: bool, deadline_s: float) -> Iterator[None]:
        """Have none: a site's container cannot ask whether its run goes on, so none may last."""
        yield

    def _create(self, creation: Creation) -> dict[str, Any]:
        request = creation.request
        task = self._client.task.create(
            method=creation.method,
            arguments={"request": {**request, JOB: self.task or 0}},
            organizations=[creation.organization],
            name=runs.subtask_name(creation.method, request["round"], request["site"]),
            description=describe(creation.question),
        )
        return task if isinstance(task, dict) else {"msg": "no answer from the server"}

    def _take_creation(self, creation: Creation, answer: dict[str, Any] | Missing) -> Missing | None:
        """Give a site up that HQ refuses a task for while it is there: the node's proxy does not pass on why.

        Most often the site has no dataframe of the session. Otherwise the call would try until its deadline.
        """
        missing = super()._take_creation(creation, answer)
        open_still = missing is None and creation.task is None
        # That it is there it shows by what it says of a subtask that it took.
        if open_still and creation.attempts >= _REFUSALS and self._newest and self._status(self._newest) is not None:
            return Missing(
                "unreachable",
                f"HQ takes no subtask for it, and took others' ({creation.trouble}); most likely its database was not "
                "extracted into this session",
            )
        return missing

    def _status(self, task_id: int) -> str | None:
        status = super()._status(task_id)
        if status != "failed":
            return status
        # A task's status only says that it failed; its run's says how.
        try:
            return str(self._client.run.from_task(task_id)[0]["status"])
        except Exception:  # whatever the network does: the less exact word is true as well
            return status


def container_client() -> Any:
    """Return the client of the central container that this is; raises ExperimentError elsewhere."""
    if "CONTAINER_TOKEN" not in os.environ:
        raise ExperimentError("client: there is none; create the task as a central compute step")
    from vantage6.algorithm.client import AlgorithmClient

    address = f"{os.environ['HOST']}:{os.environ['PORT']}{os.environ.get('API_PATH', '')}"
    return AlgorithmClient(token=os.environ["CONTAINER_TOKEN"], hq_url=address)
