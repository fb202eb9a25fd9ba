"""A vantage6 network on this machine for the tests: one real server and real nodes, each a process of its own.

`Network` is what a test holds: it starts and stops nodes, has a logged-in `UserClient`, and runs a task to its end.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import request_log
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from docker_cli import remove_all_named
from v6config import Site, entities, node_configuration, server_settings, write_yaml
from v6process import Process, free_ports, wait_for
from vantage6.client import UserClient
from vantage6.common.task_status import TaskStatus

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PROGRAMS = ROOT / "v6_algorithm" / "researcher" / "network" / "programs"
HUB = "hub"
RESEARCHER = "researcher"
# Two checkouts that test at the same time on one machine need two tags.
TAG = os.environ.get("V6_TEST_TAG", "test")
IMAGE = f"v6-algorithm:{TAG}"
SELF_TEST_IMAGE = f"count-rows:{TAG}"
# FROM ours, with a researcher's network in it.
PACKAGED_IMAGE = f"v6-gated:{TAG}"
# The images that every node allows: the tests' own, and one that is nowhere to be had.
ABSENT_IMAGE = "absent:test"
ALLOWED_IMAGES = (IMAGE, SELF_TEST_IMAGE, PACKAGED_IMAGE, ABSENT_IMAGE)
# What the images' Dockerfiles would set. Plain values: the wrapper leaves alone what is not base32.
PROCESS_IMAGES = {
    IMAGE: {"PKG_NAME": "v6_algorithm", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
    SELF_TEST_IMAGE: {"PKG_NAME": "count_rows", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(HERE)},
}
API_PATH = "/api"
JOIN_TIMEOUT_S = 60
JOIN_ATTEMPTS = 3
OPEN = (TaskStatus.PENDING, TaskStatus.INITIALIZING, TaskStatus.ACTIVE, "awaiting", None)


@dataclass(frozen=True)
class Run:
    """How one organisation's part of a task ended."""

    task: int
    organization: str
    status: str
    log: str
    result: Any


class Network:
    """One collaboration: a hub, where `master` runs, and sites with data.

    Parameters
    ----------
    folder
        Empty; everything the network writes goes here.
    python
        A Python 3.10 with vantage6-server and vantage6-node.
    sites
        By organisation name. The hub gets a node without data.
    encrypted
        End-to-end encryption between the organisations.
    images
        For nodes that run algorithms as processes: variables by image name; None: nodes that use Docker.
    interpreter
        What those processes are started with, as `python -c PROGRAM` is.
    proxy_host
        Address at which an algorithm reaches its node.
    database_uri
        Of the server's database; None: a file.
    server_environment
        Variables of the server alone.
    request_log
        Whether server and proxies write down each request that they answer; see `requests_of`.

    Attributes
    ----------
    name
        The collaboration's; also a part of every node's name.
    username, password
        The researcher's log-in, of the hub's organisation.
    in_processes
        No Docker: algorithms are processes.
    interpreter
        What these are started with.
    """

    def __init__(
        self,
        folder: Path,
        python: str,
        sites: Mapping[str, Site],
        *,
        encrypted: bool = False,
        images: Mapping[str, Mapping[str, str]] | None = PROCESS_IMAGES,
        interpreter: Path | str = sys.executable,
        proxy_host: str = "127.0.0.1",
        database_uri: str | None = None,
        server_environment: Mapping[str, str] | None = None,
        request_log: bool = False,
    ) -> None:
        self._logs_requests = request_log
        self.folder, self.sites = folder, {HUB: Site(), **sites}
        self.encrypted = encrypted
        self.collaboration: int = 0
        self.organizations: dict[str, int] = {}
        self.username, self.password = RESEARCHER, secrets.token_urlsafe(12)
        self._keys = {name: str(uuid4()) for name in self.sites}
        self._python, self._images, self._proxy_host = python, images, proxy_host
        self._database_uri, self._server_environment = database_uri, dict(server_environment or {})
        self.in_processes, self.interpreter = images is not None, interpreter
        # A name that is unique on this machine, since Docker networks and volumes are called after it.
        self.name = f"v6test-{secrets.token_hex(3)}"
        ports = free_ports(1 + len(self.sites))
        self.port = ports.pop()
        self._server = self._new_server()
        self._nodes = {name: self._new_node(name, port) for name, port in zip(self.sites, ports, strict=True)}

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Network:
        """Start the server, then every node that is to be online; returns when all of them are."""
        self.start_server()
        self.client = UserClient("http://127.0.0.1", self.port, API_PATH, log_level="error")
        self.client.authenticate(self.username, self.password)
        self.client.setup_encryption(str(self.private_key(HUB)) if self.encrypted else None)
        self.collaboration = self.client.collaboration.list()["data"][0]["id"]
        listed = self.client.organization.list(collaboration=self.collaboration, per_page=100)["data"]
        self.organizations = {organization["name"]: organization["id"] for organization in listed}
        self.start_nodes(name for name, site in self.sites.items() if site.online)
        return self

    def stop(self) -> None:
        """End every process this network started, and remove what its nodes made in Docker."""
        for node in self._nodes.values():
            node.stop(gracefully=not self.in_processes)
        self._server.stop()
        if not self.in_processes:
            remove_all_named(self.name)

    def start_server(self) -> None:
        self._server.start()
        wait_for(self._server_answers, f"the server on port {self.port}", [self._server])

    def stop_server(self) -> None:
        self._server.stop(gracefully=False)

    def start_node(self, name: str) -> None:
        self.start_nodes([name])

    def start_nodes(self, names: Iterable[str]) -> None:
        """Start nodes side by side; returns when the server sends each of them its tasks.

        The server of 4.15 shares one database session among its socket handlers. A node that connects while another
        one leaves may fail half-way in there (`DetachedInstanceError`): it takes itself for connected, and gets no
        task ever. What helps an operator then helps here: it is started again.
        """
        arrivals = {name: self._arrivals(name) for name in names}
        for attempt in range(1, JOIN_ATTEMPTS + 1):
            for name in arrivals:
                self._nodes[name].start()
            for name, before in list(arrivals.items()):
                arrived = lambda name=name, before=before: self._arrivals(name) > before  # noqa: E731
                try:
                    wait_for(arrived, f"node {name}", [self._nodes[name], self._server], JOIN_TIMEOUT_S)
                except TimeoutError:
                    if attempt == JOIN_ATTEMPTS:
                        raise
                    self._nodes[name].stop()
                else:
                    del arrivals[name]

    def _arrivals(self, name: str) -> int:
        """How often a node was let into the room to which the server sends its tasks."""
        room = f"collaboration_{self.collaboration}_organization_{self.organizations[name]}"
        return self.node_log(name).count(f"joined room <{room}>")

    def stop_node(self, name: str, gracefully: bool = True) -> None:
        """Stop a node and what runs on it; not gracefully: as when its machine loses power (noticed late)."""
        self._nodes[name].stop(gracefully)
        if gracefully:
            wait_for(lambda: not self.is_online(name), f"node {name} to go offline", [self._server])

    def configure(self, name: str, site: Site) -> None:
        """Give a stopped node other data, guards or policies."""
        if self._nodes[name].running:
            raise ValueError(f"stop node {name} before configuring it anew")
        self.sites[name] = site
        self._write_node_configuration(name)

    @property
    def url(self) -> str:
        """The server's address with its port and API path, as a researcher would give it."""
        return f"http://127.0.0.1:{self.port}{API_PATH}"

    def private_key(self, name: str = HUB) -> Path:
        """An organisation's private key; an empty file where the collaboration is not encrypted."""
        return self.folder / name / "private_key.pem"

    @contextmanager
    def changed(self, sites: Mapping[str, Site]) -> Iterator[Network]:
        """Run these sites' nodes with another configuration inside the block, and with their own again after it."""
        own = {name: self.sites[name] for name in sites}
        try:
            self._restart(sites)
            yield self
        finally:
            self._restart(own)

    def _restart(self, sites: Mapping[str, Site]) -> None:
        for name, site in sites.items():
            self.stop_node(name)
            self.configure(name, site)
        self.start_nodes(name for name, site in sites.items() if site.online)

    def is_online(self, name: str) -> bool:
        nodes = self.client.node.list(organization=self.organizations[name], collaboration=self.collaboration)["data"]
        return nodes[0]["status"] == "online"

    def server_log(self) -> str:
        return self._server.output()

    def node_log(self, name: str) -> str:
        return self._nodes[name].output()

    def requests_of(self, name: str) -> list[dict[str, Any]]:
        """The requests that the server (`server`), or a node's proxy by the node's name, has answered so far."""
        return request_log.read(self._request_log(name))

    # -- tasks --------------------------------------------------------------------------------------------------------

    def create(
        self,
        method: str,
        *,
        at: Iterable[str] = (HUB,),
        image: str = IMAGE,
        databases: Iterable[str | dict] = ("default",),
        **kwargs: Any,
    ) -> int:
        """Create a task for organisations by name and return its id; `kwargs` go to the method."""
        labels = [{"label": entry} if isinstance(entry, str) else entry for entry in databases]
        task = self.client.task.create(
            collaboration=self.collaboration,
            organizations=[self.organizations[name] for name in at],
            name=method,
            image=image,
            description="",
            input_={"method": method, "kwargs": kwargs},
            databases=labels,
        )
        if "id" not in task:
            raise RuntimeError(f"the server did not create the task: {task.get('msg')}")
        return task["id"]

    def wait(self, task: int, timeout_s: float = 300) -> dict[str, Run]:
        """Wait until no run of the task is open; what became of each, by organisation name."""
        wait_for(lambda: not self._open_runs(task), f"task {task}", list(self._nodes.values()), timeout_s, poll_s=0.3)
        results = {r["run"]["id"]: r["result"] for r in self.client.result.from_task(task)["data"]}
        runs = [
            Run(task, self._name(run), run["status"], run["log"] or "", json.loads(results.get(run["id"]) or "null"))
            for run in self.client.run.from_task(task)["data"]
        ]
        return {run.organization: run for run in runs}

    def run(self, method: str, timeout_s: float = 300, **options: Any) -> Any:
        """Create a task for one organisation, by default the hub, and return what the method returned.

        Raises
        ------
        RuntimeError
            With the end of the algorithm's log, when the run did not complete.
        """
        (run,) = self.wait(self.create(method, **options), timeout_s).values()
        if run.status != "completed":
            raise RuntimeError(f"{method} at {run.organization}: {run.status}\n{run.log[-4000:]}")
        return run.result

    def statuses(self, task: int) -> dict[str, str]:
        """Status of each run of a task, by organisation name."""
        return {self._name(run): run["status"] for run in self.client.run.from_task(task)["data"]}

    def subtasks(self, task: int) -> list[dict[str, Any]]:
        """The tasks that a master created, oldest first."""
        found = self.client.task.list(parent=task, per_page=250)["data"]
        return sorted(found, key=lambda child: child["id"])

    # -- inside -------------------------------------------------------------------------------------------------------

    def _open_runs(self, task: int) -> bool:
        # The task's own status is cheap to ask for, but it is `failed` while other runs still go on.
        if (self.client.request(f"task/{task}/status") or {}).get("status") in OPEN:
            return True
        return any(status in OPEN for status in self.statuses(task).values())

    def _name(self, run: dict[str, Any]) -> str:
        names = {identity: name for name, identity in self.organizations.items()}
        return names[run["organization"]["id"]]

    def _server_answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/version", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _new_server(self) -> Process:
        folder = self.folder / "server"
        folder.mkdir(parents=True)
        uri = self._database_uri or f"sqlite:///{folder / 'server.sqlite'}"
        settings = server_settings(folder, port=self.port, uri=uri, secret=secrets.token_hex(32))
        public_keys = {name: key_pair(name)[1] if self.encrypted else "" for name in self.sites}
        user = (self.username, self.password)
        content = entities(self.name, keys=self._keys, public_keys=public_keys, encrypted=self.encrypted, user=user)
        write_yaml(folder / "server.yaml", settings)
        write_yaml(folder / "entities.yaml", content)
        command = [*self._program("server", "serve.py"), folder / "server.yaml", folder / "entities.yaml"]
        return Process(command, folder / "output.log", {**self._environment(), **self._server_environment})

    def _new_node(self, name: str, proxy_port: int) -> Process:
        folder = self.folder / name
        folder.mkdir()
        command = [*self._program(name, "run_node.py"), folder / f"{self.name}-{name}.yaml"]
        if self.in_processes:
            engine = {"folder": str(folder), "python": str(self.interpreter), "images": self._images}
            (folder / "images.json").write_text(json.dumps(engine))
            command.append(folder / "images.json")
        proxy = {"PROXY_SERVER_HOST": self._proxy_host, "PROXY_SERVER_PORT": str(proxy_port)}
        self.private_key(name).write_bytes(key_pair(name)[0] if self.encrypted else b"")
        self._write_node_configuration(name)
        return Process(command, folder / "output.log", {**self._environment(), **proxy})

    def _program(self, name: str, program: str) -> list[str | Path]:
        """Return the command of a server or a node, which writes down its requests where that is asked for."""
        log = [HERE / "request_log.py", self._request_log(name)] if self._logs_requests else []
        return [self._python, *log, PROGRAMS / program]

    def _request_log(self, name: str) -> Path:
        return self.folder / name / "requests.jsonl"

    def _write_node_configuration(self, name: str) -> None:
        folder = self.folder / name
        content = node_configuration(
            self.sites[name],
            folder,
            api_key=self._keys[name],
            port=self.sites[name].server_port or self.port,
            private_key=self.private_key(name) if self.encrypted else None,
            images=ALLOWED_IMAGES,
        )
        write_yaml(folder / f"{self.name}-{name}.yaml", content)

    def _environment(self) -> dict[str, str]:
        """So that vantage6 writes nowhere else, and its output comes line by line."""
        home = {f"XDG_{part}_HOME": str(self.folder / "xdg" / part.lower()) for part in ("CONFIG", "DATA", "CACHE")}
        return {**home, "PYTHONUNBUFFERED": "1"}


@cache
def key_pair(organization: str) -> tuple[bytes, str]:
    """Private key (PEM) and public key as vantage6 stores it; once per process, since its cryptor is a singleton."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, base64.b64encode(public).decode()
