"""The quickstart and the tutorials, followed command by command: what a page shows is what comes out, numbers aside."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from tools.tutorials import PAGES, ROOT, commands, follow

LOCAL = [page for page in PAGES if page.stem != "network"]


def masked(text: str) -> list[str]:
    """Return output without its numbers, the boxes' widths and progress, which come in another rhythm each time."""
    lines = [re.sub(r"[\d.,e%+-]+", "N", line) for line in text.splitlines() if ": round " not in line and line != "…"]
    return [" ".join(re.sub(r"[━─┏┓┗┛┡┩├┤└┘┌┐┬┴┼╇╈╋]+", " ", line).split()) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("page", LOCAL, ids=lambda page: page.stem)
def test_a_reader_who_types_what_the_page_says_gets_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    steps = follow(page, tmp_path)
    assert len(steps) >= 2
    for step in steps:
        assert step.code == 0, f"{step.command}\n{step.output}"
        if "standard" in step.command:
            continue  # a node's own secret deals the rows: notes, and what is suppressed, differ from run to run
        assert masked(step.output) == masked(step.shown), f"{step.command}: python -m tools.tutorials {page.stem}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_every_command_of_a_page_has_the_options_that_it_is_given(page):
    from v6_algorithm.researcher.cli import app

    blocks = re.findall(r"^```console[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line, _ in commands(block) if line.startswith("v6-algorithm ")]
    assert lines
    for line in lines:
        command, arguments = get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        used = [argument.split("=")[0] for argument in arguments if argument.startswith("--")]
        assert [name for name in used if name not in options] == [], line


def test_pages_are_found():
    assert [page.stem for page in PAGES] == ["quickstart", "gan", "images", "network", "survival", "tables"]
    assert Path(PAGES[0]).exists()
