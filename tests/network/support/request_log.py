"""Every request that a vantage6 server, or a node's proxy, answers, as lines of JSON in a file. Off unless asked for.

Run by the server's Python in front of serve.py or run_node.py: `request_log.py LOG PROGRAM [ARGUMENT]…`. `Network` does
so where it is given `request_log`; `read` is for who looks at the lines.
"""

from __future__ import annotations

import json
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


class RequestLog:
    """A WSGI application that writes down what another one answers.

    A line has `start` and `end` (seconds since 1970: the request's head was read; the last byte of the answer was
    handed to the socket), `method`, `path` with its query, `status`, and both bodies' bytes, `received` and `sent`.

    Parameters
    ----------
    application
        What answers.
    path
        The file; lines are added to it.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], path: Path) -> None:
        self._application, self._path = application, path
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        """Answer a request."""
        query = environ.get("QUERY_STRING", "")
        line: dict[str, Any] = {
            "start": time.time(),
            "method": environ["REQUEST_METHOD"],
            "path": environ.get("PATH_INFO", "") + (f"?{query}" if query else ""),
            "received": int(environ.get("CONTENT_LENGTH") or 0),
        }

        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            line["status"] = int(status.split()[0])
            return start_response(status, headers, *rest)

        sent = 0
        answer = self._application(environ, begin)
        try:
            for piece in answer:
                sent += len(piece)
                yield piece
        finally:
            if hasattr(answer, "close"):
                answer.close()
            text = json.dumps({**line, "sent": sent, "end": time.time()})
            with self._lock, self._path.open("a") as file:
                file.write(f"{text}\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the requests of a log, the first to begin first; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda line: line["start"])


def _main(log: str, program: str) -> None:
    """Have the program's server, or its proxy, write the log, then run it."""
    if Path(program).name == "serve.py":
        import vantage6.server

        run = vantage6.server.run_dev_server

        def logged(server: Any, **options: Any) -> None:
            server.app.wsgi_app = RequestLog(server.app.wsgi_app, Path(log))
            run(server, **options)

        vantage6.server.run_dev_server = logged
    else:
        from vantage6.common.docker import addons

        # As in run_node.py, before vantage6 looks.
        addons.running_in_docker = lambda: False
        from vantage6.node import proxy_server

        proxy_server.app.wsgi_app = RequestLog(proxy_server.app.wsgi_app, Path(log))
    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _log, _program = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    _main(_log, _program)
