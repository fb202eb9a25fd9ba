"""What happens at one site for one request: guard, data, problem, train or evaluate, reply.

`handle` serves the vantage6 container, the mock client and the local engine alike. Everything it needs is in the
request and the context; nothing lives in module globals.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from v6_algorithm.errors import ExperimentError, SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard.bounds import within
from v6_algorithm.site.guard.requests import check_parts
from v6_algorithm.site.learning import evaluate, train
from v6_algorithm.site.preparing import prepare, summary
from v6_algorithm.site.secure_aggregation import check_hidden, hide
from v6_algorithm.site.work import Work

__all__ = ["SiteContext", "handle"]


def handle(
    method: str, request: Mapping[str, Any], context: SiteContext, *, raise_bugs: bool = False
) -> dict[str, Any]:
    """Answer one request.

    Parameters
    ----------
    method
        ``summary``, ``prepare``, ``train`` or ``evaluate``.
    request
        A message made by `wire.message`.
    context
        The site's data, policy and folder.
    raise_bugs
        Let unexpected exceptions through, with their traceback: for the researcher's own machine only.

    Returns
    -------
    dict
        A reply with status ``ok``, or ``error`` with a `kind` and a message free of data values.
    """
    if not isinstance(request, Mapping) or request.get("schema") != wire.SCHEMA:
        # Not a request of ours: there is no round to answer to.
        raise WireError(f"the request must be a message of schema {wire.SCHEMA}; task `master`, it writes them")
    reply = _answer(method, request, context, raise_bugs)
    _release()
    return reply


def _answer(method: str, request: Mapping[str, Any], context: SiteContext, raise_bugs: bool) -> dict[str, Any]:
    head = {key: request.get(key) for key in ("site", "round", "attempt")}
    start = time.perf_counter()
    try:
        with within(context.policy.maximum_seconds):
            work = Work(request, context)
            check_parts(method, request)
            work.guard.admit(method)
            hidden = check_hidden(work, method)
            body = work.guard.screen(method, _METHODS[method](work))
            if hidden:
                with work.timed("masking_s"):
                    body = hide(work, method, body)
        rest = time.perf_counter() - start - sum(work.seconds.values())
        body["timing"] = {**work.seconds, f"{method}_s" if method in ("summary", "prepare") else "other_s": rest}
        return wire.message(**head, status="ok", **body)  # type: ignore[arg-type]
    except SiteError as error:
        kind, text = error.kind, str(error)
    except (ExperimentError, WireError) as error:
        kind, text = "request", str(error)
    except UnicodeEncodeError:
        kind, text = "request", "the request holds a character that no text has (half of a surrogate pair)"
    except Exception as error:
        if isinstance(error, MemoryError):
            kind, text = "request", "the memory of this site does not hold what is asked for; ask for less at once"
        elif _is_out_of_memory(error):
            kind, text = "request", _NO_MEMORY
        elif raise_bugs:
            raise
        else:
            kind, text = "bug", _where(error)
    return wire.message(**head, status="error", kind=kind, message=text)  # type: ignore[arg-type]


def _is_out_of_memory(error: Exception) -> bool:
    """Say whether the memory of the device did not do; where torch is not loaded, none is in use."""
    if "torch" not in sys.modules:
        return False
    from v6_algorithm.learning.training.fitting import is_out_of_memory

    return is_out_of_memory(error)


def _release() -> None:
    """Give back what a GPU's memory held for this request: a process that lasts shares the GPU with others."""
    if "torch" in sys.modules:
        from v6_algorithm.learning.training.fitting import empty_cache

        empty_cache()


def _where(error: Exception) -> str:
    """Name an unexpected exception by type and place: its message may hold data values."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "v6_algorithm" in frame.filename]
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


_NO_MEMORY = "the memory of this site's device does not hold the model; take a smaller one, or training.device cpu"

_METHODS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "summary": summary,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
}
