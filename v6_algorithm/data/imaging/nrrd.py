"""NRRD files by pynrrd: axes of space and of channels by their kinds, and where space goes by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.detached import beside
from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError
from v6_algorithm.data.imaging.volume import affine_of, placed

Array = np.ndarray
ENDINGS = (".nrrd", ".nhdr")
# What each direction of a space is multiplied by to go to the right, anterior, superior.
_SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1), "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
# ITK takes what has no such name for left, posterior, superior.
_ITKS = (-1, -1, 1)
_ENCODINGS = ("raw", "ascii", "text", "txt", "gzip", "gz", "bzip2", "bz2")
_OF_SPACE, _OF_TIME = ("domain", "space"), ("time", "list")
_MILLIMETRES = {"m": 1e3, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "nm": 1e-6}


def read_nrrd(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read an image or a volume, turned to the patient.

    Axes that are of no space are time where their kind is ``time`` or ``list``, else the channels. `spans` is what has
    to stay apart, as `narrowed` takes it.
    """
    import nrrd

    with file.open("rb") as opened:
        header: dict[str, Any] = nrrd.read_header(opened)
        if (name := header.get("data file", header.get("datafile"))) is not None:
            beside(file, str(name))
        if str(header.get("encoding")).lower() not in _ENCODINGS or str(header.get("type")).lower() == "block":
            raise UnreadableImageError("layout")
        spatial = _axes_of_space(header)
        if dimensions == 3 and len(spatial) == 2:
            raise UnreadableImageError("flat")
        values: Array = nrrd.read_data(header, opened, str(file))
    if values.dtype.kind not in "iuf":
        raise UnreadableImageError("no_numbers")
    (*further,) = (axis for axis in range(values.ndim) if axis not in spatial)
    values = values.transpose(*spatial, *further)
    # Of axes that are of no space at most one is longer than 1, that of the channels.
    values = values.reshape(*(*values.shape[: len(spatial)], 1)[:3], -1)
    name = str(header.get("space", "")).lower()
    steps, measured = _steps(header, spatial)
    origin = header.get("space origin")
    affine = affine_of(
        steps,
        None if origin is None or not np.isfinite(np.asarray(origin, float)).all() else np.asarray(origin, float),
        turn=_SPACES.get(name, _ITKS),
    )
    said = name in _SPACES and header.get("space directions") is not None
    return placed(
        values,
        affine,
        dimensions,
        channels,
        spans,
        millimetres=1.0 if measured else None,
        assumed={} if said else {"orientation": ""},
    )


def _axes_of_space(header: Mapping[str, Any]) -> list[int]:
    """Return which axes are of space, by the directions that they have or by their kinds.

    Raises
    ------
    UnreadableImageError
        When there are more than three, or of the others one is time, or complex, or more than one is longer than 1.
    """
    sizes = [int(size) for size in header["sizes"]]
    kinds = [str(kind).lower() for kind in header.get("kinds", ["???"] * len(sizes))]
    directions = _directions(header)
    if "time" in str(header.get("space", "")).lower():
        raise UnreadableImageError("time")
    if directions is not None:
        spatial = [axis for axis, direction in enumerate(directions) if direction is not None]
    else:
        spatial = [axis for axis, kind in enumerate(kinds) if kind in _OF_SPACE] or (
            list(range(len(sizes))) if len(sizes) < 4 else []
        )
    longer = [axis for axis, size in enumerate(sizes) if axis not in spatial and size > 1]
    if any(kinds[axis] in _OF_TIME for axis in longer):
        raise UnreadableImageError("time")
    if any(kinds[axis] == "complex" for axis in longer):
        raise UnreadableImageError("complex")
    if len(spatial) > 3:
        raise UnreadableImageError("time")
    unsaid = any(kinds[axis] in ("???", "none") for axis in longer)
    if len(spatial) not in (2, 3) or len(longer) > 1 or unsaid:
        raise UnreadableImageError("axes")
    return spatial


def _directions(header: Mapping[str, Any]) -> list[Array | None] | None:
    """Return what a step along each axis is in space, None of an axis without; None where the header says nothing."""
    given = header.get("space directions")
    if given is None:
        return None
    rows = [None if row is None else np.asarray(row, dtype=np.float64) for row in given]
    return [None if row is None or np.isnan(row).all() else row for row in rows]


def _steps(header: Mapping[str, Any], spatial: Sequence[int]) -> tuple[Array, bool]:
    """Return (axes, space) steps in millimetres along the axes of space, and whether the header says their lengths."""
    directions = _directions(header)
    if directions is not None:
        steps = np.array([directions[axis] for axis in spatial])
        units = list(header.get("space units", []))
        return steps * [_unit(units, place) for place in range(steps.shape[1])], True
    spacings, units = header.get("spacings"), list(header.get("units", []))
    lengths = [np.nan] * len(spatial) if spacings is None else [float(spacings[axis]) for axis in spatial]
    measured = bool(np.isfinite(lengths).all())
    scales = [abs(length) * _unit(units, axis) for length, axis in zip(lengths, spatial, strict=True)]
    return np.diag(scales if measured else np.ones(len(spatial))), measured


def _unit(units: Sequence[str], place: int) -> float:
    return _MILLIMETRES.get(str(units[place]).strip('" ').lower(), 1.0) if place < len(units) else 1.0
