"""B3 and B4: one size, one spacing, one range of values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.examine.making import (
    area,
    canonical,
    dicom,
    enhanced,
    geometry,
    hospital,
    nifti,
    png,
    read,
    train,
)
from tools.examine.tries import Seen, case, policy, same, true

GENERATOR = np.random.default_rng(21)
_TURNS = ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1), (2, 1, 0), (1, 0, 2))


def ramp(lengths: tuple[int, ...], slopes: tuple[float, ...]) -> np.ndarray:
    grids = np.meshgrid(*(np.arange(length) for length in lengths), indexing="ij")
    return sum(slope * grid for slope, grid in zip(slopes, grids, strict=True)) + 10.0


@case("B3")
def shrinks_by_no_whole_ratio(folder: Path) -> Seen:
    """2-D float npy, 11 x 7 to 4 x 5: the exact average over areas"""
    values = GENERATOR.normal(size=(11, 7)).astype(np.float32)
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", size=[4, 5])
    return same(seen[0, 0], area(values, (4, 5)), told=told)


@case("B3")
def shrinks_a_volume(folder: Path) -> Seen:
    """3-D NIfTI, 13 x 9 x 5 to 6 x 8 x 3: the exact average over areas, ratios below 2 too"""
    values = GENERATOR.normal(size=(13, 9, 5)).astype(np.float32)
    nifti(folder / "a.nii.gz", values, np.eye(4))
    seen, told = read(folder, "a.nii.gz", dimensions=3, size=[6, 8, 3])
    return same(seen[0, 0], area(values, (6, 8, 3)), told=told)


@case("B3")
def enlarges_as_torch(folder: Path) -> Seen:
    """2-D, 4 x 5 to 9 x 5 and 4 x 12: torch's linear interpolation without aligned corners"""
    import torch

    values = GENERATOR.normal(size=(4, 5)).astype(np.float32)
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", size=[9, 12])
    wanted = torch.nn.functional.interpolate(torch.tensor(values)[None, None], (9, 12), mode="bilinear")
    return same(seen[0], wanted[0].numpy(), told=told)


@case("B3")
def bytes_are_rounded(folder: Path) -> Seen:
    """RGB PNG of 30 x 20 to 7 x 6: the average over areas, rounded to bytes"""
    from PIL import Image

    colours = GENERATOR.integers(0, 256, (30, 20, 3)).astype(np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    seen, told = read(folder, "a.png", size=[7, 6])
    wanted = np.stack([area(colours[..., channel], (7, 6)) for channel in range(3)])
    return same(seen[0] * 255, wanted, within=0.51 / wanted.max(), told=told)


@case("B3")
def spacing_of_six_orders(folder: Path) -> Seen:
    """one volume stored in six orders of axes and two flips, spacing 1.5 x 2 x 3: one tensor"""
    values = GENERATOR.normal(size=(12, 10, 8)).astype(np.float32)
    affine = np.diag([0.9, 1.1, 2.5, 1])
    affine[:3, 3] = 3, 4, 5
    seen = []
    for number, turn in enumerate(_TURNS):
        stored, columns = values.transpose(turn), affine[:, [*turn, 3]].copy()
        axis = number % 3
        stored = np.flip(stored, axis)
        columns[:3, 3] += columns[:3, axis] * (stored.shape[axis] - 1)
        columns[:3, axis] *= -1
        nifti(folder / f"{number}.nii.gz", np.ascontiguousarray(stored), columns, version=1 + number % 2)
        seen.append(read(folder, f"{number}.nii.gz", dimensions=3, spacing=[1.5, 2, 3])[0][0])
    return same(np.stack(seen), np.stack([seen[0]] * 6))


@case("B3")
def spacing_of_a_ramp(folder: Path) -> Seen:
    """a ramp in millimetres of a rotated volume, spacing 1.7: inner voxels go up by 1.7 mm's worth"""
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, 1.3, 2.0])
    values = ramp((30, 24, 16), (0.8 * 3, 1.3 * 5, 2.0 * 7)).astype(np.float32)
    nifti(folder / "a.nii.gz", values, affine)
    seen, told = read(folder, "a.nii.gz", dimensions=3, spacing=[1.7, 1.7, 1.7])
    inner = seen[0, 0][3:-3, 3:-3, 3:-3]
    steps = [np.diff(inner, axis=axis) for axis in range(3)]
    return same([step.mean() for step in steps], [1.7 * slope for slope in (3, 5, 7)], within=0.01, told=told)


@case("B3")
def spacing_in_microns(folder: Path) -> Seen:
    """NIfTI in microns and in metres, spacing 2 mm: as the same volume in millimetres"""
    values = GENERATOR.normal(size=(10, 9, 8)).astype(np.float32)
    seen = []
    for unit, factor in (("mm", 1.0), ("micron", 1e3), ("meter", 1e-3)):
        affine = np.diag([1.0 * factor, 1.5 * factor, 1.2 * factor, 1])
        nifti(folder / f"{unit}.nii", values, affine, xyzt_units=(unit,))
        seen.append(read(folder, f"{unit}.nii", dimensions=3, spacing=[2, 2, 2])[0][0])
    return same(np.stack(seen[1:]), np.stack([seen[0]] * 2))


@case("B3")
def spacing_of_dicom_and_nifti(folder: Path) -> Seen:
    """sagittal enhanced CT, distances by positions and not by thickness, spacing 1: as the same NIfTI"""
    volume = GENERATOR.integers(0, 2000, (6, 12, 10)).astype(np.uint16)
    turn = (0, 1, 0, 0, 0, -1)
    enhanced(folder / "a.dcm", volume, orientation=turn, spacing=(1.4, 0.6), step=3.3, shared=(1.0, -1000.0))
    affine = geometry(turn, (1.4, 0.6), 3.3, (0, 0, 0))
    nifti(folder / "b.nii.gz", (volume.transpose(2, 1, 0) - 1000.0).astype(np.float32), affine)
    one, told = read(folder, "a.dcm", dimensions=3, spacing=[1, 1, 1])
    other, _ = read(folder, "b.nii.gz", dimensions=3, spacing=[1, 1, 1])
    return same(one, other, within=1e-4, told=told)


@case("B3")
def cover_keeps_proportions(folder: Path) -> Seen:
    """fit cover, 12 x 20 to 6 x 6: halved, and the middle of the longer side kept"""
    values = GENERATOR.normal(size=(12, 20)).astype(np.float32)
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", size=[6, 6], fit="cover")
    return same(seen[0, 0], area(values, (6, 10))[:, 2:8], told=told)


@case("B3")
def far_values_are_averaged(folder: Path) -> Seen:
    """float64 around 1e8, 9 x 9 to 4 x 4: differences kept to a thousandth"""
    values = 1e8 + GENERATOR.normal(size=(9, 9))
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", size=[4, 4])
    return same(seen[0, 0] - 1e8, area(values, (4, 4)) - 1e8, within=1e-3, told=told)


@case("B3", told="not of one size")
def voxels_of_two_sites(folder: Path) -> Seen:
    """volumes of 1 mm at one site and 3 mm at the other, both 8 x 8 x 8: told"""

    def site(name: str, millimetres: float) -> str:
        make = [
            (
                f"{n}.nii.gz",
                lambda path, n=n: nifti(
                    path,
                    GENERATOR.normal(n % 2, 1, size=(8, 8, 8)).astype(np.float32),
                    np.diag([millimetres] * 3 + [1]),
                ),
            )
            for n in range(24)
        ]
        return hospital(folder, name, make, [n % 2 for n in range(24)])

    result = train({"a": site("a", 1.0), "b": site("b", 3.0)}, dimensions=3)
    return Seen(None, "; ".join(result.notes))


@case("B3")
def four_formats_one_tensor(folder: Path) -> Seen:
    """one oblique scan as NIfTI-1, NIfTI-2, MGZ, NRRD and MetaImage, spacing 2: one tensor"""
    import nibabel
    import nrrd

    values = GENERATOR.normal(size=(9, 8, 7)).astype(np.float32)
    affine = geometry((0.8, 0.6, 0, 0, 0, -1), (1.1, 0.7), 2.2, (-5, 7, 9))
    nifti(folder / "a.nii.gz", values, affine)
    nifti(folder / "b.nii", values, affine, version=2)
    nibabel.save(nibabel.MGHImage(values, affine), folder / "c.mgz")
    lps = np.diag([-1, -1, 1, 1]) @ affine
    nrrd.write(
        str(folder / "d.nrrd"),
        values,
        {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]},
    )
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    matrix = " ".join(f"{v:.12g}" for v in (lps[:3, :3] / lengths).T.ravel())
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {matrix}\nOffset = {' '.join(map(str, lps[:3, 3]))}\n"
        f"ElementSpacing = {' '.join(f'{v:.12g}' for v in lengths)}\nDimSize = 9 8 7\nElementType = MET_FLOAT\n"
        "ElementDataFile = LOCAL\n"
    )
    (folder / "e.mha").write_bytes(head.encode() + values.transpose(2, 1, 0).tobytes())
    names = ["a.nii.gz", "b.nii", "c.mgz", "d.nrrd", "e.mha"]
    seen, told = read(folder, names, dimensions=3, spacing=[2, 2, 2])
    return same(seen, np.stack([seen[0]] * 5), within=1e-4, told=told)


@case("B4")
def crop_of_ct(folder: Path) -> Seen:
    """CT, fit crop to more than there is, range -1000 to 400: filled up with 0 after range"""
    values = GENERATOR.integers(-1000, 1500, (6, 6, 6)).astype(np.int16)
    nifti(folder / "a.nii.gz", values, np.eye(4))
    seen, told = read(folder, "a.nii.gz", dimensions=3, size=[8, 6, 4], fit="crop", range=[-1000, 400])
    wanted = np.zeros((8, 6, 4))
    wanted[1:7] = np.clip((values[:, :, 1:5] + 1000) / 1400, 0, 1)
    return same(seen[0, 0], wanted, told=told)


@case("B4")
def crop_without_range(folder: Path) -> Seen:
    """signed CT DICOM, fit crop without range: filled up with the image's lowest value, not water"""
    values = GENERATOR.integers(-900, 1500, (6, 6)).astype(np.int16)
    dicom(folder / "a.dcm", values)
    seen, told = read(folder, "a.dcm", size=[8, 4], fit="crop")
    wanted = np.full((8, 4), values.min(), float)
    wanted[1:7] = values[:, 1:5]
    return same(seen[0, 0], wanted, told=told)


@case("B4")
def threshold_after_range(folder: Path) -> Seen:
    """range 0 to 200 of bytes in npy, threshold 0.5 after it, fit crop"""
    values = GENERATOR.integers(0, 256, (5, 5)).astype(np.uint8)
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", size=[7, 5], fit="crop", range=[0, 200], threshold=0.5)
    level = np.clip(values / 200, 0, 1)
    wanted = np.zeros((7, 5))
    wanted[1:6] = np.where(level < 0.5, 0, level)
    return same(seen[0, 0], wanted, told=told)


@case("B4")
def nan_is_filled_before_range(folder: Path) -> Seen:
    """NaN in a NIfTI outside the head, fill -1000, range -1000 to 1000: 0 there"""
    values = GENERATOR.normal(0, 300, size=(5, 5, 5)).astype(np.float32)
    values[0] = np.nan
    values[1, 1, 1] = np.inf
    nifti(folder / "a.nii.gz", values, np.eye(4))
    seen, told = read(folder, "a.nii.gz", dimensions=3, fill=-1000, range=[-1000, 1000])
    wanted = np.clip((np.where(np.isfinite(values), values, -1000) + 1000) / 2000, 0, 1)
    return same(seen[0, 0], wanted, told=told)


def _site(folder: Path, name: str, write, rows: int = 16) -> str:
    return hospital(folder, name, [write(n) for n in range(rows)], [n % 2 for n in range(rows)])


def _as_png(n: int):
    return f"{n}.png", lambda path: png(path, GENERATOR.integers(0, 256, (8, 8)), 0, 8)


def _as_bytes(n: int):
    return f"{n}.npy", lambda path: np.save(path, GENERATOR.integers(0, 256, (8, 8)).astype(np.uint8))


def _as_deep(n: int):
    return f"{n}.npy", lambda path: np.save(path, GENERATOR.integers(0, 4096, (8, 8)).astype(np.uint16))


def _as_share(n: int):
    return f"{n}.npy", lambda path: np.save(path, GENERATOR.random((8, 8)))


def _as_colour(n: int):
    return f"{n}.png", lambda path: png(path, GENERATOR.integers(0, 256, (8, 8, 3)), 2, 8)


@case("B4", told="tenfold|alike|range")
def png_and_bytes(folder: Path) -> Seen:
    """the same pictures as PNG at one site and uint8 npy at the other: 255-fold, told"""
    result = train({"a": _site(folder, "a", _as_png), "b": _site(folder, "b", _as_bytes)})
    return Seen(None, "; ".join(result.notes))


@case("B4", told="tenfold|alike|range")
def deep_and_shares(folder: Path) -> Seen:
    """0 to 4095 at one site, 0 to 1 at two others: told, with the site's name"""
    sites = {name: _site(folder, name, of) for name, of in (("a", _as_share), ("b", _as_deep), ("c", _as_share))}
    return Seen(None, "; ".join(train(sites).notes))


@case("B4", refused="channels")
def grey_and_colour(folder: Path) -> Seen:
    """grey PNG at one site, RGB at the other, no channels: refused with the option"""
    return Seen(None, "; ".join(train({"a": _site(folder, "a", _as_png), "b": _site(folder, "b", _as_colour)}).notes))


@case("B4", told="tenfold|alike|range")
def png_and_bytes_described(folder: Path) -> Seen:
    """describe of PNG at one site and uint8 npy at the other under policy standard: ranges told, and the note"""
    import v6_algorithm.api as v6

    sites = {"a": _site(folder, "a", _as_png), "b": _site(folder, "b", _as_bytes)}
    keys = {"data": {"target": "label", "image": {"column": "file"}}, "problem": "image_classification", "model": "cnn"}
    with policy("standard"):
        described = v6.describe(keys, sites)
    return Seen(None, "; ".join(described.notes))


@case("B4", told="tenfold|alike|range")
def shifted_ct(folder: Path) -> Seen:
    """CT in Hounsfield units at one site, stored from 0 (without its intercept) at the other: told"""

    def write(shift: int):
        def one(n: int):
            values = GENERATOR.integers(-1000, 1000, (8, 8)) + shift
            return f"{n}.npy", lambda path: np.save(path, values.astype(np.int16))

        return one

    result = train({"a": _site(folder, "a", write(0)), "b": _site(folder, "b", write(1024))})
    return Seen(None, "; ".join(result.notes))


@case("B4")
def range_makes_kinds_alike(folder: Path) -> Seen:
    """12-bit DICOM MONOCHROME2 with slope 0.5 and the same in npy, range 0 to 2047.5: one tensor"""
    stored = GENERATOR.integers(0, 4096, (6, 6)).astype(np.uint16)
    dicom(folder / "a.dcm", stored, bits=12, RescaleSlope="0.5", RescaleIntercept="0")
    np.save(folder / "b.npy", stored * 0.5)
    seen, told = read(folder, ["a.dcm", "b.npy"], range=[0, 2047.5])
    return same(seen[:, 0], np.stack([stored / 4095] * 2), told=told)


@case("B4")
def crop_pads_bytes_with_black(folder: Path) -> Seen:
    """grey PNG with nothing black, fit crop to more than there is: filled up with 0, still bytes"""
    values = GENERATOR.integers(100, 256, (4, 5)).astype(np.uint8)
    png(folder / "a.png", values, 0, 8)
    seen, told = read(folder, "a.png", size=[6, 7], fit="crop")
    return same(seen[0, 0], np.pad(values, 1) / 255, told=told)


@case("B4")
def scaling_of_two_sites(folder: Path) -> Seen:
    """data.scaling standard of images at two sites of unlike size: mean and sd of all their pixels"""
    import json

    pixels: dict[str, list[np.ndarray]] = {"a": [], "b": []}

    def write(name: str, shift: float):
        def one(n: int):
            values = GENERATOR.normal(shift, 2, (4, 4)).astype(np.float32)
            pixels[name].append(values)
            return f"{n}.npy", lambda path: np.save(path, values)

        return one

    sites = {"a": _site(folder, "a", write("a", 1.0), 12), "b": _site(folder, "b", write("b", 5.0), 40)}
    import v6_algorithm.api as v6

    result = v6.run(
        {
            "data": {"target": "label", "image": {"column": "file"}}, "problem": "image_classification",
            "model": {"kind": "cnn", "widths": [2], "head": []}, "rounds": 1,
            "split": {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0}, "stopping": {"patience": None},
            "output": {"model": "last"},
        },
        sites=sites,
    )  # fmt: skip
    every = np.concatenate([np.stack(of).ravel() for of in pixels.values()]).astype(float)
    prepared = json.dumps(result.content["preparation"])
    found = result.content["preparation"]
    of_fold = found[0] if isinstance(found, list) else found
    shift, scale = np.ravel(of_fold["shift"]), np.ravel(of_fold["scale"])
    if len(shift) != 1:
        return true(False, prepared[:200])
    return same([shift[0], scale[0]], [every.mean(), every.std()], within=2e-3)


@case("B3")
def single_plane_spacing(folder: Path) -> Seen:
    """volume of constant value, odd lengths, spacing that shrinks to a single plane: that value everywhere"""
    nifti(folder / "a.nii.gz", np.full((5, 7, 9), 3.25, np.float32), np.diag([1.0, 1, 1, 1]))
    seen, told = read(folder, "a.nii.gz", dimensions=3, spacing=[7, 1, 2.5])
    return same(seen[0, 0], np.full(seen[0, 0].shape, 3.25), told=told)


@case("B3")
def canonical_after_size(folder: Path) -> Seen:
    """two hospitals' orientations (LPI and RAS) with size: stretched after turning, one tensor"""
    values = GENERATOR.normal(size=(10, 8, 6)).astype(np.float32)
    nifti(folder / "a.nii.gz", values, np.diag([1.0, 2, 3, 1]))
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[:, 2] *= -1
    turned = np.diag([1.0, 2, 3, 1]) @ flipped
    nifti(folder / "b.nii.gz", np.ascontiguousarray(values[::-1, :, ::-1]), turned)
    seen, told = read(folder, ["a.nii.gz", "b.nii.gz"], dimensions=3, size=[4, 4, 4])
    wanted = area(canonical(values, np.diag([1.0, 2, 3, 1]))[0], (4, 4, 4))
    return same(seen[:, 0], np.stack([wanted, wanted]), told=told)
