"""The grid of samples as a PNG image: a site writes the one that it sends, and whoever receives it keeps its pixels.

What comes from elsewhere may carry other things than pixels, such as text, or unpack to more than this machine holds:
it is read within limits and written anew.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# A grid of samples: classes, one a line, samples of each, the most pixels a side of a sample, and pixels between two.
GRID_CLASSES, GRID_COLUMNS, GRID_PIXELS, GRID_GAP = 8, 8, 64, 2


def encode(pixels: np.ndarray) -> bytes:
    """Write (height, width, channels) uint8 pixels, of 1 or 3 channels; the same pixels give the same bytes."""
    from PIL import Image

    if pixels.shape[2] not in (1, 3) or pixels.dtype != "uint8":
        raise ValueError(f"pixels must be uint8 of 1 or 3 channels, got {pixels.dtype} of {pixels.shape[2]}")
    packed = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(packed, "PNG", compress_level=9)
    return packed.getvalue()


def pixels_only(content: bytes, *, most_side: int) -> bytes:
    """Return the pixels of a PNG image as `encode` writes them, and nothing else that it holds.

    Raises
    ------
    ValueError
        When it is no whole PNG image of 8 bits, grey or RGB, of at most `most_side` pixels a side; saying which.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # Only the header was read so far.
            if max(image.size) > most_side:
                raise ValueError(f"the PNG image is of more than {most_side} pixels a side")
            if image.mode not in ("L", "RGB"):
                raise ValueError("the PNG image is not of 8 bits, grey or RGB")
            pixels = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("it is no PNG image, or a damaged one") from None
    return encode(pixels.reshape(*pixels.shape[:2], -1))
