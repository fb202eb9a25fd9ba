"""How a command asks a network: at which server, as whom, with which key, and whose node runs `master`.

The password comes from V6_PASSWORD or a prompt, never from an argument: arguments are seen by everyone on the machine
and kept in the shell's history.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from v6_algorithm.errors import ExperimentError, SecondFactorError, ServerError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.terminal import complain, say

if TYPE_CHECKING:
    from v6_algorithm.researcher.server import Collaboration, Organization, Server

Address = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="V6_SERVER",
        help="The server's address, such as https://vantage6.example.org/api (of vantage6 5: HQ's, with Keycloak's in "
        "V6_AUTH).",
    ),
]
Username = Annotated[
    str, typer.Option("--username", metavar="NAME", envvar="V6_USERNAME", help="Password: V6_PASSWORD, or a prompt.")
]
Local = Annotated[
    bool, typer.Option("--local", help="On the network that `network start` has started on this machine.")
]
PrivateKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", envvar="V6_PRIVATE_KEY", help="Your organisation's, where the collaboration is encrypted."
    ),
]

CollaborationName = Annotated[
    str | None,
    typer.Option("--collaboration", metavar="NAME", help="Name or id; needed where you see more than one."),
]
Organizations = Annotated[
    list[str] | None,
    typer.Option("--organization", metavar="NAME", help="One that takes part, as often as needed; else all do."),
]
Hub = Annotated[
    str | None,
    typer.Option("--hub", metavar="NAME", help="Organisation whose node runs `master`; else your own."),
]
Databases = Annotated[
    list[str] | None,
    typer.Option(
        "--database",
        metavar="LABEL",
        help="The database that each node reads, else default; twice: a table, and the folder of its images.",
    ),
]
Query = Annotated[str | None, typer.Option(metavar="SQL", help="For SQL databases.")]
Sheet = Annotated[str | None, typer.Option(metavar="NAME", help="For Excel files.")]


# The address of the network on this machine, where a command went there by --local.
_local: str | None = None


def again_at(address: str, username: str) -> list[str]:
    """Return the options by which a later command comes to the same server."""
    return ["--local"] if address == _local else ["--server", address, "--username", username]


def log_in_where(server: str, username: str, *, local: bool) -> tuple[Server, str, str]:
    """Log in at a server, or with `local` at that of the network on this machine; return its address and name too."""
    server, username, _ = where(server, username, None, local=local)
    return log_in(server, username), server, username


def where(server: str, username: str, image: str | None, *, local: bool) -> tuple[str, str, str]:
    """Return address, name and image: those given, or with `local` those of the network on this machine.

    An image of None is not asked for, and comes back empty.
    """
    global _local
    if local:
        from v6_algorithm.researcher import network

        folder = Path(os.environ.get("V6_LOCAL_NETWORK") or network.default_folder())
        there = network.find(folder.resolve())
        os.environ["V6_PASSWORD"] = there.password
        _local = there.url
        return there.url, network.USERNAME, network.IMAGE
    given = {"--server": server, "--username": username, "--image": image}
    if missing := [name for name, value in given.items() if value == ""]:
        raise ExperimentError(f"{', '.join(missing)}: missing; or --local, after `v6-algorithm network start FILE`")
    return server, username, image or ""


def log_in(address: str, username: str) -> Server:
    """Log in with the password of V6_PASSWORD or a prompt, and a second factor where the server wants one."""
    from v6_algorithm.researcher.hq import keycloak_address
    from v6_algorithm.researcher.server import Server

    if (keycloak := keycloak_address()) is not None:
        return _log_in_at_hq(address, keycloak, username)
    with terminal.err.status("logging in …"):
        session = Server(address)
    if session.readable_on_the_way:
        complain(f"--server {address}: http, so that others on the way can read the password", kind="warning")
    password = secret("V6_PASSWORD", f"Password of {username}")
    code = os.environ.get("V6_MFA_CODE")
    for attempt in (1, 2):
        try:
            session.log_in(username, password, code)
            break
        except SecondFactorError:
            if attempt == 2 or not sys.stdin.isatty():
                raise
            code = secret("", "Two-factor code")
    return session


def _log_in_at_hq(address: str, keycloak: str, username: str) -> Server:
    """Log in at vantage6 5: with a service account's secret where there is one, else in a browser."""
    from v6_algorithm.researcher.hq import SECRET, HqServer

    session = HqServer(address, keycloak, say)
    if session.readable_on_the_way:
        complain(f"V6_AUTH {keycloak}: http, so that others on the way can read the secret", kind="warning")
    session.log_in(username, os.environ.get(SECRET, ""))
    return session


def secret(variable: str, prompt: str) -> str:
    """Return a secret from an environment variable, or ask at the terminal for it."""
    value = os.environ.get(variable)
    if value:
        return value
    if not sys.stdin.isatty():
        raise ServerError(f"{prompt.lower()}: there is no terminal to ask at; set {variable}")
    return str(typer.prompt(prompt, hide_input=True, err=True))


def encrypt(session: Server, collaboration: Collaboration, private_key: Path | None) -> None:
    """Use the private key where the collaboration is encrypted, which needs one."""
    if collaboration.encrypted and private_key is None:
        raise ServerError(f"collaboration '{collaboration.name}' is encrypted; give --private-key FILE")
    if private_key is not None and not collaboration.encrypted:
        say(f"note: collaboration '{collaboration.name}' is not encrypted; --private-key is not used")
    elif private_key is not None:
        tell_note(session.encrypt_with(private_key))


def tell_note(note: str | None) -> None:
    """Show what a server noted, if it did."""
    if note:
        say(f"note: {note}")


def choose_hub(session: Server, collaboration: Collaboration, wanted: str | None) -> Organization:
    """Choose whose node runs `master`: the researcher's own, unless told otherwise."""
    if wanted is not None:
        return collaboration.find(wanted)
    organizations = [
        organization
        for organization in collaboration.organizations
        if organization.name == session.organization and organization.online is not None
    ]
    if not organizations:
        nodes = ", ".join(
            organization.name for organization in collaboration.organizations if organization.online is not None
        )
        raise ServerError(f"{session.organization} has no node in '{collaboration.name}'; give --hub, one of: {nodes}")
    return organizations[0]


def task_databases(labels: list[str] | None, query: str | None, sheet: str | None) -> list[dict[str, str]]:
    """Return the task's databases; which of two is the table, each node sees, so both bring the table's options."""
    labels = labels or ["default"]
    if len(labels) > 2 or len(set(labels)) < len(labels):
        raise ExperimentError(f"--database: {', '.join(labels)}; allowed: one label, or those of a table and a folder")
    options = {key: value for key, value in (("query", query), ("sheet_name", sheet)) if value}
    return [{"label": label, **options} for label in labels]
