"""A connection to the Docker engine, and what its errors mean in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v6_algorithm.errors import ImageError

# An engine at work on a large layer is silent for minutes.
_TIMEOUT_S = 600


@contextmanager
def engine() -> Iterator[Any]:
    """Connect to the engine that DOCKER_HOST names, or the one of this machine.

    Raises
    ------
    ImageError
        When the SDK is not installed, no engine answers, or this user may not use it; also for what goes wrong inside
        the block and was not explained there.
    """
    try:
        import docker
        from docker.errors import APIError, DockerException
        from requests.exceptions import ConnectionError as Disconnected
        from requests.exceptions import Timeout
    except ImportError:
        raise ImageError("the package docker is not installed: pip install 'v6-algorithm[vantage6]'") from None
    try:
        client = docker.from_env(timeout=_TIMEOUT_S)
        client.ping()
    except (DockerException, OSError) as error:
        raise ImageError(_unreachable(error)) from None
    try:
        yield client
    except APIError as error:
        raise ImageError(f"Docker says: {error.explanation or error}") from None
    except (Disconnected, Timeout):
        raise ImageError("the Docker engine stopped answering") from None
    finally:
        client.close()


def image_of(client: Any, name: str) -> Any:
    """Find an image of this engine; raises ImageError when it has none of this name."""
    from docker.errors import ImageNotFound

    try:
        return client.images.get(name)
    except ImageNotFound:
        raise ImageError(f"{name}: this Docker engine has no such image; `v6-algorithm image build` makes it") from None


def _unreachable(error: BaseException) -> str:
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    # docker-py wraps the system's error three times over, as text.
    if isinstance(error, PermissionError) or "PermissionError" in str(error) or "Permission denied" in str(error):
        return (
            f"no permission to use the Docker engine at {host}: join its group (sudo usermod -aG docker $USER, then "
            "log in again) or use sudo"
        )
    return f"no Docker engine answers at {host}: start it, or name another in DOCKER_HOST"
