"""DICOM images, multi-frame volumes and series by pydicom: decoded, in their own units, and placed in the patient.

Volumes are turned as those of NIfTI are, so that a scan has the same axes, order and spacing from either kind of file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError, narrowed, with_channels
from v6_algorithm.data.imaging.volume import affine_of, is_sheared, turned_to_patient

Array = np.ndarray
ENDINGS = (".dcm", ".dicom", ".ima")
# Of these the real values are what is stored; of others they are a further measure, beside the modality's.
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
# Where a slice of a series lies, by DICOM's names.
_SLICE_LIES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
# Distances between frames may differ by this share of their mean, which is rounding of their positions.
_UNEVEN = 0.02
# And they may stand aside of a straight line by this share of a pixel.
_ASIDE = 0.5


def is_dicom(file: Path) -> bool:
    """Say whether a file begins as DICOM's part 10 has it, whatever its name."""
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read a DICOM file: an image, or a volume of evenly spaced frames.

    Grey values have the modality's units (rescale slope and intercept, of each frame where they are given so, or its
    look-up table); MONOCHROME1 is turned to white is more, about the range of the stored bits and not of the image;
    palettes become colours of 0 to 255. `spans` is what has to stay apart, as `narrowed` takes it.
    """
    content = _opened(file)
    frames = int(content.get("NumberOfFrames") or 1)
    if dimensions == 2 and frames > 1:
        raise UnreadableImageError("time" if _positions(content) is None else "volume")
    if dimensions == 3 and frames == 1:
        raise UnreadableImageError("flat")
    if "ConcatenationUID" in content:
        raise UnreadableImageError("part")
    colour, values = _decoded(content)
    if not colour:
        values = narrowed(_in_units(content, values.reshape(frames, *values.shape[-2:]))[None], spans)[0, ..., None]
    values = values.reshape(frames, *values.shape[-3:])
    if dimensions == 2:
        return Picture(with_channels(np.moveaxis(values[0], -1, 0), channels))
    return _volume(values, *_geometry(content, frames), channels, {})


def slices_in(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder and those below it, sorted by name; none where other files are among them.

    Links, names that begin with a dot and the index of a disc (DICOMDIR) are passed over.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith(".") or name.upper() == "DICOMDIR" or path.is_symlink():
                continue
            if is_dicom(path):
                found.append(path)
            elif name.lower().endswith(ENDINGS):
                return []  # as of an old archive, without the preamble
    return found


def read_series(folder: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read a folder of single slices as a volume: sorted by their positions along the slices' normal.

    Names and instance numbers say nothing of the order, and thickness nothing of the distance. Objects without an image
    (plans, reports) are passed over.

    Raises
    ------
    UnreadableImageError
        When the problem is of images, the slices are of several series, of unlike sizes or directions, or a slice is
        missing or there twice.
    """
    if dimensions == 2:
        raise UnreadableImageError("several")
    slices: list[Array] = []
    numbers: list[list[Any]] = []
    series = set()
    for path in slices_in(folder):
        try:
            content = _opened(path)
        except UnreadableImageError as error:
            if error.cause == "no_pixels":
                continue
            raise
        series.add(content.get("SeriesInstanceUID"))
        if len(series) > 1 or int(content.get("NumberOfFrames") or 1) > 1:
            raise UnreadableImageError("series")
        colour, values = _decoded(content)
        slices.append(values if colour else narrowed(_in_units(content, values[None]), spans)[0, ..., None])
        numbers.append([content.get(name) for name in _SLICE_LIES])
    if len(slices) < 2:
        raise UnreadableImageError("flat" if slices else "no_pixels")
    if len({values.shape for values in slices}) > 1 or not all(value for of_slice in numbers for value in of_slice):
        raise UnreadableImageError("geometry")
    places, turns, sizes = (np.array(values, dtype=np.float64) for values in zip(*numbers, strict=True))
    return _volume(np.stack(slices), *_lie(places, turns, sizes), channels, {"series": ""})


def _volume(values: Array, order: Array, affine: Array, channels: int | None, assumed: dict[str, str]) -> Picture:
    """Turn (frames, rows, columns, channels) to the patient, in this order of frames."""
    # To x, y and z.
    turned, spacing, _ = turned_to_patient(values[order].transpose(2, 1, 0, 3), affine)
    told = assumed | ({"sheared": ""} if is_sheared(affine) else {})
    return Picture(with_channels(np.moveaxis(turned, -1, 0), channels), spacing=spacing, assumed=told)


def _opened(file: Path) -> Any:
    """Parse a file, also one of an old archive without the preamble."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        content = pydicom.dcmread(file)
    except pydicom.errors.InvalidDicomError:
        content = pydicom.dcmread(file, force=True)
        if "Rows" not in content:
            raise UnreadableImageError("no_pixels" if "SOPClassUID" in content else "damaged") from None
    if not any(name in content for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableImageError("no_pixels")
    if "TransferSyntaxUID" not in content.file_meta:
        implicit, _ = content.original_encoding
        content.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return content


def _decoded(content: Any) -> tuple[bool, Array]:
    """Return whether there are colours, and (…, rows, columns) as stored or (…, rows, columns, 3) of 0 to 255."""
    from pydicom.pixels import apply_color_lut, get_decoder

    syntax = content.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise UnreadableImageError("compression") from None
        if not decoder.is_available:
            raise UnreadableImageError("decoder")
    try:
        values = _aligned(content)  # YCbCr becomes RGB
    except Exception:
        # GDCM as PyPI has it lacks the lossy JPEG of 12 bits.
        if syntax == _JPEG_EXTENDED and content.get("BitsStored", 0) > 8:
            raise UnreadableImageError("compression") from None
        raise
    if content.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, content)
        deep = values.dtype != np.uint8 and content.RedPaletteColorLookupTableDescriptor[2] == 16
        return True, values / np.float32(257) if deep else values
    return content.get("SamplesPerPixel", 1) > 1, values


def _aligned(content: Any) -> Array:
    """Return the pixels; of older files, whose bits are not at the lower end of a number, moved to it."""
    if "BitsStored" not in content:  # Floats, of parametric maps.
        return np.asarray(content.pixel_array)
    bits, above = int(content.BitsStored), int(content.HighBit) + 1
    if above <= bits:
        return np.asarray(content.pixel_array)
    # pydicom keeps as many bits from the lower end on as are stored.
    content.BitsStored = above
    values: Array = np.asarray(content.pixel_array) >> (above - bits)
    content.BitsStored = bits
    return values


def _in_units(content: Any, stored: Array) -> Array:
    """Return (frames, rows, columns) float64 in the modality's units."""
    from pydicom.pixels import apply_modality_lut

    inverted = content.PhotometricInterpretation == "MONOCHROME1"
    if "ModalityLUTSequence" in content:
        values = apply_modality_lut(stored, content).astype(np.float64)
        # The table as it is applied, whether it is stored as numbers (US) or as bytes (OW).
        length, first = content.ModalityLUTSequence[0].LUTDescriptor[:2]
        table = apply_modality_lut(np.arange(first, first + (length or 2**16), dtype=np.int64), content)
        return (float(table.min()) + float(table.max()) - values) if inverted else values
    values = stored.astype(np.float64)
    if inverted:
        bits, signed = int(content.BitsStored), int(content.PixelRepresentation)
        # The least and the most that so many bits hold.
        values = (-1 if signed else 2**bits - 1) - values
    for frame in range(len(values)):
        slope, intercept = _rescale(content, frame)
        values[frame] = values[frame] * slope + intercept
    return values


def _rescale(content: Any, frame: int) -> tuple[float, float]:
    transformation = _functional(content, frame, "PixelValueTransformationSequence")
    if transformation is None and "DoseGridScaling" in content:
        return float(content.DoseGridScaling), 0.0
    mapping = _functional(content, frame, "RealWorldValueMappingSequence")
    if transformation is None and mapping is not None and content.get("SOPClassUID") == _PARAMETRIC_MAP:
        return float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)
    given = content if transformation is None else transformation
    slope, intercept = given.get("RescaleSlope"), given.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _functional(content: Any, frame: int, name: str) -> Any | None:
    """Return the functional group of a frame of an enhanced object: its own, or the one that all frames share."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        listed = content.get(groups) or []
        if number < len(listed) and listed[number].get(name):
            return listed[number].get(name)[0]
    return None


def _positions(content: Any) -> Array | None:
    """Return where each frame's first pixel is, (frames, 3) in millimetres: left, posterior, superior."""
    frames = int(content.get("NumberOfFrames") or 1)
    groups = [_functional(content, frame, "PlanePositionSequence") for frame in range(frames)]
    if all(group is not None for group in groups):
        return np.array([[float(value) for value in group.ImagePositionPatient] for group in groups if group])
    if "GridFrameOffsetVector" in content and "ImagePositionPatient" in content:
        offsets = np.array([float(value) for value in content.GridFrameOffsetVector])
        across, down = _directions(content.ImageOrientationPatient)
        # Of a dose, either from the first frame or, where that is not 0, the frames' own places on the axis.
        return np.array(content.ImagePositionPatient, float) + (offsets - offsets[0])[:, None] * np.cross(across, down)
    if all(content.get(name) for name in ("ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices")):
        across, down = _directions(content.ImageOrientationPatient)
        places = np.arange(frames)[:, None] * float(content.SpacingBetweenSlices) * np.cross(across, down)
        return np.array(content.ImagePositionPatient, float) + places
    return None


def _directions(orientation: Any) -> tuple[Array, Array]:
    values = np.array([float(value) for value in orientation])
    return values[:3], values[3:]


def _geometry(content: Any, frames: int) -> tuple[Array, Array]:
    """Return the order of the frames along their axis, and the affine of (columns, rows, frames), as NIfTI has it."""
    positions = _positions(content)
    planes = [_functional(content, frame, "PlaneOrientationSequence") or content for frame in range(frames)]
    measures = [_functional(content, frame, "PixelMeasuresSequence") or content for frame in range(frames)]
    turns = [plane.get("ImageOrientationPatient") for plane in planes]
    sizes = [measure.get("PixelSpacing") for measure in measures]
    if positions is None or len(positions) != frames or not all(turns) or not all(sizes):
        raise UnreadableImageError("geometry")
    return _lie(positions, np.array(turns, dtype=np.float64), np.array(sizes, dtype=np.float64))


def _lie(positions: Array, turns: Array, sizes: Array) -> tuple[Array, Array]:
    """Return the order of frames along their axis and their affine, from (frames, 3), (frames, 6) and (frames, 2)."""
    if np.ptp(turns, axis=0).max() > 1e-3 or np.ptp(sizes, axis=0).max() > 1e-3:
        raise UnreadableImageError("geometry")
    across, down = _directions(turns[0])
    down_mm, across_mm = (float(value) for value in sizes[0])
    along = positions @ np.cross(across, down)
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    if steps.min() < 1e-3:
        raise UnreadableImageError("time")  # two frames at one place
    if np.ptp(steps) > _UNEVEN * steps.mean():
        raise UnreadableImageError("gaps")
    step = (positions[order[-1]] - positions[order[0]]) / (len(positions) - 1)
    aside = positions[order] - positions[order[0]] - np.arange(len(positions))[:, None] * step
    if np.abs(aside).max() > _ASIDE * min(down_mm, across_mm) + _UNEVEN * steps.mean():
        raise UnreadableImageError("geometry")
    # DICOM's x and y go to the patient's left and back.
    return order, affine_of(np.stack([across * across_mm, down * down_mm, step]), positions[order[0]])
