"""From file to tensor: depths, orientations, palettes, units, axes and spacing, each against another reading of it."""

from __future__ import annotations

import io
import itertools
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospitals import command, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import scan

from v6_algorithm.data.imaging import files
from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.fitting import fitted, resized
from v6_algorithm.data.imaging.picture import CAUSES, Picture, UnreadableImageError, grey, with_channels
from v6_algorithm.data.imaging.stack import find_images, read_stack
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data, Image

pillow = pytest.importorskip("PIL.Image")
nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

RNG = np.random.default_rng(0)


def cause_of(file, dimensions=2, channels=None, **options):
    with pytest.raises(UnreadableImageError) as refused:
        read_image(file, dimensions, channels, **options)
    assert refused.value.cause in CAUSES
    return refused.value.cause


def group(**attributes):
    data = pydicom.Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return pydicom.Sequence([data])


# -- 1: depths, orientations, colours, units -----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_sixteen_bits_stay_sixteen_with_any_number_of_channels(tmp_path, channels):
    values = RNG.integers(0, 65536, (5, 4), dtype=np.uint16)
    for ending in ("png", "tif"):
        pillow.fromarray(values).save(tmp_path / f"a.{ending}")
        picture = read_image(tmp_path / f"a.{ending}", 2, channels)
        expected = np.repeat(values[None] / np.float32(65535), channels or 1, axis=0)
        np.testing.assert_allclose(picture.values * picture.unit, expected, rtol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_a_picture_stands_upright_however_the_camera_was_held(tmp_path, orientation, ending):
    values = np.zeros((32, 16), dtype=np.uint8)
    values[:16, :8] = 250  # bright where up and left meet
    exif = pillow.Exif()
    exif[274] = orientation
    # How an image that is seen as `values` is stored, by the EXIF standard.
    stored = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1],
        5: values.T, 6: np.rot90(values), 7: values[::-1, ::-1].T, 8: np.rot90(values, -1),
    }[orientation]  # fmt: skip
    options = {"lossless": True} if ending == "webp" else {}
    pillow.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{ending}", exif=exif, **options)
    np.testing.assert_allclose(read_image(tmp_path / f"a.{ending}", 2, 1).values[0], values, atol=12)


@pytest.mark.parametrize("ending", ["bmp", "tiff", "webp", "png"])
def test_tiff_bmp_and_webp_are_read_as_png_is(tmp_path, ending):
    values = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    options = {"lossless": True} if ending == "webp" else {}
    pillow.fromarray(values).save(tmp_path / f"A.{ending.upper()}", **options)
    picture = read_image(tmp_path / f"A.{ending.upper()}", 2, None)
    np.testing.assert_array_equal(picture.values, values.transpose(2, 0, 1))
    assert picture.unit == 1 / 255


def test_a_phones_jpeg_with_a_second_frame_is_its_first(tmp_path):
    values = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    photo = pillow.fromarray(values)
    options = {"format": "MPO", "save_all": True, "append_images": [pillow.fromarray(values[::2, ::2])]}
    photo.save(tmp_path / "a.jpg", quality=100, subsampling=0, **options)
    photo.save(tmp_path / "b.jpg", quality=100, subsampling=0)
    assert pillow.open(tmp_path / "a.jpg").format == "MPO"
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.jpg", 2, 3).values, read_image(tmp_path / "b.jpg", 2, 3).values
    )
    assert cause_of(tmp_path / "a.jpg", 3) == "flat"


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_is_zero_of_tiff_is_turned_to_white_is_more_whatever_its_bits(tmp_path, dtype):
    most = 255 if dtype == "uint8" else 65535
    values = RNG.integers(0, most + 1, (5, 4)).astype(dtype)
    pillow.fromarray(values).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    tags = range(start + 2, start + 2 + 12 * struct.unpack_from(order + "H", content, start)[0], 12)
    (photometric,) = (tag for tag in tags if struct.unpack_from(order + "H", content, tag)[0] == 262)
    struct.pack_into(order + "H", content, photometric + 8, 0)
    (tmp_path / "a.tif").write_bytes(content)
    picture = read_image(tmp_path / "a.tif", 2, 1)
    np.testing.assert_allclose(picture.values[0] * picture.unit, 1 - values / most, atol=1e-6)


def test_floats_of_tiff_are_as_stored_and_its_pages_are_a_volume(tmp_path):
    values = RNG.normal(size=(4, 6, 5)).astype(np.float32)
    first, *others = [pillow.fromarray(page) for page in values]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 3, None).values, values[None])
    assert cause_of(tmp_path / "a.tif") == "time"
    first.save(tmp_path / "one.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "one.tif", 2, None).values, values[:1])
    assert cause_of(tmp_path / "one.tif", 3) == "flat"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_grey_is_the_same_from_every_kind_of_file(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("grey")
    values = np.random.default_rng(seed).integers(0, 256, (7, 6, 3), dtype=np.uint8)
    pillow.fromarray(values).save(folder / "a.png")
    np.save(folder / "a.npy", values)
    np.save(folder / "float.npy", values.astype(np.float64))
    scan(folder / "a.dcm", values, "RGB", bits=8)
    expected = np.asarray(pillow.fromarray(values).convert("L"))
    for name in ("a.png", "a.npy", "a.dcm"):
        np.testing.assert_array_equal(read_image(folder / name, 2, 1).values[0], expected)
    np.testing.assert_allclose(read_image(folder / "float.npy", 2, 1).values[0], expected, atol=0.501)


def test_palette_colours_are_colours_as_pydicom_has_them(tmp_path):
    from pydicom.pixels import apply_color_lut, pixel_array

    file = pydicom.data.get_testdata_file("examples_palette.dcm")
    expected = apply_color_lut(pixel_array(file), pydicom.dcmread(file))
    assert expected.dtype == np.uint16
    picture = read_image(Path(file), 2, None)
    np.testing.assert_allclose(picture.values, expected.transpose(2, 0, 1) / 257, rtol=1e-5)
    assert picture.values.max() <= 255


def test_a_modality_lut_is_applied_as_pydicom_applies_it(tmp_path):
    table = RNG.integers(0, 4000, 64).tolist()
    lut = group(LUTDescriptor=[64, 10, 16], ModalityLUTType="US", LUTData=table)
    for column in lut:
        column["LUTDescriptor"].VR, column["LUTData"].VR = "US", "US"
    stored = RNG.integers(0, 90, (5, 6)).astype(np.uint16)
    file = scan(tmp_path / "a.dcm", stored, ModalityLUTSequence=lut)
    from pydicom.pixels import apply_modality_lut

    expected = apply_modality_lut(stored, pydicom.dcmread(file))
    np.testing.assert_array_equal(read_image(file, 2, None).values[0], expected)


@pytest.mark.parametrize("first", [5, -20])
@pytest.mark.parametrize("stored_as", ["US", "OW"])
def test_monochrome1_is_turned_about_the_range_of_its_modality_lut(tmp_path, stored_as, first):
    table = RNG.integers(0, 4000, 64).astype(np.uint16)
    lut = group(ModalityLUTType="US")
    lut[0].add_new("LUTDescriptor", "SS" if first < 0 else "US", [64, first, 16])
    lut[0].add_new("LUTData", stored_as, table.tolist() if stored_as == "US" else table.tobytes())
    stored = RNG.integers(first - 5, 90, (5, 6)).astype(np.int16 if first < 0 else np.uint16)
    file = scan(tmp_path / "a.dcm", stored, "MONOCHROME1", ModalityLUTSequence=lut)
    expected = int(table.min()) + int(table.max()) - table[np.clip(stored.astype(int) - first, 0, 63)].astype(float)
    np.testing.assert_array_equal(read_image(file, 2, None).values[0], expected)


@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, False), (12, True)])
def test_monochrome1_is_turned_about_the_range_of_its_bits_and_not_of_the_image(tmp_path, bits, signed):
    low = -(2 ** (bits - 1)) if signed else 0
    for values in ([[low, low + 5], [7, 300]], [[100, 101], [102, 103]]):
        stored = np.array(values, dtype=np.int16 if signed else np.uint16)
        file = scan(tmp_path / "a.dcm", stored, "MONOCHROME1", bits, RescaleSlope=2, RescaleIntercept=-10)
        turned = (2 * low + 2**bits - 1) - stored.astype(np.float64)
        np.testing.assert_array_equal(read_image(file, 2, None).values[0], turned * 2 - 10)


def oriented(file, volume, affine, *, per_frame_rescale=None, shared_rescale=None, shuffle=0, drop=None, twice=False):
    """Write a volume of right, anterior, superior (x, y, z) voxels as an enhanced multi-frame DICOM file."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    across, down = lps[:3, 0] / sizes[0], lps[:3, 1] / sizes[1]
    order = np.random.default_rng(shuffle).permutation(volume.shape[2]) if shuffle else np.arange(volume.shape[2])
    if drop is not None:
        order = np.delete(order, drop)
    if twice:
        order = np.append(order, order[0])
    shared, frames = pydicom.Dataset(), []
    shared.PixelMeasuresSequence = group(PixelSpacing=[sizes[1], sizes[0]], SliceThickness=99)
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[*across, *down])
    if shared_rescale:
        slope, intercept = shared_rescale
        shared.PixelValueTransformationSequence = group(RescaleSlope=slope, RescaleIntercept=intercept)
    for number in order:
        frame = pydicom.Dataset()
        place = lps[:3, 3] + lps[:3, 2] * number
        frame.PlanePositionSequence = group(ImagePositionPatient=[f"{value:.10g}" for value in place])
        if per_frame_rescale:
            slope, intercept = per_frame_rescale[number]
            frame.PixelValueTransformationSequence = group(RescaleSlope=slope, RescaleIntercept=intercept)
        frames.append(frame)
    stored = np.ascontiguousarray(volume.transpose(2, 1, 0)[order])
    return scan(
        file, stored, SharedFunctionalGroupsSequence=pydicom.Sequence([shared]),
        PerFrameFunctionalGroupsSequence=pydicom.Sequence(frames),
    )  # fmt: skip


AXES = list(itertools.permutations(range(3)))


@given(st.sampled_from(AXES), st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3), st.integers(0, 99))
@settings(max_examples=24, deadline=None)
def test_a_multi_frame_volume_is_the_same_tensor_as_its_nifti(tmp_path_factory, axes, signs, shuffle):
    folder = tmp_path_factory.mktemp("geometry")
    volume = np.random.default_rng(shuffle).integers(0, 4000, (4, 5, 6)).astype(np.uint16)
    affine = np.zeros((4, 4))
    for column, (axis, sign, mm) in enumerate(zip(axes, signs, (0.7, 1.1, 2.5), strict=True)):
        affine[axis, column] = sign * mm
    affine[:, 3] = -30, 20, 100, 1
    tilt = nibabel.eulerangles.euler2mat(*(np.random.default_rng(shuffle).uniform(-0.2, 0.2, 3)))
    affine[:3] = tilt @ affine[:3]
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int32), affine), folder / "a.nii")
    dicom = read_image(oriented(folder / "a.dcm", volume, affine, shuffle=shuffle), 3, None)
    nifti = read_image(folder / "a.nii", 3, None)
    np.testing.assert_array_equal(dicom.values, nifti.values)
    np.testing.assert_allclose(dicom.spacing, nifti.spacing, rtol=1e-4)
    assert sorted(nifti.spacing) == pytest.approx([0.7, 1.1, 2.5], rel=1e-4)


def test_rescale_of_all_frames_and_of_each_frame_gives_the_modalitys_units(tmp_path):
    volume = RNG.integers(0, 4000, (4, 5, 3)).astype(np.uint16)
    slopes = [(0.5, -10), (2.0, 5), (1.25, 0)]
    each = read_image(oriented(tmp_path / "a.dcm", volume, np.eye(4), per_frame_rescale=slopes), 3, None)
    expected = np.stack([volume[..., n] * slope + intercept for n, (slope, intercept) in enumerate(slopes)], axis=-1)
    np.testing.assert_allclose(each.values[0], expected, rtol=1e-6)
    shared = read_image(oriented(tmp_path / "b.dcm", volume, np.eye(4), shared_rescale=(3, -1024)), 3, None)
    np.testing.assert_allclose(shared.values[0], volume * 3.0 - 1024)


def test_frames_that_make_no_volume_are_refused_by_what_is_wrong(tmp_path):
    volume = RNG.integers(0, 9, (3, 4, 6)).astype(np.uint16)
    assert cause_of(oriented(tmp_path / "a.dcm", volume, np.eye(4), drop=2), 3) == "gaps"
    assert cause_of(oriented(tmp_path / "b.dcm", volume, np.eye(4), twice=True), 3) == "time"
    assert cause_of(scan(tmp_path / "film.dcm", volume), 3) == "geometry"
    assert cause_of(scan(tmp_path / "film.dcm", volume), 2) == "time"
    assert cause_of(oriented(tmp_path / "a.dcm", volume, np.eye(4)), 2) == "volume"
    assert cause_of(scan(tmp_path / "one.dcm", volume[0]), 3) == "flat"


def test_frames_of_older_files_stand_at_their_distances(tmp_path):
    volume = RNG.integers(0, 9, (3, 4, 6)).astype(np.uint16)
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2, 1]}
    found = read_image(scan(tmp_path / "a.dcm", volume, SpacingBetweenSlices=3, **place), 3, None)
    # x and y go to the left and the back, so that both are turned.
    np.testing.assert_array_equal(found.values[0], volume.transpose(2, 1, 0)[::-1, ::-1])
    assert found.spacing == (1, 2, 3)
    below = read_image(scan(tmp_path / "b.dcm", volume, SpacingBetweenSlices=-3, **place), 3, None)
    np.testing.assert_array_equal(below.values, found.values[..., ::-1])


def test_a_broken_exif_block_is_no_reason_to_refuse_a_picture(tmp_path):
    pillow.fromarray(np.full((8, 8), 120, dtype=np.uint8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff\1")
    assert read_image(tmp_path / "a.jpg", 2, None).values.shape == (1, 8, 8)


# -- 2: axes -------------------------------------------------------------------------------------------------------


def nifti(file, values, affine=None, dtype=None):
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine, dtype=dtype), file)
    return file


def test_a_fourth_axis_is_time_a_fifth_is_the_channels(tmp_path):
    values = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    alone = read_image(nifti(tmp_path / "a.nii", values[..., None]), 3, None)
    np.testing.assert_array_equal(alone.values, values[None])
    for length in (2, 3, 4, 7):
        series = nifti(tmp_path / "a.nii", np.repeat(values[..., None], length, axis=3))
        assert cause_of(series, 3) == cause_of(series, 3, 1) == cause_of(series, 3, 3) == "time"
    vectors = np.stack([values, 2 * values, 3 * values], axis=-1)[:, :, :, None]
    found = read_image(nifti(tmp_path / "a.nii", vectors), 3, None)
    np.testing.assert_array_equal(found.values, np.moveaxis(vectors[:, :, :, 0], -1, 0))


@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_a_volume_is_no_image_of_many_channels(tmp_path, length):
    values = RNG.normal(size=(6, 5, length)).astype(np.float32)
    assert cause_of(nifti(tmp_path / "a.nii", values)) == cause_of(nifti(tmp_path / "a.nii", values), 2, 3) == "volume"
    np.save(tmp_path / "a.npy", values[None])
    assert cause_of(tmp_path / "a.npy", 2) == "axes"
    np.save(tmp_path / "b.npy", np.zeros((8, 9, 10)))
    assert cause_of(tmp_path / "b.npy", 2) == "channel_axis"
    assert read_image(tmp_path / "b.npy", 2, None, channel_axis="last").values.shape == (10, 8, 9)
    np.save(tmp_path / "c.npy", np.zeros((8, 9)))
    assert cause_of(tmp_path / "c.npy", 3) == "flat"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_an_image_whatever_direction_it_has(tmp_path, axis):
    values = RNG.normal(size=(5, 6)).astype(np.float32)
    found = read_image(nifti(tmp_path / "a.nii", np.expand_dims(values, axis)), 2, None)
    np.testing.assert_array_equal(found.values[0], values)
    np.testing.assert_array_equal(read_image(nifti(tmp_path / "b.nii", values), 2, None).values[0], values)


def test_colours_of_nifti_are_channels(tmp_path):
    colours = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    packed = colours.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(4, 5, 6)
    found = read_image(nifti(tmp_path / "a.nii", packed), 3, None)
    np.testing.assert_array_equal(found.values, np.moveaxis(colours, -1, 0))


def test_an_array_is_not_read_by_the_lengths_of_its_axes_where_they_could_be_either(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 7, 3)))
    assert cause_of(tmp_path / "a.npy") == "channel_axis"
    assert read_image(tmp_path / "a.npy", 2, None, channel_axis="first").values.shape == (3, 7, 3)
    np.save(tmp_path / "b.npy", RNG.integers(0, 256, (3, 7, 8), dtype=np.uint8))
    assert read_image(tmp_path / "b.npy", 2, None).values.shape == (3, 7, 8)
    assert cause_of(tmp_path / "b.npy", 2, 1, channel_axis="last") == "channels"


# -- 3: sizes and spacing ------------------------------------------------------------------------------------------

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


# -- 4: padding ----------------------------------------------------------------------------------------------------


def test_what_a_crop_fills_up_is_air_and_not_water():
    scan_ = Picture(np.full((1, 4, 4), 500, dtype=np.float32))
    found, _ = fitted(scan_, Image(column="x", size=[8, 8], fit="crop", range=(-1000, 1000)))
    assert found[0, 0, 0] == 0
    assert found[0, 4, 4] == pytest.approx(0.75)
    mixed = Picture(np.array([[[-1024.0, 40]]], dtype=np.float32))
    assert fitted(mixed, Image(column="x", size=[4, 4], fit="crop"))[0][0, 0, 0] == -1024
    photo = Picture(np.full((3, 2, 2), 9, dtype=np.uint8), 1 / 255)
    assert fitted(photo, Image(column="x", size=[4, 4], fit="crop"))[0][0, 0, 0] == 0


# -- 5: causes -----------------------------------------------------------------------------------------------------


def test_all_causes_are_counted_in_one_pass_and_name_no_file(tmp_path):
    values = RNG.normal(size=(6, 5)).astype(np.float32)
    np.save(tmp_path / "good.npy", values)
    np.save(tmp_path / "nan.npy", np.where(values > 2, values, np.nan))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-9])
    np.save(tmp_path / "volume.npy", np.zeros((3, 4, 5, 6)))
    names = ["good", "nan", "nan", "gone", "cut", "volume", "good"]
    files = [tmp_path / f"{name}.npy" for name in names] + [None]
    with pytest.raises(DataError) as refused:
        read_stack(files, Image(column="x"), None)
    message = str(refused.value)
    for cause, count in (("not_finite", 2), ("missing", 1), ("damaged", 1), ("axes", 1), ("empty", 1)):
        assert f"{count}: {CAUSES[cause]}" in message
    assert str(tmp_path) not in message
    assert "good" not in message
    stack = read_stack(files, Image(column="x", tolerance=0.9), tmp_path / "kept.npy")
    assert stack.causes == {"not_finite": 2, "missing": 1, "damaged": 1, "axes": 1, "empty": 1}
    filled = read_stack(files[:3], Image(column="x", fill=-1), None)
    assert filled.array[1].min() == -1


def spoilt(folder):
    """Write files that are no images, and return their causes by name."""
    good = io.BytesIO()
    pillow.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(good, "png")
    gif = io.BytesIO()
    pillow.fromarray(np.zeros((4, 4), np.uint8)).save(gif, "gif")
    contents = {
        "zero.png": (b"", "no_bytes"), "page.png": (b"<!DOCTYPE html><html>404</html>", "other_kind"),
        "drawing.png": (b"<svg></svg>", "other_kind"), "zip.tif": (b"PK\3\4" + b"\0" * 99, "other_kind"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "other_kind"),
        "mac.png": (b"\0\5\x16\7" + b"\0" * 99, "other_kind"), "scan.dcm": (good.getvalue(), "other_kind"),
        "plain.nii.gz": (b"\0" * 344 + b"n+1\0" + b"\0" * 9, "other_kind"),
        "cut.png": (good.getvalue()[:100], "damaged"), "text.npy": (b"1,2,3", "damaged"),
        "animation.gif": (gif.getvalue(), "pictures"), "letter.pdf": (b"%PDF-1.4", "ending"),
    }  # fmt: skip
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    arrays = {
        "objects.npy": (np.array([{}], dtype=object), "no_numbers"), "words.npy": (np.full((4, 4), "a"), "no_numbers"),
        "complex.npy": (np.ones((4, 4), complex), "complex"), "nothing.npy": (np.zeros((0, 4, 4)), "axes"),
        "series.npy": (np.zeros((2, 3, 4, 4)), "axes"), "gap.npy": (np.array([[np.nan, 1], [0, 1]]), "not_finite"),
        "endless.npy": (np.array([[np.inf, 1], [0, 1]]), "not_finite"),
    }  # fmt: skip
    for name, (values, _) in arrays.items():
        np.save(folder / name, values, allow_pickle=True)
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    others = {"folder.png": "folder", "link.png": "missing", "absent.png": "missing", "": "empty"}
    return {name: cause for name, (_, cause) in (contents | arrays).items()} | others


def test_run_validate_and_describe_count_what_cannot_be_read_by_cause_and_name_nothing(tmp_path):
    names = []
    for site in "ab":
        (tmp_path / site).mkdir()
        names = [f"{number}.png" for number in range(30)]
        for name in names:
            pillow.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / site / name)
        if site == "a":
            causes = spoilt(tmp_path / site)
            names += list(causes)
        pd.DataFrame({"file": names, "y": np.arange(len(names)) % 2}).to_csv(tmp_path / site / "table.csv", index=False)
    image = {"column": "file", "size": [8, 8], "channels": 1, "tolerance": 0.9}
    changes = {
        "sites": {site: f"{site}/table.csv" for site in "ab"}, "data": {"target": "y", "image": image},
        "problem": "image_classification", "model": {"kind": "cnn", "widths": [4]}, "rounds": 1,
    }  # fmt: skip
    file = write(tmp_path, **changes)
    counts = Counter(causes.values())
    for arguments in (["run", file, "--out", tmp_path / "out"], ["validate", file], ["describe", file]):
        done = command(*arguments)
        shown = " ".join(done.output.split())
        assert done.exit_code == 0, done.output
        for cause, count in counts.items():
            said = f"{count} {cause.replace('_', ' ')}" if arguments[0] == "describe" else f"{count}: {CAUSES[cause]}"
            assert said in shown
        assert not [name for name in causes if name and name in shown.replace("table.csv", "")]
    strict = write(tmp_path, **changes | {"data": {"target": "y", "image": image | {"tolerance": 0.0}}})
    refused = command("run", strict, "--out", tmp_path / "again")
    assert refused.exit_code == 2
    assert f"site 'a': {len(causes)} images" in refused.output


def test_a_file_that_may_not_be_read_is_told_as_that(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.png"))

    monkeypatch.setattr(files, "_read", refuse)
    assert cause_of(tmp_path / "a.png") == "permission"


def test_a_picture_of_too_many_pixels_is_told_as_that(tmp_path):
    pillow.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    assert cause_of(tmp_path / "a.png") == "large"


def test_a_decoder_that_is_not_installed_is_told_with_its_package(tmp_path, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    file = Path(pydicom.data.get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    assert cause_of(file) == "decoder"
    assert "python-gdcm" in CAUSES["decoder"]


# -- 7: layouts ----------------------------------------------------------------------------------------------------


def column(*cells):
    import pandas as pd

    return pd.Series(list(cells), name="image")


def test_names_without_an_ending_subject_folders_and_dicom_without_one_are_found(tmp_path):
    values = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    pillow.fromarray(values).save(tmp_path / "ISIC_0024306.jpg")
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    nifti(tmp_path / "sub-01" / "anat" / "T1w.nii.gz", values)
    scan(tmp_path / "1.2.840.113619", values, bits=8)
    scan(tmp_path / "IM0001", values, bits=8)
    cells = ("ISIC_0024306", "sub-01", "1.2.840.113619", "IM0001", "ISIC_9999999")
    files = find_images(column(*cells), tmp_path)
    assert [file.name for file in files] == ["ISIC_0024306.jpg", "T1w.nii.gz", *cells[2:]]
    for file in files[1:4]:
        np.testing.assert_array_equal(read_image(file, 2, None).values[0], values)
    assert cause_of(files[4]) == "missing"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_a_picture_whose_name_has_no_ending_is_read_by_how_it_begins(tmp_path, kind):
    grey = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    pillow.fromarray(grey).save(tmp_path / f"named.{kind.lower()}", format=kind)
    (tmp_path / "ISIC_0024306").write_bytes((tmp_path / f"named.{kind.lower()}").read_bytes())
    found, expected = (read_image(tmp_path / name, 2, 1) for name in ("ISIC_0024306", f"named.{kind.lower()}"))
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("cells", [["ISIC_1", "ISIC_2"], ["ISIC_1.jpg", "ISIC_2.jpg"], [" ISIC_1", "ISIC_2 "]])
def test_bare_names_are_those_of_images_in_folders_below(tmp_path, cells):
    files = [tmp_path / "part_1" / "ISIC_1.jpg", tmp_path / "deep" / "part_2" / "ISIC_2.jpg"]
    hidden = tmp_path / ".cache" / "ISIC_1.jpg"
    for file in (*files, hidden):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    assert find_images(pd.Series(cells), tmp_path) == files
    assert find_images(pd.Series([cells[0], "ISIC_3"]), tmp_path) == [files[0], tmp_path / "ISIC_3"]
    # A name with a folder is meant there.
    assert find_images(pd.Series([f"other/{cells[0].strip()}"]), tmp_path) == [tmp_path / "other" / cells[0].strip()]
    for twice in ("ISIC_2.jpg", "ISIC_2.png"):
        (tmp_path / "part_1" / twice).write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 cells .*that several images go with, .*; allowed: .* with their folders"):
        find_images(pd.Series(cells), tmp_path)


def test_an_image_that_is_not_there_is_not_taken_from_a_folder_below(tmp_path):
    (tmp_path / "masks").mkdir()
    for name in ("p1.png", "masks/p2.png"):
        (tmp_path / name).write_bytes(b"x")
    assert find_images(pd.Series(["p1.png", "p2.png"]), tmp_path) == [tmp_path / "p1.png", tmp_path / "p2.png"]


@pytest.mark.parametrize("cell", ["img\\p1.jpg", "img/p1.JPG", "img/p1.jpeg", "img\\p1.JPEG", "img/p1"])
@pytest.mark.parametrize("there", ["p1.jpg", "p1.JPG", "p1.jpeg"])
def test_names_as_windows_and_cameras_write_them_are_found(tmp_path, cell, there):
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / there).write_bytes(b"x")
    assert find_images(pd.Series([cell, "img/p2.jpg"]), tmp_path) == [
        tmp_path / "img" / there,
        tmp_path / "img" / "p2.jpg",
    ]


def test_no_backslash_leads_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "p1.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="1 cells that do not name a file in the table's folder"):
        find_images(pd.Series(["..\\p1.jpg"]), tmp_path / "in")


def test_what_all_names_leave_out_of_their_images_may_be_anything_that_is_one(tmp_path):
    for name in ("sub-1_T1w.nii.gz", "sub-2_T1w.nii.gz", "sub-2_T2w.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    cells = pd.Series(["sub-1", "sub-2", "sub-3", None])
    ends = "_T1w.nii.gz"
    assert find_images(cells, tmp_path) == [*(tmp_path / f"sub-{number}{ends}" for number in (1, 2, 3)), None]
    (tmp_path / "sub-1_T2w.nii.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"there is more than one: _T1w\.nii\.gz, _T2w\.nii\.gz; write the one"):
        find_images(cells, tmp_path)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["p1.dcm", "p2.dcm"], r"has 1 cells whose files are there with another ending, \.png; write that, or none"),
        (["C:\\x\\p1.png"], "addresses of another machine or of the web; write names in the table's folder"),
        (["https://x.org/p1.png", None], "addresses of another machine or of the web"),
        (["series"], "1 cells that name folders with several images each; .*a DICOM series"),
    ],
)
def test_images_that_are_there_but_not_so_are_told(tmp_path, cells, message):
    (tmp_path / "series").mkdir()
    for name in ("p1.png", "series/1.dcm", "series/2.dcm"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        find_images(pd.Series(cells), tmp_path)


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64"])
def test_whole_numbers_are_names_of_images(tmp_path, dtype):
    (tmp_path / "1377.png").write_bytes(b"x")
    cells = pd.Series([1377, 1378], dtype=dtype)
    assert find_images(cells, tmp_path) == [tmp_path / "1377.png", tmp_path / "1378"]
    with pytest.raises(DataError, match="does not hold names of files"):
        find_images(pd.Series([0.5, 1.0]), tmp_path)


def test_zeros_in_front_of_a_number_are_part_of_an_images_name(tmp_path):
    (tmp_path / "0012.png").write_bytes(b"x")
    (tmp_path / "t.csv").write_text("id,y\n0012,1\n0013,0\n")
    data = Data.model_validate({"target": "y", "image": {"column": "id"}})
    frame = TableSource(str(tmp_path / "t.csv"), form=data.form).read()
    assert find_images(frame["id"], tmp_path) == [tmp_path / "0012.png", tmp_path / "0013"]


def test_a_name_that_several_images_go_with_is_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        pillow.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / name)
    with pytest.raises(DataError, match="1 cells without an ending"):
        find_images(column("a"), tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a.png")
    assert cause_of(find_images(column("b"), tmp_path)[0]) == "folder"


def test_grey_of_more_than_colours_is_refused():
    with pytest.raises(UnreadableImageError):
        with_channels(np.zeros((5, 2, 2), np.float32), 1)
    assert with_channels(np.ones((4, 2, 2), np.float32), 3).shape == (3, 2, 2)
    assert grey(np.full((3, 2, 2), 200, np.uint8)).tolist() == [[200, 200], [200, 200]]
