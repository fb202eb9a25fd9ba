"""Volumes whose files say little of themselves: Analyze pairs, no affine, other units, arrays without named axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.imaging.describing import describe_images
from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.naming import images_in
from v6_algorithm.data.imaging.picture import UnreadableImageError
from v6_algorithm.data.imaging.stack import find_images, load_stack, read_stack
from v6_algorithm.data.reading.assumed import KINDS
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Image

nibabel = pytest.importorskip("nibabel")
VALUES = np.random.default_rng(0).integers(0, 200, (5, 4, 3)).astype(np.int16)


def written(path, kind=None, codes=None, units="mm", values=VALUES, zooms=(2.0, 3.0, 4.0)):
    image = (kind or nibabel.Nifti1Image)(values, np.diag([-zooms[0], *zooms[1:], 1]))
    if hasattr(image.header, "set_xyzt_units"):
        image.header.set_xyzt_units(units)
    image.to_filename(path)
    if codes is not None:
        content = bytearray(path.read_bytes())
        # qform_code and sform_code (NIfTI-1, bytes 252 to 255), which nibabel writes by itself.
        content[252:256] = np.array(codes[::-1], dtype="<i2").tobytes()
        path.write_bytes(content)
    return path


def ras(path):
    """The volume as nibabel turns it: to the right, the front and the head."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return image.get_fdata(), image.header.get_zooms()[:3]


PAIRS = ("AnalyzeImage", "Spm2AnalyzeImage", "Nifti1Pair")


@pytest.mark.parametrize("name", ["p1.img", "p1.hdr", "p1"])
@pytest.mark.parametrize("kind", PAIRS)
def test_a_pair_of_header_and_image_is_read_as_nibabel_reads_it(tmp_path, kind, name):
    written(tmp_path / "p1.img", getattr(nibabel, kind))
    (file,) = find_images(pd.Series([name]), tmp_path)
    picture = read_image(file, 3, None)
    values, zooms = ras(tmp_path / "p1.img")
    np.testing.assert_array_equal(picture.values[0], values)
    np.testing.assert_allclose(picture.spacing, zooms)
    # Analyze has no place for how a volume lies; NIfTI has, and SPM a file of its own.
    assert set(picture.assumed) == ({"orientation"} if kind == "AnalyzeImage" else set())


def test_a_pair_of_spm_without_its_mat_file_does_not_say_how_it_lies(tmp_path):
    written(tmp_path / "p1.img", nibabel.Spm2AnalyzeImage)
    (tmp_path / "p1.mat").unlink()
    assert set(read_image(tmp_path / "p1.img", 3, None).assumed) == {"orientation"}


def test_a_pair_is_one_image_wherever_images_are_listed(tmp_path):
    (tmp_path / "sub").mkdir()
    for place in ("p1.img", "sub/p2.img"):
        written(tmp_path / place, nibabel.AnalyzeImage)
    assert list(images_in(tmp_path, 1)) == ["p1.img"]
    assert find_images(pd.Series(["sub"]), tmp_path) == [tmp_path / "sub" / "p2.img"]


@pytest.mark.parametrize("name", ["p1.img", "p1.hdr"])
def test_half_a_pair_is_told(tmp_path, name):
    written(tmp_path / "p1.img", nibabel.AnalyzeImage)
    (tmp_path / ("p1.hdr" if name == "p1.img" else "p1.img")).unlink()
    with pytest.raises(UnreadableImageError) as error:
        read_image(tmp_path / name, 3, None)
    assert error.value.cause == "pair"


@pytest.mark.parametrize(("codes", "assumed"), [((0, 0), {"orientation"}), ((1, 0), set()), ((0, 2), set())])
def test_a_volume_without_an_affine_is_told(tmp_path, codes, assumed):
    picture = read_image(written(tmp_path / "p1.nii", codes=codes), 3, None)
    assert set(picture.assumed) == assumed
    np.testing.assert_array_equal(picture.values[0], ras(tmp_path / "p1.nii")[0])


@pytest.mark.parametrize(("units", "factor"), [("mm", 1), ("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
def test_spacing_is_in_millimetres_whatever_the_units_of_the_file(tmp_path, units, factor):
    path = written(tmp_path / "p1.nii", units=units, zooms=(2 * factor, 3 * factor, 4 * factor))
    np.testing.assert_allclose(read_image(path, 3, None).spacing, (2, 3, 4), rtol=1e-6)


@pytest.mark.parametrize("ending", ["par", "GIPL", "brik.gz", "vtk"])
def test_formats_that_are_not_read_are_told_with_the_way_out(tmp_path, ending):
    (tmp_path / f"p1.{ending}").write_bytes(b"x")
    (cause,) = find_images(pd.Series([f"p1.{ending}"]), tmp_path)
    assert cause == "format"
    assert "SimpleITK" in str(UnreadableImageError(cause))


def stack_of(tmp_path, names, **image):
    files = [tmp_path / name for name in names]
    return files, Image(column="file", **image)


def test_what_files_do_not_say_is_counted_and_kept(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.zeros((4, 5, 3), dtype=np.uint8) + number)
    files, image = stack_of(tmp_path, [f"{number}.npy" for number in range(3)])
    expected = {"channel axis": (["last"], 3)}
    assert read_stack(files, image, tmp_path / "kept.npy").assumed == expected
    assert load_stack(tmp_path / "kept.npy", lambda: files, image).assumed == expected
    told = {}
    describe_images(files, image, 1, told)
    assert told == expected
    said = image.model_copy(update={"channel_axis": "last"})
    assert read_stack(files, said, None).assumed == {}
    assert set(expected) <= set(KINDS)


def test_masks_in_a_folder_beside_the_images_are_told_with_both_folders(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"{number}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"an image and its mask; .*in the folders images, masks: with images: beside"):
        find_images(pd.Series(["0.png", "1.png", "2.png"]), tmp_path)


def test_a_mask_beside_its_image_in_a_folder_of_its_own_is_told(tmp_path):
    (tmp_path / "p1").mkdir()
    for name in ("image.nii.gz", "mask.nii.gz"):
        (tmp_path / "p1" / name).write_bytes(b"x")
    with pytest.raises(DataError, match="the image's name behind the folder's, also where a mask lies beside it"):
        find_images(pd.Series(["p1"]), tmp_path)


def test_a_mask_whose_name_is_longer_is_not_its_image(tmp_path):
    for name in ("p1.nii.gz", "p1_mask.nii.gz", "p1_seg.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    assert find_images(pd.Series(["p1"]), tmp_path) == [tmp_path / "p1.nii.gz"]


@pytest.mark.parametrize(
    ("mode", "alpha", "told"),
    [("RGBA", 255, False), ("RGBA", 100, True), ("LA", 100, True), ("LA", 255, False), ("RGB", None, False)],
)
def test_transparency_that_is_left_out_is_told(tmp_path, mode, alpha, told):
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.new(mode.rstrip("A"), (4, 4), 7)
    if alpha is not None:
        image.putalpha(alpha)
    image.save(tmp_path / "a.png")
    assert set(read_image(tmp_path / "a.png", 2, 3).assumed) == ({"transparency"} if told else set())


@pytest.mark.parametrize(("width", "channels", "told"), [(4, 3, True), (4, None, False), (2, 3, True), (3, 1, False)])
def test_a_channel_of_an_array_that_is_left_out_is_told(width, channels, told):
    picture = read_image(np.zeros((5, 5, width), np.float32), 2, channels, channel_axis="last")
    assert set(picture.assumed) == ({"transparency"} if told else set())
