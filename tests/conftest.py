"""Small federations for the tests: synthetic tables with a learnable signal, and runs of a few rounds."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hospitals import make_table
from hypothesis import settings
from spying import Spy
from warm_python import WarmPython

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

# A busy machine is no failure. CI draws the same examples each time; at a desk they differ from run to run: so new
# counterexamples are found.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ, max_examples=50)
# For `tools/python_versions.sh`: what another Python does otherwise shows in any case of a test.
FEW = bool(os.environ.get("V6_TEST_FEW"))
settings.register_profile("few", settings.get_profile("patient"), max_examples=10)
settings.load_profile("few" if FEW else "patient")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the first and the last case of each parametrised test, where few are wanted."""
    if not FEW:
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {id(item) for case in cases.values() for item in (case[0], case[-1])}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of Python's searches for circles, which take a twentieth of their time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def at_the_desk() -> Iterator[None]:
    """Let what reads a node's environment in this process be trusted, as `run` is; tests of other presets name them."""
    # Before fixtures of whole modules, which run tasks too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("V6_ALGORITHM_POLICY", "trusted")
        yield


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """What starts the algorithm as a process where its imports are not looked at."""
    # A socket's address has at most 107 characters, pytest's folders may have more.
    with TemporaryDirectory() as folder:
        started = WarmPython(Path(folder))
        yield started
        started.stop()


@pytest.fixture
def tables() -> dict[str, TableSource]:
    """Three hospitals of different size."""
    return {name: TableSource(frame=make_table(rows, seed)) for name, rows, seed in _SITES}


_SITES = [("amsterdam", 60, 1), ("berlin", 40, 2), ("cairo", 30, 3)]


@pytest.fixture
def make_experiment() -> Callable[..., Experiment]:
    """Return a function that makes a small experiment with some keys changed."""

    def make(**changes: Any) -> Experiment:
        content: dict[str, Any] = {
            "name": "test",
            "data": {"target": "y"},
            "model": {"kind": "mlp", "hidden": [8]},
            "rounds": 4,
            "training": {"optimizer": {"kind": "adam", "lr": 0.02}, "batch_size": 8},
        }
        return Experiment.parse(content | changes)

    return make


@pytest.fixture
def run_locally() -> Callable[..., dict[str, Any]]:
    """Return a function that runs an experiment over tables in this process."""

    def go(experiment: Experiment, sites: dict[str, TableSource], **options: Any) -> dict[str, Any]:
        return run(local_federation(experiment, sites), experiment, **options)

    return go


@pytest.fixture
def spied(tables: dict[str, TableSource]) -> Callable[..., tuple[Spy, dict[str, Any]]]:
    """Return a function that runs an experiment over a watched federation, and gives that and the result."""

    def go(
        experiment: Experiment, tamper: Any = None, sites: Any = None, back: Sequence[str] = (), **options: Any
    ) -> tuple[Spy, dict[str, Any]]:
        spy = Spy(local_federation(experiment, sites or tables), tamper, back)
        return spy, run(spy, experiment, **options)

    return go


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep small networks on one thread, as sites do: two that wait for each other take many times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
