"""One image file as an array, by the kind of file that it is; a library is imported when a file of its kind is met.

`stack` reads through here, and brings what it gets to one size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from v6_algorithm.data.imaging import dicom, nifti, raster
from v6_algorithm.data.imaging.picture import Picture, UnreadableImageError, with_channels
from v6_algorithm.errors import DataError

Array = np.ndarray
ENDINGS = (*raster.ENDINGS, ".npy", *nifti.ENDINGS, *dicom.ENDINGS)
# What an axis of an array may be that is taken for the channels' where nobody says: grey, or colours.
_CHANNELS = (1, 3)
# A name without an ending, or with a number that is part of a DICOM identifier.
_NO_ENDING = re.compile(r"[^.]+|.*\.\d+")


def may_be_image(name: str) -> bool:
    """Say whether a file's name has an ending of an image, or none at all, as DICOM files have."""
    return name.lower().endswith(ENDINGS) or _NO_ENDING.fullmatch(name) is not None


def read_image(
    file: Path | Array,
    dimensions: int,
    channels: int | None,
    *,
    channel_axis: Literal["first", "last"] | None = None,
    fill: float | None = None,
) -> Picture:
    """Read an image file.

    Parameters
    ----------
    file
        Its ending says what kind it is; without one it is DICOM. Or an array, as if of an npy file.
    dimensions
        2 of images, 3 of volumes.
    channels
        1 grey, 3 colour, None as in the file.
    channel_axis
        Of arrays, which have no header that would say it.
    fill
        Takes the place of NaN and infinite values.

    Raises
    ------
    UnreadableImageError
        Of one file, which the run may go on without.
    DataError
        When the library that reads such files is not installed.
    """
    if not isinstance(file, np.ndarray) and not file.is_file():
        raise UnreadableImageError("missing")
    try:
        picture = _read(file, dimensions, channels, channel_axis)
    except UnreadableImageError:
        raise
    except ImportError as error:
        if error.name and error.name.split(".")[0] in _PACKAGES:
            raise DataError(
                f"reading {_PACKAGES[error.name.split('.')[0]]} needs the package {error.name.split('.')[0]}: "
                "pip install 'v6-algorithm[imaging]'"
            ) from None
        raise UnreadableImageError("decoder") from None
    except Exception:  # Decoders raise what they like, and quote the file.
        raise UnreadableImageError("damaged") from None
    values = picture.values
    if values.ndim != dimensions + 1 or not values.size:
        raise UnreadableImageError("axes")
    if not np.isfinite(values).all():
        if fill is None:
            raise UnreadableImageError("not_finite")
        values = np.where(np.isfinite(values), values, np.float32(fill / picture.unit))
    return Picture(values, picture.unit, picture.spacing)


def _read(file: Path | Array, dimensions: int, channels: int | None, channel_axis: str | None) -> Picture:
    if isinstance(file, np.ndarray):
        return Picture(_arranged(file, dimensions, channels, channel_axis))
    name = file.name.lower()
    if name.endswith(".npy"):
        return Picture(_arranged(np.load(file, allow_pickle=False), dimensions, channels, channel_axis))
    readers: tuple[tuple[tuple[str, ...], Callable[[Path, int, int | None], Picture]], ...] = (
        (raster.ENDINGS, raster.read_raster),
        (nifti.ENDINGS, nifti.read_nifti),
    )
    reader = next((reader for endings, reader in readers if name.endswith(endings)), dicom.read_dicom)
    return reader(file, dimensions, channels)


def _arranged(values: Array, dimensions: int, channels: int | None, channel_axis: str | None) -> Array:
    """Put the axis of an array's channels in front, or make one where there is none.

    Without `channel_axis` a further axis is that of the channels where its place is beyond doubt: it is the first or
    the last, of 1 or 3 entries, and the other is not.
    """
    if values.dtype.kind not in "buif":
        raise UnreadableImageError("damaged")
    values = values if values.dtype == np.uint8 else values.astype(np.float32)
    if values.ndim == dimensions:
        return with_channels(values[None], channels)
    if values.ndim == dimensions - 1:
        raise UnreadableImageError("flat")
    if values.ndim != dimensions + 1:
        raise UnreadableImageError("axes")
    if channel_axis is None:
        first, last = values.shape[0] in _CHANNELS, values.shape[-1] in _CHANNELS
        if first == last:
            raise UnreadableImageError("channel_axis")
        channel_axis = "first" if first else "last"
    return with_channels(values if channel_axis == "first" else np.moveaxis(values, -1, 0), channels)


_PACKAGES = {"PIL": "PNG and JPEG files", "nibabel": "NIfTI files", "pydicom": "DICOM files"}
