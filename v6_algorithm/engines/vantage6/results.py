"""The result of a finished subtask, fetched piece by piece into a file where it is large.

vantage6's client holds a result as a response, as JSON, as base64 and as text at once: seven times a model's size. This
reads the same answer of the node's proxy without holding it.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

from v6_algorithm.exchange import frames
from v6_algorithm.exchange.in_file import LongString, TextFile, read_json

_FETCH_S, _PIECE = 600.0, 2**20


class UnreadableError(Exception):
    """The result cannot be read here; vantage6's client may be able to."""


def fetch(client: Any, task: int, *, clear: bool = False, in_memory: bool = False) -> str | TextFile | None:
    """Fetch the result of a subtask of one organisation: its JSON text, or a frame; None where it has none.

    Parameters
    ----------
    client
        vantage6's, of the container.
    task
        The subtask.
    clear
        Whether results are not encrypted. Then it is asked for as a part of its task, for the node's proxy passes that
        answer on as it comes; a list of results it parses and decrypts, one request at a time.
    in_memory
        Hold it, where no disk takes it.

    Raises
    ------
    OSError
        When the proxy or the server is not there, or says that something failed.
    UnreadableError
        When the result is kept elsewhere (blob storage), the answer is another than vantage6 4.15's, or a disk is full.
    """
    if clear:
        url, key = f"{client.generate_path_to(f'task/{int(task)}', False)}?include=results", "results"
    else:
        url, key = f"{client.generate_path_to('result', False)}?task_id={int(task)}", "data"
    if not url.startswith(("http://", "https://")):
        raise UnreadableError
    request = urllib.request.Request(url, headers=dict(client.headers))  # noqa: S310
    with urllib.request.urlopen(request, timeout=_FETCH_S) as answer:  # noqa: S310
        body = _in_a_file(iter(lambda: answer.read(_PIECE), b""), in_memory=in_memory)
    try:
        runs = [run for run in read_json(body, json.loads)[key] if run.get("result")]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnreadableError from None
    if not runs:
        return None
    if len(runs) > 1 or runs[0].get("blob_storage_used"):
        raise UnreadableError
    result = runs[0]["result"]
    try:
        if not isinstance(result, LongString):
            content = base64.b64decode(result)
            return _in_a_file(iter([content]), in_memory=True) if frames.is_frame(content) else content.decode()
        return _in_a_file(result.decoded(), in_memory=in_memory)
    except (ValueError, TypeError):
        raise UnreadableError from None


def _in_a_file(pieces: Iterator[bytes], *, in_memory: bool) -> TextFile:
    """Write pieces into a file; where the disk takes none there may be the memory: UnreadableError."""
    try:
        text = TextFile(_folder(), in_memory=in_memory)
    except OSError:
        raise UnreadableError from None
    for piece in pieces:
        try:
            text.write(piece)
        except OSError:
            raise UnreadableError from None
    return text


def _folder() -> str | None:
    """Return where there is room: the job's volume, which is on the node's disk, where there is one."""
    place = os.environ.get("TEMPORARY_FOLDER")
    return place if place and os.path.isdir(place) else None
