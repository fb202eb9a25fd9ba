"""NIfTI and FreeSurfer files by nibabel, and the one orientation that volumes of all kinds of files are turned to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError, left_out, narrowed, with_channels

Array = np.ndarray
# Of a pair of .hdr and .img, as Analyze and NIfTI have them, either name stands for both.
ENDINGS = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".hdr")
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}


def read_nifti(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read an image or a volume; its axes are those of the header: three of space, time, and then the channels.

    `spans` is what has to stay apart, as `narrowed` takes it.
    """
    import nibabel

    other = {".img": ".hdr", ".hdr": ".img"}.get(file.suffix.lower())
    if other is not None and not any(file.with_suffix(end).exists() for end in (other, other.upper())):
        raise UnreadableImageError("pair")
    image: Any = nibabel.load(file)
    stored = image.get_data_dtype()
    if stored.fields is not None:
        # RGB24 and RGBA32: one byte for each colour of a voxel.
        raw = np.asarray(image.dataobj)
        values = np.stack([raw[name] for name in stored.names], axis=-1).reshape(*image.shape[:3], -1)
        extra = image.shape[3:]
    elif stored.kind not in "buif":
        raise UnreadableImageError("damaged")
    else:
        values = image.get_fdata(dtype=np.float64 if _may_be_far(image) else np.float32, caching="unchanged")
        extra = image.shape[3:]
        space = (*image.shape[:3], 1, 1)[:3]
        values = values.reshape(*space, *(extra[1:] or (1,))) if not extra or extra[0] == 1 else values
    if extra and extra[0] > 1:
        raise UnreadableImageError("time")
    if values.ndim != 4:
        raise UnreadableImageError("axes")
    turned, spacing, last = turned_to_patient(values, image.affine)
    spacing = tuple(step * _millimetres(image.header) for step in spacing)
    turned = np.moveaxis(turned, -1, 0)
    turned = turned if turned.dtype == np.uint8 else narrowed(turned, spans)
    if dimensions == 3:
        if len(image.shape) < 3:
            raise UnreadableImageError("flat")
        assumed = ({} if _says_how_it_lies(image) else {"orientation": ""}) | left_out(len(turned), channels)
        return Picture(with_channels(turned, channels), spacing=spacing, assumed=assumed)
    # A single slice, of whatever direction.
    flat = last if turned.shape[1 + last] == 1 else next((n for n in range(3) if turned.shape[1 + n] == 1), None)
    if flat is None:
        raise UnreadableImageError("volume")
    return Picture(with_channels(turned.take(0, axis=1 + flat), channels), assumed=left_out(len(turned), channels))


def _millimetres(header: Any) -> float:
    """Return how many millimetres a unit of the header's space is; one where it does not say."""
    units = getattr(header, "get_xyzt_units", None)
    return 1.0 if units is None else _MILLIMETRES.get(units()[0], 1.0)


def _says_how_it_lies(image: Any) -> bool:
    """Say whether the file has an affine: NIfTI by a form code, FreeSurfer by a flag, SPM by a .mat file beside it."""
    keys = set(image.header.keys())
    for codes in ({"sform_code", "qform_code"}, {"goodRASFlag"}):
        if codes <= keys:
            return any(int(image.header[code]) > 0 for code in codes)
    mat = image.file_map.get("mat") if hasattr(image, "file_map") else None
    return mat is not None and mat.filename is not None and Path(mat.filename).exists()


def _may_be_far(image: Any) -> bool:
    """Say whether float32 may not hold what is stored: wide numbers, or narrow ones far from 0 by their intercept."""
    stored = image.get_data_dtype()
    if stored.itemsize > (4 if stored.kind == "f" else 2):
        return True
    slope, intercept = (float(getattr(image.dataobj, name, 0)) for name in ("slope", "inter"))
    return abs(intercept) > 2.0**16 * abs(slope)


def turned_to_patient(values: Array, affine: Array) -> tuple[Array, tuple[float, ...], int]:
    """Turn a volume so that its axes go to the patient's right, front and head, as near as that is without resampling.

    Parameters
    ----------
    values
        (three lengths of space, …).
    affine
        (4, 4) from voxels to millimetres: right, anterior, superior.

    Returns
    -------
    tuple
        The turned values, millimetres from one voxel to the next along each axis, and where the third axis went.

    Raises
    ------
    UnreadableImageError
        When the affine spans no space.
    """
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    if not np.isfinite(affine).all():
        raise UnreadableImageError("geometry")
    orientation = io_orientation(affine)
    if not np.isfinite(orientation).all():
        raise UnreadableImageError("geometry")
    spacing = voxel_sizes(affine @ inv_ornt_aff(orientation, values.shape[:3]))
    turned: Array = apply_orientation(values, orientation)
    return turned, tuple(float(step) for step in spacing), int(orientation[2, 0])
