"""PNG images as they are written: any reader reads them, and a file that holds anything else is refused."""

import io
import struct
import zlib

import numpy as np
import pytest

from v6_algorithm.exchange import png

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_reads_the_pixels_that_were_written(channels):
    image = pytest.importorskip("PIL.Image")
    pixels = PIXELS[..., :channels]
    read = np.asarray(image.open(io.BytesIO(png.encode(pixels))))
    assert np.array_equal(read.reshape(pixels.shape), pixels)


def test_what_was_written_passes_the_check():
    png.check(png.encode(PIXELS), most_side=7)
    png.check(png.encode(PIXELS[..., :1]), most_side=7)


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


def test_the_builder_of_the_next_test_builds_what_passes():
    png.check(built(), most_side=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no PNG"),
        (b"<script>", "no PNG"),
        (png.encode(PIXELS)[:-1], "damaged"),
        (png.encode(PIXELS) + b"more", "damaged"),
        (png.encode(PIXELS).replace(b"IDAT", b"IDAU"), "damaged"),
        (built(extra=chunk(b"tEXt", b"Comment\0a patient's name")), "other things than pixels"),
        (built(depth=16), "8 bits"),
        (built(colour=3), "8 bits"),
        (built(width=11), "more than 10 pixels"),
        (built(height=0), "or of none"),
        (built(lines=5 * 22 - 1), "as many pixels"),
        (built(lines=10**7), "as many pixels"),
        (built(data=b"x" * 20), "damaged"),
        (built(data=zlib.compress(bytes(5 * 22)) + b"more"), "as many pixels"),
    ],
)
def test_what_is_no_such_image_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        png.check(content, most_side=10)
