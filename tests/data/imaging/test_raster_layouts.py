"""Bits, signs and pages of TIFF and PNG as they are stored: read rightly, told where less is read, refused by name."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pictures import cause_of

from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.picture import CAUSES

pillow = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(3)


def tiff(file, content, width, height, bits, *, kind=1, photometric=1, samples=1):
    """Write one uncompressed page of little-endian TIFF; `kind` is its sample format."""
    many = [bits] * samples
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, many), (259, 3, [1]), (262, 3, [photometric])]
    tags += [
        (273, 4, [8]),
        (277, 3, [samples]),
        (278, 3, [height]),
        (279, 4, [len(content)]),
        (339, 3, [kind] * samples),
    ]
    start = 8 + len(content) + len(content) % 2
    behind = start + 2 + 12 * len(tags) + 4
    entries, further = b"", b""
    for tag, form, numbers in tags:
        value = struct.pack(f"<{len(numbers)}{'H' if form == 3 else 'I'}", *numbers)
        place = struct.pack("<I", behind + len(further)) if len(value) > 4 else value.ljust(4, b"\0")
        further += value if len(value) > 4 else b""
        entries += struct.pack("<HHI", tag, form, len(numbers)) + place
    page = content.ljust(start - 8, b"\0") + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + further
    file.write_bytes(b"II*\0" + struct.pack("<I", start) + page)
    return file


def test_twelve_bits_are_zero_to_one_as_sixteen_are(tmp_path):
    values = RNG.integers(0, 4096, (4, 6))
    packed = b"".join(
        bytes([one >> 4, (one & 15) << 4 | two >> 8, two & 255]) for one, two in values.reshape(-1, 2).tolist()
    )
    picture = read_image(tiff(tmp_path / "a.tif", packed, 6, 4, 12), 2, None)
    np.testing.assert_allclose(picture.values[0] * picture.unit, values / 4095, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_whole_numbers_with_a_sign_or_of_32_bits_are_as_stored(tmp_path, dtype, channels):
    ends = np.iinfo(dtype)
    values = RNG.integers(ends.min, ends.max, (4, 6), dtype=dtype, endpoint=True)
    values[0, :2] = ends.min, ends.max
    kind = 1 if dtype == "uint32" else 2
    file = tiff(tmp_path / "a.tif", values.tobytes(), 6, 4, ends.bits, kind=kind)
    picture = read_image(file, 2, channels)
    assert picture.unit == 1
    for channel in picture.values:
        np.testing.assert_allclose(channel, values, rtol=1e-7)


def test_white_is_zero_is_turned_about_the_bits_that_there_are(tmp_path):
    values = RNG.integers(0, 65536, (4, 6)).astype("<u2")
    picture = read_image(tiff(tmp_path / "a.tif", values.tobytes(), 6, 4, 16, photometric=0), 2, None)
    np.testing.assert_allclose(picture.values[0], 1 - values / 65535, atol=1e-6)


@pytest.mark.parametrize(("bits", "kind", "samples"), [(32, 3, 3), (16, 1, 5), (64, 3, 1)])
def test_bits_or_channels_that_are_not_read_are_no_damage(tmp_path, bits, kind, samples):
    content = bytes(4 * 6 * samples * bits // 8)
    file = tiff(
        tmp_path / "a.tif", content, 6, 4, bits, kind=kind, samples=samples, photometric=2 if samples == 3 else 1
    )
    assert cause_of(file) == "layout"
    assert "store it as npy" in CAUSES["layout"]


@pytest.mark.parametrize(("samples", "told"), [(3, True), (1, False)])
def test_colours_of_sixteen_bits_of_which_eight_are_read_are_told(tmp_path, samples, told):
    values = RNG.integers(0, 65536, (4, 6, samples)).astype("<u2")
    file = tiff(tmp_path / "a.tif", values.tobytes(), 6, 4, 16, samples=samples, photometric=2 if samples == 3 else 1)
    picture = read_image(file, 2, None)
    assert set(picture.assumed) == ({"eight bits"} if told else set())
    np.testing.assert_allclose(picture.values * picture.unit, np.moveaxis(values, -1, 0) / 65535, atol=1 / 255)


def pages(file, description, number=6):
    first, *others = [pillow.fromarray(page) for page in RNG.integers(0, 256, (number, 4, 5), dtype=np.uint8)]
    first.save(file, save_all=True, append_images=others, tiffinfo={270: description} if description else {})
    return file


OME = '<?xml version="1.0"?><OME xmlns="http://x"><Image><Pixels SizeX="5" SizeY="4" SizeZ="{}" SizeC="{}" SizeT="{}"/>'


@pytest.mark.parametrize(
    ("description", "cause"),
    [
        (None, None),
        ("ImageJ=1.53t\nimages=6\nslices=6\n", None),
        ("ImageJ=1.53t\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n", "time"),
        ("ImageJ=1.53t\nimages=6\nframes=6\n", "time"),
        ("ImageJ=1.53t\nimages=60\nslices=60\n", "time"),
        (OME.format(6, 1, 1), None),
        (OME.format(3, 2, 1), "time"),
        (OME.format(1, 1, 6), "time"),
        ('{"shape": [6, 4, 5]}', None),
        ('{"shape": [6, 4, 5], "axes": "ZYX"}', None),
        ('{"shape": [6, 4, 5], "axes": "CYX"}', "time"),
        ('{"shape": [2, 3, 4, 5]}', "time"),
        ('{"shape": [2, 3, 4, 5], "axes": "TZYX"}', "time"),
    ],
)
def test_pages_that_are_channels_or_times_are_no_volume(tmp_path, description, cause):
    file = pages(tmp_path / "a.tif", description)
    if cause is None:
        assert read_image(file, 3, None).values.shape == (1, 6, 4, 5)
    else:
        assert cause_of(file, 3) == cause


def test_the_one_page_of_a_stack_whose_others_follow_without_headers_is_no_image(tmp_path):
    for description in ("ImageJ=1.53t\nimages=40\nslices=40\n", '{"shape": [40, 4, 5], "truncated": true}'):
        assert cause_of(pages(tmp_path / "a.tif", description, number=1)) == "time"
    assert read_image(pages(tmp_path / "b.tif", "ImageJ=1.53t\nimages=1\n", number=1), 2, None).values.shape == (
        1,
        4,
        5,
    )


@pytest.mark.parametrize(("mode", "clear", "told"), [("L", 7, True), ("L", 9, False), ("RGB", (7, 7, 7), True)])
def test_a_colour_that_is_transparent_is_told_where_a_pixel_has_it(tmp_path, mode, clear, told):
    pillow.new(mode, (4, 4), 7 if mode == "L" else (7, 7, 7)).save(tmp_path / "a.png", transparency=clear)
    assert set(read_image(tmp_path / "a.png", 2, None).assumed) == ({"transparency"} if told else set())


def test_sixteen_bits_of_three_colours_in_a_bmp_are_no_sixteen_bits_of_each(tmp_path):
    body = RNG.integers(0, 65536, (6, 8)).astype("<u2").tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, 8, 6, 1, 16, 3, len(body), 0, 0, 0, 0) + struct.pack(
        "<III", 0xF800, 0x7E0, 0x1F
    )
    file = tmp_path / "a.bmp"
    file.write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(header + body), 0, 0, 14 + len(header)) + header + body)
    assert read_image(file, 2, None).assumed == {}
