"""Trying an image as a node would run it: the doctor, and one call through vantage6's wrapper on a small table.

Both containers have no network, and a read-only file system but for /tmp and the folders that a node mounts. Files go
in and come out as archives, so that the engine may be on another machine.
"""

from __future__ import annotations

import base64
import io
import json
import random
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v6_algorithm.errors import ImageError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.researcher.image.engine import image_of

_DATA, _TEMPORARY = "/mnt/data", "/mnt/tmp"  # as vantage6-node has them, node/docker/task_manager.py
_SCRATCH = "/tmp"  # noqa: S108 (of the container)
_TASK = "task-000000001"
_ROWS = 30
_TIMEOUT_S = 180
_LOG_LINES = 12


def run_doctor(client: Any, image: str) -> dict[str, Any]:
    """Run the doctor in a fresh container.

    Returns
    -------
    dict
        What it says; see `v6_algorithm.researcher.doctor.summary`.

    Raises
    ------
    ImageError
        When it says nothing that can be read.
    """
    command = ["v6-algorithm", "doctor", "--json"]
    with _container(client, image, command=command, environment={"TEMPORARY_FOLDER": _TEMPORARY}) as container:
        _run(container)
        try:
            report = json.loads(container.logs(stdout=True, stderr=False))
            report["usable"], report["findings"], report["versions"]
        except (ValueError, KeyError, TypeError):
            raise ImageError(f"{image}: its doctor gave no report{_log(container)}") from None
    return dict(report)


def run_call(client: Any, image: str) -> dict[str, Any]:
    """Call `RPC_prepare` through the image's own command, with variables and files as vantage6's node gives them.

    On vantage6 5 the table is extracted first, by a container of its own, as there.

    Returns
    -------
    dict
        The reply, which was checked to be about the table that was handed in.

    Raises
    ------
    ImageError
        When a container fails, or its reply is not that.
    """
    labels = image_of(client, image).labels
    call = _call_5 if str(labels.get("vantage6.version", "4")).startswith("5.") else _call_4
    request = wire.message(
        site="trial", round=0, attempt=1, sites=1, step="schema", experiment={"data": {"target": "outcome"}}
    )
    output, log = call(client, image, request)
    try:
        reply = wire.read_reply(output.decode(), request)
        rows = reply["members"]["trial"]["rows"] if reply["status"] == "ok" else None
    except (ValueError, KeyError, TypeError, WireError):
        raise ImageError(f"{image}: the reply to RPC_prepare cannot be read{log}") from None
    if reply["status"] != "ok":
        raise ImageError(f"{image}: RPC_prepare answers {reply['kind']}: {reply['message']}")
    if rows != _ROWS:
        raise ImageError(f"{image}: RPC_prepare read {rows} rows of a table of {_ROWS}")
    return reply


def _call_4(client: Any, image: str, request: dict[str, Any]) -> tuple[bytes, str]:
    """Call it as a node of vantage6 4 does; returns what it wrote, and the end of its log."""
    files = {
        f"{_TASK}/input": json.dumps({"method": "RPC_prepare", "args": [], "kwargs": {"request": request}}).encode(),
        f"{_TASK}/output": b"",
        f"{_TASK}/token": b"no.server.here",
        "default.csv": _table().encode(),
    }
    environment = {
        "TOKEN_FILE": f"{_DATA}/{_TASK}/token",
        "TEMPORARY_FOLDER": _TEMPORARY,
        "HOST": "http://172.17.0.1",
        "PORT": "8080",
        "API_PATH": "",
        "USER_REQUESTED_DATABASE_LABELS": "default",
        "DB_LABELS": "default",
        "DEFAULT_DATABASE_URI": f"{_DATA}/default.csv",
        "DEFAULT_DATABASE_TYPE": "csv",
    }
    return _called(client, image, "RPC_prepare", environment, files)


def _call_5(client: Any, image: str, request: dict[str, Any]) -> tuple[bytes, str]:
    """Extract a table and call it, as a node of vantage6 5 does; returns what it wrote, and the end of its log."""
    of_session = {
        "SESSION_FOLDER": f"{_DATA}/session",
        "SESSION_FILE": f"{_DATA}/session/session_state.parquet",
        "NODE_ID": "1",
        "ORGANIZATION_ID": "1",
        "COLLABORATION_ID": "1",
    }
    files = {f"{_TASK}/input": b"{}", f"{_TASK}/output": b"", "session/kept": b"", "default.csv": _table().encode()}
    extraction = {
        "TASK_ID": "1",
        "ALGORITHM_METHOD": "extract",
        "FUNCTION_ACTION": "data_extraction",
        "DATABASE_URI": f"{_DATA}/default.csv",
        "DATABASE_TYPE": "csv",
    }
    frame, _ = _called(client, image, "extract", of_session | extraction, files)
    files = {
        f"{_TASK}/input": json.dumps({"request": {**request, "job": 1}}).encode(),
        f"{_TASK}/output": b"",
        "session/trial.parquet": frame,
    }
    step = {
        "TASK_ID": "2",
        "ALGORITHM_METHOD": "RPC_prepare",
        "FUNCTION_ACTION": "federated_compute",
        "USER_REQUESTED_DATAFRAMES": "trial",
    }
    return _called(client, image, "RPC_prepare", of_session | step, files)


def _called(
    client: Any, image: str, what: str, environment: dict[str, str], files: dict[str, bytes]
) -> tuple[bytes, str]:
    """Run one step in a container of its own; returns what it wrote, and the end of its log."""
    everywhere = {
        # No server is there to say who asks; what is tried is the image, not a node's rules.
        "V6_ALGORITHM_POLICY": "trusted",
        "INPUT_FILE": f"{_DATA}/{_TASK}/input",
        "OUTPUT_FILE": f"{_DATA}/{_TASK}/output",
    }
    encoded = {name: _encode(value) for name, value in (everywhere | environment).items()}
    with _container(client, image, environment=encoded) as container:
        container.put_archive(_DATA, _archive(files))
        if _run(container):
            raise ImageError(f"{image}: a call of {what} failed{_log(container)}")
        return _read(container, f"{_DATA}/{_TASK}/output"), _log(container)


def _table() -> str:
    generator = random.Random(0)  # noqa: S311 (made-up patients)
    rows = [f"{generator.gauss(60, 12):.1f},{generator.uniform(0, 10):.2f},{row % 2}" for row in range(_ROWS)]
    return "\n".join(["age,dose,outcome", *rows, ""])


def _encode(value: str) -> str:
    """As `DockerTaskManager._encode_environment_variables` does."""
    return base64.b32encode(value.encode()).decode().replace("=", "!")


# -- containers ----------------------------------------------------------------------------------------------------


@contextmanager
def _container(client: Any, image: str, **options: Any) -> Iterator[Any]:
    """Create a container with a node's folders, and remove it with them."""
    container = client.containers.create(
        image, network_mode="none", read_only=True, tmpfs={_SCRATCH: ""}, volumes=[_DATA, _TEMPORARY], **options
    )
    try:
        yield container
    finally:
        container.remove(v=True, force=True)


def _run(container: Any) -> int:
    """Run to the end and return the exit code."""
    from docker.errors import APIError
    from requests.exceptions import ConnectionError as Disconnected
    from requests.exceptions import Timeout

    try:
        container.start()
    except APIError as error:
        # Most often: the image has no such program, so it is not one of ours.
        raise ImageError(f"the container does not start: {error.explanation}") from None
    try:
        return int(container.wait(timeout=_TIMEOUT_S)["StatusCode"])
    except (Disconnected, Timeout):  # which of them depends on the system
        raise ImageError(f"the container did not end within {_TIMEOUT_S} s{_log(container)}") from None


def _log(container: Any) -> str:
    """Return the last lines of a container's log, indented, to stand below a message."""
    lines = container.logs(tail=_LOG_LINES).decode(errors="replace").splitlines()
    return "".join(f"\n  {line}" for line in lines)


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _read(container: Any, path: str) -> bytes:
    chunks, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read() if file else b""
