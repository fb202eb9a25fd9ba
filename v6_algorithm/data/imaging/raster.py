"""PNG, JPEG, TIFF, BMP and WEBP by Pillow, whose colours and grey are 0 to 1 whatever their depth in bits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError, narrowed, with_channels

Array = np.ndarray
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
# Tags of TIFF, and what two of them say.
_BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES_ARE = 258, 262, 270, 339
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2
# What ImageJ and OME write about a file's pages: how many there are, and along which axes.
_COUNTS = {"planes": r"(?m)^images=(\d+)", "channels": r"(?m)^channels=(\d+)", "times": r"(?m)^frames=(\d+)"}
_OME_COUNTS = {"channels": r'SizeC="(\d+)"', "times": r'SizeT="(\d+)"'}
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def read_raster(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read an image upright, as its EXIF orientation says, or the pages of a TIFF file as a volume.

    Values of 8 bits stay as they are, in units of 1/255; those of 16 become 0 to 1; TIFF's floats, 32-bit and signed
    integers are as stored. `spans` is what has to stay apart, as `narrowed` takes it.
    """
    # Not by its name: of a file that it maps to memory Pillow 13 turns an uncompressed TIFF's rows the wrong way.
    with file.open("rb") as opened, _opened(opened) as image:
        # A JPEG's further frames are previews of it; Pillow calls one with more of them, as phones write it, MPO.
        frames = getattr(image, "n_frames", 1) if image.format not in ("JPEG", "MPO") else 1
        if dimensions == 2 and frames > 1:
            raise UnreadableImageError("time")
        if dimensions == 3 and (frames == 1 or image.format != "TIFF"):
            raise UnreadableImageError("flat")
        _check_pages(image, frames)
        assumed = {"eight bits": ""} if _loses_bits(image) else {}
        assumed |= {"transparency": ""} if _is_transparent(image) else {}
        pages = []
        for number in range(frames):
            if frames > 1:
                image.seek(number)
            pages.append(_page(image, channels, spans))
    if len({(values.shape, values.dtype, unit) for values, unit in pages}) > 1:
        raise UnreadableImageError("axes")
    values, unit = pages[0]
    stacked = values if dimensions == 2 else np.stack([page for page, _ in pages], axis=1)
    return Picture(stacked, unit, assumed=assumed)


def _opened(file: Any) -> Any:
    """Open an image; one whose header Pillow does not take is of another layout than it reads, if not damaged."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        raise UnreadableImageError("layout" if file.read(8).startswith(_BEGINNINGS) else "damaged") from None


def _check_pages(image: Any, frames: int) -> None:
    """Raise UnreadableImageError where a TIFF's pages are not planes of one image, by what ImageJ or OME say."""
    if image.format != "TIFF":
        return
    said = str(image.tag_v2.get(_DESCRIPTION, ""))
    if said.startswith('{"shape":'):
        _check_shape(said, frames)
    patterns = _COUNTS if said.startswith("ImageJ=") else _OME_COUNTS if "<OME" in said[:1000] else {}
    found = {name: re.search(pattern, said) for name, pattern in patterns.items()}
    counts = {name: int(match[1]) for name, match in found.items() if match}
    # Colours of one page are channels too.
    if counts.get("planes", frames) != frames or counts.get("times", 1) > 1:
        raise UnreadableImageError("time")
    if frames > 1 and counts.get("channels", 1) > 1 and len(image.getbands()) == 1:
        raise UnreadableImageError("time")


def _check_shape(said: str, frames: int) -> None:
    """Raise UnreadableImageError where tifffile wrote that the pages are more than planes, or less than it had."""
    try:
        content = json.loads(said)
        shape, axes = [int(length) for length in content["shape"]], str(content.get("axes", ""))
    except (ValueError, KeyError, TypeError):
        return
    # Without names of axes the last two are those of a page, or before colours.
    named = axes if len(axes) == len(shape) else "Q" * (len(shape) - 2) + "YX"
    further = [(axis, length) for axis, length in zip(named, shape, strict=True) if axis not in "YXS" and length > 1]
    if content.get("truncated"):
        raise UnreadableImageError("time")
    planes = math.prod(length for _, length in further)
    if len(axes) == len(shape) and planes != frames and not (frames == 1 and {axis for axis, _ in further} == {"C"}):
        raise UnreadableImageError("time")
    if frames > 1 and (len(further) > 1 + (shape[-1] in (3, 4)) or {axis for axis, _ in further} & {"C", "T"}):
        raise UnreadableImageError("time")


def _is_transparent(image: Any) -> bool:
    """Say whether any pixel of an image is, whose colour is read all the same."""
    if "A" in image.getbands():
        return bool(image.getchannel("A").getextrema()[0] < 255)
    seen_through = image.info.get("transparency")
    if seen_through is None:
        return False
    if image.mode not in ("L", "RGB", "1"):
        return bool(image.mode == "P")
    return bool((np.asarray(image).astype(np.int64) == seen_through).reshape(*image.size[::-1], -1).all(axis=2).any())


def _loses_bits(image: Any) -> bool:
    """Say whether Pillow reads the upper eight of sixteen bits, as it does of colours and of grey with transparency."""
    if image.format not in ("PNG", "TIFF"):
        return False
    layouts = [arguments if isinstance(arguments, str) else arguments[0] for *_, arguments in image.tile if arguments]
    return image.mode not in (*_SIXTEEN_BITS, "I", "F") and any(";16" in str(layout) for layout in layouts)


def _page(image: Any, channels: int | None, spans: Sequence[Span] | None) -> tuple[Array, float]:
    """Return (channels, height, width) and what 1 in it is worth."""
    from PIL import ExifTags, ImageOps

    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # What cannot be parsed says nothing of how the camera was held.
        turned = False
    upright = ImageOps.exif_transpose(image) if turned else image
    signed = image.format == "TIFF" and _tag(image, _SAMPLES_ARE, _UNSIGNED) == _SIGNED
    if upright.mode in (*_SIXTEEN_BITS, "I", "F") or (upright.mode == "L" and signed):
        values, unit = _deep(np.asarray(upright), image)
        return with_channels(narrowed(values[None], spans), channels), unit
    alone = channels == 1 or (channels is None and upright.mode in ("1", "L", "LA"))
    values = np.asarray(upright.convert("L" if alone else "RGB"))
    return (values[None] if alone else np.ascontiguousarray(values.transpose(2, 0, 1))), 1 / 255


def _deep(values: Array, image: Any) -> tuple[Array, float]:
    """Return the (height, width) values of one channel of more than 8 bits, or with a sign, and what 1 is worth."""
    # Pillow reads PNG's 16 bits of grey as I in some versions, and never more than 16.
    sixteen = image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG")
    most = 65535
    if image.format == "TIFF":
        bits, kind = _tag(image, _BITS, 16), _tag(image, _SAMPLES_ARE, _UNSIGNED)
        most = 2**bits - 1
        # Pillow reads 8 bits as if they had no sign, and 32 as if they had one.
        if values.dtype == np.uint8:
            return values.view(np.int8), 1.0
        if image.mode == "I" and bits == 32 and kind == _UNSIGNED:
            return values.view(np.uint32), 1.0
        # Pillow turns "white is 0", as radiographs are often stored, to white is more of 1 and 8 bits only.
        if sixteen and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = most - values.astype(np.int64)
    return (values / np.float32(most), 1.0) if sixteen else (values, 1.0)


def _tag(image: Any, tag: int, usual: int) -> int:
    """Return the number of a TIFF's tag, of its first channel."""
    said = image.tag_v2.get(tag, usual)
    return int(said[0] if isinstance(said, tuple) else said)
