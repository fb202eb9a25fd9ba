"""`--engine ray`: workers that are Ray actors, on this machine or on the machines of a cluster.

The glue between `workers.WorkerFederation` and Ray, which `pip install 'v6-algorithm[ray]'` brings. An actor holds some
sites; messages are those of `parcels`. A model that all workers get is put into Ray's object store once a call. Ray
itself carries Python objects by pickle between machines of one cluster, all of which are the researcher's: a cluster
runs whatever code any of its machines sends, so no hospital's machine belongs into one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import parcels
from v6_algorithm.engines.simulation.local import Way
from v6_algorithm.engines.simulation.workers import Sites, WorkerSites, cores, lost
from v6_algorithm.errors import ExperimentError

_ADDRESS = "RAY_ADDRESS"
# Bytes of a part from which on it is worth an entry of its own in the object store.
_LARGE = 100_000
# Seconds after which a cluster that has not begun all workers has no room for them.
_ROOM_S = 120.0


def start_ray(workers: int | None) -> int:
    """Join the cluster of ``RAY_ADDRESS``, or begin one on this machine; return how many CPUs it has.

    Neither Ray's telemetry nor its dashboard is on.

    Raises
    ------
    ExperimentError
        Where Ray is not installed, or no cluster answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ExperimentError("--engine ray needs Ray: pip install 'v6-algorithm[ray]'") from None
    if not ray.is_initialized():
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        address = os.environ.get(_ADDRESS)
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(num_cpus=max(cores(), workers or 1), include_dashboard=False, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"{_ADDRESS} {address}" if address else "this machine"
            raise ExperimentError(f"--engine ray: no cluster on {where}: {str(error).splitlines()[0][:200]}") from None
    return int(ray.cluster_resources().get("CPU", 1))


def for_machines(source: TableSource) -> TableSource:
    """Return a table whose files are named from the root, as other machines have to find them."""
    changes: dict[str, Any] = {}
    if source.frame is None and source.uri and "://" not in source.uri:
        changes["uri"] = str(Path(source.uri).resolve())
    if source.base is not None:
        changes["base"] = source.base.resolve()
    return replace(source, **changes) if changes else source


class SitesActor:
    """What an actor is: a worker's sites."""

    def __init__(self, contexts: Sites, way: Way, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._sites = WorkerSites(contexts, way, 1)

    def ready(self) -> str:
        """Return the machine and the process."""
        return f"process {os.getpid()} on {os.uname().nodename}"

    def answer(self, parts: list[Any]) -> Iterator[parcels.Parcel]:
        """Answer one message, of bytes and references to bytes."""
        import ray

        yield from self._sites.answer([part if isinstance(part, bytes) else ray.get(part) for part in parts])


class Actors:
    """Workers that are Ray actors; see `workers.Crew`.

    Parameters
    ----------
    groups
        The sites of each.
    way
        One of `local.WAYS`.

    Raises
    ------
    ExperimentError
        When the cluster has no room for them.
    """

    def __init__(self, groups: Sequence[Sites], way: Way) -> None:
        import ray

        # One CPU each, which Ray makes one thread each.
        make: Any = ray.remote(num_cpus=1, max_restarts=0)(SitesActor)
        # Rules of this machine hold at all sites, and so does nothing else of its environment.
        environment = {key: value for key, value in os.environ.items() if key.startswith("V6_ALGORITHM_")}
        self._actors: list[Any] = [make.remote(dict(group), way, environment) for group in groups]
        self._sites = [len(group) for group in groups]
        begun = [actor.ready.remote() for actor in self._actors]
        there, missing = ray.wait(begun, num_returns=len(begun), timeout=_ROOM_S)
        if missing:
            self.close()
            raise ExperimentError(
                f"--engine ray: after {_ROOM_S:g} s the cluster has begun {len(there)} of {len(begun)} workers; each "
                "needs a free CPU"
            )
        self._names = ray.get(begun)
        self._streams: list[tuple[int, Any]] = []
        # What lies in the object store for the newest call, by identity.
        self._stored: dict[int, tuple[bytes, Any]] = {}

    def send(self, worker: int, parcel: parcels.Parcel) -> None:
        """See `workers.Crew`."""
        parts = [part if len(part) < _LARGE else self._store(part) for part in parcel]
        stream = self._actors[worker].answer.options(num_returns="streaming").remote(parts)
        self._streams.append((worker, stream))

    def receive(self) -> tuple[int, Sequence[Any] | str]:
        """See `workers.Crew`."""
        import ray

        while True:
            self._stored = {}
            ready, _ = ray.wait([stream for _, stream in self._streams], num_returns=1, fetch_local=False)
            place = next(place for place, (_, stream) in enumerate(self._streams) if stream is ready[0])
            worker, stream = self._streams[place]
            try:
                parcel: Sequence[Any] = ray.get(next(stream))
                return worker, parcel
            except StopIteration:
                del self._streams[place]
            except ray.exceptions.RayError as error:
                self._streams = [(other, stream) for other, stream in self._streams if other != worker]
                return worker, lost(worker, self._sites, self._names[worker], f"is gone: {type(error).__name__}")

    def close(self) -> None:
        """See `workers.Crew`; a cluster of this run's own ends too."""
        import ray

        with suppress(Exception):
            for actor in self._actors:
                ray.kill(actor)
        if not os.environ.get(_ADDRESS):
            ray.shutdown()

    def _store(self, part: bytes) -> Any:
        import ray

        if id(part) not in self._stored:
            self._stored[id(part)] = part, ray.put(part)
        return self._stored[id(part)][1]
