"""Run the quickstart and the tutorials as a reader would, and write what came out into the pages.

``python -m tools.tutorials`` runs docs/quickstart.md and docs/tutorials/*.md, each in a folder of its own, and puts
each command's real output below it; with names it runs those, with ``--keep=FOLDER`` what they made stays there.
`tests/test_docs_tutorials.py` runs the same and compares, numbers aside.

A block with a title is a file that the reader saves. Of a ``console`` block each line after ``$`` is a command, and
what follows is its output. ``console network`` needs a vantage6 server's Python and runs with ``--network`` only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [DOCS / "quickstart.md", *sorted((DOCS / "tutorials").glob("*.md"))]
_BLOCK = re.compile(r"^```(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_MOST_LINES = 44


@dataclass(frozen=True)
class Step:
    """One command of a page, what the page shows below it, what came out, and how long it took."""

    command: str
    shown: str
    output: str
    code: int
    seconds: float


def follow(page: Path, folder: Path, *, network: bool = False, python: str = sys.executable) -> list[Step]:
    """Save the page's files into a folder and run its commands there, one after another.

    Parameters
    ----------
    page
        A page of docs/.
    folder
        An empty folder; the checkout's ``mock`` is linked into it.
    network
        Run the blocks ``console network`` as well.
    python
        The interpreter whose environment has the package.
    """
    if not (folder / "mock").exists():
        (folder / "mock").symlink_to(ROOT / "mock")
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "COLUMNS": "110",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONWARNINGS": "ignore",
    }
    steps = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        words = match["words"]
        if title := re.search(r'title="([\w.-]+)"', words):
            (folder / title[1]).write_text(match["text"], encoding="utf-8")
        elif words == "console" or (words == "console network" and network):
            for command, shown in commands(match["text"]):
                began = time.monotonic()
                done = subprocess.run(  # noqa: S602
                    command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                text = done.stdout.decode("utf-8", "replace")
                steps.append(Step(command, shown, tidy(text), done.returncode, time.monotonic() - began))
    return steps


def commands(block: str) -> list[tuple[str, str]]:
    """Return each command of a console block, with the output that stands below it."""
    parts = re.split(r"^\$ ", block, flags=re.M)[1:]
    return [(part.split("\n", 1)[0], part.split("\n", 1)[1]) for part in parts]


def tidy(text: str) -> str:
    """Return output as a page shows it: no trailing blanks, and the middle of a long one left out."""
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines()]
    lines = _less_progress([line for line in lines if line])
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 10], "…", *lines[-10:]]
    return "".join(f"{line}\n" for line in lines)


def _less_progress(lines: list[str]) -> list[str]:
    """Of the rounds that are told one after another leave the first two and the last."""
    kept: list[str] = []
    for number, line in enumerate(lines):
        told = [": round " in other for other in lines[max(0, number - 2) : number + 2]]
        if len(told) < 4 or not all(told):
            kept.append(line)
        elif kept[-1] != "…":
            kept.append("…")
    return kept


def rewrite(page: Path, steps: list[Step], *, network: bool = False) -> None:
    """Put what came out below each command of the page."""
    rest = iter(steps)

    def filled(match: re.Match[str]) -> str:
        words = match["words"]
        if not (words == "console" or (words == "console network" and network)):
            return match[0]
        lines = "".join(f"$ {command}\n{next(rest).output}" for command, _ in commands(match["text"]))
        return f"```{words}\n{lines}```"

    page.write_text(_BLOCK.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run pages and rewrite them; 1 if a command failed."""
    network = "--network" in arguments
    kept = [Path(argument.removeprefix("--keep=")) for argument in arguments if argument.startswith("--keep=")]
    names = [argument for argument in arguments if not argument.startswith("--")]
    failed = 0
    for page in [page for page in PAGES if not names or page.stem in names]:
        folder = kept[0] / page.stem if kept else Path(tempfile.mkdtemp(prefix="tutorial-"))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            steps = follow(page, folder, network=network)
        finally:
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)
        for step in steps:
            print(f"{page.stem}: {step.seconds:5.1f} s  rc {step.code}  {step.command}", flush=True)
            if step.code:
                print(step.output)
        bad = [step for step in steps if step.code]
        failed += len(bad)
        if not bad:
            rewrite(page, steps, network=network)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
