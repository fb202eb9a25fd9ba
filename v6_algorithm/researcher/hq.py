"""A researcher's way to HQ of vantage6 5.x, with the calls of `Server`: Keycloak, sessions, dataframes, tasks.

`v6-algorithm submit`, `watch` and `cancel` come here where V6_AUTH names Keycloak's address. Training sees dataframes
of a session, not databases: `submit` makes them on the way, with `v6_algorithm.extract`, and uses them again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.errors import FederationError, ServerError
from v6_algorithm.researcher.server import Collaboration, Organization, Server, quiet
from v6_algorithm.researcher.task import Task

SECRET = "V6_CLIENT_SECRET"  # noqa: S105 - the variable's name
_SESSION = "v6-algorithm"
_CENTRAL = "central_compute"
_POLL_S = 1.0
# How long an extraction may show nothing new before it is remarked on.
_QUIET_S = 180.0
# What `extract` takes of an experiment's `data`.
_FORM = ("separator", "decimal", "thousands", "encoding")


class HqServer(Server):
    """A session at HQ.

    Parameters
    ----------
    address
        HQ's, such as ``https://vantage6.example.org/hq``; without a path it is ``/hq``.
    keycloak
        Address of the Keycloak that HQ trusts.
    say
        Shows a line: what is extracted, and where to log in.
    """

    def __init__(self, address: str, keycloak: str, say: Callable[[str], None] = lambda text: None) -> None:
        for what, url in (("--server", address), ("V6_AUTH", keycloak)):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
                raise ServerError(f"{what} {url}: must be an address such as https://vantage6.example.org")
        self.address, self._say = address, say
        # The secret goes to Keycloak.
        self.readable_on_the_way = self._readable(urlsplit(keycloak))
        try:
            from vantage6.client import UserClient
        except ImportError:
            raise ServerError("this needs vantage6 5's client: pip install 'v6-algorithm[vantage6-5]'") from None
        path = urlsplit(address).path.rstrip("/")
        hq = address.rstrip("/") if path else f"{address.rstrip('/')}/hq"
        try:
            self._client = quiet(lambda: UserClient(hq, keycloak, log_level="critical"))
        except TypeError:
            raise ServerError(
                "V6_AUTH: is for vantage6 5, and the client that is installed is of vantage6 4; "
                "pip install 'v6-algorithm[vantage6-5]' in an environment of its own"
            ) from None

    def log_in(self, username: str, password: str, code: str | None = None) -> None:
        """Log in as a service account, whose secret is the password; an empty one asks Keycloak in a browser.

        Raises
        ------
        ServerError
            When Keycloak refuses, or HQ does not know the user.
        FederationError
            When one of them does not answer.
        """
        try:
            if password:
                self._client.initialize_service_account(password, username=username)
                self._client.authenticate_service_account()
            else:
                self._client.log.listeners.append(self._say)
                self._client.authenticate()
            about = self.ask("user/me")
        except OSError as error:  # the base of all that requests raises
            raise FederationError(f"Keycloak does not answer ({type(error).__name__})") from None
        except (FederationError, ServerError):
            raise
        except Exception as error:  # python-keycloak's own
            raise ServerError(f"Keycloak does not log in '{username}' ({type(error).__name__})") from None
        organization = about.get("organization") or {}
        if "id" not in organization:
            raise ServerError(f"HQ does not know '{username}': {about.get('msg', 'it has no organisation')}")
        self._organization = str(self.ask(f"organization/{organization['id']}").get("name"))
        from vantage6.common.encryption import DummyCryptor

        # 5.0.3 sets none for a service account.
        self._client.cryptor = self._client.cryptor or DummyCryptor()

    @property
    def organization(self) -> str:
        """Name of the researcher's organisation."""
        return self._organization

    def encrypt_with(self, private_key: Any) -> str | None:
        """Refuse: no encrypted collaboration of vantage6 5 was tried yet."""
        raise ServerError("encrypted collaborations of vantage6 5 are not supported yet; there was none to try it on")

    def submit(
        self,
        collaboration: Collaboration,
        hub: Organization,
        *,
        image: str,
        databases: Sequence[Mapping[str, str]],
        arguments: Mapping[str, Any],
        name: str,
        method: str = "master",
    ) -> Task:
        """Send a task on a session's dataframe, which is extracted first where the session has none; see `Server`."""
        if len(databases) != 1:
            raise ServerError("--database: vantage6 5 takes one; of a table and its images, the folder that has both")
        if "dataframe_id" in databases[0]:
            # An earlier task's.
            frame = int(databases[0]["dataframe_id"])
            session = self._session_of(frame)
        else:
            session = self._session(collaboration)
            how = self._extraction(databases[0], arguments.get("experiment") or {})
            frame = self._dataframe(collaboration, session, databases[0]["label"], image, how)
        answer = self._client.task.create(
            collaboration=collaboration.id,
            session=session,
            organizations=[hub.id],
            name=name,
            image=image,
            description="",
            method=method,
            arguments=dict(arguments),
            action=_CENTRAL,
            databases=[{"type": "dataframe", "dataframe_id": frame}],
        )
        if not isinstance(answer, dict) or "id" not in answer:
            said = answer.get("msg") if isinstance(answer, dict) else "no answer"
            raise ServerError(f"HQ did not take the task: {said}")
        return HqTask(self._client, self.ask, answer["id"], name)

    def task(self, number: int) -> Task:
        """Find a task by its id; raises ServerError when there is none."""
        there = super().task(number)
        task = HqTask(self._client, self.ask, number, there.name)
        task.image = there.image
        return task

    # -- sessions ------------------------------------------------------------------------------------------------

    def _session(self, collaboration: Collaboration) -> int:
        """Return the id of our session of a collaboration, made where there is none."""
        for session in self._list("session", collaboration_id=collaboration.id):
            if session.get("name") == _SESSION:
                return int(session["id"])
        made = self._client.session.create(name=_SESSION, collaboration=collaboration.id, scope="collaboration")
        if not isinstance(made, dict) or "id" not in made:
            raise ServerError(f"HQ made no session: {(made or {}).get('msg', 'no answer')}")
        return int(made["id"])

    def _session_of(self, frame: int) -> int:
        """Return the id of the session that a dataframe is in; raises ServerError when there is none any more."""
        answer = self.ask(f"session/dataframe/{frame}")
        if "session" not in answer:
            raise ServerError(f"dataframe {frame} of the earlier task: {answer.get('msg', 'is not there')}")
        return int(answer["session"]["id"])

    @staticmethod
    def _extraction(database: Mapping[str, str], experiment: Mapping[str, Any]) -> dict[str, str]:
        """Return the arguments of `extract`: the database's own, and how the experiment says a table is written."""
        data = experiment.get("data") or {}
        image = data.get("image") or {}
        given = {
            **{key: database.get(key) for key in ("query", "sheet_name")},
            **{key: data.get(key) for key in _FORM},
            **({"files": image.get("files"), "column": image.get("column")} if image.get("files") else {}),
        }
        return {key: str(value) for key, value in given.items() if value is not None}

    def _dataframe(
        self, collaboration: Collaboration, session: int, label: str, image: str, how: Mapping[str, str]
    ) -> int:
        """Return the id of the dataframe that was extracted so; extract it where there is none.

        Names are one across all sessions of HQ and become names of files. HQ extracts nothing again under a name, so
        an extraction that some site did not finish is begun again under the next.
        """
        content = json.dumps([session, label, image, dict(how)], sort_keys=True)
        base = f"{re.sub(r'[^a-z0-9]+', '-', label.lower())}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        known = {str(frame.get("name")): frame for frame in self.ask(f"session/{session}/dataframe").get("data", [])}
        number = 1
        while (name := base if number == 1 else f"{base}-{number}") in known:
            frame = known[name]
            if self._is_as_good_as_it_gets(collaboration, frame):
                self._say(f"dataframe      {name}, as extracted before")
                return int(frame["id"])
            number += 1
        self._say(f"dataframe      {name}, extracted now from database {label}")
        made = self._client.dataframe.create(
            label=label, name=name, image=image, method="extract", arguments=dict(how), session=session
        )
        if not isinstance(made, dict) or "id" not in made:
            said = str(made.get("msg")) if isinstance(made, dict) else "no answer"
            for organization in collaboration.organizations:
                said = re.sub(rf"\borganization {organization.id}\b", f"organization {organization.name}", said)
            raise ServerError(f"HQ did not take the extraction of database '{label}': {said}")
        self._wait(collaboration, made["last_session_task"]["id"], label)
        return int(made["id"])

    def _is_as_good_as_it_gets(self, collaboration: Collaboration, frame: Mapping[str, Any]) -> bool:
        """Say whether every site whose node is online has extracted it."""
        task = (frame.get("last_session_task") or {}).get("id")
        listed = [] if task is None else self.ask("run", params={"task_id": task}).get("data") or []
        ready = {(run.get("organization") or {}).get("id") for run in listed if run["status"] == "completed"}
        return bool(ready) and all(
            organization.id in ready or organization.online is False for organization in collaboration.organizations
        )

    def _wait(self, collaboration: Collaboration, task: int, label: str) -> None:
        """Wait for an extraction at all nodes that are online; sites that have extracted nothing are told."""
        known = {organization.id: organization for organization in collaboration.organizations}

        def where(run: Mapping[str, Any]) -> str:
            number = (run.get("organization") or {}).get("id")
            return known[number].name if number in known else f"organisation {number}"

        def is_away(run: Mapping[str, Any]) -> bool:
            number = (run.get("organization") or {}).get("id")
            return number in known and known[number].online is False and run["status"] == "pending"

        shown: list[str] = []
        since: float | None = time.monotonic()
        while True:
            listed = self.ask("run", params={"task_id": task}).get("data") or []
            alive = [run for run in listed if run["status"] in runs.ALIVE]
            waiting = [f"{where(run)} ({run['status']})" for run in alive if not is_away(run)]
            if listed and not waiting:
                break
            if waiting and waiting != shown:
                self._say(f"extracting     waiting for {', '.join(waiting)}")
                shown, since = waiting, time.monotonic()
            elif since is not None and time.monotonic() - since >= _QUIET_S:
                self._say(
                    f"note: nothing has changed for {_QUIET_S / 60:g} minutes. The site may be copying; or its node "
                    "lost the answer, as nodes of 5.0.3 do where two jobs end in the same second: then interrupt, and "
                    "submit again, which extracts anew"
                )
                since = None
            time.sleep(_POLL_S)
        without = [run for run in listed if run["status"] != "completed"]
        for run in without:
            why = "its node is offline" if is_away(run) else runs.reason(run["status"])
            self._say(f"note: {where(run)} extracted nothing from '{label}': {why}; it takes no part")
        if len(without) == len(listed):
            log = runs.last_line(plain_log(without[0].get("log")))
            raise FederationError(f"no site could extract database '{label}'{log}")


class HqTask(Task):
    """A task at HQ, whose logs of runs that have ended are written as Python writes bytes (5.0.3)."""

    def _run(self) -> dict[str, Any]:
        run = super()._run()
        return {**run, "log": plain_log(run.get("log"))}


def plain_log(log: str | None) -> str | None:
    """Return a log as lines, where HQ has it as ``b'…'`` with its line ends escaped."""
    lines = []
    for line in (log or "").splitlines():
        text = line.strip()
        if text[:2] in ("b'", 'b"'):
            with suppress(SyntaxError, ValueError, AttributeError):
                line = ast.literal_eval(text).decode("utf-8", "replace")
        lines.append(line)
    return "\n".join(lines) if log is not None else None


def keycloak_address() -> str | None:
    """Return the address of Keycloak where V6_AUTH names it, and with it vantage6 5."""
    return os.environ.get("V6_AUTH") or None
