"""PNG images without a library: a site writes the grid of samples that it sends, and whoever receives it checks it.

Only what `encode` writes is read: 8 bits, grey or RGB, whole lines without a filter. A file from elsewhere is refused,
for it may carry other things than pixels, or unpack to more than this machine holds.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# A grid of samples: classes, one a line, samples of each, the most pixels a side of a sample, and pixels between two.
GRID_CLASSES, GRID_COLUMNS, GRID_PIXELS, GRID_GAP = 8, 8, 64, 2

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of the colour types of the format, those of one and of three values a pixel.
_COLOUR_TYPES = {1: 0, 3: 2}
_CHANNELS = {colour: channels for channels, colour in _COLOUR_TYPES.items()}


def encode(pixels: np.ndarray) -> bytes:
    """Write (height, width, channels) uint8 pixels, of 1 or 3 channels; the same pixels give the same bytes."""
    height, width, channels = pixels.shape
    if channels not in _COLOUR_TYPES or pixels.dtype != "uint8":
        raise ValueError(f"pixels must be uint8 of 1 or 3 channels, got {pixels.dtype} of {channels}")
    # Every line begins with the number of its filter: 0, none.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b"")
    return _SIGNATURE + b"".join(chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def check(content: bytes, *, most_side: int) -> None:
    """Refuse anything but a whole PNG as `encode` writes it, of at most `most_side` pixels a side.

    Raises
    ------
    ValueError
        Saying what was expected.
    """
    if content[:8] != _SIGNATURE:
        raise ValueError("it is no PNG image")
    chunks, rest = [], content[8:]
    while rest:
        length = int.from_bytes(rest[:4], "big")
        name, own = rest[4:8], rest[8 : 8 + length]
        if _chunk(name, own) != rest[: 12 + length]:
            raise ValueError("the PNG image is damaged")
        chunks.append((name, own))
        rest = rest[12 + length :]
    if [name for name, _ in chunks] != [b"IHDR", b"IDAT", b"IEND"] or len(chunks[0][1]) != 13:
        raise ValueError("the PNG image holds other things than pixels")
    width, height, depth, colour, *ways = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth != 8 or colour not in _CHANNELS or any(ways):
        raise ValueError("the PNG image is not of 8 bits, grey or RGB")
    if not 0 < width <= most_side or not 0 < height <= most_side:
        raise ValueError(f"the PNG image is of more than {most_side} pixels a side, or of none")
    size = height * (1 + width * _CHANNELS[colour])
    unpacking = zlib.decompressobj()
    try:
        lines = unpacking.decompress(chunks[1][1], size + 1)
    except zlib.error:
        raise ValueError("the PNG image is damaged") from None
    if len(lines) != size or not unpacking.eof or unpacking.unused_data or chunks[2][1]:
        raise ValueError("the PNG image does not hold as many pixels as it says")
