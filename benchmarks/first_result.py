"""From a fresh clone to a first result on tables of one's own: the commands that a reader types, and their seconds.

    python benchmarks/first_result.py                    README's way: clone, `make demo`, the quickstart's commands
    python benchmarks/first_result.py --way pip          the quickstart's way: its own lines of installation
    python benchmarks/first_result.py --before CHECKOUT  an older state, which has no `init`: its `make demo`, and an
                                                         experiment written by hand
    python benchmarks/first_result.py --pages all        every tutorial too
    python benchmarks/first_result.py --network          with the one that starts a vantage6 network

The clone is of this checkout's last commit. Its environment is empty: an own HOME, so no cache of pip's, and no
variables but those that say where packages come from (PIP_…, SSL_…, proxies, TORCH_INDEX). The commands are those of
the pages, read from them: a page that no longer works ends this with exit code 1. Reading and typing take no time here;
what has to be typed is counted. The tables are the quickstart's, which the reader is taken to have.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ("PIP_", "SSL_", "REQUESTS_", "http_proxy", "https_proxy", "no_proxy", "HTTP_", "HTTPS_", "NO_", "TORCH_INDEX")
# The shortest that the state before `init` took, as its README told it.
BY_HAND = """name: first
sites:
  north: {uri: north.csv}
  south: {uri: south.csv}
  west: {uri: west.csv}
data: {target: benign}
"""
FOLLOW = """
import json, sys, tempfile
from pathlib import Path
from tools.tutorials import PAGES, follow
for page in PAGES:
    if page.stem == "quickstart" or sys.argv[1] == "all":
        for step in follow(page, Path(tempfile.mkdtemp()), network=sys.argv[2] == "network"):
            print(json.dumps([page.stem, step.command, step.seconds, step.code, step.output]), flush=True)
"""


@dataclass
class Step:
    """One command: the page that has it, how long it took and how it ended."""

    page: str
    command: str
    seconds: float
    code: int


class Follower:
    """Runs commands in an empty environment, and keeps what each took."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clone = folder, folder / "v6_algorithm"
        self.steps: list[Step] = []
        (folder / "home").mkdir(parents=True, exist_ok=True)
        own = [str(Path(sys.prefix) / "bin")]
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part not in own)
        self.environment = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        self.environment |= {"PATH": path, "HOME": str(folder / "home"), "LANG": "C.UTF-8", "TMPDIR": str(folder)}

    def run(self, page: str, command: str, cwd: Path) -> bool:
        """Run a line of the shell; False where it fails."""
        began = time.monotonic()
        done = subprocess.run(
            ["/bin/bash", "-c", command], cwd=cwd, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        return self.keep(Step(page, command, time.monotonic() - began, done.returncode), done.stdout)

    def keep(self, step: Step, output: str) -> bool:
        """Take a step and tell it, with the end of its output where it failed."""
        self.steps.append(step)
        shown = step.command.replace("\n", "; ")
        print(f"{step.seconds:7.1f} s  rc {step.code}  {step.page}: {shown}", flush=True)
        if step.code:
            print(output[-3000:])
        return step.code == 0

    def pages(self, python: Path, pages: str, network: bool) -> bool:
        """Follow the clone's own pages with an interpreter that has the package."""
        command = [str(python), "-c", FOLLOW, pages, "network" if network else "local"]
        process = subprocess.Popen(command, cwd=self.clone, env=self.environment, stdout=subprocess.PIPE, text=True)
        good = True
        for line in process.stdout or []:
            page, command_, seconds, code, output = json.loads(line)
            good = self.keep(Step(page, command_, seconds, code), output) and good
        return process.wait() == 0 and good


def main() -> int:
    """Follow one way and print it; 1 where a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=["make", "pip"], default="make")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--pages", choices=["quickstart", "all"], default="quickstart")
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--keep", type=Path, help="make the clone here and leave it")
    arguments = parser.parse_args()
    follower = Follower(arguments.keep or Path(tempfile.mkdtemp(prefix="first-result-")))
    source = shlex.quote(str(arguments.before or ROOT))
    try:
        good = follower.run("README", f"git clone --quiet {source} v6_algorithm", follower.folder)
        if good and arguments.before:
            good = follow_before(follower)
        elif good:
            good = install(follower, arguments.way)
            python = follower.clone / (".venv" if arguments.way == "make" else "v6") / "bin" / "python"
            good = good and follower.pages(python, arguments.pages, arguments.network)
    finally:
        if arguments.keep is None:
            shutil.rmtree(follower.folder, ignore_errors=True)
    summarise(follower.steps, len(BY_HAND.splitlines()) if arguments.before else 0)
    return 0 if good else 1


def install(follower: Follower, way: str) -> bool:
    """Install as README says, or as the quickstart says: its lines in one shell, since the first one enters a venv."""
    if way == "make":
        return follower.run("README", "make demo", follower.clone)
    page = (follower.clone / "docs" / "quickstart.md").read_text(encoding="utf-8")
    lines = re.search(r"^## 1\. Install\n.*?^```sh\n(.*?)^```", page, re.M | re.S)
    if lines is None:
        raise SystemExit("docs/quickstart.md: has no ```sh block under '## 1. Install'")
    text = lines[1]
    if any(name in os.environ for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")):
        text = re.sub(r"--extra-index-url \S+ ", "", text)
        print("(this machine's pip has places of its own to look in: the line's --extra-index-url is left out)")
    return follower.run("quickstart", f"set -e\n{text.strip()}", follower.clone)


def follow_before(follower: Follower) -> bool:
    """The same tables with a state that has no `init`, no `predict` and no quickstart."""
    if not follower.run("README", "make demo", follower.clone):
        return False
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    tables = re.search(r'^```python title="make_tables.py"\n(.*?)^```', page, re.M | re.S)
    (follower.clone / "make_tables.py").write_text(tables[1] if tables else "", encoding="utf-8")
    (follower.clone / "first.yaml").write_text(BY_HAND, encoding="utf-8")
    return follower.run("tables", ".venv/bin/python make_tables.py", follower.clone) and follower.run(
        "by hand", ".venv/bin/v6-algorithm run first.yaml --out runs/first", follower.clone
    )


def summarise(steps: list[Step], written: int) -> None:
    """Say what it took to the first `run` on the tables; making them is not of it, and `predict` comes after it."""
    first: list[Step] = []
    for step in steps:
        if "make_tables.py" not in step.command:
            first.append(step)
        if "v6-algorithm run" in step.command:
            break
    typed = sum(len(step.command.removeprefix("set -e\n").splitlines()) for step in first)
    installed = sum(step.seconds for step in first if step.page == "README" or "pip install" in step.command)
    print(
        f"from clone to the first result on own tables: {typed} commands, {written} lines of YAML written by hand, "
        f"{sum(step.seconds for step in first):.0f} s, of which {installed:.0f} s are clone and installation"
        + (", with the demo's run" if any(step.command == "make demo" for step in first) else "")
    )
    print(json.dumps([asdict(step) | {"seconds": round(step.seconds, 1)} for step in steps]))


if __name__ == "__main__":
    sys.exit(main())
