"""One seed, one path of keys, one stream of numbers: on every machine and after every restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.seeding import derive, numpy_generator, torch_generator

# Keys are names that the package or a researcher writes; the separator 0x1F cannot be typed.
keys = st.lists(st.integers(-5, 5) | st.text(st.characters(min_codepoint=32), max_size=4), max_size=4)


def test_the_numbers_are_the_same_in_every_version():
    # A change here changes every split and every batch of every experiment that was ever run.
    assert derive(0) == 3456079177858693020
    assert derive(7, "split", "cleveland") == 8263730319880850645
    assert derive(7, "batches", "va", 3, 0) == 7971200631441206439


@given(st.integers(0, 2**63 - 1), keys)
def test_a_seed_fits_numpy_and_torch(seed, path):
    assert 0 <= derive(seed, *path) < 2**63
    numpy_generator(seed, *path)
    torch_generator(seed, *path)


@given(st.integers(0, 3), keys, st.integers(0, 3), keys)
def test_different_purposes_get_different_seeds(seed, path, other_seed, other_path):
    same = seed == other_seed and path == other_path
    assert (derive(seed, *path) == derive(other_seed, *other_path)) == same


def test_a_number_and_its_text_are_different_keys():
    assert derive(0, 1) != derive(0, "1")


@pytest.mark.parametrize(("one", "other"), [(("ab", "c"), ("a", "bc")), (("a", ""), ("a",)), ((1, 23), (12, 3))])
def test_keys_do_not_run_into_each_other(one, other):
    assert derive(0, *one) != derive(0, *other)


def test_the_same_path_gives_the_same_numbers():
    draws = [numpy_generator(5, "split", "va").permutation(50) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    shuffles = [torch.randperm(50, generator=torch_generator(5, "batches", "va", 2)) for _ in range(2)]
    assert torch.equal(*shuffles)


def test_what_others_draw_changes_nothing():
    expected = torch.randperm(50, generator=torch_generator(5, "batches"))
    torch.manual_seed(99)
    np.random.seed(99)
    torch.rand(3)
    assert torch.equal(torch.randperm(50, generator=torch_generator(5, "batches")), expected)


def test_drawing_here_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    torch_generator(5, "batches")
    assert torch.equal(torch.rand(3), expected)
