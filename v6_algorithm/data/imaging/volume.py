"""Volumes of all kinds of files turned to one orientation in the patient, whatever order their voxels are stored in.

`nifti`, `nrrd`, `metaimage` and `dicom` bring their voxels and where these lie here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError, left_out, narrowed, with_channels

Array = np.ndarray
# What two axes' cosine may be before they count as slanted: half a degree; headers have their numbers in float32.
_SLANTED = 0.01


def placed(
    values: Array,
    affine: Array,
    dimensions: int,
    channels: int | None,
    spans: Sequence[Span] | None,
    *,
    millimetres: float | None = 1.0,
    assumed: Mapping[str, str] | None = None,
) -> Picture:
    """Turn a volume to the patient; of a 2-D problem, a volume of a single slice.

    Parameters
    ----------
    values
        (three lengths of space, channels).
    affine
        (4, 4) from voxels to right, anterior, superior.
    dimensions, channels, spans
        As `files.read_image` takes them.
    millimetres
        What a unit of the affine is; None where the file does not say how large its voxels are.
    assumed
        What its reader took for granted.

    Raises
    ------
    UnreadableImageError
        When the affine spans no space, or a 2-D problem meets several slices.
    """
    turned, steps, last = turned_to_patient(values, affine)
    spacing = None if millimetres is None else tuple(step * millimetres for step in steps)
    turned = np.moveaxis(turned, -1, 0)
    colours = turned.dtype == np.uint8 and len(turned) > 1
    turned = turned if colours else narrowed(turned, spans)
    told = dict(assumed or {}) | left_out(len(turned), channels)
    if dimensions == 3:
        told |= {"sheared": ""} if is_sheared(affine) else {}
        return Picture(with_channels(turned, channels), spacing=spacing, assumed=told)
    # A single slice, of whatever direction.
    flat = last if turned.shape[1 + last] == 1 else next((n for n in range(3) if turned.shape[1 + n] == 1), None)
    if flat is None:
        raise UnreadableImageError("volume")
    told["slice axes"] = ""
    return Picture(with_channels(turned.take(0, axis=1 + flat), channels), assumed=told)


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


def is_sheared(affine: Array) -> bool:
    """Say whether a volume's axes are not at right angles, as where the gantry of a CT scanner was tilted."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _SLANTED)


def affine_of(directions: Array, origin: Array | None = None, *, turn: Sequence[float] = (-1, -1, 1)) -> Array:
    """Return a (4, 4) affine to right, anterior, superior.

    Parameters
    ----------
    directions
        (axes, space): what one step along each of two or three axes is, in a plane or in space. Without a third axis,
        or a third direction of space, there is one across the others.
    origin
        (space,) of the first voxel.
    turn
        What each direction of the file's space is multiplied by: of left, posterior, superior the first two turn.
    """
    steps = np.zeros((len(directions), 3))
    steps[:, : directions.shape[1]] = directions[:, :3]
    if len(steps) == 2:
        across = np.cross(*steps)
        length = float(np.linalg.norm(across))
        steps = np.vstack([steps, across / length if length else across])
    affine = np.eye(4)
    affine[:3, :3] = steps.T
    if origin is not None:
        affine[: len(origin), 3] = origin[:3]
    turned: Array = np.diag([*turn, 1.0]) @ affine
    return turned
