"""Sizes and spacing: every voxel counts alike, spacing is the affine's, padding is air."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.fitting import fitted, resized
from v6_algorithm.data.imaging.picture import Picture
from v6_algorithm.experiment import Image

pillow = pytest.importorskip("PIL.Image")
nibabel = pytest.importorskip("nibabel")

RNG = np.random.default_rng(0)
AXES = list(itertools.permutations(range(3)))


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=3)


def by_repetition(values, lengths):
    """Average over areas exactly: repeat every entry until the lengths divide."""
    for axis, length in enumerate(lengths, 1):
        own = values.shape[axis]
        if length < own:
            values = np.moveaxis(np.repeat(values, length, axis=axis), axis, 0)
            values = np.moveaxis(values.reshape(length, own, *values.shape[1:]).mean(axis=1), 0, axis)
    return values


@given(LENGTHS, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_smaller_images_and_volumes_are_averages_over_areas_in_which_all_count_alike(lengths, seed):
    own = [max(pair) for pair in lengths]
    wanted = [min(pair) for pair in lengths]
    values = np.random.default_rng(seed).normal(size=(2, *own)).astype(np.float32)
    smaller = resized(values, wanted)
    np.testing.assert_allclose(smaller, by_repetition(values.astype(np.float64), wanted), atol=1e-5)
    np.testing.assert_allclose(smaller.mean(axis=tuple(range(1, smaller.ndim))),
                               values.mean(axis=tuple(range(1, values.ndim))), atol=1e-5)  # fmt: skip


def test_pillows_box_and_scipys_line_are_the_same_resampling(tmp_path):
    ndimage = pytest.importorskip("scipy.ndimage")
    values = RNG.normal(size=(1, 24, 36)).astype(np.float32)
    for height, width in ((8, 12), (12, 9), (1, 36)):
        box = np.asarray(pillow.fromarray(values[0]).resize((width, height), pillow.Resampling.BOX))
        np.testing.assert_allclose(resized(values, [height, width])[0], box, atol=1e-5)
    volume = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    larger = ndimage.zoom(volume, (2, 1.5, 3), order=1, grid_mode=True, mode="nearest")
    np.testing.assert_allclose(resized(volume[None], [10, 9, 21])[0], larger, atol=1e-5)


def test_monais_area_is_the_same_where_lengths_divide():
    transforms = pytest.importorskip("monai.transforms")
    values = RNG.normal(size=(1, 12, 15, 8)).astype(np.float32)
    monai = transforms.Resize((4, 5, 4), mode="area")(values)
    np.testing.assert_allclose(resized(values, [4, 5, 4]), np.asarray(monai), atol=1e-5)


@pytest.mark.parametrize("length", [10, 11, 17, 31])
def test_the_last_planes_of_a_volume_count(length):
    volume = np.zeros((1, 31, 31, 31), dtype=np.float32)
    volume[:, -1] = 1
    smaller = resized(volume, [length] * 3)
    np.testing.assert_allclose(smaller.mean(), volume.mean(), rtol=1e-4)


@given(st.sampled_from(AXES), st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
def test_spacing_is_that_of_the_affine_whatever_the_stored_orientation(tmp_path_factory, axes, signs):
    folder = tmp_path_factory.mktemp("spacing")
    values = RNG.normal(size=(9, 11, 7)).astype(np.float32)
    reference = nibabel.Nifti1Image(values, np.diag([0.9, 1.3, 3.0, 1]))
    ornt = np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    stored = reference.as_reoriented(ornt)
    # The header's own lengths may contradict it.
    stored.header["pixdim"][1:4] = 5
    nibabel.save(reference, folder / "a.nii"), nibabel.save(stored, folder / "b.nii")
    image = Image(column="x", dimensions=3, spacing=[1.7, 1.0, 2.1])
    first, second = (fitted(read_image(folder / name, 3, None), image)[0] for name in ("a.nii", "b.nii"))
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("own", [0.7, 1.0, 1.9, 2.6])
def test_a_ramp_rises_by_just_the_spacing_that_was_asked_for(own):
    ramp = np.broadcast_to((np.arange(40) * own)[None, :, None, None], (1, 40, 8, 8)).astype(np.float32)
    picture = Picture(ramp, spacing=(own, 1.0, 1.0))
    for wanted in (0.9, 1.5, 2.3):
        found, _ = fitted(picture, Image(column="x", dimensions=3, spacing=[wanted, 1, 1]))
        places = np.arange(found.shape[1])[3:-3]
        slope, _ = np.polyfit(places, found[0, 3:-3, 0, 0], 1)
        assert slope == pytest.approx(wanted, rel=2e-3)
        assert found.mean() == pytest.approx(ramp.mean(), rel=0.02)


def test_what_a_crop_fills_up_is_air_and_not_water():
    scan_ = Picture(np.full((1, 4, 4), 500, dtype=np.float32))
    found, _ = fitted(scan_, Image(column="x", size=[8, 8], fit="crop", range=(-1000, 1000)))
    assert found[0, 0, 0] == 0
    assert found[0, 4, 4] == pytest.approx(0.75)
    mixed = Picture(np.array([[[-1024.0, 40]]], dtype=np.float32))
    assert fitted(mixed, Image(column="x", size=[4, 4], fit="crop"))[0][0, 0, 0] == -1024
    photo = Picture(np.full((3, 2, 2), 9, dtype=np.uint8), 1 / 255)
    assert fitted(photo, Image(column="x", size=[4, 4], fit="crop"))[0][0, 0, 0] == 0
