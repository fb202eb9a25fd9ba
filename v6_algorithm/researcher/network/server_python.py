"""Finds or makes the Python that runs vantage6's server and nodes, for `v6-algorithm network` and the network tests.

The 4.15 server needs Python 3.10: from 3.11 on its lists answer 500, since it builds names from formatted enums.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from v6_algorithm.errors import V6AlgorithmError

VERSION = "4.15.2"
# vantage6-server needs vantage6-backend-common and does not ask for it.
# With websocket-client a node that ends is missed at once; without it the server waits for a ping, for up to 90 s.
PACKAGES = [
    *(f"vantage6{part}=={VERSION}" for part in ("", "-common", "-client", "-node", "-server", "-backend-common")),
    "websocket-client",
]
CONSTRAINTS = Path(__file__).with_name("server_constraints.txt")
INSTALL_TIMEOUT_S = 1500
PROBE = "import sys, vantage6.server, vantage6.node; assert sys.version_info[:2] == (3, 10)"


class MissingError(V6AlgorithmError):
    """What this machine lacks, in one line."""

    exit_code = 2


def cache_folder() -> Path:
    """Return where what is made once is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "v6-algorithm"


def server_python() -> str:
    """Path of a Python 3.10 with the server and the node: V6_SERVER_PYTHON, or one made once in the cache folder.

    Raises
    ------
    MissingError
        When there is neither.
    """
    given = os.environ.get("V6_SERVER_PYTHON")
    if given:
        if not _works(given):
            raise MissingError(
                f"V6_SERVER_PYTHON ({given}) is not a Python 3.10 with vantage6-server and vantage6-node"
            )
        return given
    folder = cache_folder() / f"server-{VERSION}-python3.10"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python, complete = folder / "bin" / "python", folder / "complete"
        if not complete.exists() or complete.read_text() != "\n".join(PACKAGES):
            _make(folder, python)
            complete.write_text("\n".join(PACKAGES))
    return str(python)


def _works(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", PROBE], capture_output=True, timeout=120).returncode == 0
    except OSError:
        return False


def _make(folder: Path, python: Path) -> None:
    interpreter = _python_3_10()
    shutil.rmtree(folder, ignore_errors=True)
    log = folder.with_name(f"{folder.name}.log")
    with log.open("wb") as file:
        commands: list[list[str | Path]] = [
            [interpreter, "-m", "venv", folder],
            # Without wheel and a newer setuptools, Flask-Mail 0.9.1 is built in a way that pip warns about.
            [python, "-m", "pip", "install", "--upgrade", "pip", "wheel"],
            [python, "-m", "pip", "install", "-c", CONSTRAINTS, *PACKAGES],
        ]
        for command in commands:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=INSTALL_TIMEOUT_S)
            if done.returncode:
                raise MissingError(f"vantage6-server {VERSION} could not be installed; see {log}")
    if not _works(str(python)):
        raise MissingError(f"vantage6-server {VERSION} was installed in {folder} but cannot be imported")


def _python_3_10() -> str:
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    installed = sorted(versions.glob("3.10.*/bin/python3.10"), reverse=True)
    candidates: list[str | Path | None] = [shutil.which("python3.10"), *installed]
    if sys.version_info[:2] == (3, 10):
        candidates.insert(0, sys.executable)
    for candidate in filter(None, candidates):
        # A pyenv shim is found on PATH even where its version is not active.
        probe = [str(candidate), "-c", "import sys, venv; assert sys.version_info[:2] == (3, 10)"]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return str(candidate)
    raise MissingError("no Python 3.10, which the vantage6 4.15 server needs; install one or set V6_SERVER_PYTHON")
