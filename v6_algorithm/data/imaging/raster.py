"""PNG, JPEG, TIFF, BMP and WEBP by Pillow, whose colours and grey are 0 to 1 whatever their depth in bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError, narrowed, with_channels

Array = np.ndarray
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def read_raster(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read an image upright, as its EXIF orientation says, or the pages of a TIFF file as a volume.

    Values of 8 bits stay as they are, in units of 1/255; those of 16 become 0 to 1; TIFF's floats, 32-bit and signed
    integers are as stored. `spans` is what has to stay apart, as `narrowed` takes it.
    """
    from PIL import Image

    # Not by its name: of a file that it maps to memory Pillow 13 turns an uncompressed TIFF's rows the wrong way.
    with file.open("rb") as opened, Image.open(opened, formats=_FORMATS) as image:
        # A JPEG's further frames are previews of it; Pillow calls one with more of them, as phones write it, MPO.
        frames = getattr(image, "n_frames", 1) if image.format not in ("JPEG", "MPO") else 1
        if dimensions == 2 and frames > 1:
            raise UnreadableImageError("time")
        if dimensions == 3 and (frames == 1 or image.format != "TIFF"):
            raise UnreadableImageError("flat")
        seen_through = _is_transparent(image)
        pages = []
        for number in range(frames):
            if frames > 1:
                image.seek(number)
            pages.append(_page(image, channels, spans))
    if len({(values.shape, values.dtype, unit) for values, unit in pages}) > 1:
        raise UnreadableImageError("axes")
    values, unit = pages[0]
    stacked = values if dimensions == 2 else np.stack([page for page, _ in pages], axis=1)
    return Picture(stacked, unit, assumed={"transparency": ""} if seen_through else {})


def _is_transparent(image: Any) -> bool:
    """Say whether any pixel of an image is, whose colour is read all the same."""
    if "A" in image.getbands():
        return bool(image.getchannel("A").getextrema()[0] < 255)
    return "transparency" in image.info and image.mode == "P"


def _page(image: Any, channels: int | None, spans: Sequence[Span] | None) -> tuple[Array, float]:
    """Return (channels, height, width) and what 1 in it is worth."""
    from PIL import ExifTags, ImageOps

    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # What cannot be parsed says nothing of how the camera was held.
        turned = False
    upright = ImageOps.exif_transpose(image) if turned else image
    if upright.mode in (*_SIXTEEN_BITS, "I", "F"):
        values = narrowed(np.asarray(upright)[None], spans)
        # Pillow reads PNG's 16 bits of grey as I in some versions, and never more than 16.
        sixteen = upright.mode in _SIXTEEN_BITS or (upright.mode == "I" and image.format == "PNG")
        # Pillow turns "white is 0", as radiographs are often stored, to white is more of 1 and 8 bits only.
        if sixteen and image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = 65535 - values
        return with_channels(values / np.float32(65535) if sixteen else values, channels), 1.0
    alone = channels == 1 or (channels is None and upright.mode in ("1", "L", "LA"))
    values = np.asarray(upright.convert("L" if alone else "RGB"))
    return (values[None] if alone else np.ascontiguousarray(values.transpose(2, 0, 1))), 1 / 255
