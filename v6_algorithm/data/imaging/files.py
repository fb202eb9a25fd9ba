"""One image file as an array: PNG, JPEG, npy, NIfTI and DICOM, each by a library that is imported when one is met.

`images` reads through here, and brings what it gets to one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.errors import DataError

Array = np.ndarray
ENDINGS = (".png", ".jpg", ".jpeg", ".npy", ".nii", ".nii.gz", ".dcm")
# An axis of at most so many entries is taken for that of the channels: RGB and alpha.
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes
    ----------
    values
        (channels, height, width), or of a volume (channels, three lengths).
    unit
        What 1 in `values` is worth: 8 bits of a PNG file are stored as they are, and mean 0 to 1.
    spacing
        Millimetres from one voxel to the next, where the file says so.
    """

    values: Array
    unit: float = 1.0
    spacing: tuple[float, ...] | None = None


class UnreadableImageError(Exception):
    """The file is not there, is no image, or was cut short."""


def read_image(file: Path, dimensions: int, channels: int | None) -> Picture:
    """Read an image file by its ending.

    Raises
    ------
    UnreadableImageError
        Of one file, which the run may go on without.
    DataError
        When the library that reads such files is not installed.
    """
    name = file.name.lower()
    reader, package = next((reader, package) for endings, reader, package in _READERS if name.endswith(endings))
    try:
        picture = reader(file, dimensions, channels)
    except ImportError:
        raise DataError(
            f"reading {package[1]} needs the package {package[0]}: pip install 'v6-algorithm[imaging]'"
        ) from None
    except Exception:  # Decoders raise what they like, and quote the file.
        raise UnreadableImageError from None
    values = picture.values
    if values.ndim != dimensions + 1 or not values.size or not np.isfinite(values).all():
        raise UnreadableImageError
    return picture


def _read_picture(file: Path, dimensions: int, channels: int | None) -> Picture:
    from PIL import Image

    with Image.open(file, formats=["PNG", "JPEG"]) as image:
        if image.mode in ("I;16", "I;16B", "I") and channels != 3:
            return Picture(np.asarray(image).astype(np.float32)[None] / 65535)
        grey = channels == 1 or (channels is None and image.mode in ("1", "L", "LA"))
        values = np.asarray(image.convert("L" if grey else "RGB"))
    return Picture(values[None] if grey else np.ascontiguousarray(values.transpose(2, 0, 1)), 1 / 255)


def _read_array(file: Path, dimensions: int, channels: int | None) -> Picture:
    return Picture(_arranged(np.load(file, allow_pickle=False), dimensions, channels))


def _read_nifti(file: Path, dimensions: int, channels: int | None) -> Picture:
    import nibabel

    # Right, anterior, superior: the same axes from every scanner.
    image: Any = nibabel.as_closest_canonical(nibabel.load(file))
    values = _arranged(np.asarray(image.get_fdata(dtype=np.float32)), dimensions, channels)
    return Picture(values, spacing=tuple(float(step) for step in image.header.get_zooms()[:3]))


def _read_dicom(file: Path, dimensions: int, channels: int | None) -> Picture:
    import pydicom

    content = pydicom.dcmread(file)
    values = content.pixel_array.astype(np.float32)
    values = values * float(content.get("RescaleSlope", 1)) + float(content.get("RescaleIntercept", 0))
    if content.get("PhotometricInterpretation") == "MONOCHROME1":
        values = values.max() + values.min() - values
    return Picture(_arranged(values, dimensions, channels))


def _arranged(values: Array, dimensions: int, channels: int | None) -> Array:
    """Put the axis of the channels in front, make one where there is none, and turn colours grey or grey to colours."""
    if values.dtype.kind not in "buif":
        raise UnreadableImageError
    values = values if values.dtype == np.uint8 else values.astype(np.float32)
    if values.ndim == dimensions + 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == dimensions:
        values = values[None]
    elif values.shape[-1] <= _MOST_CHANNELS:
        values = np.moveaxis(values, -1, 0)
    if channels == 3 and len(values) == 1:
        values = np.repeat(values, 3, axis=0)
    elif channels is not None and len(values) != channels:
        if channels == 3 or len(values) not in (3, 4):
            raise UnreadableImageError
        values = values[:3].astype(np.float32).mean(axis=0, keepdims=True)
    return np.ascontiguousarray(values)


_READERS = (
    ((".png", ".jpg", ".jpeg"), _read_picture, ("pillow", "PNG and JPEG files")),
    ((".npy",), _read_array, ("numpy", "npy files")),
    ((".nii", ".nii.gz"), _read_nifti, ("nibabel", "NIfTI files")),
    ((".dcm",), _read_dicom, ("pydicom", "DICOM files")),
)
