"""Images of a table: read from files of five kinds, brought to one size, left out where they cannot be, kept mapped."""

import builtins

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.data.imaging import room as module
from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.fitting import cropped, fitted, resized
from v6_algorithm.data.imaging.picture import Picture
from v6_algorithm.data.imaging.stack import Stack, TableImages, find_images, load_stack, read_stack, stack_pixels
from v6_algorithm.data.imaging.statistics import image_moments
from v6_algorithm.data.preparation.statistics import merge_moments
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Image

SECRET = "SECRET-4711"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_png(file, values):
    from PIL import Image as Pillow

    Pillow.fromarray(values).save(file)
    return file


def files_of(folder, number, *shape):
    pytest.importorskip("PIL")
    return [save_png(folder / f"{SECRET}-{row}.png", noise(*shape, seed=row)) for row in range(number)]


# -- kinds of files ------------------------------------------------------------------------------------------------


def test_a_png_is_its_bytes_with_channels_in_front(tmp_path):
    pytest.importorskip("PIL")
    values = noise(6, 5, 3)
    picture = read_image(save_png(tmp_path / "a.png", values), 2, None)
    assert picture.unit == 1 / 255
    np.testing.assert_array_equal(picture.values, values.transpose(2, 0, 1))


def test_a_grey_png_has_one_channel_and_as_colour_three_alike(tmp_path):
    pytest.importorskip("PIL")
    values = noise(6, 5)
    file = save_png(tmp_path / "a.png", values)
    np.testing.assert_array_equal(read_image(file, 2, None).values, values[None])
    np.testing.assert_array_equal(read_image(file, 2, 3).values, np.stack([values] * 3))


def test_sixteen_bits_are_zero_to_one_as_eight_are(tmp_path):
    pytest.importorskip("PIL")
    file = save_png(tmp_path / "a.png", np.array([[0, 65535], [257, 514]], dtype=np.uint16))
    np.testing.assert_allclose(read_image(file, 2, None).values[0] * 255, [[0, 255], [1, 2]], rtol=1e-6)


def test_a_jpeg_is_a_picture_within_its_loss(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.full((8, 8, 3), 120, dtype=np.uint8)).save(tmp_path / "a.JPG")
    np.testing.assert_allclose(read_image(tmp_path / "a.JPG", 2, None).values, 120, atol=2)


@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5), (6, 5, 1)])
def test_an_array_needs_no_channel_axis(tmp_path, shape):
    values = noise(6, 5)
    np.save(tmp_path / "a.npy", values.reshape(shape))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", 2, None).values, values[None])


def test_a_nifti_volume_is_turned_to_the_same_axes_whoever_scanned_it(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = noise(4, 5, 6).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), tmp_path / "ras.nii.gz")
    nibabel.save(nibabel.Nifti1Image(values[::-1].copy(), np.diag([-2.0, 2, 2, 1])), tmp_path / "las.nii")
    ras, las = (read_image(tmp_path / name, 3, None) for name in ("ras.nii.gz", "las.nii"))
    np.testing.assert_array_equal(ras.values, values[None])
    np.testing.assert_array_equal(las.values, ras.values)
    assert ras.spacing == (2, 2, 2)


def test_a_dicom_image_is_in_its_own_units(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan = FileDataset(str(tmp_path / "a.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
    scan.SOPClassUID, scan.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    scan.Rows, scan.Columns, scan.SamplesPerPixel, scan.PhotometricInterpretation = 3, 4, 1, "MONOCHROME2"
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 16, 15, 0
    scan.RescaleSlope, scan.RescaleIntercept = 2, -1000
    scan.PixelData = np.arange(12, dtype=np.uint16).tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", scan, enforce_file_format=True)
    expected = np.arange(12, dtype=np.float32).reshape(1, 3, 4) * 2 - 1000
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm", 2, None).values, expected)


@pytest.mark.parametrize(("ending", "package"), [("png", "PIL"), ("nii.gz", "nibabel"), ("dcm", "pydicom")])
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(tmp_path, monkeypatch, ending, package):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == package:
            raise ImportError(name=name)
        return real(name, *arguments, **options)

    (tmp_path / f"a.{ending}").write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"v6-algorithm\[imaging\]"):
        read_image(tmp_path / f"a.{ending}", 2, None)


# -- what cannot be read -------------------------------------------------------------------------------------------


def break_some(files):
    """Remove one, cut one short, and put into others a text, a pickle and a number that is none."""
    files[3].unlink()
    files[5].write_bytes(files[5].read_bytes()[:-40])
    files[7].write_text("no picture")
    pickled, unknown = files[8].with_suffix(".npy"), files[9].with_suffix(".npy")
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    np.save(unknown, np.full((6, 5), np.nan))
    return [*files[:8], pickled, unknown, None, *files[10:]]


def test_what_is_missing_cut_short_or_no_image_is_left_out(tmp_path):
    files = break_some(files_of(tmp_path, 20, 6, 5))
    stack = read_stack(files, Image(column="file", tolerance=0.3), None)
    assert stack.unreadable.tolist() == [3, 5, 7, 8, 9, 10]
    assert np.flatnonzero(~stack.readable).tolist() == [3, 5, 7, 8, 9, 10]
    np.testing.assert_array_equal(stack.array[4, 0], noise(6, 5, seed=4))


def test_more_than_the_tolerance_ends_the_run_and_names_rows_only(tmp_path):
    files = break_some(files_of(tmp_path, 20, 6, 5))
    with pytest.raises(DataError) as refused:
        read_stack(files, Image(column="file", tolerance=0.1), None)
    assert "row 4, 6, 8" in str(refused.value)
    assert "10.0% of 21" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_no_readable_image_at_all_is_an_error_whatever_the_tolerance(tmp_path):
    with pytest.raises(DataError, match="none of the images"):
        read_stack([], Image(column="file"), None)


@pytest.mark.parametrize("cell", [f"../{SECRET}.png", f"/etc/{SECRET}.png", f"link/{SECRET}.png", "a\0.png"])
def test_a_cell_that_leads_out_of_the_folder_is_refused_unread(tmp_path, cell):
    outside, folder = tmp_path / "outside", tmp_path / "data"
    outside.mkdir(), folder.mkdir()
    for place in (tmp_path, outside):
        (place / f"{SECRET}.png").write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    with pytest.raises(DataError, match="has 1 cells that do not name a file in the table's folder") as refused:
        find_images(pd.Series(["a.png", cell], name="file"), folder)
    assert SECRET not in str(refused.value)


def test_a_table_in_no_folder_has_no_files():
    with pytest.raises(DataError, match="has no folder"):
        find_images(pd.Series(["a.png"], name="file"), None)
    with pytest.raises(DataError, match="does not hold names of files"):
        find_images(pd.Series([0.5, 2], name="file"), None)


def test_images_of_different_sizes_need_a_size(tmp_path):
    files = [*files_of(tmp_path, 2, 6, 5), save_png(tmp_path / "other.png", noise(7, 5))]
    with pytest.raises(DataError, match=r"give data\.image\.size"):
        read_stack(files, Image(column="file"), None)
    assert read_stack(files, Image(column="file", size=[6, 5]), None).shape == [1, 6, 5]


# -- one size, one range -------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_one_colour_stays_it_at_any_size(height, width, high, wide, value):
    values = np.full((2, height, width), value, dtype=np.uint8)
    for fit in ("stretch", "cover"):
        found, _ = fitted(Picture(values), Image(column="x", size=[high, wide], fit=fit))
        assert found.shape == (2, high, wide)
        assert (found == value).all()


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=2, max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_crop_keeps_the_middle_and_fills_up_with_zeros(lengths):
    own, wanted = [a for a, _ in lengths], [b for _, b in lengths]
    values = np.arange(1, np.prod(own) + 1, dtype=np.float32).reshape(1, *own)
    once = cropped(values, wanted, 0)
    kept = np.isin(values, once[once > 0])
    assert kept.sum() == (once > 0).sum() == np.prod([min(a, b) for a, b in lengths])
    np.testing.assert_array_equal(cropped(cropped(values, [a + 2 * b for a, b in lengths], 0), own, 0), values)


def test_smaller_is_the_mean_of_what_was_there():
    volume = np.random.default_rng(0).normal(size=(1, 8, 6, 4)).astype(np.float32)
    halves = volume.reshape(1, 4, 2, 3, 2, 2, 2).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(resized(volume, [4, 3, 2]), halves, atol=1e-6)


def test_spacing_brings_voxels_to_millimetres(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.ones((10, 8, 6), np.float32), np.diag([1.0, 2, 4, 1])), tmp_path / "a.nii")
    picture = read_image(tmp_path / "a.nii", 3, None)
    found, _ = fitted(picture, Image(column="x", dimensions=3, spacing=[2, 2, 2]))
    assert found.shape == (1, 5, 8, 12)


def test_range_and_threshold_are_of_the_values_as_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[-10.0, 0.0], [50.0, 200.0]]))
    stack = read_stack([tmp_path / "a.npy"], Image(column="x", range=(0, 100), threshold=0.1), None)
    np.testing.assert_allclose(stack.array[0, 0], [[0, 0], [0.5, 1]])


# -- pixels in columns ---------------------------------------------------------------------------------------------


def test_pixels_in_columns_stay_as_stored_and_whole_numbers_take_a_byte():
    pixels = noise(5, 12).astype(np.float32)
    stack = stack_pixels(pixels, Image(shape=[1, 3, 4]), None)
    assert (stack.array.dtype, stack.unit) == (np.uint8, 1.0)
    np.testing.assert_array_equal(stack.array.reshape(5, 12), pixels)
    fractions = stack_pixels(pixels / 255, Image(shape=[3, 2, 2]), None)
    assert fractions.array.dtype == np.float32
    np.testing.assert_array_equal(fractions.array.reshape(5, 12), pixels / 255)


def test_a_row_with_an_empty_pixel_has_no_image():
    pixels = noise(5, 4).astype(np.float32)
    pixels[2, 1] = np.nan
    assert stack_pixels(pixels, Image(shape=[1, 2, 2], tolerance=0.2), None).unreadable.tolist() == [2]
    with pytest.raises(DataError, match="row 3"):
        stack_pixels(pixels, Image(shape=[1, 2, 2]), None)


# -- kept ----------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_mapped_and_the_same(tmp_path):
    files = break_some(files_of(tmp_path, 20, 6, 5))
    kept = tmp_path / "state" / "images-0.npy"
    image = Image(column="file", tolerance=0.3)
    made, read = read_stack(files, image, kept), load_stack(kept, list, image)
    assert isinstance(made.array, np.memmap)
    assert (made.unit, made.unreadable.tolist()) == (read.unit, read.unreadable.tolist())
    np.testing.assert_array_equal(made.array, read.array)
    assert sorted(path.name for path in kept.parent.iterdir()) == ["images-0.json", "images-0.npy"]


@pytest.mark.parametrize("damage", ["json", "npy", "cut"])
def test_what_was_lost_or_damaged_is_not_taken(tmp_path, damage):
    kept = tmp_path / "images-0.npy"
    read_stack(files_of(tmp_path, 3, 6, 5), Image(column="file"), kept)
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-10])
    else:
        kept.with_suffix(f".{damage}").unlink()
    assert load_stack(kept, list, Image(column="file")) is None


def test_a_full_disk_costs_time_not_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(module, "reserve", full)
    stack = read_stack(files_of(tmp_path, 3, 6, 5), Image(column="file"), tmp_path / "state" / "images-0.npy")
    assert stack.shape == [1, 6, 5]
    assert list((tmp_path / "state").iterdir()) == []


def test_an_error_half_way_leaves_no_file(tmp_path):
    files = [*files_of(tmp_path, 2, 6, 5), save_png(tmp_path / "other.png", noise(7, 5))]
    with pytest.raises(DataError):
        read_stack(files, Image(column="file"), tmp_path / "state" / "images-0.npy")
    assert list((tmp_path / "state").iterdir()) == []


# -- statistics ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([(4, 5), (3, 2, 4)]))
@settings(max_examples=30, deadline=None)
def test_federated_moments_of_channels_are_those_of_all_pixels(seed, channels, lengths):
    generator = np.random.default_rng(seed)
    parts, everything = [], []
    for rows in (7, 4):
        array = generator.normal(3, 2, (rows, channels, *lengths)).astype(np.float32)
        train = np.sort(generator.permutation(rows)[: rows - 2])
        table = TableImages([Stack(array, 1.0, np.empty(0, np.int64))], np.zeros(rows, np.int64), np.arange(rows))
        parts.append(image_moments(table, [train], with_range=True))
        everything.append(array[train])
    merged = merge_moments(parts)
    pixels = np.moveaxis(np.concatenate(everything), 1, 0).reshape(channels, -1).astype(np.float64)
    np.testing.assert_allclose(merged.mean[0], pixels.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(merged.deviation[0], pixels.std(axis=1), rtol=1e-6)
    np.testing.assert_allclose([merged.low[0], merged.high[0]], [pixels.min(axis=1), pixels.max(axis=1)])
    assert merged.count[0, 0] == merged.rows[0] == 7


def test_rows_of_several_hospitals_come_in_the_order_asked_for():
    stacks = [
        Stack(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), 1.0, np.empty(0, np.int64)),
        Stack(np.arange(10, 14, dtype=np.float32).reshape(4, 1, 1, 1), 0.5, np.empty(0, np.int64)),
    ]
    table = TableImages(stacks, np.array([0, 0, 1, 1]), np.array([2, 0, 3, 1]))
    assert table.read(np.array([3, 0, 2, 1])).ravel().tolist() == [5.5, 2, 6.5, 0]
