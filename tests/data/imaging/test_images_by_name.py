"""Cells and the images that they name: endings, folders, numbers, spellings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pictures import cause_of, scan

from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.stack import find_images
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data

nibabel = pytest.importorskip("nibabel")
pillow = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)


def column(*cells):
    import pandas as pd

    return pd.Series(list(cells), name="image")


def test_names_without_an_ending_subject_folders_and_dicom_without_one_are_found(tmp_path):
    values = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    pillow.fromarray(values).save(tmp_path / "ISIC_0024306.jpg")
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "sub-01" / "anat" / "T1w.nii.gz")
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
