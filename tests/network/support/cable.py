"""A node's line to the server, which can be cut and mended: a partition of the network, as the two ends see it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

PIECE_BYTES = 65536


class Cable:
    """Listens on `port` and passes everything on to the server's; while it is cut nothing passes or is refused.

    Parameters
    ----------
    server_port
        Of the server, on loopback.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        _begin(self._accept)

    def cut(self) -> None:
        """Hold back what either end sends from now on."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything pass again, first what was held back."""
        self._whole.set()

    def close(self) -> None:
        """Take no more connections; those that there are end with their ends."""
        self._whole.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                node, _ = self._listener.accept()
            except OSError:  # closed
                return
            _begin(lambda node=node: self._connect(node))

    def _connect(self, node: socket.socket) -> None:
        self._whole.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            node.close()
            return
        _begin(lambda: self._pass(node, server))
        self._pass(server, node)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                self._whole.wait()
                target.sendall(piece)
        # The other direction ends with it.
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _begin(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()
