"""A vantage6 network on this machine: a real server and a real node for each site of an experiment, as processes.

`v6-algorithm network` starts and stops one; `submit --local` goes there. All that it writes is in one folder, which
only its owner can read: the nodes' keys, the researcher's password, the tables that were cut for the sites. A secret is
never an argument of a process. Without Docker the algorithms are processes too; all else is vantage6's own code.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from v6_algorithm.errors import ServerError
from v6_algorithm.researcher.network.server_python import cache_folder, server_python
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD, PRESET

if TYPE_CHECKING:
    from v6_algorithm.data.sources import TableSource

HUB = "hub"
USERNAME = "researcher"
COLLABORATION = "local"
IMAGE = "v6-algorithm:local"
API_PATH = "/api"
PROGRAMS = Path(__file__).parent / "programs"
STATE = "network.json"
_START_S = 180
_STOP_S = 20
_TRIES = 3
# By the ending of a file what vantage6 calls its type.
_TYPES = {".csv": "csv", ".parquet": "parquet", ".xlsx": "excel"}


class _NoNetworkError(ServerError):
    """None runs there."""


@dataclass(frozen=True)
class LocalNetwork:
    """A network that was started.

    Attributes
    ----------
    folder
        Where all of it is.
    url, sites
        The server's address with its path, and the sites' names; the hub, where `master` runs, has no data.
    processes
        Process ids of server and nodes by name.
    """

    folder: str
    url: str
    sites: list[str]
    processes: dict[str, int]

    @property
    def password(self) -> str:
        """The researcher's password, which stands in a file of its own."""
        return (Path(self.folder) / "password").read_text(encoding="utf-8")

    @property
    def alive(self) -> list[str]:
        """The names of the processes that still run."""
        return [name for name, number in self.processes.items() if _is_ours(number, self.folder)]


def default_folder() -> Path:
    """Return where a network is kept unless another folder is named."""
    return cache_folder() / "network"


def find(folder: Path) -> LocalNetwork:
    """Read the network in a folder.

    Raises
    ------
    ServerError
        When none runs there.
    """
    try:
        network = LocalNetwork(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise _NoNetworkError(f"no local network in {folder}; start one: v6-algorithm network start FILE") from None
    if not network.alive:
        raise _NoNetworkError(
            f"the local network in {folder} has ended; start it again: v6-algorithm network start FILE"
        )
    return network


def start(
    tables: Mapping[str, TableSource],
    folder: Path,
    *,
    policy: str,
    on_step: Callable[[str], None] = lambda text: None,
) -> LocalNetwork:
    """Start server and nodes, and wait until the server sends each node its tasks.

    Parameters
    ----------
    tables
        Site name to its table, as `engines.simulate.tables_of` gives them.
    folder
        Where everything goes; what an earlier network left there is replaced.
    policy
        The rules of all nodes: trusted, standard or strict; where they require a ledger over tasks, each has a folder.
    on_step
        Called with a sentence for each step.

    Raises
    ------
    ServerError
        When one runs there already, a site cannot be a node's database, or something does not start.
    MissingError
        When there is no Python 3.10 for vantage6's server.
    """
    with suppress(_NoNetworkError):
        running = find(folder)
        raise ServerError(f"a local network runs in {folder} ({running.url}); end it first: v6-algorithm network stop")
    if HUB in tables:
        raise ServerError(f"sites: '{HUB}' is the name of the organisation that runs master; give the site another")
    on_step("looking for a Python 3.10 with vantage6's server; the first time it is installed, which takes minutes")
    python = server_python()
    _empty(folder)
    databases = {name: _database(name, table, folder / "data") for name, table in tables.items()}
    keys = {name: str(uuid4()) for name in (HUB, *tables)}
    password = f"{secrets.token_urlsafe(16)}-aA1"
    port, *proxies = _free_ports(1 + len(keys))
    _write(folder / "password", password)
    _write_server(folder, port, keys, password)
    environment = _environment(folder)
    processes = {"server": _spawn([python, PROGRAMS / "serve.py", folder / "server.yaml", folder / "entities.yaml"],
                                  folder / "server.log", environment)}  # fmt: skip
    network = LocalNetwork(str(folder), f"http://127.0.0.1:{port}{API_PATH}", list(tables), processes)
    _write(folder / STATE, json.dumps(asdict(network)))
    try:
        on_step(f"server on port {port}")
        _wait(lambda: _answers(network.url), folder / "server.log", "the server")
        for name in keys:
            _write_node(folder / name, name, keys[name], port, databases.get(name), policy)
        _start_nodes(network, python, dict(zip(keys, proxies, strict=True)), environment, on_step)
    except BaseException:
        stop(network)
        raise
    return network


def stop(network: LocalNetwork) -> None:
    """End all processes of a network and remove its folder, with its keys, password and copies of tables."""
    alive = {name: network.processes[name] for name in network.alive}
    # Nodes first, lest they look for a server that is gone.
    for name in sorted(alive, key=lambda name: name == "server"):
        with suppress(ProcessLookupError):
            os.killpg(alive[name], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while network.alive and time.monotonic() < deadline:
        time.sleep(0.2)
    for name in network.alive:
        with suppress(ProcessLookupError):
            os.killpg(network.processes[name], signal.SIGKILL)
    shutil.rmtree(network.folder, ignore_errors=True)


# -- files ---------------------------------------------------------------------------------------------------------


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / STATE).exists():
        raise ServerError(f"--folder {folder}: holds other files; give a new folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _write_yaml(path: Path, content: Any) -> None:
    import yaml

    _write(path, yaml.safe_dump(content, sort_keys=False))


def _database(name: str, table: TableSource, folder: Path) -> dict[str, Any]:
    """Return a node's database for a site's table; one that was cut from a larger is written as CSV."""
    if table.frame is not None:
        if table.folder is not None:
            raise ServerError(
                f"site '{name}': images of a partition are not put on a network; give each site its folder"
            )
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / f"{name}.csv"
        path.touch(mode=0o600)
        table.frame.to_csv(path, index=False)
        return {"type": "csv", "uri": str(path)}
    path = Path(table.uri).resolve()
    if "://" in table.uri or (path.suffix not in _TYPES and not path.is_dir()):
        allowed = ", ".join(_TYPES)
        raise ServerError(f"site '{name}': {table.uri} cannot be a local node's database; allowed: {allowed}, a folder")
    return {"type": "folder" if path.is_dir() else _TYPES[path.suffix], "uri": str(path), "mount_mode": "ro"}


def _write_server(folder: Path, port: int, keys: Mapping[str, str], password: str) -> None:
    _write_yaml(
        folder / "server.yaml",
        {
            "description": "a local network of v6_algorithm",
            "ip": "127.0.0.1",
            "port": port,
            "api_path": API_PATH,
            "uri": f"sqlite:///{folder / 'server.sqlite'}",
            "allow_drop_all": False,
            "jwt_secret_key": secrets.token_hex(32),
            "directories": {"log": str(folder), "data": str(folder)},
            "logging": _logging("server"),
        },
    )
    empty = dict.fromkeys(("address1", "address2", "zipcode", "country", "public_key"), "")
    user = {"username": USERNAME, "firstname": "", "lastname": "", "password": password}
    organizations = [
        {"name": name, "domain": f"{name}.example.org", **empty, **({"users": [user]} if name == HUB else {})}
        for name in keys
    ]
    participants = [{"name": name, "api_key": key} for name, key in keys.items()]
    collaboration = {"name": COLLABORATION, "encrypted": False, "participants": participants}
    _write_yaml(folder / "entities.yaml", {"organizations": organizations, "collaborations": [collaboration]})


def _write_node(folder: Path, name: str, key: str, port: int, database: Mapping[str, Any] | None, policy: str) -> None:
    folder.mkdir(mode=0o700)
    package = str(Path(__file__).parents[3])
    image = {"PKG_NAME": "v6_algorithm", "PYTHONUNBUFFERED": "1", "PYTHONPATH": package}
    rules = {PRESET: policy}
    if Policy.of(policy).require_ledger:
        # A container's folder would be a database of the node's; a process writes where it is told.
        rules[BY_FIELD["ledger_folder"].variable] = str(folder / "ledger")
    engine = {"folder": str(folder), "python": sys.executable, "images": {IMAGE: image}}
    _write(folder / "images.json", json.dumps(engine))
    _write_yaml(
        folder / f"{COLLABORATION}-{name}.yaml",
        {
            "api_key": key,
            "server_url": "http://127.0.0.1",
            "port": port,
            "api_path": API_PATH,
            "task_dir": "tasks",
            "databases": [] if database is None else [{"label": "default", **database}],
            "algorithm_env": rules,
            "policies": {"allowed_algorithms": [IMAGE], "require_algorithm_pull": False},
            "share_algorithm_logs": True,
            "share_config": False,
            "encryption": {"enabled": False, "private_key": ""},
            "directories": {"log": str(folder / "log"), "data": str(folder)},
            "logging": _logging("node"),
        },
    )


def _logging(name: str) -> dict[str, Any]:
    return {
        "level": "INFO" if name == "node" else "WARNING",
        "use_console": True,
        "backup_count": 1,
        "max_size": 1024,
        "format": "%(asctime)s - %(name)-14s - %(levelname)-8s - %(message)s",
        "datefmt": "%Y-%m-%d %H:%M:%S",
        "file": f"{name}.log",
    }


# -- processes -----------------------------------------------------------------------------------------------------


def _environment(folder: Path) -> dict[str, str]:
    """So that vantage6 writes nowhere else, and its output comes line by line."""
    home = {f"XDG_{part}_HOME": str(folder / "xdg" / part.lower()) for part in ("CONFIG", "DATA", "CACHE")}
    return {**os.environ, **home, "PYTHONUNBUFFERED": "1"}


def _spawn(command: list[Any], log: Path, environment: Mapping[str, str]) -> int:
    log.touch(mode=0o600)
    with log.open("ab") as file:
        process = subprocess.Popen(  # our own programs
            [str(part) for part in command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process.pid


def _start_nodes(
    network: LocalNetwork,
    python: str,
    proxies: Mapping[str, int],
    environment: Mapping[str, str],
    on_step: Callable[[str], None],
) -> None:
    """Start nodes side by side; one that the server does not take in is started again, as its operator would."""
    folder = Path(network.folder)
    waiting = list(proxies)
    for attempt in range(1, _TRIES + 1):
        for name in waiting:
            command = [python, PROGRAMS / "run_node.py", folder / name / f"{COLLABORATION}-{name}.yaml"]
            node_environment = {
                **environment,
                "PROXY_SERVER_HOST": "127.0.0.1",
                "PROXY_SERVER_PORT": str(proxies[name]),
            }
            log = folder / name / "output.log"
            network.processes[name] = _spawn([*command, folder / name / "images.json"], log, node_environment)
        _write(folder / STATE, json.dumps(asdict(network)))
        for name in list(waiting):
            log = folder / name / "output.log"
            joined = partial(_has_joined, log)
            try:
                _wait(joined, log, f"node {name}")
            except ServerError:
                if attempt == _TRIES:
                    raise
                with suppress(ProcessLookupError):
                    os.killpg(network.processes[name], signal.SIGKILL)
            else:
                waiting.remove(name)
                on_step(f"node {name} is online")


def _wait(holds: Callable[[], bool], log: Path, what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not holds():
        if time.monotonic() > deadline:
            raise ServerError(f"{what} did not start within {_START_S} s; the end of {log}:\n{_tail(log)}")
        time.sleep(0.3)


def _tail(log: Path, lines: int = 8) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _has_joined(log: Path) -> bool:
    """Say whether the server has let a node into the room to which it sends its tasks."""
    return "joined room <collaboration_" in log.read_text(errors="replace")


def _answers(url: str) -> bool:
    import requests

    try:
        return bool(requests.get(f"{url}/version", timeout=5).ok)
    except requests.ConnectionError:
        return False


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _is_ours(number: int, folder: str) -> bool:
    """Say whether a process runs and is of this network: a number may have been given to another since."""
    try:
        command = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace")
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return folder in command and state != "Z"
