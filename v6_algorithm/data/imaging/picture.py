"""What a reader of image files returns, why a file cannot be read, and the rules that all kinds of files share.

`raster`, `nifti`, `dicom` and `files` read by it; `stack` counts the causes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from v6_algorithm.experiment.imaging.images import Image

Array = np.ndarray

CAUSES = {
    "empty": "no file is named",
    "missing": "the file is not there",
    "ending": "a name with another ending than images have (docs/images.md lists them)",
    "format": "of a format of volumes that is not read (PAR/REC, GIPL, VTK, AFNI, ECAT): make NIfTI, as with SimpleITK "
    "or dcm2niix",
    "pictures": "of a format of images that is not read (HEIC, AVIF, GIF, JPEG 2000, PSD, camera raw): make PNG",
    "slides": "whole slides (SVS, NDPI, MRXS, CZI, SCN, VSI), which are not read: cut them into tiles, PNG or JPEG",
    "archives": "files of arrays of another kind than npy (npz, HDF5, MATLAB, Zarr, pickle, PyTorch), which are not "
    "read as images: write an npy file for each row",
    "recordings": "recordings over time (EDF, BDF, WFDB, GDF), which are no images: of data.sequence, an npy file for "
    "each row",
    "pair": "one of a pair of files (.hdr and .img, .nhdr or .mhd and its data) of which the other is not beside it",
    "part": "a part of a volume, whose other parts are in files of their own: make one file of them, such as NIfTI",
    "folder": "a folder without an image, and no file",
    "permission": "a file that may not be read here",
    "no_bytes": "a file of 0 bytes",
    "other_kind": "of another kind than the name says, such as a web page, an archive or another kind of image: name "
    "it by what it is (gzipped NIfTI .nii.gz)",
    "damaged": "cut short, damaged, or no image of its kind",
    "layout": "a damaged header, or one that says bits, colours or an encoding that are not read (TIFF of several "
    "channels that are floats or more than colours, Lab, 12-bit JPEG, NRRD in hex): store it as npy, PNG or NIfTI",
    "no_pixels": "a DICOM object without an image, such as a plan, structures, a report, a waveform or an index "
    "(DICOMDIR): name the files of images",
    "large": "of more pixels than are read from one file",
    "no_numbers": "an array of something else than numbers",
    "complex": "complex numbers, which are no intensities: store their magnitude, or what else is meant",
    "decoder": "compressed, and no decoder is installed: pip install 'v6-algorithm[imaging]', which has python-gdcm",
    "compression": "in a compression that is not read, such as video or lossy JPEG of 12 bits (dcmdjpeg undoes that)",
    "not_finite": "NaN or infinite values (data.image.fill puts a number in their place)",
    "volume": "a volume, where the problem is of images (problem: volume_classification reads it)",
    "flat": "a single image, where the problem is of volumes (of a DICOM series, a file for each slice, name its "
    "folder)",
    "several": "a folder with several images, where the problem is of images: name one of them",
    "series": "a folder with several DICOM series, or volumes: name the folder of one",
    "time": "several volumes or images in one file or folder, such as a series over time, several echoes, channels by "
    "pages, or a slide's tiles: write a file for each row",
    "axes": "axes that fit neither an image nor a volume",
    "channel_axis": "an array that does not say which axis is that of the channels (data.image.channel_axis; a volume "
    "goes with problem: volume_classification)",
    "channels": "channels that data.image.channels does not fit",
    "geometry": "no place in space to use (an affine or directions that span none, frames or slices without positions, "
    "of several sizes or directions): make NIfTI of even spacing",
    "gaps": "frames or slices that are not evenly spaced: one is missing, or they are of two spacings",
    "spacing": "no spacing in millimetres, which data.image.spacing needs",
}
"""Why an image is left out, as a reader of a note is told. The short names are what a site sends, with a count each."""

OTHER_ENDINGS = {
    "format": (
        ".par", ".rec", ".gipl", ".gipl.gz", ".vtk", ".vti", ".head", ".brik", ".brik.gz", ".v", ".nrrd.gz", ".dcm.gz",
    ),
    "pictures": (
        ".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jpx", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw",
    ),
    "slides": (".svs", ".ndpi", ".mrxs", ".czi", ".scn", ".vsi", ".vms", ".isyntax", ".bif", ".lif", ".nd2"),
    "archives": (
        ".npz", ".h5", ".hdf5", ".hdf", ".mat", ".zarr", ".pkl", ".pickle", ".pt", ".pth", ".zip", ".tar", ".tar.gz",
    ),
    "recordings": (".edf", ".bdf", ".gdf", ".hea", ".dat", ".atr", ".vhdr", ".eeg", ".set", ".wav"),
}  # fmt: skip
"""Endings of what is not read, by the cause that says the way out."""

# What a channel's values span, from its lowest to its highest that matters.
Span = tuple[float, float]
# Where float32 loses more than this share of what images are scaled by, they stay float64 until they are scaled.
_COARSEST = 1e-3
# From here on float32 has no fractions; a channel of one value is kept exact, for it may differ between images.
_NO_FRACTIONS = 2.0**24
# ITU-R BT.601, in 65,536ths: the rule of Pillow's grey, whatever kind of file an image comes from.
_LUMA = (19595, 38470, 7471)


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
    assumed
        What the file does not say, of `data.assumed.KINDS`, and what was taken for it.
    """

    values: Array
    unit: float = 1.0
    spacing: tuple[float, ...] | None = None
    assumed: Mapping[str, str] = field(default_factory=dict)


class UnreadableImageError(Exception):
    """An image that a run can go on without; `cause` is one of `CAUSES`."""

    def __init__(self, cause: str = "damaged") -> None:
        super().__init__(CAUSES[cause])
        self.cause = cause


def described_causes(causes: Mapping[str, int]) -> str:
    """Return the causes with their counts, the most frequent first, as one clause."""
    ranked = sorted(causes.items(), key=lambda item: -item[1])
    return "; ".join(f"{count:,}: {CAUSES[cause]}" for cause, count in ranked)


def with_channels(values: Array, channels: int | None) -> Array:
    """Bring (channels, lengths …) to the channels that are asked for.

    Of colours (three channels, or four with alpha) grey is their luma by ITU-R BT.601; grey becomes three alike.

    Raises
    ------
    UnreadableImageError
        When there are others, which are neither grey nor colours.
    """
    if channels is None or len(values) == channels:
        return np.ascontiguousarray(values)
    if channels == 3 and len(values) == 4:
        return np.ascontiguousarray(values[:3])
    if channels == 3 and len(values) in (1, 2):
        return np.repeat(values[:1], 3, axis=0)
    if channels == 1 and len(values) in (3, 4):
        return grey(values[:3])[None]
    raise UnreadableImageError("channels")


def left_out(given: int, channels: int | None) -> dict[str, str]:
    """Return what `with_channels` takes for granted of so many channels: of two or four the last is transparency."""
    return {"transparency": ""} if channels is not None and given in (2, 4) and given != channels else {}


def scaled_by(image: Image) -> list[Span] | None:
    """Return the lowest and highest value of what `range`, or `mean` and `sd` of a channel, keep; None without."""
    if image.range is not None:
        return [image.range]
    if image.mean is not None and image.sd is not None:
        return [(mean - sd, mean + sd) for mean, sd in zip(image.mean, image.sd, strict=True)]
    return None


def narrowed(values: Array, spans: Sequence[Span] | None, leading: int = 1) -> Array:
    """Return (channels, lengths …) as float32, or as float64 where float32 makes one of what has to stay apart.

    That is so far from 0: where rounding takes more than a thousandth of `spans`, see `scaled_by`, or, without, of what
    a channel spans by itself. With two `leading` axes the first is that of images.
    """
    with np.errstate(over="ignore"):
        single = values.astype(np.float32, copy=False)
    if values.dtype.itemsize <= 2 or not values.size:
        return single
    if spans is None:
        rest = tuple(range(leading, values.ndim))
        known = values if values.dtype.kind != "f" else np.where(np.isfinite(values), values, np.nan)
        low, high = np.fmin.reduce(known, axis=rest), np.fmax.reduce(known, axis=rest)
        spans = list(zip(low.ravel().tolist(), high.ravel().tolist(), strict=True))
    # What float32 holds may still be averaged, and is not when it is that far from 0.
    return values.astype(np.float64) if any(_coarse(*span) for span in spans) else single


def _coarse(low: float, high: float) -> bool:
    far = max(abs(low), abs(high))
    if low == high:
        return far >= _NO_FRACTIONS and float(np.float32(low)) != low
    return low < high and far <= float(np.finfo(np.float32).max) and far * 2.0**-24 > _COARSEST * (high - low)


def grey(colours: Array) -> Array:
    """Return the luma of (3, lengths …) colours: (lengths …), bytes of bytes."""
    if colours.dtype == np.uint8:
        red, green, blue = (weight * channel.astype(np.uint32) for weight, channel in zip(_LUMA, colours, strict=True))
        return ((red + green + blue + 0x8000) >> 16).astype(np.uint8)
    weights = np.array(_LUMA, dtype=np.float64) / 65536
    luma: Array = np.tensordot(weights, colours.astype(np.float64), axes=1)
    return luma if colours.dtype == np.float64 else luma.astype(np.float32)
