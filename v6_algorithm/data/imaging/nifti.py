"""NIfTI, FreeSurfer, Analyze and MINC files by nibabel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.detached import paired
from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError
from v6_algorithm.data.imaging.volume import placed

Array = np.ndarray
# Of a pair of .hdr and .img, as Analyze and NIfTI have them, either name stands for both.
ENDINGS = (".nii", ".nii.gz", ".nii.bz2", ".mgz", ".mgh", ".img", ".hdr")
MINC_ENDINGS = (".mnc", ".mnc.gz")
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}


def read_nifti(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read an image or a volume; its axes are those of the header: three of space, time, and then the channels.

    `spans` is what has to stay apart, as `narrowed` takes it.
    """
    import nibabel

    if file.suffix.lower() in (".img", ".hdr") and paired(file) is None:
        raise UnreadableImageError("pair")
    image: Any = nibabel.load(file)
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        raise UnreadableImageError("damaged")  # such as CIFTI's values of places on a surface
    stored = image.get_data_dtype()
    if stored.fields is not None:
        # RGB24 and RGBA32: one byte for each colour of a voxel.
        raw = np.asarray(image.dataobj)
        values = np.stack([raw[name] for name in stored.names or ()], axis=-1).reshape(*image.shape[:3], -1)
        extra = image.shape[3:]
    elif stored.kind not in "buif":
        raise UnreadableImageError("complex" if stored.kind == "c" else "no_numbers")
    else:
        values = image.get_fdata(dtype=np.float64 if _may_be_far(image) else np.float32, caching="unchanged")
        extra = image.shape[3:]
        space = (*image.shape[:3], 1, 1)[:3]
        values = values.reshape(*space, *(extra[1:] or (1,))) if not extra or extra[0] == 1 else values
    if extra and extra[0] > 1:
        raise UnreadableImageError("time")
    if values.ndim != 4:
        raise UnreadableImageError("axes")
    if dimensions == 3 and len(image.shape) < 3:
        raise UnreadableImageError("flat")
    assumed = ({} if _says_how_it_lies(image) else {"orientation": ""}) | _disagreement(image)
    return placed(
        values, image.affine, dimensions, channels, spans, millimetres=_millimetres(image.header), assumed=assumed
    )


def read_minc(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read a volume of MINC 1 or 2, whose axes are right, anterior and superior by their names, in whatever order."""
    import nibabel

    try:
        image: Any = nibabel.load(file)
    except (KeyError, AttributeError) as error:
        # An axis without a place in space: of vectors or colours, which nibabel does not read.
        raise UnreadableImageError("axes" if "vector" in str(error) else "layout") from None
    except ValueError as error:
        raise UnreadableImageError("geometry" if "rregular" in str(error) else "damaged") from None
    if len(image.shape) > 3:
        raise UnreadableImageError("time")
    values = image.get_fdata(caching="unchanged")
    return placed(values[..., None], image.affine, dimensions, channels, spans)


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


def _disagreement(image: Any) -> dict[str, str]:
    """Return what is told of a NIfTI file with two affines by which it would be another tensor, or of another size."""
    if not {"sform_code", "qform_code"} <= set(image.header.keys()):
        return {}
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    sform, qform = (form for form, _ in (image.get_sform(coded=True), image.get_qform(coded=True)))
    if sform is None or qform is None or not np.isfinite(sform).all() or not np.isfinite(qform).all():
        return {}
    alike = np.array_equal(io_orientation(sform), io_orientation(qform))
    return {} if alike and np.allclose(voxel_sizes(sform), voxel_sizes(qform), rtol=0.01) else {"two affines": ""}


def _may_be_far(image: Any) -> bool:
    """Say whether float32 may not hold what is stored: wide numbers, or narrow ones far from 0 by their intercept."""
    stored = image.get_data_dtype()
    if stored.itemsize > (4 if stored.kind == "f" else 2):
        return True
    slope, intercept = (float(getattr(image.dataobj, name, 0)) for name in ("slope", "inter"))
    return abs(intercept) > 2.0**16 * abs(slope)
