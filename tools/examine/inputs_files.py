"""B5 and B7: files that cannot be read, by cause, and the layouts of hospitals' folders."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from tools.examine.making import CT, canonical, dicom, enhanced, geometry, hospital, nifti, png, read, train
from tools.examine.tries import Seen, case, policy, same, true

GENERATOR = np.random.default_rng(22)


def grey() -> np.ndarray:
    return GENERATOR.integers(0, 256, (8, 8)).astype(np.uint8)


def photograph(path: Path) -> None:
    from PIL import Image

    Image.fromarray(GENERATOR.integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(path)


@case("B5", refused="cut short")
def cut_jpeg(folder: Path) -> Seen:
    """JPEG cut in half: refused as cut short, not half grey"""
    photograph(folder / "a.jpg")
    content = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(content[: len(content) // 2])
    return Seen(None, read(folder, "a.jpg")[1])


@case("B5", refused="cut short")
def cut_gzip(folder: Path) -> Seen:
    """.nii.gz cut by a fifth: refused as cut short"""
    nifti(folder / "a.nii.gz", GENERATOR.normal(size=(9, 9, 9)).astype(np.float32), np.eye(4))
    content = (folder / "a.nii.gz").read_bytes()
    (folder / "a.nii.gz").write_bytes(content[: len(content) * 4 // 5])
    return Seen(None, read(folder, "a.nii.gz", dimensions=3)[1])


@case("B5", refused="cut short")
def cut_plain_nifti(folder: Path) -> Seen:
    """plain .nii whose last plane is missing: refused as cut short, not zeros"""
    nifti(folder / "a.nii", GENERATOR.normal(size=(9, 9, 9)).astype(np.float32), np.eye(4))
    content = (folder / "a.nii").read_bytes()
    (folder / "a.nii").write_bytes(content[:-324])
    return Seen(None, read(folder, "a.nii", dimensions=3)[1])


@case("B5", refused="cut short")
def cut_dicom(folder: Path) -> Seen:
    """native DICOM whose last quarter of pixels is missing: refused as cut short"""
    dicom(folder / "a.dcm", GENERATOR.integers(0, 4000, (20, 20)).astype(np.uint16))
    content = (folder / "a.dcm").read_bytes()
    (folder / "a.dcm").write_bytes(content[:-200])
    return Seen(None, read(folder, "a.dcm")[1])


@case("B5", refused="another kind")
def page_as_png(folder: Path) -> Seen:
    """a log-in page under the name of a PNG, and a gzipped NIfTI called .nii: refused as of another kind"""
    (folder / "a.png").write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    nifti(folder / "x.nii", np.zeros((3, 3, 3), np.float32), np.eye(4))
    return Seen(None, read(folder, "a.png")[1])


@case("B5", refused="another kind|gzipped")
def gzip_called_nii(folder: Path) -> Seen:
    """a gzipped NIfTI that is called .nii: refused as of another kind, with the way out"""
    nifti(folder / "x.nii", GENERATOR.normal(size=(3, 3, 3)).astype(np.float32), np.eye(4))
    (folder / "a.nii").write_bytes(gzip.compress((folder / "x.nii").read_bytes()))
    return Seen(None, read(folder, "a.nii", dimensions=3)[1])


@case("B5", refused="something else than numbers")
def pickled_npy(folder: Path) -> Seen:
    """npy of Python objects: refused and never unpickled"""
    np.save(folder / "a.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return Seen(None, read(folder, "a.npy")[1])


@case("B5", refused="without an image")
def a_plan(folder: Path) -> Seen:
    """DICOM of structures (RTSTRUCT) called .dcm: refused as an object without an image"""
    dicom(folder / "a.dcm", grey(), SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    import pydicom

    content = pydicom.dcmread(folder / "a.dcm")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(content, name)
    content.save_as(folder / "a.dcm")
    return Seen(None, read(folder, "a.dcm")[1])


@case("B5", refused="compression")
def a_video(folder: Path) -> Seen:
    """DICOM of MPEG-4 video: refused as a compression that is not read"""
    from pydicom.encaps import encapsulate

    path = dicom(folder / "a.dcm", grey())
    import pydicom

    content = pydicom.dcmread(path)
    content.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    content.PixelData = encapsulate([b"\0" * 100])
    content["PixelData"].VR = "OB"
    content["PixelData"].is_undefined_length = True
    content.save_as(path)
    return Seen(None, read(folder, "a.dcm")[1])


@case("B5", told="cannot be read|left out")
def counted_by_cause(folder: Path) -> Seen:
    """of 60 images one is missing, one empty, one NaN, tolerance 10 %: counted by cause, all three named"""

    def write(n: int):
        if n == 7:
            return f"{n}.npy", lambda path: None
        if n == 21:
            return f"{n}.npy", lambda path: path.touch()
        values = GENERATOR.random((6, 6))
        if n == 33:
            values[0, 0] = np.nan
        return f"{n}.npy", lambda path: np.save(path, values)

    labels = [n % 2 for n in range(60)]
    sites = {name: hospital(folder, name, [write(n) for n in range(60)], labels) for name in ("a", "b")}
    told = "; ".join(train(sites, tolerance=0.1).notes)
    named = all(word in told for word in ("not there", "0 bytes", "NaN", "row 8, 22, 34"))
    return Seen(named, told, "not all causes or rows;")


@case("B5", refused="tolerance")
def beyond_tolerance(folder: Path) -> Seen:
    """of 20 images 3 are missing, tolerance 1 %: refused before training, all three rows named"""
    images = [
        (f"{n}.png", (lambda path: None) if n in (3, 4, 19) else (lambda path: png(path, grey(), 0, 8)))
        for n in range(20)
    ]
    labels = [n % 2 for n in range(20)]
    sites = {name: hospital(folder, name, images, labels) for name in ("a", "b")}
    return Seen(None, "; ".join(train(sites).notes))


@case("B5", told="causes")
def described_with_causes(folder: Path) -> Seen:
    """describe of a site with two damaged images: the count and the cause, no name of a file"""
    import json

    import v6_algorithm.api as v6

    images = [
        (
            f"secret{n}.png",
            (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nxx"))
            if n in (3, 4)
            else (lambda path: png(path, grey(), 0, 8)),
        )
        for n in range(20)
    ]
    place = hospital(folder, "a", images, [n % 2 for n in range(20)])
    keys = {"data": {"target": "label", "image": {"column": "file"}}, "problem": "image_classification", "model": "cnn"}
    described = v6.describe(keys, {"a": place})
    text = json.dumps(dict(described.content), default=str)
    return Seen("secret" not in text, text, text[:200])


# -- B7 ------------------------------------------------------------------------------------------------------------


@case("B7")
def isic_without_endings(folder: Path) -> Seen:
    """names without an ending, files .JPG in capitals in two folders below: found"""
    from PIL import Image

    wanted = []
    for number, below in enumerate(("part_1", "part_2", "part_2")):
        (folder / below).mkdir(exist_ok=True)
        Image.fromarray(grey()).save(folder / below / f"ISIC_{number}.JPG", format="JPEG")
        wanted.append(np.asarray(Image.open(folder / below / f"ISIC_{number}.JPG")) / 255)
    seen, told = read(folder, [f"ISIC_{number}" for number in range(3)])
    return same(seen[:, 0], np.stack(wanted), told=told)


@case("B7")
def windows_paths(folder: Path) -> Seen:
    """names with backslashes, and .tif for a file called .TIFF: found"""
    from PIL import Image

    (folder / "sub").mkdir()
    one, other = grey(), grey()
    Image.fromarray(one).save(folder / "sub" / "a.bmp")
    Image.fromarray(other).save(folder / "sub" / "b.TIFF", format="TIFF")
    seen, told = read(folder, ["sub\\a.bmp", "sub/b.tif"])
    return same(seen[:, 0], np.stack([one, other]) / 255, told=told)


@case("B7")
def dicom_without_ending(folder: Path) -> Seen:
    """DICOM called by its UID, and IM0001 without an ending: read"""
    one, other = (GENERATOR.integers(0, 4000, (6, 6)).astype(np.uint16) for _ in range(2))
    dicom(folder / "1.2.840.113619.2.55.3", one)
    dicom(folder / "IM0001", other)
    seen, told = read(folder, ["1.2.840.113619.2.55.3", "IM0001"])
    return same(seen[:, 0], np.stack([one, other]), told=told)


@case("B7")
def subject_folders(folder: Path) -> Seen:
    """folders sub-01 and sub-02 with one NIfTI in anat/ each: read"""
    volumes = []
    for name in ("sub-01", "sub-02"):
        place = folder / name / "anat"
        place.mkdir(parents=True)
        volumes.append(GENERATOR.normal(size=(4, 5, 6)).astype(np.float32))
        nifti(place / f"{name}_T1w.nii.gz", volumes[-1], np.eye(4))
        (place / f"{name}_T1w.json").write_text("{}")
    seen, told = read(folder, ["sub-01", "sub-02"], dimensions=3)
    return same(seen[:, 0], np.stack(volumes), told=told)


def series(
    folder: Path, name: str, volume: np.ndarray, turn: tuple[float, ...], step: float, *, skip: int = -1
) -> None:
    """Write a CT series, a file a slice, whose files' names say nothing of the order."""
    from pydicom.uid import generate_uid

    place = folder / name
    place.mkdir()
    across, down = np.array(turn[:3]), np.array(turn[3:])
    normal, uid = np.cross(across, down), generate_uid()
    for number, frame in enumerate(np.random.default_rng(5).permutation(len(volume)).tolist()):
        if frame == skip:
            continue
        dicom(
            place / f"IM{number:04}", volume[frame], SOPClassUID=CT, SeriesInstanceUID=uid, InstanceNumber=99 - number,
            ImagePositionPatient=[f"{v:.6f}" for v in frame * step * normal],
            ImageOrientationPatient=[f"{v:.8f}" for v in turn], PixelSpacing=["0.5", "0.75"], SliceThickness="9",
            RescaleSlope="1", RescaleIntercept="-1024",
        )  # fmt: skip


@case("B7")
def series_in_folders(folder: Path) -> Seen:
    """DICOM series, a file for each slice, in a folder a patient, names out of order: volumes, as the same NIfTI"""
    turn = (1, 0, 0, 0, 0, -1)
    wanted = []
    for name in ("p1", "p2"):
        volume = GENERATOR.integers(0, 3000, (5, 6, 7)).astype(np.uint16)
        series(folder, name, volume, turn, 2.0)
        wanted.append(canonical(volume.transpose(2, 1, 0) - 1024.0, geometry(turn, (0.5, 0.75), 2.0, (0, 0, 0)))[0])
    seen, told = read(folder, ["p1", "p2"], dimensions=3)
    return same(seen[:, 0], np.stack(wanted), told=told)


@case("B7", refused="gap|uneven|spacing|series")
def series_with_a_gap(folder: Path) -> Seen:
    """a DICOM series whose third slice is missing: refused by name"""
    series(folder, "p1", GENERATOR.integers(0, 3000, (6, 5, 4)).astype(np.uint16), (1, 0, 0, 0, 1, 0), 2.0, skip=2)
    return Seen(None, read(folder, "p1", dimensions=3)[1])


def _learn(keys: dict, sites: dict):
    import v6_algorithm.api as v6

    return v6.run({"model": "linear", "rounds": 1, **keys}, sites=sites)


@case("B7")
def paired_arrays_of_two_axes(folder: Path) -> Seen:
    """X.npy beside y.npy in a folder at one site, npz at the other, 5 columns: both train on 40 rows"""
    for name in ("a", "b"):
        (folder / name).mkdir()
    x, y = GENERATOR.normal(size=(40, 5)), GENERATOR.integers(0, 2, 40)
    np.save(folder / "a" / "X.npy", x)
    np.save(folder / "a" / "y.npy", y)
    np.savez(folder / "b" / "t.npz", X=x.astype(np.float32), y=y)
    result = _learn({"data": {"target": "y"}}, {"a": str(folder / "a"), "b": str(folder / "b" / "t.npz")})
    features = result.content["preparation"]
    of_fold = features[0] if isinstance(features, list) else features
    return true(len(of_fold["features"]) == 5 and (result.sites["rows"] == 40).all(), result.sites)


@case("B7")
def npz_of_four_axes(folder: Path) -> Seen:
    """npz of images (rows, 3, 8, 8) and one-hot labels: trains as images of three channels"""
    for name in ("a", "b"):
        labels = GENERATOR.integers(0, 3, 60)
        np.savez_compressed(
            folder / f"{name}.npz",
            images=GENERATOR.integers(0, 256, (60, 3, 8, 8)).astype(np.uint8),
            labels=np.eye(3)[labels],
        )
    result = _learn(
        {
            "data": {"target": "labels", "image": {"column": "images"}}, "problem": "image_classification",
            "model": {"kind": "cnn", "widths": [2]},
        },
        {"a": str(folder / "a.npz"), "b": str(folder / "b.npz")},
    )  # fmt: skip
    described = result.content["preparation"]
    of_fold = described[0] if isinstance(described, list) else described
    return true(
        "3" in str(of_fold.get("image_shape", of_fold))[:4000] and not result.metrics.empty, "; ".join(result.notes)
    )


@case("B7")
def medmnist(folder: Path) -> Seen:
    """MedMNIST's npz (train_images, train_labels, val_…, test_…), labels of shape (n, 1): parts kept apart"""
    for name in ("a", "b"):
        arrays = {}
        for part, rows in (("train", 40), ("val", 12), ("test", 16)):
            arrays[f"{part}_images"] = GENERATOR.integers(0, 256, (rows, 8, 8)).astype(np.uint8)
            arrays[f"{part}_labels"] = (np.arange(rows) % 2)[:, None].astype(np.uint8)
        np.savez(folder / f"{name}.npz", **arrays)
    result = _learn(
        {
            "data": {"target": "labels", "image": {"column": "images"}, "split_column": "split"},
            "problem": "image_classification", "model": {"kind": "cnn", "widths": [2]}, "split": {"kind": "given"},
        },
        {"a": str(folder / "a.npz"), "b": str(folder / "b.npz")},
    )  # fmt: skip
    return true((result.sites[["train", "validation", "test"]] == [40, 12, 16]).all().all(), result.sites)


@case("B7")
def freesurfer_with_covariates(folder: Path) -> Seen:
    """a table of subjects and covariates beside subject-per-file FreeSurfer measures: measures become columns"""
    for name in ("a", "b"):
        place = folder / name
        place.mkdir()
        lines = ["freesurferfile,isControl,age"]
        for subject in range(24):
            file = f"{name}{subject:02}_aseg_vol.txt"
            lines.append(f"{file},{subject % 2},{40 + subject % 9}")
            measures = {
                "Left-Amygdala": 1500 + (37 * subject) % 11 + 0.5,
                "Right-Amygdala": 1600 - subject,
                "EstimatedTotalIntraCranialVol": 1.5e6,
            }
            (place / file).write_text("".join(f"{key}\t{value}\n" for key, value in measures.items()))
        (place / "covariates.csv").write_text("\n".join(lines) + "\n")
    result = _learn(
        {"data": {"target": "isControl", "measures": "freesurferfile"}},
        {name: str(folder / name) for name in ("a", "b")},
    )
    prepared = result.content["preparation"]
    of_fold = prepared[0] if isinstance(prepared, list) else prepared
    return true({"Left-Amygdala", "age"} <= set(of_fold["features"]), of_fold["features"])


@case("B7", told="mask|are read as images")
def images_and_masks(folder: Path) -> Seen:
    """a template that fits images and their masks alike: told that masks are among them"""
    sites = {}
    for name in ("a", "b"):
        for label in ("ill", "well"):
            place = folder / name / label
            place.mkdir(parents=True)
            for n in range(8):
                png(place / f"p{n}.png", grey(), 0, 8)
                png(place / f"p{n}_mask.png", grey(), 0, 8)
        sites[name] = str(folder / name)
    import v6_algorithm.api as v6

    result = v6.run(
        {
            "data": {"target": "label", "image": {"files": "{label}/*.png"}}, "problem": "image_classification",
            "model": {"kind": "cnn", "widths": [2]}, "rounds": 1,
        },
        sites=sites,
    )  # fmt: skip
    return Seen(None, "; ".join(result.notes))


@case("B7", told="left out|is not told|policy|fewer|some")
def few_unreadable_under_standard(folder: Path) -> Seen:
    """policy standard, one image of 60 unreadable at a site: left out, and said without its number or name"""
    images = [
        (f"{n}.png", (lambda path: path.touch()) if n == 5 else (lambda path: png(path, grey(), 0, 8)))
        for n in range(60)
    ]
    labels = [n % 2 for n in range(60)]
    sites = {name: hospital(folder, name, images, labels) for name in ("a", "b")}
    with policy("standard"):
        told = "; ".join(train(sites, tolerance=0.05).notes)
    return Seen(None, told)


@case("B5", refused="ledger|V6_ALGORITHM")
def images_under_strict(folder: Path) -> Seen:
    """policy strict without a ledger: refused, and said what the owner has to set"""
    images = [(f"{n}.png", lambda path: png(path, grey(), 0, 8)) for n in range(60)]
    sites = {name: hospital(folder, name, images, [n % 2 for n in range(60)]) for name in ("a", "b", "c")}
    with policy("strict"):
        return Seen(None, "; ".join(train(sites).notes))


@case("B7")
def enhanced_without_ending(folder: Path) -> Seen:
    """an enhanced CT whose name is a number, named as a number by the table: read as a volume"""
    volume = GENERATOR.integers(0, 300, (4, 5, 6)).astype(np.uint16)
    enhanced(folder / "1377.dcm", volume)
    affine = geometry((1, 0, 0, 0, 1, 0), (1, 1), 2.0, (0, 0, 0))
    import pandas as pd

    from v6_algorithm.data.imaging.stack import find_images, read_stack
    from v6_algorithm.experiment.imaging.images import Image

    files = find_images(pd.Series([1377], name="file"), folder)
    stack = read_stack(files, Image.model_validate({"column": "file", "dimensions": 3}), None)
    return same(np.asarray(stack.array[np.arange(1)])[0], canonical(volume.transpose(2, 1, 0), affine))
