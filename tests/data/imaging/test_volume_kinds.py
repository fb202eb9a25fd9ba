"""One scan as NIfTI, NRRD, MetaImage and MINC is one tensor with one spacing; what does not fit is refused by name."""

from __future__ import annotations

import itertools
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import cause_of

from v6_algorithm.data.imaging.detached import with_companions
from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.metaimage import _header
from v6_algorithm.data.imaging.picture import CAUSES
from v6_algorithm.data.imaging.stack import find_images
from v6_algorithm.data.rows.image_files import ImageFiles
from v6_algorithm.data.rows.kind import Shelf
from v6_algorithm.data.rows.series import Series
from v6_algorithm.data.sequences import describe_sequences
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data, Sequence

nibabel = pytest.importorskip("nibabel")
RNG = np.random.default_rng(5)
VALUES = RNG.integers(-900, 900, (5, 4, 3)).astype("<i2")
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in [(1, 1, 1), (-1, 1, -1), (1, -1, -1)]
]


def affine_of(axes, signs, tilt=0.1):
    """A right, anterior, superior affine whose axes go where they are told to, and are 0.7, 1.1 and 2.5 mm apart."""
    affine = np.zeros((4, 4))
    for column, (axis, sign, mm) in enumerate(zip(axes, signs, (0.7, 1.1, 2.5), strict=True)):
        affine[axis, column] = sign * mm
    affine[:3] = nibabel.eulerangles.euler2mat(tilt, -tilt, tilt / 2) @ affine[:3]
    affine[:, 3] = -30, 20, 100, 1
    return affine


def nifti(file, values, affine):
    nibabel.save(nibabel.Nifti1Image(values, affine), file)
    return file


def text(numbers):
    return " ".join(f"{number:.10g}" for number in np.ravel(numbers))


def nrrd(file, values, directions=None, space="left-posterior-superior", data=None, **lines):
    """Write the lines of an NRRD header, and its values behind it or in a file of their own."""
    kind = {"i2": "short", "u1": "uint8", "f4": "float", "c8": "block"}[values.dtype.str[1:]]
    header = ["NRRD0004", f"type: {kind}", f"dimension: {values.ndim}", f"sizes: {text(values.shape)}"]
    header += ["encoding: raw", "endian: little"]
    header += [f"space: {space}"] if space else []
    if directions is not None:
        written = ("none" if step is None else f"({','.join(f'{mm:.10g}' for mm in step)})" for step in directions)
        header += [f"space directions: {' '.join(written)}"]
    header += [f"{name.replace('_', ' ')}: {value}" for name, value in lines.items()]
    header += [f"data file: {data}"] if data else []
    content = values.astype(values.dtype.newbyteorder("<")).tobytes(order="F")
    file.write_bytes("\n".join(header).encode() + b"\n\n" + (b"" if data else content))
    if data:
        (file.parent / data).write_bytes(content)
    return file


def metaimage(file, values, matrix=None, spacing=None, offset=None, colours=1, data="LOCAL", order="<", **lines):
    """Write a MetaImage file of (x, y, …) values, or (colours, x, y, …)."""
    sizes = values.shape[1:] if colours > 1 else values.shape
    kind = {"i2": "MET_SHORT", "u1": "MET_UCHAR", "f4": "MET_FLOAT"}[values.dtype.str[1:]]
    header = {"ObjectType": "Image", "NDims": len(sizes), "BinaryData": "True"}
    header |= {"BinaryDataByteOrderMSB": str(order == ">")}
    header |= {} if matrix is None else {"TransformMatrix": text(matrix)}
    header |= {} if offset is None else {"Offset": text(offset)}
    header |= {} if spacing is None else {"ElementSpacing": text(spacing)}
    header |= {"DimSize": text(sizes), "ElementNumberOfChannels": colours, "ElementType": kind, **lines}
    content = values.astype(values.dtype.newbyteorder(order)).tobytes(order="F")
    if lines.get("CompressedData") == "True":
        content = zlib.compress(content)
    written = "".join(f"{name} = {value}\n" for name, value in (header | {"ElementDataFile": data}).items())
    file.write_bytes(written.encode() + (content if data == "LOCAL" else b""))
    if data != "LOCAL" and "%" not in data and "/" not in data and data != "LIST":
        (file.parent / data).write_bytes(content)
    return file


def lps(affine):
    """Steps along the axes, and the origin, to the left, posterior and superior."""
    turned = np.diag([-1.0, -1, 1, 1]) @ affine
    return turned[:3, :3].T, turned[:3, 3]


def same(one, other):
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_allclose(one.spacing, other.spacing, rtol=1e-5)


# -- MetaImage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_a_metaimage_is_the_same_tensor_as_its_nifti(tmp_path, axes, signs):
    affine = affine_of(axes, signs)
    steps, origin = lps(affine)
    spacing = np.linalg.norm(steps, axis=1)
    file = metaimage(tmp_path / "a.mha", VALUES, steps / spacing[:, None], spacing, origin)
    picture = read_image(file, 3, None)
    same(picture, read_image(nifti(tmp_path / "a.nii", VALUES, affine), 3, None))
    assert picture.assumed == {}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("data", ["LOCAL", "a.raw", "./a.zraw"])
@pytest.mark.parametrize("compressed", ["True", "False"])
def test_a_metaimage_has_its_values_wherever_and_however_they_are_stored(tmp_path, order, data, compressed):
    given = {"matrix": np.eye(3), "spacing": (1, 2, 3)}
    reference = read_image(metaimage(tmp_path / "a.mha", VALUES, **given), 3, None)
    np.testing.assert_array_equal(reference.values[0], VALUES[::-1, ::-1])
    if data.startswith("./"):
        metaimage(tmp_path / "a.mhd", VALUES, **given, data=data[2:], order=order, CompressedData=compressed)
        content = (tmp_path / "a.mhd").read_text()
        (tmp_path / "a.mhd").write_text(content.replace("= a.zraw", f"= {data}"))
    else:
        metaimage(tmp_path / "a.mhd", VALUES, **given, data=data, order=order, CompressedData=compressed)
    same(read_image(tmp_path / "a.mhd", 3, None), reference)


def test_channels_of_a_metaimage_are_no_axis_of_space(tmp_path):
    colours = RNG.integers(0, 256, (3, 5, 4, 2), dtype=np.uint8)
    picture = read_image(metaimage(tmp_path / "a.mha", colours, np.eye(3), (1, 1, 1), colours=3), 3, None)
    np.testing.assert_array_equal(picture.values, colours[:, ::-1, ::-1])
    flat = read_image(metaimage(tmp_path / "b.mha", colours[..., 0], np.eye(2), (1, 1), colours=3), 2, 3)
    np.testing.assert_array_equal(flat.values, colours[:, ::-1, ::-1, 0])
    assert set(flat.assumed) == {"slice axes"}


def test_text_and_what_stands_before_the_values_of_a_metaimage(tmp_path):
    given = {"matrix": np.eye(3), "spacing": (1, 1, 1)}
    file = metaimage(tmp_path / "a.mha", VALUES, **given, BinaryData="False")
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"LOCAL\n") + 6] + text(VALUES.ravel(order="F")).encode())
    np.testing.assert_array_equal(read_image(file, 3, None).values[0], VALUES[::-1, ::-1])
    for size in (7, -1):
        metaimage(tmp_path / "b.mhd", VALUES, **given, data="b.raw", HeaderSize=size)
        raw = tmp_path / "b.raw"
        raw.write_bytes(b"1234567" + raw.read_bytes())
        np.testing.assert_array_equal(read_image(tmp_path / "b.mhd", 3, None).values[0], VALUES[::-1, ::-1])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"data": "a%03d.raw"}, "part"),
        ({"data": "LIST"}, "part"),
        ({"data": "../a.raw"}, "pair"),
        ({"ElementType": "MET_STRING"}, "no_numbers"),
        ({"DimSize": "5 4 9"}, "damaged"),
        ({"DimSize": "5 4"}, "damaged"),
    ],
)
def test_what_a_metaimage_says_that_does_not_fit_is_refused(tmp_path, change, cause):
    assert cause_of(metaimage(tmp_path / "a.mhd", VALUES, np.eye(3), (1, 1, 1), **change), 3) == cause


def test_a_metaimage_without_its_values_or_with_times_is_refused(tmp_path):
    file = metaimage(tmp_path / "a.mhd", VALUES, np.eye(3), (1, 1, 1), data="a.raw")
    (tmp_path / "a.raw").rename(tmp_path / "b.raw")
    assert cause_of(file, 3) == "pair"
    (tmp_path / "a.raw").symlink_to(tmp_path / "b.raw")
    assert cause_of(file, 3) == "pair"
    series = metaimage(tmp_path / "c.mha", np.stack([VALUES, VALUES], -1), np.eye(4), (1, 1, 1, 1))
    assert cause_of(series, 3) == "time"
    alone = metaimage(tmp_path / "d.mha", VALUES[..., None], np.eye(4), (1, 2, 3, 1))
    np.testing.assert_array_equal(read_image(alone, 3, None).values[0], VALUES[::-1, ::-1])
    assert cause_of(metaimage(tmp_path / "e.mha", VALUES[..., 0], np.eye(2), (1, 1)), 3) == "flat"
    assert cause_of(alone, 2) == "volume"


def test_a_metaimage_that_says_nothing_of_space_is_told(tmp_path):
    picture = read_image(metaimage(tmp_path / "a.mha", VALUES), 3, None)
    assert (picture.spacing, set(picture.assumed)) == (None, {"orientation"})


# -- NRRD ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pynrrd():
    return pytest.importorskip("nrrd")


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_an_nrrd_is_the_same_tensor_as_its_nifti(pynrrd, tmp_path, axes, signs, space):
    affine = affine_of(axes, signs)
    turn = {"left-posterior-superior": (-1, -1, 1), "RAS": (1, 1, 1), "left-anterior-superior": (-1, 1, 1)}[space]
    steps = (np.diag(turn) @ affine[:3, :3]).T
    picture = read_image(nrrd(tmp_path / "a.nrrd", VALUES, steps, space, space_origin="(1,2,3)"), 3, None)
    same(picture, read_image(nifti(tmp_path / "a.nii", VALUES, affine), 3, None))
    assert picture.assumed == {}


@pytest.mark.parametrize(("kind", "place"), [("RGB-color", 0), ("vector", 0), ("vector", 3), ("3-color", 3)])
def test_an_axis_of_colours_or_vectors_of_an_nrrd_is_the_channels(pynrrd, tmp_path, kind, place):
    colours = RNG.integers(0, 256, (5, 4, 2, 3), dtype=np.uint8)
    steps = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    steps.insert(place, None)
    kinds = ["domain"] * 3
    kinds.insert(place, kind)
    file = nrrd(tmp_path / "a.nrrd", np.moveaxis(colours, -1, place), steps, kinds=" ".join(kinds))
    picture = read_image(file, 3, None)
    np.testing.assert_array_equal(picture.values, np.moveaxis(colours, -1, 0)[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("kind", "space", "cause"),
    [
        ("list", "LPS", "time"),
        ("time", "LPS", "time"),
        ("complex", "LPS", "complex"),
        ("none", "LPS", "axes"),
        ("vector", "left-posterior-superior-time", "time"),
    ],
)
def test_an_axis_of_an_nrrd_that_is_no_channels_is_refused(pynrrd, tmp_path, kind, space, cause):
    steps = [[1, 0, 0], [0, 1, 0], [0, 0, 1], None]
    file = nrrd(tmp_path / "a.nrrd", np.stack([VALUES, VALUES], -1), steps, space, kinds=f"domain domain domain {kind}")
    assert cause_of(file, 3) == cause


def test_an_nrrd_without_a_named_space_is_told_and_has_the_spacing_that_it_says(pynrrd, tmp_path):
    picture = read_image(nrrd(tmp_path / "a.nrrd", VALUES, space="", spacings="2 3 4"), 3, None)
    np.testing.assert_array_equal(picture.values[0], VALUES[::-1, ::-1])
    assert (picture.spacing, set(picture.assumed)) == ((2, 3, 4), {"orientation"})
    assert read_image(nrrd(tmp_path / "b.nrrd", VALUES, space=""), 3, None).spacing is None
    steps = np.diag([1.0, 2, 3])
    other = read_image(nrrd(tmp_path / "c.nrrd", VALUES, steps, "3D-right-handed"), 3, None)
    assert (other.spacing, set(other.assumed)) == ((1, 2, 3), {"orientation"})
    metres = read_image(nrrd(tmp_path / "d.nrrd", VALUES, steps / 1e3, space_units='"m" "m" "m"'), 3, None)
    np.testing.assert_allclose(metres.spacing, (1, 2, 3))


def test_a_detached_nrrd_has_its_values_beside_it_and_nowhere_else(pynrrd, tmp_path):
    reference = read_image(nrrd(tmp_path / "a.nrrd", VALUES, np.eye(3)), 3, None)
    same(read_image(nrrd(tmp_path / "b.nhdr", VALUES, np.eye(3), data="b.raw"), 3, None), reference)
    (tmp_path / "in").mkdir()
    content = (tmp_path / "b.nhdr").read_bytes()
    for name in (b"../b.raw", str(tmp_path / "b.raw").encode(), b"c.raw"):
        (tmp_path / "in" / "b.nhdr").write_bytes(content.replace(b"file: b.raw", b"file: " + name))
        assert cause_of(tmp_path / "in" / "b.nhdr", 3) == "pair"
    (tmp_path / "in" / "b.nhdr").write_bytes(content.replace(b"file: b.raw", b"file: b%d.raw 1 3 1"))
    assert cause_of(tmp_path / "in" / "b.nhdr", 3) == "part"


def test_a_slice_of_an_nrrd_lies_as_that_of_nifti(pynrrd, tmp_path):
    affine = affine_of((0, 2, 1), (1, -1, 1), tilt=0)
    steps, origin = lps(affine)
    image = VALUES[:, :, :1]
    reference = read_image(nifti(tmp_path / "a.nii", image, affine), 2, None)
    whole = read_image(
        nrrd(tmp_path / "a.nrrd", image, steps, space_origin=f"({text(origin).replace(' ', ',')})"), 2, None
    )
    flat = read_image(nrrd(tmp_path / "b.nrrd", image[..., 0], steps[:2]), 2, None)
    for picture in (whole, flat):
        np.testing.assert_array_equal(picture.values, reference.values)
        assert set(picture.assumed) == {"slice axes"}
    assert cause_of(tmp_path / "b.nrrd", 3) == "flat"


# -- MINC ----------------------------------------------------------------------------------------------------------

MINC = sorted((Path(nibabel.__file__).parent / "tests" / "data").glob("*.mnc"))


@pytest.mark.parametrize("file", MINC, ids=lambda file: file.name)
def test_a_minc_file_of_nibabel_has_nibabels_values(file):
    if file.name.startswith("minc2") or file.name == "small.mnc":
        pytest.importorskip("h5py")
    if "4d" in file.name:
        assert cause_of(file, 3) == "time"
        return
    image = nibabel.as_closest_canonical(nibabel.load(file))
    picture = read_image(file, 3, None)
    np.testing.assert_allclose(picture.values[0], image.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(picture.spacing, np.linalg.norm(image.affine[:3, :3], axis=0))


@pytest.mark.parametrize("names", [("zspace", "yspace", "xspace"), ("xspace", "zspace", "yspace")])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_minc_file_is_the_same_tensor_as_its_nifti(tmp_path, names, sign):
    h5py = pytest.importorskip("h5py")
    steps = dict(zip(("xspace", "yspace", "zspace"), (0.7 * sign, 1.1, 2.5), strict=True))
    with h5py.File(tmp_path / "a.mnc", "w") as file:
        image = file.create_group("minc-2.0/image/0")
        image["image"] = VALUES
        image["image"].attrs["dimorder"] = np.bytes_(",".join(names))
        image["image"].attrs["valid_range"] = np.array([-1000.0, 1000])
        image["image-max"], image["image-min"] = 500.0, -500.0
        for name in names:
            dimension = file.create_dataset(f"minc-2.0/dimensions/{name}", data=0)
            dimension.attrs.update({"step": steps[name], "start": 3.0, "spacing": np.bytes_("regular__")})
    affine = np.zeros((4, 4))
    for column, name in enumerate(names):
        affine["xyz".index(name[0]), column] = steps[name]
    affine[3, 3] = 1
    nibabel.save(nibabel.Nifti1Image(VALUES / np.float64(2), affine), tmp_path / "a.nii")
    same(read_image(tmp_path / "a.mnc", 3, None), read_image(tmp_path / "a.nii", 3, None))


# -- NIfTI, and what is told ---------------------------------------------------------------------------------------


def test_two_affines_by_which_a_volume_would_be_another_are_told(tmp_path):
    image = nibabel.Nifti1Image(VALUES, np.diag([2.0, 3, 4, 1]))
    for qform, told in [
        (np.diag([2.0, 3, 4, 1]), set()),
        (np.diag([-2.0, 3, 4, 1]), {"two affines"}),
        (np.diag([2.0, 3, 5, 1]), {"two affines"}),
        (affine_of((0, 1, 2), (1, 1, 1), 0.01) * [2 / 0.7, 3 / 1.1, 4 / 2.5, 1], set()),
    ]:
        image.set_qform(qform, code=1)
        image.set_sform(np.diag([2.0, 3, 4, 1]), code=1)
        nibabel.save(image, tmp_path / "a.nii")
        picture = read_image(tmp_path / "a.nii", 3, None)
        assert set(picture.assumed) == told
        np.testing.assert_array_equal(picture.values[0], VALUES)
    image.set_qform(np.diag([-2.0, 3, 4, 1]), code=0)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii", 3, None).assumed == {}


def test_slices_that_are_shifted_against_each_other_are_told(tmp_path):
    affine = np.diag([1.0, 1, 3, 1])
    assert read_image(nifti(tmp_path / "a.nii", VALUES, affine), 3, None).assumed == {}
    affine[1, 2] = 0.5
    assert set(read_image(nifti(tmp_path / "a.nii", VALUES, affine), 3, None).assumed) == {"sheared"}


def test_complex_numbers_are_refused_as_that(tmp_path):
    assert cause_of(nifti(tmp_path / "a.nii", VALUES.astype(np.complex64), np.eye(4)), 3) == "complex"
    np.save(tmp_path / "a.npy", VALUES.astype(np.complex128))
    assert cause_of(tmp_path / "a.npy", 3) == "complex"


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause"),
    [("a.PAR", "format"), ("a.heic", "pictures"), ("a.svs", "slides"), ("a.npz", "archives"), ("a.edf", "recordings")],
)
def test_what_is_not_read_is_named_with_its_remedy(tmp_path, name, cause):
    (tmp_path / name).write_bytes(b"x")
    assert find_images(pd.Series([name]), tmp_path) == [cause]
    assert name.partition(".")[2].upper() in CAUSES[cause].upper()


def test_masks_beside_their_images_are_told_where_they_are_read_as_images(tmp_path):
    names = ["p1.nii.gz", "p1_seg.nii.gz", "p2.nii.gz", "p2-mask.nii.gz", "p3_T1w.nii.gz", "p4_seg.nii.gz"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    told = {}
    find_images(pd.Series(names), tmp_path, told)
    assert told == {"masks": ([], 2)}
    none = {}
    find_images(pd.Series(["p1.nii.gz", "p2.nii.gz", "p3_T1w.nii.gz"]), tmp_path, none)
    assert none == {}


@pytest.mark.parametrize("kind", ["pair", "mhd", "nhdr"])
def test_what_is_kept_of_an_image_is_read_again_when_only_its_values_change(tmp_path, kind):
    if kind == "pair":
        nibabel.save(nibabel.Nifti1Pair(VALUES, np.eye(4)), tmp_path / "a.img")
        name, data = "a.hdr", "a.img"
    else:
        name, data = f"a.{kind}", "values.raw"
        (metaimage if kind == "mhd" else nrrd)(tmp_path / name, VALUES, np.eye(3), data=data)
    (tmp_path / "t.csv").write_text(f"file,y\n{name},1\n")
    rows = ImageFiles(Data.model_validate({"target": "y", "image": {"column": "file", "dimensions": 3}}))
    source = TableSource(str(tmp_path / "t.csv"))
    before = rows.fingerprint(source)
    assert rows.fingerprint(TableSource(str(tmp_path / "t.csv"))) == before
    os.utime(tmp_path / data, ns=(1, 1))
    assert rows.fingerprint(TableSource(str(tmp_path / "t.csv"))) != before
    assert with_companions([tmp_path / name, None, "ending"])[3:] == [tmp_path / data]


@pytest.mark.parametrize(("value", "told"), [(np.nan, {"gaps": ([], 2)}), (np.inf, {"gaps": ([], 2)}), (1.0, {})])
@pytest.mark.parametrize("files", [True, False])
def test_gaps_of_series_are_told(tmp_path, value, told, files):
    cells = [np.ones((4, 2)) for _ in range(5)]
    cells[1][0, 1] = cells[3][2, 0] = value
    (tmp_path / "t.csv").write_text("s,y\n")
    for number, cell in enumerate(cells):
        np.save(tmp_path / f"{number}.npy", cell)
    frame = pd.DataFrame(
        {"s": [f"{number}.npy" for number in range(5)] if files else [cell.tolist() for cell in cells]}
    )
    source = TableSource(str(tmp_path / "t.csv"))
    rows = Series(Data.model_validate({"target": "y", "sequence": {"column": "s"}}))
    rows.read(frame, source, Shelf(lambda _: None))
    assert source.assumed == told


@pytest.mark.parametrize("dtype", ["complex128", "datetime64[D]"])
def test_series_of_complex_numbers_or_dates_are_no_series_of_numbers(dtype):
    column = pd.Series([np.ones((4, 2)).astype("int64").astype(dtype)] * 2, dtype=object)
    with pytest.raises(DataError, match="no arrays of numbers"):
        describe_sequences(column, Sequence(column="s"))


def test_an_encoding_of_nrrd_that_is_not_read_is_no_damage(pynrrd, tmp_path):
    file = nrrd(tmp_path / "a.nrrd", VALUES, np.eye(3))
    file.write_bytes(file.read_bytes().replace(b"encoding: raw", b"encoding: hex"))
    assert cause_of(file, 3) == "layout"


def test_the_first_line_of_a_metaimages_header_is_read_whole():
    assert _header(b"NDims = 3\nElementDataFile = LOCAL\n\0")[0] == {"ndims": "3", "elementdatafile": "LOCAL"}
