"""SIGTERM as an exception: whoever ends a process politely gets what was done so far, as after Ctrl-C, only sooner."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v6_algorithm.errors import Terminated


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the main thread when the process is asked to end; elsewhere nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        # Asked twice, the process ends as it would without us.
        signal.signal(signal.SIGTERM, before)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
