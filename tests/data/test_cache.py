"""The cached table is the table, or there is none: losing it never corrupts a run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.cache import cache_key, keep, load_cached
from v6_algorithm.data.splits import Fold
from v6_algorithm.data.table import TableData
from v6_algorithm.experiment import PARTS


def table(*, rows=6, categories=2, folds=3, dtype="float32", target="int64"):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 3)).astype(dtype)
    values[0, 0] = np.nan
    part = np.arange(rows) % 3
    return TableData(
        values=values,
        one_hot=rng.integers(0, 2, (rows, categories)).astype(dtype),
        target=rng.integers(0, 2, rows).astype(target),
        member=np.arange(rows) % 2,
        members=["va", "Zürich"],
        covariates=rng.normal(size=(rows, 2)),
        folds=[Fold(*(np.flatnonzero(part == (place + fold) % 3) for place in range(3))) for fold in range(folds)],
    )


def assert_same(one, other):
    for name in ("values", "one_hot", "target", "member", "covariates"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert one.members == other.members
    assert len(one.folds) == len(other.folds)
    for a, b in zip(one.folds, other.folds, strict=True):
        for part in PARTS:
            assert a[part].dtype == b[part].dtype
            np.testing.assert_array_equal(a[part], b[part])


@pytest.mark.parametrize(
    "options",
    [{}, {"categories": 0}, {"folds": 1}, {"folds": 12}, {"dtype": "float64", "target": "float64"}, {"rows": 1}],
    ids=str,
)
def test_a_kept_table_is_loaded_as_it_was(tmp_path, options):
    data = table(**options)
    keep(tmp_path, "key", data)
    assert_same(load_cached(tmp_path, "key"), data)


def test_the_file_is_one_that_safetensors_reads(tmp_path):
    data = table()
    keep(tmp_path, "key", data)
    arrays = safetensors.numpy.load_file(tmp_path / "table-key.safetensors")
    np.testing.assert_array_equal(arrays["values"], data.values)
    np.testing.assert_array_equal(arrays["fold.1.train"], data.folds[1].train)


def test_a_loaded_table_may_be_written_to_without_harm_to_the_file(tmp_path):
    keep(tmp_path, "key", table())
    load_cached(tmp_path, "key").values[:] = 0
    assert_same(load_cached(tmp_path, "key"), table())


def test_views_of_other_arrays_are_kept(tmp_path):
    data = table()
    data = dataclasses.replace(data, values=np.asfortranarray(data.values), target=data.target[::-1])
    keep(tmp_path, "key", data)
    assert_same(load_cached(tmp_path, "key"), data)


def test_what_was_not_kept_is_not_there(tmp_path):
    assert load_cached(tmp_path, "key") is None
    assert load_cached(tmp_path / "nowhere", "key") is None


def test_a_table_is_found_by_its_own_key_only(tmp_path):
    keep(tmp_path, "one", table())
    assert load_cached(tmp_path, "two") is None


def test_keeping_again_replaces_the_table(tmp_path):
    keep(tmp_path, "key", table())
    keep(tmp_path, "key", table(rows=9))
    assert len(load_cached(tmp_path, "key").target) == 9
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_cut_short_anywhere_is_no_table(tmp_path):
    keep(tmp_path, "key", table())
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert load_cached(tmp_path, "key") is None


@given(st.binary(max_size=300))
def test_a_file_of_anything_else_is_no_table(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("cache")
    (folder / "table-key.safetensors").write_bytes(content)
    assert load_cached(folder, "key") is None


def test_a_safetensors_file_that_is_no_table_is_no_table(tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file({"values": np.zeros(3)}, tmp_path / "table-key.safetensors")
    assert load_cached(tmp_path, "key") is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    keep(tmp_path / "file", "key", table())
    assert load_cached(tmp_path / "file", "key") is None


def test_a_disk_that_fails_leaves_no_litter(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("v6_algorithm.data.cache.write_arrays", full)
    keep(tmp_path, "key", table())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (({"va": "va.csv:10:1"},), ({"va": "va.csv:10:2"},)),
        (({"seed": 0},), ({"seed": 1},)),
        ((["age"],), (["age", "chol"],)),
        ((["age", "chol"],), (["chol", "age"],)),
        (([], ["a"]), (["a"], [])),
        ((1,), ("1",)),
        ((None,), ("null",)),
    ],
    ids=str,
)
def test_the_key_changes_with_everything_it_is_made_of(one, other):
    assert cache_key(*one) != cache_key(*other)


def test_the_key_does_not_hang_on_the_order_of_names():
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})
