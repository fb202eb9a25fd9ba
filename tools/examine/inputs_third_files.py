"""B, third sample: image files as pydicom, nibabel and scikit-image ship them, against what these libraries read.

Files of scikit-image are tried where it is installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.making import hospital, read, train
from tools.examine.tries import Seen, case, same, true

Array = np.ndarray
_third = {"sample": "third"}


def _of(package: str, *parts: str) -> Path:
    found = find_spec(package)
    return Path(str(found and found.origin)).parent.joinpath(*parts)


PYDICOM = _of("pydicom", "data", "test_files")
NIBABEL = _of("nibabel", "tests", "data")
SIEMENS = _of("nibabel", "nicom", "tests", "data")
SKIMAGE = _of("skimage", "data")


def _copied(folder: Path, file: Path, name: str = "") -> str:
    """Copy a file into a hospital's folder; return its name there."""
    shutil.copy(file, folder / (name or file.name))
    return name or file.name


def _pydicom(file: Path) -> Array:
    """Return a DICOM file's rescaled values by pydicom: (rows, columns), or with frames in front."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    content = pydicom.dcmread(file, force=True)
    return np.asarray(apply_modality_lut(content.pixel_array, content), dtype=np.float64)


def _nibabel(file: Path) -> Array:
    """Return a volume by nibabel, turned to right, anterior, superior, with an axis of channels in front."""
    import nibabel

    return np.asarray(nibabel.as_closest_canonical(nibabel.load(file)).dataobj, dtype=np.float64)[None]


def _register(function: Callable[[Path], Seen], about: str, **options: str) -> None:
    function.__doc__ = about
    case(options.pop("kind"), **options, **_third)(function)


# Single DICOM files, read as pydicom reads them.
for _kind, _name, _about in (
    ("B1", "CT_small.dcm", "pydicom's CT_small: Hounsfield units by slope and intercept"),
    ("B1", "MR_small_padded.dcm", "pydicom's MR_small_padded: bytes behind the pixels"),
    ("B1", "MR_small_bigendian.dcm", "pydicom's MR in big endian"),
    ("B1", "MR_small_RLE.dcm", "pydicom's MR in RLE"),
    ("B5", "MR_small_jpeg_ls_lossless.dcm", "pydicom's MR in JPEG-LS"),
    ("B5", "MR_small_jp2klossless.dcm", "pydicom's MR in JPEG 2000"),
    ("B1", "J2K_pixelrep_mismatch.dcm", "pydicom's JPEG 2000 that is signed inside and unsigned outside"),
    ("B1", "explicit_VR-UN.dcm", "pydicom's file of unknown value representations"),
):
    if (PYDICOM / _name).exists():

        def _dicom(folder: Path, file: Path = PYDICOM / _name) -> Seen:
            values, told = read(folder, _copied(folder, file, "a.dcm"))
            return same(values[0, 0], _pydicom(file), told=told)

        _register(_dicom, _about, kind=_kind)

for _name, _about in (
    ("0.dcm", "nibabel's Siemens mosaic 0.dcm, one slice of a series"),
    ("decimal_rescale.dcm", "nibabel's file whose slope is a decimal"),
    ("slicethickness_empty_string.dcm", "nibabel's file with an empty slice thickness"),
):

    def _siemens(folder: Path, file: Path = SIEMENS / _name) -> Seen:
        values, told = read(folder, _copied(folder, file, "a.dcm"))
        return same(values[0, 0], _pydicom(file), told=told)

    _register(_siemens, _about, kind="B1")

for _name, _about in (
    ("rtplan.dcm", "pydicom's radiotherapy plan has no pixels"),
    ("test-SR.dcm", "pydicom's structured report has no pixels"),
    ("waveform_ecg.dcm", "pydicom's ECG is a waveform"),
    ("MR_truncated.dcm", "pydicom's truncated MR"),
    ("reportsi.dcm", "pydicom's basic text report"),
    ("no_meta.dcm", "pydicom's CT that names no transfer syntax, which pydicom does not decode"),
):

    def _none(folder: Path, file: Path = PYDICOM / _name) -> Seen:
        read(folder, _copied(folder, file, "a.dcm"))
        return true(False)

    _register(_none, _about, kind="B5", refused="without an image|cut short")


@case("B3", **_third)
def ct_spacing(folder: Path) -> Seen:
    """pydicom's CT_small as a volume of one plane at twice its spacing: means of blocks of four"""
    file = PYDICOM / "CT_small.dcm"
    values, _ = read(folder, _copied(folder, file), size=[64, 64])
    whole = _pydicom(file)
    return same(values[0, 0], whole.reshape(64, 2, 64, 2).mean(axis=(1, 3)))


def _series() -> list[Path]:
    """Return pydicom's CT series CT5N in the order of its slices' places."""
    import pydicom

    files = [file for file in (PYDICOM / "dicomdirtests" / "98892001" / "CT5N").iterdir() if file.is_file()]
    return sorted(files, key=lambda file: float(pydicom.dcmread(file, force=True).ImagePositionPatient[2]))


@case("B7", **_third)
def folder_of_slices(folder: Path) -> Seen:
    """pydicom's CT series as a folder that a cell names: its slices in the order of their places"""
    files = _series()
    (folder / "p1").mkdir()
    for file in files:
        shutil.copy(file, folder / "p1" / file.name)
    values, told = read(folder, "p1", dimensions=3)
    # Columns go to the left and rows to the back: both are turned; planes go up.
    wanted = np.stack([_pydicom(file)[::-1, ::-1].T for file in files], axis=-1)
    return same(values[0, 0], wanted, told=told)


def _template(folder: Path, template: str, dimensions: int) -> Seen:
    """Run on folders of slices whose labels are in the folders' names, which a template reads."""
    import v6_algorithm.api as v6

    files = _series()
    sites = {}
    for site in "ab":
        for number in range(24):
            place = folder / site / ("ill" if number % 2 else "well") / f"p{number}"
            place.mkdir(parents=True)
            for file in files:
                shutil.copy(file, place / (file.name + (".dcm" if template.endswith(".dcm") else "")))
        sites[site] = str(folder / site)
    kind = "image_classification" if dimensions == 2 else "volume_classification"
    result = v6.run(
        {
            "data": {"target": "outcome", "image": {"files": template, "size": [16, 16] + [4] * (dimensions - 2)}},
            "problem": kind, "model": {"kind": "cnn", "widths": [2], "head": []}, "rounds": 1,
        },
        sites=sites,
    )  # fmt: skip
    return true(result.content["rounds_run"], told="; ".join(result.notes))


@case("B7", **_third)
def template_of_slices(folder: Path) -> Seen:
    """a template that names each slice reads them as 2-D images"""
    return _template(folder, "{outcome}/{patient}/{slice}", 2)


@case("B7", **_third)
def template_of_folders(folder: Path) -> Seen:
    """a template that ends at the folder of a series reads each folder as a volume"""
    return _template(folder, "{outcome}/{patient}", 3)


# Volumes as nibabel ships them.
for _name, _about in (
    ("anatomical.nii", "nibabel's anatomical.nii"),
    ("standard.nii.gz", "nibabel's standard.nii.gz"),
    ("test.mgz", "nibabel's FreeSurfer volume"),
    ("tiny.mnc", "nibabel's MINC 1 volume"),
    ("small.mnc", "nibabel's MINC 2 volume"),
    ("minc2_1_scale.mnc", "nibabel's MINC 2 volume with one scale"),
    ("minc2_baddim.mnc", "nibabel's MINC 2 volume with a spacing that is no number"),
    ("reoriented_anat_moved.nii", "nibabel's oblique volume"),
    ("example_nifti2.nii.gz", "nibabel's NIfTI-2 file of four axes"),
    ("example4d.nii.gz", "nibabel's NIfTI file of four axes"),
    ("functional.nii", "nibabel's functional.nii of four axes"),
    ("minc2_4d.mnc", "nibabel's MINC file of four axes"),
):

    def _volume(folder: Path, file: Path = NIBABEL / _name) -> Seen:
        import nibabel

        values, told = read(folder, _copied(folder, file), dimensions=3)
        if nibabel.load(file).ndim != 3:
            return true(False, "a fourth axis was taken for something", told)
        return same(values[0], _nibabel(file), told=told)

    _fourth = any(part in _name for part in ("4d", "functional", "nifti2", "mgz"))
    _register(_volume, _about, kind="B2" if _fourth else "B1", **({"refused": "several volumes"} if _fourth else {}))

for _name, _about in (
    ("umass_anonymized.PAR", "nibabel's Philips PAR header"),
    ("tinypet.v", "nibabel's ECAT file"),
    ("scaled+tlrc.HEAD", "nibabel's AFNI header"),
    ("standard.trk", "nibabel's streamlines"),
    ("row_major.dconn.nii", "nibabel's CIFTI matrix is no volume"),
    ("nifti1.hdr", "nibabel's NIfTI header without its image"),
):

    def _no_volume(folder: Path, file: Path = NIBABEL / _name) -> Seen:
        read(folder, _copied(folder, file), dimensions=3)
        return true(False)

    _register(_no_volume, _about, kind="B5", refused="ending|kind|read|axes|axis|.img|volume|dimension")


@case("B3", **_third)
def anatomical_spacing(folder: Path) -> Seen:
    """nibabel's anatomical.nii at a spacing of 4 mm: the mean of all voxels stays what it is"""
    file = NIBABEL / "anatomical.nii"
    values, told = read(folder, _copied(folder, file), dimensions=3, size=[11, 8, 5])
    from tools.examine.making import area

    return same(values[0, 0], area(_nibabel(file)[0], [11, 8, 5]), told=told)


@case("B1", **_third)
def one_orientation(folder: Path) -> Seen:
    """nibabel's anatomical.nii, stored anew in another orientation by nibabel: the same tensor"""
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    image = nibabel.load(NIBABEL / "anatomical.nii")
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(("P", "S", "R"))))
    nibabel.save(turned, folder / "b.nii.gz")
    values, _ = read(folder, [_copied(folder, NIBABEL / "anatomical.nii"), "b.nii.gz"], dimensions=3)
    return same(values[1], values[0])


def _skimage(name: str, folder: Path, channels: int | None = None, **image: Any) -> tuple[Array, Array, str]:
    from skimage import io

    values, told = read(folder, _copied(folder, SKIMAGE / name), channels=channels, **image)
    return values[0], np.asarray(io.imread(SKIMAGE / name), dtype=np.float64), told


if find_spec("skimage") is not None:
    for _name, _kind in (
        ("astronaut.png", "B1"), ("camera.png", "B1"), ("chelsea.png", "B1"), ("cell.png", "B1"), ("phantom.png", "B1"),
        ("retina.jpg", "B7"), ("coins.png", "B1"), ("horse.png", "B1"), ("logo.png", "B1"), ("page.png", "B1"),
        ("chessboard_GRAY.png", "B1"), ("microaneurysms.png", "B1"), ("hubble_deep_field.jpg", "B7"),
    ):  # fmt: skip

        def _raster(folder: Path, name: str = _name) -> Seen:
            values, wanted, told = _skimage(name, folder)
            wanted = wanted / 255 if wanted.ndim == 2 else np.moveaxis(wanted[..., :3], -1, 0) / 255
            seen = same(values, wanted if wanted.ndim == 3 else wanted[None], told=told, within=1e-3)
            return seen if name != "logo.png" else true(values.shape == (3, 500, 500), values.shape, told)

        _register(_raster, f"scikit-image's {_name}: bytes as shares of 255", kind=_kind)

    @case("B3", **_third)
    def coins_half(folder: Path) -> Seen:
        """scikit-image's coins at a third of their size: skimage's mean of blocks"""
        from skimage.measure import block_reduce

        values, whole, _ = _skimage("coins.png", folder, size=[101, 128])
        # Images of bytes stay bytes, also where they are made smaller.
        return same(values[0], block_reduce(whole, (3, 3), np.mean) / 255, within=0.5 / 255)

    @case("B1", **_third)
    def grey_retina(folder: Path) -> Seen:
        """scikit-image's chelsea as grey: ITU-R 601's weights, as Pillow has them"""
        from PIL import Image

        values, _, _ = _skimage("chelsea.png", folder, channels=1)
        with Image.open(SKIMAGE / "chelsea.png") as image:
            wanted = np.asarray(image.convert("L"), dtype=np.float64) / 255
        return same(values[0], wanted, within=3e-3)

    @case("B2", refused="pages|frames|axes|planes|volume", **_third)
    def pages_of_tiff(folder: Path) -> Seen:
        """scikit-image's multipage.tif in a 2-D problem"""
        _skimage("multipage.tif", folder)
        return true(False)

    @case("B2", **_third)
    def pages_as_volume(folder: Path) -> Seen:
        """scikit-image's multipage.tif as a volume: its pages are planes"""
        values, whole, told = _skimage("multipage.tif", folder, dimensions=3)
        seen = sorted(values.shape[1:])
        return true(seen == sorted(whole.shape), (values.shape, whole.shape), told)

    @case("B5", refused="gif|kind|ending|read", **_third)
    def gif(folder: Path) -> Seen:
        """scikit-image's GIF is no kind that is read"""
        _skimage("no_time_for_that_tiny.gif", folder)
        return true(False)

    @case("B2", refused="100|images|axes|axis|channels|image", **_third)
    def stack_of_faces(folder: Path) -> Seen:
        """scikit-image's lfw_subset.npy is 200 faces in one array, and no image of a row"""
        read(folder, [_copied(folder, SKIMAGE / "lfw_subset.npy")])
        return true(False)


def _pairs(folder: Path, files: Sequence[Path], wanted: Callable[[Any], Any], **image: Any) -> Seen:
    """Train on two hospitals of these files, and look at the result."""
    sites = {}
    for site in "ab":
        listed = [
            (f"{number}{file.suffix}", lambda path, file=file: shutil.copy(file, path))
            for number, file in enumerate([*files] * (24 // len(files)))
        ]
        sites[site] = hospital(folder, site, listed, [number // 2 % 2 for number in range(len(listed))])
    result = train(sites, **image)
    return true(wanted(result), told="; ".join(result.notes))


@case("B5", told="copies", **_third)
def copies_of_one_slice(folder: Path) -> Seen:
    """a hospital of copies of pydicom's four MR: told that images are copies"""
    files = [PYDICOM / name for name in ("MR_small.dcm", "MR_small_RLE.dcm")]
    return _pairs(folder, files, lambda result: result.content["rounds_run"], size=[16, 16])


@case("B4", told="value|range|255|differ", **_third)
def bytes_and_hounsfield(folder: Path) -> Seen:
    """one hospital's CT_small as DICOM, the other's as a PNG of bytes: the ranges of values are told"""
    from PIL import Image

    values = _pydicom(PYDICOM / "CT_small.dcm")
    grey = np.clip((values + 1000) / 2000 * 255, 0, 255).astype(np.uint8)

    def as_png(path: Path) -> None:
        Image.fromarray(grey).save(path)

    labels = [number % 2 for number in range(24)]
    a = hospital(folder, "a", [(f"{n}.png", as_png) for n in range(24)], labels)
    b = hospital(
        folder, "b", [(f"{n}.dcm", lambda p: shutil.copy(PYDICOM / "CT_small.dcm", p)) for n in range(24)], labels
    )
    result = train({"a": a, "b": b}, size=[16, 16])
    return true(True, told="; ".join(result.notes))
