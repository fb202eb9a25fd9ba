"""One image file as an array, by the kind of file that it is; a library is imported when a file of its kind is met.

`stack` reads through here, and brings what it gets to one size.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from v6_algorithm.data.imaging import dicom, metaimage, nifti, nrrd, raster
from v6_algorithm.data.imaging.picture import (
    Picture,
    Span,
    UnreadableImageError,
    left_out,
    narrowed,
    scaled_by,
    with_channels,
)
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.imaging.images import Image

Array = np.ndarray
ENDINGS = (
    *raster.ENDINGS, ".npy", *nifti.ENDINGS, *nifti.MINC_ENDINGS, *nrrd.ENDINGS, *metaimage.ENDINGS, *dicom.ENDINGS,
)  # fmt: skip
# What an axis of an array may be that is taken for the channels' where nobody says: grey, or colours.
_CHANNELS = (1, 3)
# A name without an ending, or with a number that is part of a DICOM identifier.
_NO_ENDING = re.compile(r"[^.]+|.*\.\d+")


def may_be_image(name: str) -> bool:
    """Say whether a file's name has an ending of an image, or none at all, as DICOM files have."""
    return name.lower().endswith(ENDINGS) or _NO_ENDING.fullmatch(name) is not None


def read_as_asked(file: Path | Array | str | None, image: Image) -> Picture:
    """Read a row's image as `data.image` says; a str is the cause why the row has none, None an empty cell.

    Raises
    ------
    UnreadableImageError, DataError
        As `read_image` does.
    """
    if file is None or isinstance(file, str):
        raise UnreadableImageError(file or "empty")
    return read_image(
        file,
        image.dimensions,
        image.channels,
        channel_axis=image.channel_axis,
        fill=image.fill,
        spans=scaled_by(image),
    )


def read_image(
    file: Path | Array,
    dimensions: int,
    channels: int | None,
    *,
    channel_axis: Literal["first", "last"] | None = None,
    fill: float | None = None,
    spans: Sequence[Span] | None = None,
) -> Picture:
    """Read an image file.

    Parameters
    ----------
    file
        Its ending says what kind it is; without one its first bytes, or it is DICOM; a folder is a DICOM series. Or an
        array, as if of an npy file.
    dimensions
        2 of images, 3 of volumes.
    channels
        1 grey, 3 colour, None as in the file.
    channel_axis
        Of arrays, which have no header that would say it.
    fill
        Takes the place of NaN and infinite values.
    spans
        What has to stay apart, as `narrowed` takes it.

    Raises
    ------
    UnreadableImageError
        Of one file, which the run may go on without.
    DataError
        When the library that reads such files is not installed.
    """
    if not isinstance(file, np.ndarray):
        _check_file(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Decoders warn of what a file holds.
            picture = _read(file, dimensions, channels, channel_axis, spans)
    except UnreadableImageError as error:
        if error.cause == "damaged":
            raise UnreadableImageError(_damage(file)) from None
        raise
    except ImportError as error:
        if error.name and error.name.split(".")[0] in _PACKAGES:
            raise DataError(
                f"reading {_PACKAGES[error.name.split('.')[0]]} needs the package {error.name.split('.')[0]}: "
                "pip install 'v6-algorithm[imaging]'"
            ) from None
        raise UnreadableImageError("decoder") from None
    except PermissionError:
        raise UnreadableImageError("permission") from None
    except Exception as error:  # Decoders raise what they like, and quote the file.
        if type(error).__name__ == "DecompressionBombError":
            raise UnreadableImageError("large") from None
        raise UnreadableImageError(_damage(file)) from None
    values = picture.values
    if values.ndim != dimensions + 1 or not values.size:
        raise UnreadableImageError("axes")
    if not np.isfinite(values).all():
        if fill is None:
            raise UnreadableImageError("not_finite")
        values = np.where(np.isfinite(values), values, values.dtype.type(fill / picture.unit))
    return Picture(values, picture.unit, picture.spacing, picture.assumed)


def _check_file(file: Path) -> None:
    try:
        empty = file.is_file() and not file.stat().st_size
        there = file.is_file(), file.is_dir()
    except PermissionError:
        raise UnreadableImageError("permission") from None
    except OSError:  # such as a name that is too long
        there, empty = (False, False), False
    if not any(there):
        raise UnreadableImageError("missing")
    if not there[0] and not dicom.slices_in(file):
        raise UnreadableImageError("folder")
    if empty:
        raise UnreadableImageError("no_bytes")


def _damage(file: Path | Array) -> str:
    """Return ``other_kind`` of a file that begins as some kind does that its ending is not of, else ``damaged``."""
    if isinstance(file, np.ndarray):
        return "damaged"
    try:
        with file.open("rb") as opened:
            head = opened.read(352)
    except OSError:
        return "damaged"
    name = file.name.lower()
    kinds = [endings for begins, endings in _KINDS if begins(head)]
    fits = any(endings is not None and name.endswith(endings) for endings in kinds)
    return "other_kind" if kinds and not fits else "damaged"


def _read(
    file: Path | Array,
    dimensions: int,
    channels: int | None,
    channel_axis: str | None,
    spans: Sequence[Span] | None,
) -> Picture:
    name = "" if isinstance(file, np.ndarray) else file.name.lower()
    if isinstance(file, np.ndarray) or name.endswith(".npy"):
        array = file if isinstance(file, np.ndarray) else _loaded(file)
        arranged = _arranged(array, dimensions, channels, channel_axis, spans)
        said = array.ndim == dimensions or channel_axis is not None
        first = array.shape[0] in _CHANNELS
        assumed = {} if said else {"channel axis": "first" if first else "last"}
        axis = channel_axis or assumed.get("channel axis")
        given = 1 if axis is None or array.ndim == dimensions else array.shape[0 if axis == "first" else -1]
        return Picture(arranged, assumed=assumed | left_out(given, channels))
    readers: tuple[tuple[tuple[str, ...], Callable[[Path, int, int | None, Sequence[Span] | None], Picture]], ...] = (
        (raster.ENDINGS, raster.read_raster),
        (nifti.ENDINGS, nifti.read_nifti),
        (nifti.MINC_ENDINGS, nifti.read_minc),
        (nrrd.ENDINGS, nrrd.read_nrrd),
        (metaimage.ENDINGS, metaimage.read_metaimage),
    )
    reader = next((reader for endings, reader in readers if name.endswith(endings)), None)
    if file.is_dir():
        reader = dicom.read_series
    elif reader is None:
        reader = raster.read_raster if not name.endswith(dicom.ENDINGS) and _is_raster(file) else dicom.read_dicom
    return reader(file, dimensions, channels, spans)


def _is_raster(file: Path) -> bool:
    """Say whether a file without an ending begins as PNG, JPEG, TIFF, BMP or WEBP do."""
    with file.open("rb") as opened:
        head = opened.read(132)
    return any(begins(head) for begins, endings in _KINDS if endings is raster.ENDINGS)


def _loaded(file: Path) -> Array:
    try:
        values: Array = np.load(file, allow_pickle=False)
    except ValueError as error:
        with file.open("rb") as opened:
            objects = opened.read(6) == b"\x93NUMPY" and "Object arrays" in str(error)
        if objects:
            raise UnreadableImageError("no_numbers") from None
        raise
    return values


def _arranged(
    values: Array, dimensions: int, channels: int | None, channel_axis: str | None, spans: Sequence[Span] | None
) -> Array:
    """Put the axis of an array's channels in front, or make one where there is none.

    Without `channel_axis` a further axis is that of the channels where its place is beyond doubt: it is the first or
    the last, of 1 or 3 entries, and the other is not.
    """
    if values.dtype.kind not in "buif":
        raise UnreadableImageError("complex" if values.dtype.kind == "c" else "no_numbers")
    if not values.size:
        raise UnreadableImageError("axes")
    if values.ndim == dimensions:
        return with_channels(_numbers(values[None], spans), channels)
    if values.ndim == dimensions - 1:
        raise UnreadableImageError("flat")
    if values.ndim != dimensions + 1:
        raise UnreadableImageError("axes")
    if channel_axis is None:
        first, last = values.shape[0] in _CHANNELS, values.shape[-1] in _CHANNELS
        if first == last:
            raise UnreadableImageError("channel_axis")
        channel_axis = "first" if first else "last"
    values = values if channel_axis == "first" else np.moveaxis(values, -1, 0)
    return with_channels(_numbers(values, spans), channels)


def _numbers(values: Array, spans: Sequence[Span] | None) -> Array:
    return values if values.dtype == np.uint8 else narrowed(values, spans)


# How kinds of files begin, and the endings of each; of what is no image, none.
_KINDS: tuple[tuple[Callable[[bytes], bool], tuple[str, ...] | None], ...] = (
    (lambda head: head[:8] == b"\x89PNG\r\n\x1a\n", raster.ENDINGS),
    (lambda head: head[:3] == b"\xff\xd8\xff", raster.ENDINGS),
    (lambda head: head[:4] in (b"II*\0", b"MM\0*") and head[128:132] != b"DICM", raster.ENDINGS),
    (lambda head: head[:4] == b"RIFF", raster.ENDINGS),
    (lambda head: head[:2] == b"BM" and head[6:10] == b"\0\0\0\0", raster.ENDINGS),
    (lambda head: head[128:132] == b"DICM", dicom.ENDINGS),
    (lambda head: head[:6] == b"\x93NUMPY", (".npy",)),
    (lambda head: head[:2] == b"\x1f\x8b", (".nii.gz", ".mgz", ".mnc.gz")),
    (lambda head: head[:3] == b"BZh", (".nii.bz2",)),
    (lambda head: head[:4] in (b"CDF\1", b"\x89HDF"), (".mnc",)),
    (lambda head: head[:6] == b"NRRD00", nrrd.ENDINGS),
    (lambda head: head.lstrip()[:10] == b"ObjectType" or head[:5] == b"NDims", metaimage.ENDINGS),
    (lambda head: head[344:348] in (b"n+1\0", b"ni1\0"), (".nii", ".hdr")),
    (lambda head: head.lstrip()[:1] == b"<", None),
    (
        lambda head: head.startswith((b"PK\x03\x04", b"%PDF", b"GIF8", b"version https://git-lfs", b"\0\x05\x16\x07")),
        None,
    ),
)
_PACKAGES = {
    "PIL": "PNG and JPEG files", "nibabel": "volumes such as NIfTI", "pydicom": "DICOM files", "nrrd": "NRRD files",
    "h5py": "MINC files",
}  # fmt: skip
