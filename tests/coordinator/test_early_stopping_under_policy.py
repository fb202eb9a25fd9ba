"""A run that stops early is tested at nodes of every policy: its last model is of the round before the last call."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.experiment import Experiment


def run_under(preset, **changes):
    """Train a model of labels that are noise, so that validation loss stops to fall."""
    draw = np.random.default_rng(0)
    tables = {}
    for name in ("north", "south"):
        frame = pd.DataFrame(draw.normal(size=(80, 2)), columns=["a", "b"])
        tables[name] = TableSource(frame=frame.assign(y=draw.integers(0, 2, 80)))
    experiment = Experiment.parse(
        {
            "data": {"target": "y"},
            "model": {"kind": "mlp", "hidden": [8]},
            "rounds": 40,
            "training": {"batch_size": 16, "optimizer": {"kind": "adam", "lr": 0.05}},
            "stopping": {"patience": 2},
        }
        | changes
    )
    return run(local_federation(experiment, tables, own_policy(preset)), experiment)


@pytest.mark.parametrize("preset", ["trusted", "standard"])
def test_a_run_that_stops_early_is_tested(preset):
    result = run_under(preset)
    assert result["status"] == "completed"
    assert result["rounds_run"] < 40, "labels are noise: validation loss must stop falling"
    assert result["metrics"]["test"]["pooled"]["auroc"] is not None


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_is_tested_beside_the_two_newest_models_of_a_pipeline(kind):
    """None of the three was sent in a round: more than the two that other runs have."""
    pipelined = {"pipeline": 1, "output": {"model": kind}, "rounds": 3}
    result = run_under("standard", **pipelined)
    assert all(not call["missing"] for call in result["participation"])
    assert set(result["metrics"]["test"]["sites"]) == {"north", "south"}
