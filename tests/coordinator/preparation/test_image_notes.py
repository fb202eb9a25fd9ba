"""Images whose values differ from site to site are told, and those that scanners differ in are not."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation.image_notes import tell_values
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


def test_a_site_whose_values_are_hidden_and_one_alone_say_nothing():
    hidden = of(255).without(np.ones(2, dtype=bool))
    assert tell_values({"amsterdam": of(1), "berlin": hidden}) == []
    assert tell_values({"amsterdam": of(1)}) == []
