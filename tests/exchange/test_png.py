"""PNG images as they are written: of one from elsewhere only the pixels are kept."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from v6_algorithm.exchange import png

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_that_were_written_are_read_and_their_bytes_are_always_the_same(channels):
    pixels = PIXELS[..., :channels]
    content = png.encode(pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))).reshape(pixels.shape), pixels)
    assert png.pixels_only(content, most_side=7) == content == png.encode(pixels)


def test_pixels_of_another_form_are_not_written():
    with pytest.raises(ValueError, match="uint8"):
        png.encode(PIXELS / 255)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        png.encode(PIXELS[..., :2])


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def built(*, width=7, height=5, depth=8, colour=2, lines=5 * 22, data=None, extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = zlib.compress(bytes(lines)) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


NAME = b"Comment\0a patient's name"


@pytest.mark.parametrize(
    "content",
    [
        built(),
        built(extra=chunk(b"tEXt", NAME)),
        built(extra=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(NAME))),
        built(extra=chunk(b"eXIf", NAME)),
        built() + NAME,
        built(data=zlib.compress(bytes(5 * 22) + NAME)),
        built(data=zlib.compress(bytes(5 * 22)) + NAME),
        # An image that unpacks to more than it says is read as far as it says.
        built(lines=10**7),
    ],
)
def test_nothing_but_pixels_is_kept(content):
    assert png.pixels_only(content, most_side=10) == png.encode(np.zeros((5, 7, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no PNG"),
        (b"<script>", "no PNG"),
        (built()[:-40], "damaged"),
        (built().replace(b"IDAT", b"IDAU"), "damaged"),
        (built(depth=16, colour=0), "8 bits"),
        (built(colour=3, lines=5 * 8), "8 bits"),
        (built(width=11), "more than 10 pixels"),
        (built(width=2**31 - 1, height=2**31 - 1), "no PNG|more than"),
        (built(height=0), "no PNG"),
        (built(lines=5 * 22 - 1), "damaged"),
        (built(data=b"x" * 20), "damaged"),
    ],
)
def test_what_is_no_such_image_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        png.pixels_only(content, most_side=10)
