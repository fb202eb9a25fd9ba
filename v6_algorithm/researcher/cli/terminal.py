"""The two streams of the command line, and how errors are told: shared by all commands."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from v6_algorithm.errors import ExperimentError, V6AlgorithmError
from v6_algorithm.exchange.text import printable
from v6_algorithm.researcher.cli.narrow import pieces

LONGEST_LINE = 100_000


class _Output:
    """Standard output or standard error, whose end does not end what is computed: a pipe or disk that takes no more.

    What comes after that is dropped. `main` turns it into an exit code.

    Attributes
    ----------
    lost
        Why nothing more is written; None where all was.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.lost: OSError | None = None

    @property
    def _stream(self) -> Any:
        # While a bar is shown rich has its own file in this place.
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; characters that the stream's encoding has not are written as Python writes them: ``\\u2026``."""
        encoding = getattr(self._stream, "encoding", None)
        if encoding:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        return self._try("write", text) or len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._try("flush")

    @property
    def closed(self) -> bool:
        """Whether the process was begun without this stream (``>&-``); `print` writes nothing then, either."""
        return self._stream is None

    def _try(self, call: str, *arguments: Any) -> Any:
        if self.lost is not None or self.closed:
            return None
        try:
            return getattr(self._stream, call)(*arguments)
        except OSError as error:
            self.lost = error
            # Python flushes the stream once more when it ends.
            try:
                number = self._stream.fileno()
            except (OSError, ValueError):
                return None
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            return None


_output, _errors = _Output("stdout"), _Output("stderr")


class _Console(Console):
    """A console that lays nothing out which nobody is to see."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, unless it is to be quiet; a table that is wider than the terminal in several, with no number cut."""
        if self.quiet:
            return
        if len(objects) == 1 and isinstance(objects[0], Table):
            for piece in pieces(self, objects[0]):
                super().print(piece, **options)
        else:
            super().print(*objects, **options)


out = _Console(file=_output, highlight=False, emoji=False)  # type: ignore[arg-type]
err = Console(file=_errors, stderr=True, highlight=False, emoji=False)  # type: ignore[arg-type]
Json = Annotated[bool, typer.Option("--json", help="Print what came out as JSON, and nothing else.")]
POLICIES = ("trusted", "standard", "strict")
# Whether the command that runs was asked for JSON; see `explained` and `tell`.
_json = False


@contextmanager
def explained(as_json: bool = False) -> Iterator[None]:
    """Turn the package's own errors into a message and an exit code; anything else is a bug and shows its traceback.

    With `as_json` lines and tables are not shown: what `tell` is given is the whole standard output. Errors and
    warnings stay on the standard error stream.
    """
    global _json
    before = _json, out.quiet
    _json, out.quiet = as_json, as_json or out.quiet
    try:
        yield
    except V6AlgorithmError as error:
        complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted; what was written until then is kept")
        raise typer.Exit(130) from None
    finally:
        _json, out.quiet = before


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Say, as an ExperimentError that names the option, that a disk does not take what is written."""
    try:
        yield
    except OSError as error:
        why = "it is a file, not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise ExperimentError(f"{option} {path}: cannot be written: {why}") from None


def check_policy(policy: str | None) -> None:
    """Refuse a preset that is none by the option's name; raises ExperimentError."""
    if policy is not None and policy not in POLICIES:
        raise ExperimentError(f"--policy {policy}: is not known; allowed: {', '.join(POLICIES)}")


def choice(*values: str) -> dict[str, Any]:
    """Return options of `typer.Option` for one of a few words: the help lists them, and the shell completes them."""
    return {
        "metavar": "|".join(values),
        "autocompletion": lambda incomplete: [value for value in values if value.startswith(incomplete)],
    }


def asks_for_json() -> bool:
    """Say whether the command that runs was asked for JSON."""
    return _json


def tell(document: Any) -> None:
    """Print what came out as JSON, where the command was asked for it; undefined numbers are null."""
    if _json:
        # JSON has its own way to write what an encoding has not.
        plain = "utf" not in str(getattr(_output, "encoding", None) or "utf").lower()
        print_raw(json.dumps(finite(document), indent=1, ensure_ascii=plain, allow_nan=False, default=_plain) + "\n")


def print_raw(text: str) -> None:
    """Write what another program reads to standard output, as it is."""
    if _output.closed:
        _output.lost = OSError(errno.EBADF, os.strerror(errno.EBADF))
    _output.write(text)
    _output.flush()


def is_lost() -> bool:
    """Say whether standard output takes no more, so that what must be known goes to standard error."""
    _output.flush()
    return _output.closed or _output.lost is not None


def code_of_output() -> int:
    """Return the exit code of a command that did its work: 1, with an error, where output was lost to a full disk.

    Where nobody read on there is no error, only the code.
    """
    _output.flush()
    lost = _output.lost
    if lost is not None and lost.errno != errno.EPIPE:
        complain(f"standard output: cannot be written: {lost.strerror or lost}")
    return int(lost is not None)


def _plain(value: Any) -> Any:
    """Return a number of numpy's as Python's, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def finite(value: Any) -> Any:
    """Return a value with None for numbers that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def say(text: str) -> None:
    """Print a line that may hold names and messages from elsewhere: no markup, no wrapping."""
    for line in text.splitlines() or [""]:
        out.print(escape(printable(line, LONGEST_LINE)), soft_wrap=True)


def complain(message: str, *, kind: str = "error") -> None:
    """Print an error (or a warning) a line; an indented line goes on with the one before."""
    lead = f"[bold {'red' if kind == 'error' else 'yellow'}]{kind}:[/] "
    for line in message.splitlines():
        err.print(f"{'' if line.startswith(' ') else lead}{escape(printable(line, LONGEST_LINE))}", soft_wrap=True)
