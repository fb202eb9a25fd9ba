"""A vantage6 5 network for a test: the Pythons it needs, made once in the cache folder, and its HQ and nodes.

Two of them, since vantage6 4 and 5 are the same names: HQ and nodes on Python 3.13, and the algorithm on 3.11, whose
torch is the CPU build. vantage6 5.0.3 asks for 3.13; what it imports there is 3.11's (reference: vantage6-5.md).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from v6_algorithm.researcher.network.server_python import MissingError, cache_folder

ROOT = Path(__file__).parents[3]
PINS = (ROOT / "constraints-vantage6-5.txt").read_text()
VERSION = re.findall(r"^vantage6-algorithm-tools==(\S+)$", PINS, re.MULTILINE)[0]
INSTALL_S = 1500
HQ_PACKAGES = [f"vantage6-{part}=={VERSION}" for part in ("hq", "node", "backend-common", "algorithm-store")]
# What the tools of 5.0.3 pin, without their siblings.
PINNED = [
    "psycopg2-binary==2.9.10", "pyfiglet==1.0.4", "pyjwt==2.13.0", "sparqlwrapper>=2", "sqlalchemy>=1.4.46",
    "appdirs==1.4.4", "click==8.1.3", "colorama==0.4.6", "cryptography==50.0.0", "docker>=7.1", "pyyaml",
    "requests>=2.32.4", "schema==0.7.5",
]  # fmt: skip
OURS = ["torch", "numpy", "pandas", "pyarrow", "openpyxl", "pillow", "pydantic", "safetensors", "pybase64", "jinja2"]
TOOLS = [f"vantage6-algorithm-tools=={VERSION}", f"vantage6-common=={VERSION}"]
# The command line's client, and what it needs.
CLIENT = [f"vantage6-client=={VERSION}"]
CLI = ["typer", "rich", "scikit-learn", "python-keycloak", "httpx"]


def hq_python() -> str:
    """Path of a Python 3.13 with HQ and nodes; raises MissingError where there is none and it cannot be made."""
    return _cached(
        f"hq-{VERSION}", _python("3.13"), [["-m", "pip", "install", *HQ_PACKAGES]], "import vantage6.hq, vantage6.node"
    )


def algorithm_python() -> str:
    """Path of a Python 3.11 with torch and vantage6 5's tools; raises MissingError as `hq_python` does."""
    constraints = cache_folder() / "constraints-5.txt"
    constraints.parent.mkdir(parents=True, exist_ok=True)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    # vantage6 4 pins another cryptography.
    constraints.write_text("\n".join(line for line in lines if not line.startswith(("vantage6", "cryptography"))))
    pip = ["-m", "pip", "install", "-c", str(constraints)]
    return _cached(
        f"algorithm-{VERSION}",
        _python("3.11"),
        [
            [*pip, "torch"],
            [*pip, *OURS, *PINNED],
            ["-m", "pip", "install", "--no-deps", "--ignore-requires-python", *TOOLS, *CLIENT],
            [*pip, *CLI],
        ],
        "import torch, vantage6.algorithm.mock.network",
    )


def tools_python() -> str:
    """Path of a Python 3.13 with vantage6 5's tools and client as they ask to be installed, and no torch."""
    pins = [line for line in PINS.splitlines() if line.startswith("vantage6")]
    commands = [["-m", "pip", "install", *pins, "cryptography>=44"]]
    return _cached(f"tools-{VERSION}", _python("3.13"), commands, "import vantage6.algorithm.tools.wrap")


def _cached(name: str, interpreter: str, commands: list[list[str]], probe: str) -> str:
    folder = cache_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python, complete, wanted = folder / "bin" / "python", folder / "complete", json.dumps(commands)
        if not complete.exists() or complete.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            log = folder.with_name(f"{name}.log")
            with log.open("wb") as file:
                for command in ([interpreter, "-m", "venv", str(folder)], *([python, *rest] for rest in commands)):
                    done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=INSTALL_S)
                    if done.returncode:
                        raise MissingError(f"vantage6 {VERSION} could not be installed; see {log}")
            if subprocess.run([python, "-c", probe], capture_output=True).returncode:
                raise MissingError(f"vantage6 {VERSION} was installed in {folder} but cannot be imported")
            complete.write_text(wanted)
    return str(python)


def _python(version: str) -> str:
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(versions.glob(f"{version}.*/bin/python{version}"))]
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        candidates.insert(0, sys.executable)
    probe = f"import sys, venv; assert '%d.%d' % sys.version_info[:2] == '{version}'"
    for candidate in filter(None, candidates):
        if subprocess.run([str(candidate), "-c", probe], capture_output=True).returncode == 0:
            return str(candidate)
    raise MissingError(f"no Python {version}, which the test network of vantage6 5 needs")


class Scripts:
    """What `run_script` starts, as `python -c PROGRAM …`; tests set a Python that has the libraries imported.

    Jobs of nodes start cold: where two end within a second, the node of 5.0.3 may send the result of one only.
    """

    python: Callable[[], str] = staticmethod(algorithm_python)


def run_script(name: str, request: dict[str, Any], folder: Path) -> Any:
    """Run a script beside this file with the algorithm's Python, in a folder, and return what it answers."""
    files = folder / "request.json", folder / "answer.json"
    files[0].write_text(json.dumps(request))
    files[1].unlink(missing_ok=True)
    program = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [Scripts.python(), "-c", program, str(Path(__file__).with_name(name)), *map(str, files)]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=600)
    if not files[1].exists():
        raise RuntimeError((done.stdout + done.stderr)[-3000:])
    return json.loads(files[1].read_text())


def command_line(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run `v6-algorithm` with the algorithm's Python, which has vantage6 5's client."""
    command = [algorithm_python(), "-m", "v6_algorithm", *arguments]
    return subprocess.run(
        command, env=_environment() | environment, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )


def _environment() -> dict[str, str]:
    return os.environ | {"PKG_NAME": "v6_algorithm", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class HqNetwork:
    """HQ and a node for each site: `extract`, `task` and `stop_node` of `hq_stack.Stack`.

    With an image the nodes' jobs are containers of it, else processes of the algorithm's Python.
    """

    def __init__(self, folder: Path, sites: dict[str, dict[str, Any]], image: str | None = None) -> None:
        self._log = (folder / "stack.log").open("w")
        self._process = subprocess.Popen(
            [hq_python(), str(Path(__file__).with_name("hq_stack.py")), str(folder)],
            env=_environment() | ({"ALGORITHM_IMAGE": image} if image else {"ALGORITHM_COMMAND": algorithm_python()}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.about = self._ask(sites)

    def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Have something done; raises RuntimeError with what went wrong."""
        answer = self._ask({"do": what, **arguments})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _ask(self, order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the network of vantage6 {VERSION} ended; see {self._log.name}")
        return json.loads(line)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()
