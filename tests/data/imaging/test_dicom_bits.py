"""How a DICOM file stores its bits changes no value: byte order, sign, unused bits, where the used ones are."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import scan

from v6_algorithm.data.imaging.files import read_image

pydicom = pytest.importorskip("pydicom")

RNG = np.random.default_rng(7)
UNSIGNED = RNG.integers(0, 4096, (6, 8)).astype(np.uint16)
SIGNED = RNG.integers(-2048, 2048, (6, 8)).astype(np.int16)


def stored_as(folder, image, words, photometric="MONOCHROME2", **tags):
    """Write an image of 12 bits whose 16-bit words are these."""
    file = scan(folder / "a.dcm", image, photometric, 12)
    content = pydicom.dcmread(file)
    content.PixelData = words.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(content, name, value)
    content.save_as(file)
    return read_image(file, 2, None).values[0]


@pytest.mark.parametrize("signed", [False, True])
def test_bits_at_the_upper_end_of_a_word_are_the_same_values(tmp_path, signed):
    """They were cut to their lower twelve, which kept eight of the image's and lost its order."""
    image = SIGNED if signed else UNSIGNED
    words = (image.astype(np.int32) << 4).astype(np.uint16) | RNG.integers(0, 16, image.shape).astype(np.uint16)
    np.testing.assert_array_equal(stored_as(tmp_path, image, words, HighBit=15), image)
    turned = stored_as(tmp_path, image, words, "MONOCHROME1", HighBit=15)
    np.testing.assert_array_equal(turned, (-1 if signed else 4095) - image.astype(np.float64))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_an_overlay_in_unused_bits_is_no_part_of_the_image(tmp_path, photometric):
    words = UNSIGNED | (RNG.integers(0, 16, UNSIGNED.shape).astype(np.uint16) << 12)
    expected = UNSIGNED if photometric == "MONOCHROME2" else 4095 - UNSIGNED.astype(np.float64)
    np.testing.assert_array_equal(stored_as(tmp_path, UNSIGNED, words, photometric), expected)


def test_a_negative_number_of_twelve_bits_is_negative_whatever_stands_above_it(tmp_path):
    words = (SIGNED.astype(np.int32) & 0xFFF).astype(np.uint16)
    np.testing.assert_array_equal(stored_as(tmp_path, SIGNED, words), SIGNED)


def test_colours_are_the_same_pixel_by_pixel_and_plane_by_plane(tmp_path):
    colours = RNG.integers(0, 256, (5, 8, 3)).astype(np.uint8)
    file = scan(tmp_path / "a.dcm", UNSIGNED[:5], "MONOCHROME2", 12)
    for planar in (0, 1):
        content = pydicom.dcmread(file)
        content.PhotometricInterpretation, content.SamplesPerPixel, content.PlanarConfiguration = "RGB", 3, planar
        content.BitsAllocated, content.BitsStored, content.HighBit = 8, 8, 7
        content.PixelData = (np.moveaxis(colours, -1, 0) if planar else colours).tobytes()
        content.save_as(tmp_path / "b.dcm")
        picture = read_image(tmp_path / "b.dcm", 2, None)
        np.testing.assert_array_equal(picture.values, np.moveaxis(colours, -1, 0))
