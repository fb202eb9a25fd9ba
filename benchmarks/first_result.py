"""From a fresh clone to a first result on one's own tables: the steps that a reader types, and the seconds they take.

    python benchmarks/first_result.py                    clone, `make demo` as README says, then the quickstart
    python benchmarks/first_result.py --pages all        and every tutorial after it
    python benchmarks/first_result.py --network          with the one that starts a vantage6 network

The clone is of this checkout's last commit, in a folder and an environment of its own; the commands are those of the
pages, read from them, so a page that no longer works ends this with exit code 1. `TORCH_INDEX` is as in the shell.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Follow the pages and print a table; 1 where a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", choices=["quickstart", "all"], default="quickstart")
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--keep", type=Path, help="make the clone here and leave it")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="first-result-"))
    clone = folder / "v6_algorithm"
    steps: list[tuple[str, str, float, int]] = []

    def take(page: str, command: list[str], cwd: Path) -> bool:
        began = time.monotonic()
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(command, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        steps.append((page, " ".join(command), time.monotonic() - began, done.returncode))
        print(f"{steps[-1][2]:7.1f} s  rc {done.returncode}  {page}: {steps[-1][1]}", flush=True)
        if done.returncode:
            print(done.stdout[-3000:])
        return done.returncode == 0

    try:
        going = take("README", ["git", "clone", "--quiet", str(ROOT), str(clone)], folder if folder.exists() else ROOT)
        index = [f"TORCH_INDEX={os.environ['TORCH_INDEX']}"] if os.environ.get("TORCH_INDEX") else []
        going = going and take("README", ["make", "demo", *index], clone)
        if going:
            going = follow_pages(clone, arguments.pages, arguments.network, steps)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    first = [step for step in steps if step[0] in ("README", "quickstart")]
    print(
        f"from clone to the first result on own tables: {len(first)} commands, {sum(step[2] for step in first):.0f} s; "
        f"of these {sum(step[2] for step in steps if step[0] == 'README'):.0f} s are clone, install and demo"
    )
    print(json.dumps([{"page": p, "command": c, "seconds": round(s, 1), "code": rc} for p, c, s, rc in steps]))
    return 0 if going else 1


def follow_pages(clone: Path, pages: str, network: bool, steps: list[tuple[str, str, float, int]]) -> bool:
    """Follow the clone's own pages with the clone's own environment."""
    program = (
        "import json, sys, tempfile; from pathlib import Path; from tools.tutorials import PAGES, follow\n"
        "for page in PAGES:\n"
        "    if page.stem == 'quickstart' or sys.argv[1] == 'all':\n"
        "        for s in follow(page, Path(tempfile.mkdtemp()), network=sys.argv[2] == 'network'):\n"
        "            print(json.dumps([page.stem, s.command, s.seconds, s.code, s.output]), flush=True)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    python = clone / ".venv" / "bin" / "python"
    process = subprocess.Popen(
        [str(python), "-c", program, pages, "network" if network else "local"],
        cwd=clone,
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
    )
    good = True
    for line in process.stdout or []:
        page, command, seconds, code, output = json.loads(line)
        steps.append((page, command, seconds, code))
        print(f"{seconds:7.1f} s  rc {code}  {page}: {command}", flush=True)
        if code:
            good = False
            print(output[-3000:])
    return process.wait() == 0 and good


if __name__ == "__main__":
    sys.exit(main())
