"""Every command's help ends in an example, and the command takes what its example gives it."""

from __future__ import annotations

import inspect
import re
import shlex

import pytest
from hospitals import command as run_command
from typer.main import get_command

from v6_algorithm.researcher.cli import app

COMMANDS = {
    (f"{name} {inner}" if inner else name): each
    for name, command in get_command(app).commands.items()
    for inner, each in (command.commands.items() if hasattr(command, "commands") else [("", command)])
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_one_that_it_takes(name):
    command = COMMANDS[name]
    example = re.search(r"Example: v6-algorithm ([^\n&]*)", f"{command.epilog or ''}\n{command.help or ''}")
    assert example, "no example"
    words = shlex.split(example[1])
    count = len(name.split())
    arguments = words[count:]
    assert " ".join(words[:count]) == name
    assert command.make_context(name, arguments).params


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_shown_with_its_first_paragraph_and_its_example(name):
    """Of `image push` it ended in a traceback: rich read the brackets of an argument's help as its markup."""
    shown = run_command(*name.split(), "--help")
    assert shown.exit_code == 0, shown.output
    lines = " ".join(shown.output.replace("│", " ").split())
    assert " ".join(inspect.cleandoc(COMMANDS[name].help).split("\n\n")[0].split()) in lines
    assert lines.count("Example: v6-algorithm") == 1


def test_a_paragraph_of_help_is_one_line_that_the_terminal_wraps():
    broken = [name for name, each in COMMANDS.items() if re.search(r"[^\n]\n[^\n]", each.help)]
    assert broken == []
