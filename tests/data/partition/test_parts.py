"""Rows by site, for thousands of sites."""

import numpy as np
import pytest

from v6_algorithm.data.partition.dealing import LEFT_OUT, parts_of
from v6_algorithm.errors import ExperimentError


def test_each_site_has_its_rows_in_their_order():
    owner = np.array([2, LEFT_OUT, 0, 1, 2, 0, LEFT_OUT, 1])
    assert [part.tolist() for part in parts_of(owner, 3)] == [[2, 5], [3, 7], [0, 4]]


def test_a_site_without_rows_is_named():
    with pytest.raises(ExperimentError, match="site 2 of 3"):
        parts_of(np.array([0, 2, 0]), 3)
