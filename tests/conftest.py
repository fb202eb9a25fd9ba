"""Small federations for the tests: synthetic tables with a learnable signal, and runs of a few rounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from spying import Spy

from v6_algorithm.data.sources import TableSource
from v6_algorithm.experiment import Experiment
from v6_algorithm.federation.simulate import local_federation
from v6_algorithm.master import run

# A busy machine is no failure.
# CI draws the same examples each time; at a desk they differ, which is how new counterexamples are found.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")


def make_table(rows: int, seed: int, *, classes: int = 2, shift: float = 0.0) -> pd.DataFrame:
    """Return four numeric columns and a `y` that depends on two of them: a class, or a number for `classes=0`."""
    generator = np.random.default_rng(seed)
    values = generator.normal(shift, 1 + seed % 3, size=(rows, 4))
    signal = values[:, 0] - values[:, 1] + generator.normal(0, 0.3, rows)
    frame = pd.DataFrame(values, columns=["a", "b", "c", "d"])
    if classes:
        frame["y"] = np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes))
    else:
        frame["y"] = signal
    return frame


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
