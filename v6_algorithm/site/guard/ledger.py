"""What a node remembers of its answers: a secret, sums told, row sets told of, and where each job stands.

It lies in the site's state folder, which on a node lasts as long as the job, or in `V6_ALGORITHM_LEDGER_FOLDER`, which
lasts longer; a process that serves a whole run keeps it in memory. It holds numbers and hashes, never a cell. Called by
the guard.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from v6_algorithm.errors import PolicyError

_FILE = "guard.json"


class Ledger:
    """One ledger, which several containers of a node may open at once.

    Parameters
    ----------
    folder
        Where its file is; None: in `memory`.
    memory
        Of a process that lasts.
    """

    def __init__(self, folder: Path | None, memory: dict[Any, Any]) -> None:
        self._folder, self._memory = folder, memory

    @contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        """Give the content, to be read and changed; it is written when the block ends without an error.

        Raises
        ------
        PolicyError
            When the folder cannot be written, or its file is damaged: a node that forgets must not answer.
        """
        if self._folder is None:
            content: dict[str, Any] = self._memory.setdefault("ledger", {})
            # As from a file: what an error leaves half done is not kept.
            copy = json.loads(json.dumps(content))
            yield copy
            content.clear()
            content.update(copy)
            return
        with self._held() as path:
            content = self._read(path)
            before = json.dumps(content)
            yield content
            text = json.dumps(content)
            if text != before:
                self._write(path, text)

    @contextmanager
    def _held(self) -> Iterator[Path]:
        """Give the file's path while no other process of this node has it."""
        folder = Path() if self._folder is None else self._folder
        lock = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / f"{_FILE}.lock").open("ab")
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if lock is not None:
                lock.close()
            raise _lost(error) from None
        with lock:
            yield folder / _FILE

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise _lost(error) from None
        if not isinstance(content, dict):
            raise _lost(ValueError())
        return content

    def _write(self, path: Path, text: str) -> None:
        new = path.with_suffix(".new")
        try:
            new.touch(mode=0o600)
            new.write_text(text, encoding="utf-8")
            new.replace(path)
        except OSError as error:
            raise _lost(error) from None

    def secret(self) -> str:
        """Return the node's secret, drawn when it is first wanted."""
        with self.open() as content:
            return str(content.setdefault("secret", secrets.token_hex(32)))


def _lost(error: Exception) -> PolicyError:
    return PolicyError(
        f"this node's ledger of answers cannot be kept ({type(error).__name__}); its folder must be writable"
    )
