"""What a reader of image files returns, why a file cannot be read, and the rules that all kinds of files share.

`raster`, `nifti`, `dicom` and `files` read by it; `stack` counts the causes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

CAUSES = {
    "empty": "no file is named",
    "missing": "the file is not there",
    "damaged": "cut short, damaged, or no image of its kind",
    "decoder": "compressed, and no decoder is installed: pip install 'v6-algorithm[imaging]', which has python-gdcm",
    "compression": "in a compression that is not read, such as video",
    "not_finite": "NaN or infinite values (data.image.fill puts a number in their place)",
    "volume": "a volume, where the problem is of images",
    "flat": "a single image, where the problem is of volumes",
    "time": "several volumes or images in one file, such as a series over time",
    "axes": "axes that fit neither an image nor a volume",
    "channel_axis": "an array that does not say which axis is that of the channels (data.image.channel_axis)",
    "channels": "channels that data.image.channels does not fit",
    "geometry": "frames without positions in space, or unevenly spaced",
    "spacing": "no spacing in millimetres, which data.image.spacing needs",
}
"""Why an image is left out, as a reader of a note is told. The short names are what a site sends, with a count each."""

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
    """

    values: Array
    unit: float = 1.0
    spacing: tuple[float, ...] | None = None


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


def grey(colours: Array) -> Array:
    """Return the luma of (3, lengths …) colours: (lengths …), bytes of bytes."""
    if colours.dtype == np.uint8:
        red, green, blue = (weight * channel.astype(np.uint32) for weight, channel in zip(_LUMA, colours, strict=True))
        return ((red + green + blue + 0x8000) >> 16).astype(np.uint8)
    weights = np.array(_LUMA, dtype=np.float64) / 65536
    return np.tensordot(weights, colours.astype(np.float64), axes=1).astype(np.float32)
