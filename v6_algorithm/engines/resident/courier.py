"""A round's container at a site: it brings the request to the resident trainer and takes the reply back.

The package's RPC_ functions call it. It imports next to nothing, so that a round costs what training costs. Where no
trainer answers for whatever reason, it does the work itself, with the same result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.engines.resident import protocol
from v6_algorithm.exchange import frames

_DEADLINE_S = 3600.0


def answer(method: str, data: Any, request: Any, mock_data: Sequence[Any] | None) -> dict[str, Any]:
    """Answer one request of the network, by the resident trainer or here.

    Parameters
    ----------
    method
        ``summary``, ``prepare``, ``train`` or ``evaluate``.
    data, request, mock_data
        As vantage6 or its mock passes them; see `entry.run_site`.
    """
    age = _age_of_process()
    if isinstance(data, Mapping) and request is None:
        data, request = None, data
    why, output = None, None
    if isinstance(request, Mapping) and frames.ASKED in request:
        output = os.environ.get("OUTPUT_FILE") if request[frames.ASKED] is True and mock_data is None else None
        request = {key: value for key, value in request.items() if key != frames.ASKED}
    if data is None and mock_data is None and isinstance(request, Mapping):
        start = time.perf_counter()
        frame = None if output is None else frames.Frame(output)
        reply, why = ask(method, request, frame)
        if reply is not None:
            outcome = "ok" if reply["status"] == "ok" else f"{reply.get('kind')}: {reply.get('message')}"
            print(f"{method} round {reply.get('round')}: {outcome} (resident trainer)", flush=True)
            return _left(frame, _with_start(reply, age, time.perf_counter() - start))
        if frame is not None:
            frame.give_up()
    from v6_algorithm.engines.entry import run_site

    imported = _age_of_process()
    reply = run_site(method, data, request, mock_data, note=why or "")
    if mock_data is not None:
        return reply
    frame = None if output is None else frames.Frame(output)
    if frame is not None:
        from v6_algorithm.exchange.wire import Packed

        reply, parts = frames.take_out(reply, Packed)
        for part in parts:
            frame.add([part])
    return _left(frame, _with_start(reply, imported))


def _left(frame: frames.Frame | None, reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply for vantage6's wrapper to write; one with parts is this container's output already.

    Then the process ends here: the wrapper would write JSON over it, lets this through, and a run that ends with 0 is
    completed with what its output holds.
    """
    if frame is None or not frame.sizes:
        return reply
    frame.finish(reply)
    raise SystemExit(0)


def ask(
    method: str, request: Mapping[str, Any], frame: frames.Frame | None = None
) -> tuple[dict[str, Any] | None, str | None]:
    """Ask the trainer; returns its reply, or None and, where one was to be expected, why there is none.

    With a `frame` large models of the reply go into it as they come.
    """
    place = protocol.meeting_place(os.environ)
    if place is None or not os.path.isdir(place) or protocol.switched_off(os.environ):
        return None, None
    try:
        with protocol.connect(place, _deadline(request)) as trainer:
            protocol.send(
                trainer,
                {
                    "protocol": protocol.PROTOCOL,
                    "surroundings": protocol.surroundings(os.environ),
                    "method": method,
                    "token": _token(),
                    "request": request,
                    frames.ASKED: frame is not None,
                },
            )
            said = protocol.receive(trainer)
            if frame is not None:
                for size in said.get("parts") or []:
                    frame.add(protocol.receive_bytes(trainer, size))
    except FileNotFoundError:
        return None, None  # it has ended, as it does when nobody asks for long
    except (OSError, protocol.ProtocolError) as error:
        return None, f"no resident trainer: {type(error).__name__}"
    reply = said.get("reply")
    if isinstance(reply, dict) and "schema" in reply and "status" in reply:
        return reply, None
    return None, f"no resident trainer: {str(said.get('refused', 'no reply'))[:200]}"


def end() -> bool:
    """Tell the trainer to end; returns whether there was one."""
    place = protocol.meeting_place(os.environ)
    if place is None or not os.path.isdir(place):
        return False
    try:
        with protocol.connect(place, 60.0) as trainer:
            protocol.send(trainer, {"protocol": protocol.PROTOCOL, "end": True})
            return bool(protocol.receive(trainer).get("ends"))
    except (OSError, protocol.ProtocolError):
        return False


def _token() -> str | None:
    """Read this container's token, with which the trainer asks the server who sent the request."""
    try:
        with open(os.environ["TOKEN_FILE"], encoding="utf-8") as file:
            return file.read().strip()
    except (KeyError, OSError):
        return None


def _deadline(request: Mapping[str, Any]) -> float:
    """Return how long `master` waits for the answer: a trainer that is silent for longer is as good as none."""
    content: Any = request
    for key in ("experiment", "participation", "deadline_s"):
        content = content.get(key) if isinstance(content, Mapping) else None
    usable = isinstance(content, (int, float)) and not isinstance(content, bool) and 0 < content < 1e7
    return float(content) if usable else _DEADLINE_S


def _with_start(reply: dict[str, Any], age: float | None, whole: float | None = None) -> dict[str, Any]:
    """Add what a container costs to a reply's timing: its start until our first line, and the way to the trainer."""
    timing = reply.get("timing")
    if isinstance(timing, dict):
        if whole is not None:
            timing["handover_s"] = max(0.0, whole - sum(timing.values()))
        if age is not None:
            timing["import_s"] = age
    return reply


def _age_of_process() -> float | None:
    """Return the seconds since this process began; None where the system does not tell, or it is no container's."""
    if "INPUT_FILE" not in os.environ:
        return None
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            begun = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        with open("/proc/uptime", encoding="ascii") as file:
            return max(0.0, float(file.read().split()[0]) - begun)
    except (OSError, ValueError, IndexError):
        return None
