"""Images whose values differ from site to site are told, and those that scanners differ in are not."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation.notes.images import tell_ends, tell_values
from v6_algorithm.data.preparation.statistics import Moments

PIXELS = np.random.default_rng(0).uniform(0, 1, (30, 2))


def of(scale, shift=0.0):
    return Moments.of([PIXELS * scale + shift], with_range=False)


def test_the_same_pictures_as_bytes_and_as_shares_of_one_are_told():
    (note,) = tell_values({"berlin": of(255), "amsterdam": of(1), "cairo": of(1.5)})
    assert "differ 255-fold" in note
    assert "amsterdam 0.586, cairo 0.879, berlin 149" in note
    assert "stored alike" in note


@pytest.mark.parametrize("scale", [0.5, 1, 3, 9])
def test_what_scanners_differ_by_is_not(scale):
    assert tell_values({"amsterdam": of(1), "berlin": of(scale)}) == []


SHIFTS = {
    "Hounsfield units and the same plus 1024": (of(2000, -1000), of(2000, 24)),
    "black and white exchanged": (of(0.2, 0.8), of(0.2)),
    "-1 to 1 beside 0 to 1": (of(2, -1), of(1)),
    "z-scores beside bytes over 255": (of(3.46, -1.73), of(1)),
}
SIZES = {
    "bytes": 255,
    "12 of 16 bits": 65535 / 4095,
    "16 bits beside 8": 257,
    "percent": 100,
    "Kelvin-like counts": 4095,
    "thousandths": 0.001,
}


@pytest.mark.parametrize("kind", SHIFTS)
def test_values_of_one_size_that_lie_elsewhere_are_told(kind):
    first, second = SHIFTS[kind]
    (note,) = tell_values({"amsterdam": first, "berlin": second})
    assert "where their values lie" in note


@pytest.mark.parametrize("kind", SIZES)
def test_values_of_another_unit_are_told(kind):
    (note,) = tell_values({"amsterdam": of(1), "berlin": of(SIZES[kind])})
    assert "-fold in the size" in note


def test_sparse_pictures_and_brighter_ones_of_one_range_are_not():
    sparse = Moments.of([(PIXELS > 0.97) * PIXELS], with_range=False)
    assert tell_values({"amsterdam": sparse, "berlin": Moments.of([(PIXELS > 0.9) * PIXELS], with_range=False)}) == []
    assert tell_values({"amsterdam": of(0.8), "berlin": of(0.8, 0.2)}) == []


def test_a_site_whose_values_are_hidden_and_one_alone_say_nothing():
    hidden = of(255).without(np.ones(2, dtype=bool))
    assert tell_values({"amsterdam": of(1), "berlin": hidden}) == []
    assert tell_values({"amsterdam": of(1)}) == []


def test_a_description_tells_of_bytes_beside_shares():
    ends = {"a": {"low": 0.01, "high": 0.99}, "b": {"low": 2.0, "high": 254.0}, "c": {"low": None, "high": None}}
    (note,) = tell_ends(ends)
    assert "257-fold in their values (mean lowest to mean highest: a 0.01 to 0.99, b 2 to 254)" in note
    assert tell_ends({"a": ends["a"], "c": ends["c"]}) == []
    assert tell_ends({"a": ends["b"], "b": {"low": -1000.0, "high": 1500.0}}) == []
