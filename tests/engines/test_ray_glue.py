"""What is asked of Ray, and what becomes of its answers: a stand-in of Ray's interface takes the place of a cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import ray as glue
from v6_algorithm.engines.simulation.simulate import ray_federation
from v6_algorithm.errors import ExperimentError


class Ref:
    """A reference to something in the object store."""

    def __init__(self, value):
        self.value = value


class RayError(Exception):
    """As Ray names an actor's end."""


class Actor:
    """An actor that answers each message with its parts' kinds, twice, or is gone."""

    def __init__(self, ray, arguments):
        self.ray, self.arguments, self.got, self.dead = ray, arguments, [], False
        self.ready = SimpleNamespace(remote=lambda: Ref(f"process {ray.made.index(self)}"))
        self.answer = SimpleNamespace(options=self._options)

    def _options(self, num_returns):
        assert num_returns == "streaming"
        return SimpleNamespace(remote=self._stream)

    def _stream(self, parts):
        self.got.append(parts)
        for number in range(2):
            if self.dead:
                raise RayError("gone")
            yield Ref([b"answer", bytes([number])])


class Ray(ModuleType):
    """The few functions that are called."""

    def __init__(self, cpus=2, room=None):
        super().__init__("ray")
        self.cpus, self.room, self.inits, self.made, self.killed, self.stored, self.ended = (
            cpus,
            room,
            [],
            [],
            [],
            [],
            0,
        )
        self.exceptions, self.failure, self.begun = SimpleNamespace(RayError=RayError), None, False

    def init(self, **options):
        if self.failure:
            raise self.failure
        self.inits.append(options)
        self.begun = True

    def is_initialized(self):
        return self.begun

    def cluster_resources(self):
        return {} if self.cpus is None else {"CPU": float(self.cpus)}

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_restarts": 0}

        def make(*arguments):
            self.made.append(Actor(self, arguments))
            return self.made[-1]

        return lambda cls: SimpleNamespace(remote=make)

    def wait(self, waiting, *, num_returns, timeout=None, fetch_local=True):
        if timeout is not None:
            ready = len(waiting) if self.room is None else self.room
            assert num_returns == len(waiting)
            return waiting[:ready], waiting[ready:]
        assert (num_returns, fetch_local) == (1, False)
        return waiting[-1:], waiting[:-1]

    def put(self, part):
        self.stored.append(part)
        return Ref(part)

    def get(self, given):
        return [one.value for one in given] if isinstance(given, list) else given.value

    def kill(self, actor):
        self.killed.append(actor)

    def shutdown(self):
        self.ended += 1


@pytest.fixture
def ray(monkeypatch):
    made = Ray()
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setattr(glue, "cores", lambda: 4)
    return made


@pytest.mark.parametrize(("workers", "cpus"), [(None, 4), (1, 4), (4, 4), (9, 9)])
def test_a_cluster_of_this_machine_has_a_cpu_for_each_core_and_worker(ray, workers, cpus):
    assert glue.start_ray(workers) == 2
    quiet = {"logging_level": "error", "log_to_driver": False}
    assert ray.inits == [{"num_cpus": cpus, "include_dashboard": False, **quiet}]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    # It is joined, and not begun again.
    ray.cpus = None
    assert glue.start_ray(workers) == 1
    assert len(ray.inits) == 1


def test_a_cluster_elsewhere_is_joined_and_named_where_it_does_not_answer(ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    ray.failure = ConnectionError("x" * 300 + "\nmore")
    with pytest.raises(ExperimentError) as refused:
        glue.start_ray(3)
    assert str(refused.value) == f"--engine ray: no cluster on RAY_ADDRESS 10.0.0.1:6379: {'x' * 200}"
    ray.failure = None
    glue.start_ray(3)
    assert ray.inits == [{"address": "10.0.0.1:6379", "logging_level": "error", "log_to_driver": False}]
    monkeypatch.delenv("RAY_ADDRESS")
    ray.failure, ray.begun = RuntimeError("full"), False
    with pytest.raises(ExperimentError, match="no cluster on this machine: full"):
        glue.start_ray(3)


def test_files_are_named_from_the_root_for_other_machines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = glue.for_machines(TableSource("a.csv", base=Path("images")))
    assert (there.uri, there.base) == (str(tmp_path / "a.csv"), tmp_path / "images")
    for given in (TableSource("postgresql://host/db"), TableSource(frame=pd.DataFrame({"a": [1]}))):
        assert glue.for_machines(given) is given
    named = TableSource("a.csv", frame=pd.DataFrame({"a": [1]}))
    assert glue.for_machines(named) is named


def test_workers_are_as_many_as_cpus_and_sites(ray, make_experiment, tables):
    assert len(tables) == 3
    experiment = make_experiment()
    for cpus, workers, made in ((2, None, 2), (9, None, 3), (2, 2, 2), (3, 3, 3), (2, 1, 1)):
        ray.cpus, ray.made = cpus, []
        federation = ray_federation(experiment, tables, workers=workers)
        assert len(ray.made) == made, (cpus, workers)
        assert federation.how()["workers"] == made
        federation.close()
    ray.cpus = 2
    with pytest.raises(ExperimentError, match="workers: 3 is not allowed: the cluster has 2 CPUs; allowed: 1 to 2"):
        ray_federation(experiment, tables, workers=3)
    with pytest.raises(ExperimentError, match="there are 3 sites"):
        ray_federation(experiment, tables, workers=4)
    with pytest.raises(ExperimentError, match="whole numbers from 1"):
        ray_federation(experiment, tables, workers=0)
    ray.cpus = 0
    with pytest.raises(ExperimentError, match="the cluster has 0 CPUs"):
        ray_federation(experiment, tables)


def test_a_cluster_without_room_is_told_and_ended(ray, monkeypatch):
    ray.room = 1
    with pytest.raises(
        ExperimentError, match="after 120 s the cluster has begun 1 of 2 workers; each needs a free CPU"
    ):
        glue.Actors([{"a": None}, {"b": None}], "exact")
    assert (len(ray.killed), ray.ended) == (2, 1)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    glue.Actors([{"a": None}], "exact").close()
    assert (len(ray.killed), ray.ended) == (3, 1), "a cluster elsewhere is its owner's"


def test_what_all_workers_get_is_stored_once_a_call(ray, monkeypatch):
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "strict")
    monkeypatch.setenv("OTHER_SETTING", "x")
    actors = glue.Actors([{"a": None}, {"b": None, "c": None}], "exact")
    sites, way, environment = ray.made[1].arguments
    assert (sites, way) == ({"b": None, "c": None}, "exact")
    assert environment["V6_ALGORITHM_POLICY"] == "strict"
    assert all(name.startswith("V6_ALGORITHM_") for name in environment)
    small, large = b"s" * 99_999, b"l" * 100_000
    for worker in (0, 1):
        actors.send(worker, [small, large])
    told = [actors.receive() for _ in range(4)]
    # The newest first, as the stand-in has them; each has two parts of an answer.
    assert told == [(1, [b"answer", b"\0"]), (1, [b"answer", b"\1"]), (0, [b"answer", b"\0"]), (0, [b"answer", b"\1"])]
    assert ray.stored == [large]
    for actor in ray.made:
        assert actor.got[0][0] is small
        assert actor.got[0][1].value is large
    actors.send(0, [large])
    assert actors.receive() == (0, [b"answer", b"\0"])
    assert len(ray.stored) == 2, "another call"
    actors.close()
    assert (ray.killed, ray.ended) == (ray.made, 1)


def test_a_worker_that_is_gone_is_told_once_and_the_others_go_on(ray):
    actors = glue.Actors([{"a": None}, {"b": None, "c": None}], "exact")
    for worker in (1, 0, 1):
        actors.send(worker, [b"x"])
    ray.made[1].dead = True
    assert actors.receive() == (1, "worker 2 of 2 (process 1) is gone: RayError; it held 2 sites")
    assert [actors.receive() for _ in range(2)] == [(0, [b"answer", b"\0"]), (0, [b"answer", b"\1"])]


def test_an_actor_answers_with_what_the_references_stand_for(ray, monkeypatch):
    heard = []

    class Sites:
        def __init__(self, contexts, way, threads):
            heard.append((contexts, way, threads))

        def answer(self, parts):
            heard.append(parts)
            yield [b"one"]

    monkeypatch.setattr(glue, "WorkerSites", Sites)
    monkeypatch.delenv("V6_ALGORITHM_MAXIMUM_ROUNDS", raising=False)
    actor = glue.SitesActor({"a": None}, "fast", {"V6_ALGORITHM_MAXIMUM_ROUNDS": "7"})
    assert os.environ.pop("V6_ALGORITHM_MAXIMUM_ROUNDS") == "7"
    assert list(actor.answer([b"x", Ref(b"y")])) == [[b"one"]]
    assert heard == [({"a": None}, "fast", 1), [b"x", b"y"]]
    assert actor.ready().startswith(f"process {os.getpid()} on ")
