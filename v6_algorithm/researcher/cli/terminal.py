"""The two streams of the command line, and how errors are told: shared by all commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from v6_algorithm.errors import V6AlgorithmError
from v6_algorithm.exchange.text import printable

LONGEST_LINE = 100_000
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the package's own errors into a message and an exit code; anything else is a bug and shows its traceback."""
    try:
        yield
    except V6AlgorithmError as error:
        complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted before anything was trained")
        raise typer.Exit(130) from None


def say(text: str) -> None:
    """Print a line that may hold names and messages from elsewhere: no markup, no wrapping."""
    for line in text.splitlines() or [""]:
        out.print(escape(printable(line, LONGEST_LINE)), soft_wrap=True)


def complain(message: str, *, kind: str = "error") -> None:
    """Print an error (or a warning) a line; an indented line goes on with the one before."""
    lead = f"[bold {'red' if kind == 'error' else 'yellow'}]{kind}:[/] "
    for line in message.splitlines():
        err.print(f"{'' if line.startswith(' ') else lead}{escape(printable(line, LONGEST_LINE))}", soft_wrap=True)
