"""SIGTERM and SIGHUP as an exception: an end that is asked for leaves what was done so far, as Ctrl-C, only sooner."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v6_algorithm.errors import Terminated

# A closed terminal or a lost ssh connection sends SIGHUP; Windows has none.
_SIGNALS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def ends_when_asked() -> Iterator[None]:
    """Raise `Terminated` in the main thread when the process is asked to end; elsewhere nothing is changed.

    A signal that is ignored, as SIGHUP is under `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(number: int, frame: Any) -> None:
        # Asked twice, the process ends as it would without us.
        give_back()
        raise Terminated

    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        give_back()
