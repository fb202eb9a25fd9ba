"""The image files that pydicom, nibabel and scikit-image ship, as they are, each against its own library's values."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.picture import UnreadableImageError
from v6_algorithm.errors import DataError

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
pytest.importorskip("gdcm")
Pillow = pytest.importorskip("PIL.Image")


def ours(file: Path, dimensions: int) -> tuple[np.ndarray, float] | str:
    """Return what is read of a file, or the cause for which it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_image(file, dimensions, None)
        except UnreadableImageError as error:
            return error.cause
        except DataError as error:
            return str(error)
    return picture.values, picture.unit


# -- pydicom -------------------------------------------------------------------------------------------------------


def dicom_files() -> list[Path]:
    """Return the files that come with pydicom, of those that are images; others are in archives of its own."""
    files = []
    for name in sorted({*pydicom.data.get_testdata_files()}):
        file = Path(name)
        if file.is_file() and file.stat().st_size < 2_000_000:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    content = pydicom.dcmread(file)
                except Exception:  # noqa: S112 (no DICOM file)
                    continue
                if "PixelData" in content and "Rows" in content:
                    files.append(file)
    return files


def pydicoms(file: Path) -> np.ndarray | str:
    """Return an image by pydicom's own functions, channels in front; the cause where it has no values either."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = pydicom.dcmread(file)
        try:
            frames = int(content.get("NumberOfFrames") or 1)
            stored = content.pixel_array
        except Exception:
            return "damaged"
        if frames > 1:
            return "several"
        if content.PhotometricInterpretation == "PALETTE COLOR":
            colours = apply_color_lut(stored, content)
            return (colours / 257 if colours.dtype == np.uint16 else colours).transpose(2, 0, 1)
        if stored.ndim == 3:
            return stored.transpose(2, 0, 1)
        if content.PhotometricInterpretation == "MONOCHROME1":
            stored = 2**content.BitsStored - 1 - stored.astype(np.int64)
        values = np.asarray(apply_modality_lut(stored, content), dtype=np.float64)
        return (values * float(content.get("DoseGridScaling", 1)))[None]


@pytest.mark.parametrize("file", dicom_files(), ids=lambda file: file.name)
def test_a_dicom_file_of_pydicom_has_pydicoms_values(file):
    expected, found = pydicoms(file), ours(file, 2)
    if isinstance(expected, str):
        assert found in {"several": ("time", "volume"), "damaged": ("damaged", "decoder", "compression")}[expected]
    else:
        assert not isinstance(found, str), found
        np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_a_dose_is_the_same_volume_from_every_encoding_of_it():
    names = ("rtdose.dcm", "rtdose_rle.dcm", "rtdose_expb.dcm")
    doses = [ours(Path(pydicom.data.get_testdata_file(name)), 3) for name in names]
    content = pydicom.dcmread(pydicom.data.get_testdata_file(names[0]))
    # Its rows go to the left, its columns to the back, and its frames to the head.
    expected = content.pixel_array.transpose(2, 1, 0)[::-1, ::-1] * float(content.DoseGridScaling)
    for values, _ in doses:
        np.testing.assert_allclose(values[0], expected, rtol=1e-6)


# -- nibabel -------------------------------------------------------------------------------------------------------

NIBABEL = sorted((Path(nibabel.__file__).parent / "tests" / "data").glob("*.nii*")) + sorted(
    (Path(nibabel.__file__).parent / "freesurfer" / "tests" / "data").glob("*.mg[hz]")
)


@pytest.mark.parametrize("file", NIBABEL, ids=lambda file: file.name)
def test_a_nifti_file_of_nibabel_has_nibabels_values(file):
    found, image = ours(file, 3), nibabel.load(file)
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        assert found == "damaged"  # a table of connections between places
    elif image.ndim > 3 and image.shape[3] > 1:
        assert found == "time"
    elif not np.isfinite(image.get_fdata()).all():
        assert found == "not_finite"
        expected = nibabel.as_closest_canonical(image).get_fdata()
        filled = read_image(file, 3, None, fill=-7).values
        np.testing.assert_allclose(filled[0], np.where(np.isfinite(expected), expected, -7), rtol=1e-6)
    else:
        expected = nibabel.as_closest_canonical(image).get_fdata()
        np.testing.assert_allclose(found[0][0], expected.reshape(expected.shape[:3]), rtol=1e-6)


# -- scikit-image --------------------------------------------------------------------------------------------------


def skimage_files() -> list[Path]:
    spec = find_spec("skimage")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else Path("nowhere")
    return [file for file in sorted(folder.glob("*")) if file.suffix in (".png", ".jpg", ".tif")]


@pytest.mark.parametrize("file", skimage_files(), ids=lambda file: file.name)
def test_a_picture_of_scikit_image_has_the_values_that_it_reads(file):
    io = pytest.importorskip("imageio.v3")
    found = ours(file, 2)
    if found in ("damaged", "layout"):
        with pytest.raises(OSError, match="cannot identify"):
            Pillow.open(file)
        return
    expected = io.imread(file)
    with Pillow.open(file) as image:
        pages, depth, mode = getattr(image, "n_frames", 1), 65535 if expected.dtype == np.uint16 else 255, image.mode
    if pages > 1:
        assert found == "time"
        return
    values, unit = found
    expected = expected * 255.0 if expected.dtype == bool else expected.astype(np.float64)
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    if mode in ("LA", "RGBA"):
        expected = expected[:-1]
    np.testing.assert_allclose(values * unit, expected / depth, atol=1e-6)
