"""From file to tensor: depths, orientations, palettes, units and axes, each against another reading of it."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import cause_of, scan

from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.picture import UnreadableImageError, grey, with_channels

pillow = pytest.importorskip("PIL.Image")
nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

RNG = np.random.default_rng(0)


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


def test_grey_of_more_than_colours_is_refused():
    with pytest.raises(UnreadableImageError):
        with_channels(np.zeros((5, 2, 2), np.float32), 1)
    assert with_channels(np.ones((4, 2, 2), np.float32), 3).shape == (3, 2, 2)
    assert grey(np.full((3, 2, 2), 200, np.uint8)).tolist() == [[200, 200], [200, 200]]
