"""Every command's help ends in an example, and the command takes what its example gives it."""

from __future__ import annotations

import re
import shlex

import pytest
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
