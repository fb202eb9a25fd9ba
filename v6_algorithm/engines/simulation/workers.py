"""Sites simulated by several processes: each worker holds some of them, with their data and its network in memory.

`simulate` makes a `WorkerFederation` where more than one worker is asked for. Each worker is a `local` federation of
its sites, so what is computed there is what one process computes, and sites that go together go together within one.
A request goes to each worker once, with its model; see `parcels`. Who carries messages is a `Crew`: `Processes` on this
machine, or `ray`.

All workers are the researcher's processes. Those of this machine begin as Python's `multiprocessing` begins processes,
which hands them their sites' tables and rules by pickle, through pipes that nobody else can write to; after that
nothing that passes is pickled. No process of a hospital is ever begun so.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from v6_algorithm import errors
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import parcels
from v6_algorithm.engines.simulation.local import AnswersInTurn, LocalFederation, Way, texts_of
from v6_algorithm.errors import V6AlgorithmError
from v6_algorithm.exchange.protocol import Arrival, Missing, Replies, Site, check_names
from v6_algorithm.site import SiteContext

Sites = Mapping[str, SiteContext]
# Seconds that a worker gets to end by itself.
_PATIENCE_S = 0.5


class Crew(Protocol):
    """Workers, and the way to them."""

    def send(self, worker: int, parcel: parcels.Parcel) -> None:
        """Send a message to a worker; of one that is gone nothing is said."""

    def receive(self) -> tuple[int, Sequence[Any] | str]:
        """Wait for the next message of any worker that was sent one; text says that a worker is gone, and how."""

    def close(self) -> None:
        """End the workers."""


class WorkerFederation(AnswersInTurn):
    """Sites simulated by several workers.

    Parameters
    ----------
    crew
        The workers.
    sites
        The sites that each worker holds.
    way
        How requests and replies pass within a worker, one of `local.WAYS`.
    about
        What the result says of the engine.
    temporary
        A folder of the sites' that is to last as long as this object.
    """

    def __init__(
        self,
        crew: Crew,
        sites: Sequence[Collection[str]],
        way: Way,
        about: Mapping[str, Any],
        temporary: TemporaryDirectory[str] | None = None,
    ) -> None:
        self._crew, self._way, self._about, self._temporary = crew, way, dict(about), temporary
        self._worker_of = {site: worker for worker, names in enumerate(sites) for site in names}
        self._requests = parcels.Requests()
        self._gone: dict[int, str] = {}
        self._alone: dict[int, str | None] = {}
        self._quicker: dict[str, None] = {}
        self._calls = 0
        # Messages of calls whose answers are looked for, by number of the call.
        self._open: dict[int, deque[tuple[int, Sequence[Any] | None]]] = {}

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        names = sorted(self._worker_of)
        return check_names([Site(name, number) for number, name in enumerate(names)])

    def how(self) -> dict[str, Any]:
        """Tell how the answers were made, for the result; `together` is None where no round was."""
        made = {**self._about, "way": self._way, "workers": len(set(self._worker_of.values()))}
        if self._gone:
            made["workers_lost"] = [self._gone[worker] for worker in sorted(self._gone)]
        if self._way != "fast":
            return made
        reasons = [reason for reason in self._alone.values() if reason is not None]
        alone = sorted({reason for reason in reasons if reason})
        together = None if not reasons else len(alone) == 0 or "" in reasons
        return made | {"together": together, "because": "; ".join(alone) or None, "quicker": list(self._quicker)}

    def close(self) -> None:
        """End the workers."""
        self._crew.close()

    def _answer(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, replies: Replies
    ) -> Iterator[Arrival]:
        self._calls += 1
        number = self._calls
        texts = texts_of(self._way, method, requests)
        waiting: dict[int, dict[str, None]] = {}
        for site in requests:
            waiting.setdefault(self._worker_of[site], {})[site] = None
        self._open[number] = deque()
        try:
            self._requests.begin()
            for worker, sites in waiting.items():
                if worker in self._gone:
                    continue
                head: dict[str, Any] = {"call": number, "method": method, "deadline_s": deadline_s}
                head["texts"] = [site for site in sites if site in texts]
                self._crew.send(worker, self._requests.write(worker, head, {site: requests[site] for site in sites}))
            self._requests.begin()
            while waiting:
                for worker in [worker for worker in waiting if worker in self._gone]:
                    for site in waiting.pop(worker):
                        yield Arrival(site, None, Missing("crashed", self._gone[worker]))
                if not waiting:
                    return
                worker, parcel = self._next(number)
                if parcel is None:
                    continue
                told, arrivals = parcels.read_answers(parcel, replies)
                del parcel
                if "raised" in told:
                    raise _raised(told["raised"])
                for arrival in arrivals:
                    waiting[worker].pop(arrival.site, None)
                    yield arrival
                if told["over"]:
                    self._alone[worker] = told["alone"]
                    self._quicker |= dict.fromkeys(told["quicker"])
                    del waiting[worker]
        finally:
            del self._open[number]

    def _next(self, number: int) -> tuple[int, Sequence[Any] | None]:
        """Return the next message of a call; None instead of one when a worker is gone."""
        while not self._open[number]:
            worker, parcel = self._crew.receive()
            if isinstance(parcel, str):
                self._gone.setdefault(worker, parcel)
                for early in self._open.values():
                    early.append((worker, None))
                continue
            call = parcels.read_answers(parcel, None)[0]["call"]
            # Answers to a call that nobody looks at any more are dropped.
            if call in self._open:
                self._open[call].append((worker, parcel))
        return self._open[number].popleft()


class WorkerSites:
    """What a worker does with messages; its sites, and all that they remember, are here.

    Parameters
    ----------
    contexts
        Its sites.
    way
        One of `local.WAYS`.
    threads
        At most so many threads does torch use.
    """

    def __init__(self, contexts: Sites, way: Way, threads: int) -> None:
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), threads))
        self._federation = LocalFederation(contexts, way)
        self._requests = parcels.ReadRequests()

    def answer(self, parcel: Sequence[Any]) -> Iterator[parcels.Parcel]:
        """Answer one message; yields messages as they are made, the last of which says that it is."""
        asked, requests = self._requests.read(parcel)
        del parcel
        head = {"call": asked["call"], "over": False}
        replies = Replies(requests, iter(()), {})
        try:
            for arrivals in self._federation.answers(
                asked["method"], requests, asked["deadline_s"], replies, asked["texts"]
            ):
                yield parcels.write_answers(head, arrivals, replies)
        except Exception as error:
            raised = {"kind": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
            yield parcels.write_answers({**head, "raised": raised}, [], replies)
            return
        over = {"over": True, "alone": self._federation.alone(), "quicker": self._federation.quicker()}
        yield parcels.write_answers(head | over, [], replies)


def _raised(raised: Mapping[str, str]) -> Exception:
    """Return what a worker's exception is here: one of ours by its name, another with its traceback."""
    kind = getattr(errors, raised["kind"], None)
    if isinstance(kind, type) and issubclass(kind, V6AlgorithmError):
        with suppress(TypeError):
            return kind(raised["text"])
    error = RuntimeError(f"{raised['kind']}: {raised['text']}")
    error.add_note(f"in a worker:\n{raised['trace']}")
    return error


# -- dealing ---------------------------------------------------------------------------------------------------------


def deal(contexts: Sites, workers: int) -> list[dict[str, SiteContext]]:
    """Deal sites to workers: the largest first, each to the worker that has least; a worker's are in their order."""
    sizes = {name: sum(_size(source) for source in context.sources.values()) for name, context in contexts.items()}
    loads, dealt = [(0, 0)] * workers, dict.fromkeys(contexts, 0)
    for name in sorted(contexts, key=lambda name: (-sizes[name], name)):
        worker = min(range(workers), key=lambda number: (*loads[number], number))
        dealt[name] = worker
        loads[worker] = loads[worker][0] + sizes[name], loads[worker][1] + 1
    return [{name: contexts[name] for name in contexts if dealt[name] == worker} for worker in range(workers)]


def _size(source: TableSource) -> int:
    """Return a measure of a table: bytes in memory, or of its file; 0 where it is somewhere else."""
    if source.frame is not None:
        return int(source.frame.size) * 8
    with suppress(OSError):
        return Path(source.uri).stat().st_size
    return 0


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(workers: int) -> int:
    """Return how many threads each of so many workers may use, so that there are no more than cores."""
    return max(cores() // workers, 1)


# -- processes of this machine ---------------------------------------------------------------------------------------


class Processes:
    """Workers that are processes of this machine.

    Parameters
    ----------
    groups
        The sites of each.
    way
        One of `local.WAYS`.
    """

    def __init__(self, groups: Sequence[Sites], way: Way) -> None:
        # A server that has read the libraries makes them, so that they begin at once and share what it has in memory.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__, "torch", "pandas", "v6_algorithm.site.together"])
        threads = threads_of(len(groups))
        self._inbox: queue.SimpleQueue[tuple[int, list[bytes] | None]] = queue.SimpleQueue()
        self._processes: list[Any] = []
        self._outboxes: list[queue.SimpleQueue[parcels.Parcel | None]] = []
        self._sites = [len(group) for group in groups]
        self._end = weakref.finalize(self, _end, self._processes, self._outboxes)
        for number, group in enumerate(groups):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(there, dict(group), way, threads, dict(os.environ)), daemon=True
            )
            with _without_main(), _few_threads(threads):
                process.start()
            there.close()
            outbox: queue.SimpleQueue[parcels.Parcel | None] = queue.SimpleQueue()
            self._processes.append(process)
            self._outboxes.append(outbox)
            # So that nobody waits for a worker who waits for him, and Ctrl-C finds no half of a message.
            threading.Thread(target=_listen, args=(number, here, self._inbox), daemon=True).start()
            threading.Thread(target=_speak, args=(here, outbox), daemon=True).start()

    @property
    def ids(self) -> list[int]:
        """The processes' ids."""
        return [process.pid for process in self._processes]

    def send(self, worker: int, parcel: parcels.Parcel) -> None:
        """See `Crew.send`."""
        self._outboxes[worker].put(parcel)

    def receive(self) -> tuple[int, Sequence[Any] | str]:
        """See `Crew.receive`."""
        worker, parcel = self._inbox.get()
        return worker, self._how_ended(worker) if parcel is None else parcel

    def close(self) -> None:
        """See `Crew.close`."""
        self._end()

    def _how_ended(self, worker: int) -> str:
        process = self._processes[worker]
        process.join(_PATIENCE_S)
        code = process.exitcode
        how = "ended" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in {*map(int, signal.Signals)} else f"signal {-code}"
            how = f"was ended by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")
        return lost(worker, self._sites, f"process {process.pid}", how)


def lost(worker: int, sites: Sequence[int], name: str, how: str) -> str:
    """Say that a worker is gone; `sites` are the numbers of those that each worker held."""
    held = f"{sites[worker]} site{'' if sites[worker] == 1 else 's'}"
    return f"worker {worker + 1} of {len(sites)} ({name}) {how}; it held {held}"


def _end(processes: list[Any], outboxes: list[queue.SimpleQueue[parcels.Parcel | None]]) -> None:
    """End processes: those that wait by a word, the others by a signal."""
    for outbox in outboxes:
        outbox.put(None)
    end = time.monotonic() + _PATIENCE_S
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    for process in processes:
        process.join(_PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            process.join()


def _listen(number: int, pipe: Any, inbox: queue.SimpleQueue[tuple[int, list[bytes] | None]]) -> None:
    """Take in what a worker says until it is gone."""
    with suppress(EOFError, OSError):
        while True:
            count = int.from_bytes(pipe.recv_bytes(), "little")
            inbox.put((number, [pipe.recv_bytes() for _ in range(count)]))
    inbox.put((number, None))


def _speak(pipe: Any, outbox: queue.SimpleQueue[parcels.Parcel | None]) -> None:
    with suppress(OSError):
        while (parcel := outbox.get()) is not None:
            _send(pipe, parcel)
        _send(pipe, [])


def _send(pipe: Any, parcel: parcels.Parcel) -> None:
    pipe.send_bytes(len(parcel).to_bytes(8, "little"))
    for part in parcel:
        pipe.send_bytes(part)


def _serve(pipe: Any, contexts: Sites, way: Way, threads: int, environment: Mapping[str, str]) -> None:
    """Be a worker, until nobody asks any more."""
    # Ctrl-C and a terminal that is closed reach all processes of it; the researcher's decides what they mean.
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    sites = WorkerSites(contexts, way, threads)
    with suppress(EOFError, OSError):
        while count := int.from_bytes(pipe.recv_bytes(), "little"):
            for parcel in sites.answer([pipe.recv_bytes() for _ in range(count)]):
                _send(pipe, parcel)


def _end_with_parent() -> None:
    """Leave no worker behind when the process that began it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Begin a process without the program that runs here: a script without a guard would run once more in it."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before


@contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    """Let processes that begin now use so many threads in all libraries, where nobody has said how many."""
    names = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
