"""A DICOM series, a file for each slice: the folder is a volume, as the same scan is from NIfTI."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from pictures import cause_of, scan

from v6_algorithm.data.imaging.detached import with_companions
from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.naming import count_unfitting, table_of_names
from v6_algorithm.data.imaging.stack import find_images
from v6_algorithm.errors import DataError

pydicom = pytest.importorskip("pydicom")
VOLUME = np.random.default_rng(3).integers(0, 4000, (5, 6, 7)).astype(np.uint16)
# Coronal and tilted by 10 degrees.
TURN = (1, 0, 0, 0, np.sin(np.deg2rad(10)), -np.cos(np.deg2rad(10)))


def series(folder, *, places=range(5), turn=TURN, uids=("1.2",), **attributes):
    """Write slices whose names and numbers say nothing of their order, 2.5 mm apart."""
    folder.mkdir()
    normal = np.cross(turn[:3], turn[3:])
    for number, (frame, place) in enumerate(
        zip((3, 0, 4, 1, 2), np.array(places, float)[[3, 0, 4, 1, 2]], strict=True)
    ):
        scan(
            folder / f"IM{number}", VOLUME[frame], SeriesInstanceUID=uids[number % len(uids)], InstanceNumber=number,
            ImagePositionPatient=[f"{value:.7g}" for value in place * 2.5 * normal],
            ImageOrientationPatient=[f"{value:.10g}" for value in turn], PixelSpacing=["0.5", "0.75"],
            SliceThickness="9", RescaleSlope="1", RescaleIntercept=str(-1000 - frame), **attributes,
        )  # fmt: skip
    return folder


def test_a_series_is_the_volume_that_its_nifti_is(tmp_path):
    picture = read_image(series(tmp_path / "p1"), 3, None)
    affine = np.eye(4)
    affine[:3, :3] = np.stack(
        [np.array(TURN[:3]) * 0.75, np.array(TURN[3:]) * 0.5, np.cross(TURN[:3], TURN[3:]) * 2.5]
    ).T
    units = VOLUME.astype(float) - 1000 - np.arange(5)[:, None, None]
    image = nibabel.Nifti1Image(units.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine)
    turned = nibabel.as_closest_canonical(image)
    np.testing.assert_array_equal(picture.values[0], turned.get_fdata())
    np.testing.assert_allclose(picture.spacing, turned.header.get_zooms(), rtol=1e-6)
    assert "series" in picture.assumed


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"places": (0, 1, 3, 4, 5)}, "gaps"),
        ({"places": (0, 1, 1, 2, 3)}, "time"),
        ({"uids": ("1.2", "1.3")}, "series"),
    ],
)
def test_what_is_no_even_volume_is_refused_by_name(tmp_path, options, cause):
    assert cause_of(series(tmp_path / "p1", **options), 3) == cause


def test_slices_of_other_sizes_or_without_places_are_refused(tmp_path):
    folder = series(tmp_path / "p1")
    content = pydicom.dcmread(folder / "IM2")
    del content.ImagePositionPatient
    content.save_as(folder / "IM2")
    assert cause_of(folder, 3) == "geometry"


def test_in_a_problem_of_images_a_folder_of_several_is_no_volume(tmp_path):
    assert cause_of(series(tmp_path / "p1"), dimensions=2) == "several"


def test_a_name_of_a_series_is_its_folder_and_its_files_are_watched(tmp_path):
    series(tmp_path / "p1")
    (tmp_path / "p1" / "._IM0").write_bytes(b"\0\5\x16\7")
    (tmp_path / "p1" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    files = find_images(pd.Series(["p1"], name="file"), tmp_path)
    assert files == [tmp_path / "p1"]
    assert {file.name for file in with_companions(files)} >= {f"IM{number}" for number in range(5)}


def test_a_series_with_a_photograph_in_its_folder_is_not_guessed(tmp_path):
    (series(tmp_path / "p1") / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="several images each"):
        find_images(pd.Series(["p1"], name="file"), tmp_path)


def test_folders_of_slices_are_named_by_a_template_where_no_file_is(tmp_path):
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        for number in range(2):
            series(tmp_path / label / f"p{number}")
    (tmp_path / "ill" / "empty").mkdir()
    table = table_of_names(tmp_path, "{label}/{patient}", "file")
    assert table["file"].tolist() == ["ill/p0", "ill/p1", "well/p0", "well/p1"]
    assert table["label"].tolist() == ["ill", "ill", "well", "well"]
    assert count_unfitting(tmp_path, "{label}/{patient}") == 0
    assert count_unfitting(tmp_path, "{label}/{kind:1}0") == 2
    # A file of a fitting name is an image, and the folders beside it are none.
    scan(tmp_path / "ill" / "alone.dcm", VOLUME[0])
    assert table_of_names(tmp_path, "{label}/{patient}", "file")["file"].tolist() == ["ill/alone.dcm"]
    with pytest.raises(DataError, match="no image in the folder"):
        table_of_names(tmp_path, "{label}_{patient}", "file")
