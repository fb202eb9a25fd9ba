"""DICOM objects that are not plain images: floats, parametric maps, parts of a volume, tilted and bent stacks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pictures import cause_of, scan

from v6_algorithm.data.imaging.files import read_image

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(11)
VOLUME = RNG.integers(0, 4000, (4, 5, 6)).astype(np.uint16)


def group(**attributes):
    data = pydicom.Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return pydicom.Sequence([data])


def stack(file, places, **attributes):
    """Write frames of an axial stack whose first pixels are at these places, in millimetres."""
    shared, frames = pydicom.Dataset(), []
    shared.PixelMeasuresSequence = group(PixelSpacing=[1, 1])
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    for place in places:
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[f"{value:.6g}" for value in place])
        frames.append(frame)
    groups = {"SharedFunctionalGroupsSequence": pydicom.Sequence([shared])}
    groups |= {"PerFrameFunctionalGroupsSequence": pydicom.Sequence(frames)}
    return scan(file, VOLUME, **groups, **attributes)


@pytest.mark.parametrize(
    ("aside", "assumed"), [([0, 0, 0, 0], set()), ([0, 1, 2, 3], {"sheared"}), ([0, 0.01, 0, 0.01], set())]
)
def test_slices_of_a_tilted_gantry_are_read_as_stored_and_told(tmp_path, aside, assumed):
    picture = read_image(stack(tmp_path / "a.dcm", [(0, aside[n], 3 * n) for n in range(4)]), 3, None)
    assert set(picture.assumed) == assumed
    np.testing.assert_array_equal(picture.values[0], VOLUME.transpose(2, 1, 0)[::-1, ::-1])


def test_slices_that_stand_aside_of_a_straight_line_are_refused(tmp_path):
    assert cause_of(stack(tmp_path / "a.dcm", [(0, 5 * (n % 2), 3 * n) for n in range(4)]), 3) == "geometry"


def test_a_part_of_a_volume_in_several_files_is_refused_as_that(tmp_path):
    places = [(0, 0, 3 * n) for n in range(4)]
    file = stack(tmp_path / "a.dcm", places, ConcatenationUID="1.2.3", InConcatenationNumber=1)
    assert cause_of(file, 3) == "part"


def floats(file, values, **attributes):
    """Write an image of 32-bit floats, which has neither bits stored nor a sign."""
    content = pydicom.dcmread(scan(file, values.astype(np.uint16), **attributes))
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(content, name)
    content.BitsAllocated, content.FloatPixelData = 32, values.astype("<f4").tobytes()
    content.save_as(file)
    return file


def test_floats_are_as_stored(tmp_path):
    values = RNG.normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_array_equal(read_image(floats(tmp_path / "a.dcm", values), 2, None).values[0], values)


@pytest.mark.parametrize(("kind", "slope"), [("1.2.840.10008.5.1.4.1.1.30", 0.5), ("1.2.840.10008.5.1.4.1.1.4.1", 1)])
def test_a_parametric_map_has_its_real_values(tmp_path, kind, slope):
    shared = pydicom.Dataset()
    shared.RealWorldValueMappingSequence = group(RealWorldValueSlope=0.5, RealWorldValueIntercept=-3.0)
    file = scan(tmp_path / "a.dcm", VOLUME[0], SharedFunctionalGroupsSequence=pydicom.Sequence([shared]))
    content = pydicom.dcmread(file)
    content.SOPClassUID = kind
    content.save_as(file)
    expected = VOLUME[0] * slope + (-3 if slope == 0.5 else 0)
    np.testing.assert_allclose(read_image(file, 2, None).values[0], expected)


@pytest.mark.parametrize("name", ["rtplan.dcm", "rtstruct.dcm", "waveform_ecg.dcm", "reportsi.dcm", "DICOMDIR"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_object_without_an_image_is_refused_as_that(name, dimensions):
    assert cause_of(Path(pydicom.data.get_testdata_file(name)), dimensions) == "no_pixels"


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_lossy_jpeg_of_twelve_bits_is_no_damage(name):
    pytest.importorskip("gdcm")
    if find_spec("libjpeg"):
        pytest.skip("pylibjpeg-libjpeg, which reads it, is installed")
    assert cause_of(Path(pydicom.data.get_testdata_file(name)), 2) == "compression"
