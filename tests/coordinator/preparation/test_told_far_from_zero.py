"""`data.scaling: none` leaves columns far from 0 to float32: a note names those that lose their digits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6


def _notes(offset: float, **changes):
    generator = np.random.default_rng(0)
    sites = {}
    for name, rows in {"north": 40, "south": 30}.items():
        near, far = generator.normal(size=(2, rows))
        sites[name] = pd.DataFrame({"near": near, "far": far + offset, "y": (near > 0).astype(int)})
    experiment = {"data": {"target": "y", **changes.pop("data", {})}, "model": {"kind": "linear"}, "rounds": 1}
    return [note for note in v6.run(experiment | changes, sites).content["notes"] if "loses digits" in note]


@pytest.mark.parametrize("offset", [1e6, 1e8, -1.7e12])
def test_a_column_that_nothing_centres_is_named_with_the_remedy(offset):
    (note,) = _notes(offset, data={"scaling": "none"})
    assert note.startswith("far: ")
    assert "data.scaling: standard" in note


def test_near_columns_centred_ones_and_float64_are_not():
    assert _notes(100.0, data={"scaling": "none"}) == []
    assert _notes(1e8) == []
    assert _notes(1e8, data={"scaling": "none"}, training={"dtype": "float64"}) == []
