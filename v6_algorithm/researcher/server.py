"""A researcher's way to a vantage6 4.x server: log in, look at a collaboration, send a task and find it again.

Used by `v6-algorithm submit`, `watch` and `cancel`; `task` follows what was sent. The calls are those of vantage6's
own `UserClient`; what is added is that everything has a name instead of a number, that an error is one sentence, and
that nothing is printed from here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from v6_algorithm.errors import FederationError, SecondFactorError, ServerError, UnreachableError
from v6_algorithm.researcher.task import Task

_PAGE = 100
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Organization:
    """A participant of a collaboration; `online` is None for one without a node, or whose node one may not see."""

    id: int
    name: str
    online: bool | None

    def __str__(self) -> str:
        state = {True: "online", False: "offline", None: "no node seen"}[self.online]
        return f"{self.name} ({state})"


@dataclass(frozen=True)
class Collaboration:
    """A collaboration with its participants, by name."""

    id: int
    name: str
    encrypted: bool
    organizations: Sequence[Organization]

    def find(self, wanted: str) -> Organization:
        """Return the organisation with this name or id; raises ServerError naming those there are."""
        for organization in self.organizations:
            if wanted in (organization.name, str(organization.id)):
                return organization
        known = ", ".join(organization.name for organization in self.organizations)
        raise ServerError(f"organisation '{wanted}' is not in collaboration '{self.name}'; it has: {known}")


class _LogInEndedError(ServerError):
    """The server knows the session no more."""


class Server:
    """A session at a vantage6 server.

    Parameters
    ----------
    address
        Such as ``https://vantage6.example.org`` or ``http://127.0.0.1:7601/api``. Without a path it is vantage6's
        default, ``/api``.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ServerError(f"--server {address}: must be an address such as https://vantage6.example.org/api")
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise ServerError(f"--server {address}: the port must be a number from 1 to 65535") from None
        self.address = address
        # Over plain http the password can be read on the way, which is no matter within one machine.
        self.readable_on_the_way = self._readable(parts)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        try:
            from vantage6.client import UserClient
        except ImportError:
            raise ServerError("this needs vantage6's client: pip install 'v6-algorithm[vantage6]'") from None
        path = parts.path.rstrip("/") or "/api"
        self._client = quiet(lambda: UserClient(f"{parts.scheme}://{host}", port, path, log_level="critical"))
        # In memory only, so that a log-in that ended is renewed; None where each takes a new two-factor code.
        self._credentials: tuple[str, str] | None = None

    @staticmethod
    def _readable(parts: SplitResult) -> bool:
        return parts.scheme == "http" and parts.hostname not in _LOOPBACK

    def log_in(self, username: str, password: str, code: str | None = None) -> None:
        """Log in.

        Raises
        ------
        SecondFactorError
            When the server wants a (or another) code of two-factor authentication.
        ServerError
            When it refuses, with its words.
        FederationError
            When it does not answer.
        """
        self._client.log.heard.clear()
        try:
            self._client.authenticate(username, password, code)
        except ValueError:  # a page that is not JSON
            raise ServerError(f"--server {self.address}: answers, but not as vantage6 does; check the path") from None
        except OSError as error:  # the base of all that requests raises
            raise FederationError(f"the server {self.address} does not answer ({type(error).__name__})") from None
        except Exception as error:  # the client raises bare exceptions, and logs what the server said
            said = " ".join([*self._client.log.heard, str(error)])
            if "two-factor" in said:
                raise SecondFactorError(f"the server asks for a two-factor code: {_first(said)}") from None
            raise ServerError(f"the server does not log in '{username}': {_first(said)}") from None
        if not self._client.token:
            # Either the address leads nowhere, or the client has shown a QR code: the server wants a second factor.
            said = _first(" ".join(self._client.log.heard))
            if said:
                raise ServerError(f"--server {self.address}: {said}")
            raise SecondFactorError("the server wants two-factor authentication; scan the code, then log in with it")
        if self._client.whoami is None:
            raise ServerError(f"the server logs in '{username}' but does not say of which organisation")
        self._credentials = None if code else (username, password)

    @property
    def organization(self) -> str:
        """Name of the researcher's organisation."""
        return str(self._client.whoami.organization_name)

    # -- what there is ------------------------------------------------------------------------------------------------

    def collaboration(self, wanted: str | None) -> Collaboration:
        """Find a collaboration by name or id; None: the only one there is.

        Raises
        ------
        ServerError
            When there is none of that name, or more than one; naming those there are.
        """
        listed = self._list("collaboration")
        known = ", ".join(f"{item['name']} (id {item['id']})" for item in listed) or "none"
        matching = [item for item in listed if wanted in (None, str(item["id"]), item["name"])]
        if not matching:
            named = f"collaboration '{wanted}' is not there" if wanted else "no collaboration is there"
            raise ServerError(f"{named}, or you may not see it; you see: {known}")
        if len(matching) > 1:
            what = f"several are named '{wanted}'; give the id" if wanted else "give --collaboration"
            raise ServerError(f"{what}; you see: {known}")
        item = matching[0]
        online = {
            node["organization"]["id"]: node.get("status") == "online"
            for node in self._list("node", may_fail=True, collaboration_id=item["id"])
        }
        organizations = [
            Organization(entry["id"], str(entry["name"]), online.get(entry["id"]))
            for entry in self._list("organization", collaboration_id=item["id"])
        ]
        return Collaboration(
            item["id"],
            str(item["name"]),
            bool(item["encrypted"]),
            sorted(organizations, key=lambda organization: organization.name),
        )

    def encrypt_with(self, private_key: Path) -> str | None:
        """Use the organisation's private key, which must be the other half of the public key that the server has.

        vantage6's client would put the public half on the server, whatever was there before: then nobody else in the
        organisation could read a result. Here that is done only where there is none yet.

        Returns
        -------
        str or None
            What was changed at the server, if anything.
        """
        from vantage6.common.encryption import RSACryptor

        if not private_key.is_file():
            raise ServerError(f"--private-key {private_key}: there is no such file")
        try:
            cryptor = RSACryptor(private_key)
        except Exception as error:
            raise ServerError(
                f"--private-key {private_key}: is not a private key in PEM format without a passphrase "
                f"({type(error).__name__})"
            ) from None
        there = self.ask(f"organization/{self._client.whoami.organization_id}").get("public_key")
        if there and not cryptor.verify_public_key(there):
            raise ServerError(
                f"--private-key {private_key}: is not the key of {self.organization}: the server has the public "
                "half of another one, so results could not be read"
            )
        self._client.setup_encryption(str(private_key))
        return None if there else f"the server now has the public key of {self.organization}"

    # -- tasks --------------------------------------------------------------------------------------------------------

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
        """Send a task of the algorithm to the hub's node.

        Parameters
        ----------
        collaboration, hub
            Where it goes.
        image
            Name of the image, by tag or digest.
        databases
            What each site reads: ``label``, and for SQL ``query``, for Excel ``sheet_name``.
        arguments
            Keyword arguments of the method; JSON.
        name
            Shown in lists of tasks.
        """
        try:
            answer = self._client.task.create(
                collaboration=collaboration.id,
                organizations=[hub.id],
                name=name,
                image=image,
                description="",
                input_={"method": method, "kwargs": dict(arguments)},
                databases=[dict(database) for database in databases],
            )
        except ValueError as error:
            raise ServerError(f"the task cannot be sent: {error}") from None
        if not isinstance(answer, dict) or "id" not in answer:
            said = answer.get("msg") if isinstance(answer, dict) else "no answer"
            raise ServerError(f"the server did not take the task: {said}")
        return Task(self._client, self.ask, answer["id"], name)

    def task(self, number: int) -> Task:
        """Find a task by its id; raises ServerError when there is none."""
        answer = self.ask(f"task/{number}")
        if "id" not in answer:
            raise ServerError(f"task {number}: {answer.get('msg', 'is not there')}")
        task = Task(self._client, self.ask, number, str(answer.get("name")))
        task.image = str(answer.get("image") or "")
        return task

    def cancel(self, number: int) -> None:
        """Stop a task and its subtasks; raises ServerError when it has ended, or one may not."""
        answer = self.ask("kill/task", method="post", json={"id": number})
        said = str(answer.get("msg"))
        if "instructed" not in said:
            raise ServerError(f"task {number} was not cancelled: {said}")

    def ask(self, endpoint: str, **options: Any) -> dict[str, Any]:
        """Make one request; raises UnreachableError when there is no answer now.

        A log-in that has ended, as after a restart of a server without a `jwt_secret_key`, is renewed once.
        """
        try:
            return self._ask(endpoint, **options)
        except _LogInEndedError:
            if self._credentials is None:
                raise
        self.log_in(*self._credentials)
        return self._ask(endpoint, **options)

    def _ask(self, endpoint: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(endpoint, attempts_on_timeout=0, **options)
        except Exception as error:  # requests' own, a page that is not JSON, or the client's bare exceptions
            if "Authentication" in str(error):
                raise _LogInEndedError("the session has ended; log in again") from None
            raise UnreachableError(f"the server {self.address} does not answer ({type(error).__name__})") from None
        if not isinstance(answer, dict) or answer.get("msg") == "Connection error":
            raise UnreachableError(f"the server {self.address} does not answer")
        return answer

    # -- inside -------------------------------------------------------------------------------------------------------

    def _list(self, endpoint: str, *, may_fail: bool = False, **filters: Any) -> list[dict[str, Any]]:
        """Return all entries of a list, page by page."""
        items: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = self.ask(endpoint, params={**filters, "page": page, "per_page": _PAGE})
            if "data" not in answer:
                if may_fail:
                    return items
                raise ServerError(f"the server does not list {endpoint}s: {answer.get('msg')}")
            items += answer["data"]
            if len(answer["data"]) < _PAGE:
                return items
            page += 1


def quiet(make: Callable[[], Any]) -> Any:
    """Make vantage6's client, which takes over the root logger; whoever uses us has it back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        client = make()
    finally:
        root.handlers[:], root.level = handlers, level
    client.log = Listening()
    return client


class Listening(logging.Logger):
    """Takes the place of the client's logger: prints nothing, and keeps what the server said of a log-in."""

    def __init__(self) -> None:
        super().__init__("v6_algorithm.researcher", logging.ERROR)
        self.heard: list[str] = []
        # Who else is to be told, as of an address at which to log in.
        self.listeners: list[Callable[[str], None]] = []
        handler = logging.Handler()
        handler.emit = self._hear  # type: ignore[method-assign]
        self.addHandler(handler)

    def _hear(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())
        for listener in self.listeners:
            listener(record.getMessage())


def _first(said: str) -> str:
    """Shorten what the server said to what helps; vantage6 says the same twice."""
    text = said.removeprefix("Failed to authenticate: ").removesuffix("Failed to authenticate").strip(" .")
    return text or said
