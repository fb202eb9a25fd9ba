"""Synthetic grey-matter volumes with an effect in one region: .npy or .nii.gz files, and `volumes.csv`.

    python mock/make_volumes.py mock/volumes --volumes 60 --size 32
    python mock/make_volumes.py mock/vbm --volumes 40 --size 121 145 121 --format nii.gz

Shaped like the maps of voxel-based morphometry: values of 0 to about 1, smooth, high in a rind below the surface, and a
little above 0 outside the head, which is why those who read such maps cut what is below 0.05. Patients have less grey
matter in one region, on the left and low; nowhere else. Numbers are drawn from --seed alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("control", "patient")
COLUMNS = ("file", "label", "subject", "sex", "age", "scanner")
# The region's middle and its standard deviation, as shares of each side.
REGION, WIDTH = (0.25, 0.6, 0.3), 0.07
# Millimetres a voxel of a full-size map, 121 x 145 x 121.
VOXEL_MM = 1.5


def anatomy(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean map of all subjects and the region's weight, both float32 of this shape."""
    axes = [(np.arange(length) + 0.5) / length * 2 - 1 for length in shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))) / 0.9
    rind = np.exp(-(((radius - 0.78) / 0.14) ** 2)) + 0.5 * np.exp(-((radius / 0.35) ** 2))
    inside = 1 / (1 + np.exp(np.clip((radius - 0.97) * 40, -30, 30)))
    weights = [np.exp(-((((axis + 1) / 2 - place) / WIDTH) ** 2) / 2) for axis, place in zip(axes, REGION, strict=True)]
    region = np.einsum("i,j,k->ijk", *weights) * inside
    return (0.75 * rind * inside).astype(np.float32), region.astype(np.float32)


def smooth_noise(shape: Sequence[int], cells: int, generator: np.random.Generator) -> np.ndarray:
    """Return smooth noise of this shape, float32, of about mean 0 and standard deviation 1."""
    grid = generator.normal(size=(cells,) * len(shape))
    for axis, length in enumerate(shape):
        places = np.linspace(0, cells - 1, length)[:, None] - np.arange(cells)
        weights = np.exp(-(places**2) / 0.72)
        weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
        grid = np.moveaxis(np.tensordot(weights, np.moveaxis(grid, axis, 0), axes=1), 0, axis)
    return grid.astype(np.float32)


def make(
    folder: Path,
    volumes: int,
    *,
    shape: Sequence[int] = (32, 32, 32),
    seed: int = 0,
    effect: float = 0.4,
    scanners: int = 2,
    shift: float = 0.3,
    form: str = "npy",
) -> list[dict[str, Any]]:
    """Write the volumes and `volumes.csv`; return its rows.

    Parameters
    ----------
    folder
        Where to.
    volumes
        How many; every other one is a patient's, in random order.
    shape
        Voxels along each axis.
    seed
        What all numbers are drawn from.
    effect
        How much grey matter patients lack in the middle of the region; the maps are of 0 to about 1.
    scanners, shift
        Number of scanners, and how far apart their brightness is; 0: not at all.
    form
        ``npy``, or ``nii.gz``, which takes nibabel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, 0])
    mean, region = anatomy(shape)
    brightness = [1.0, *(1 + 0.3 * shift * generator.uniform(-1, 1, max(scanners - 1, 0)))]
    rows = []
    for number, patient in enumerate(generator.permutation(volumes) % 2):
        own = np.random.default_rng([seed, 1, number])
        row = {
            "file": f"volume-{number:05d}.{form}",
            "label": CLASSES[patient],
            "subject": f"sub-{number:05d}",
            "sex": str(own.choice(["female", "male"])),
            "age": int(own.integers(18, 80)),
            "scanner": f"scanner-{own.integers(scanners)}",
        }
        # Of all people, patients or not: more or less of everything, the less the older, and smooth differences.
        total = own.normal(1.05 - 0.002 * (row["age"] - 18), 0.05)
        noise = 0.08 * smooth_noise(shape, 8, own) + 0.06 * smooth_noise(shape, max(min(shape) // 4, 2), own)
        lack = effect * max(own.normal(1, 0.3), 0) * patient
        grey = mean * (total + noise) - lack * region * mean
        grey = grey * brightness[int(row["scanner"].rpartition("-")[2])] + 0.01 * np.abs(own.normal(size=shape))
        _write(folder / row["file"], np.clip(grey, 0, None).astype(np.float32))
        rows.append(row)
    with (folder / "volumes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return rows


def _write(path: Path, volume: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, volume)
        return
    try:
        import nibabel
    except ImportError:
        raise SystemExit("--format nii.gz needs nibabel: pip install nibabel") from None
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([VOXEL_MM] * 3 + [1.0])), path)


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volumes", type=int, default=60)
    parser.add_argument("--size", type=int, nargs="+", default=[32], help="voxels: one number, or one for each axis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effect", type=float, default=0.4, help="grey matter that patients lack in the region")
    parser.add_argument("--scanners", type=int, default=2)
    parser.add_argument("--shift", type=float, default=0.3, help="how much the scanners differ, 0 to 1")
    parser.add_argument("--format", choices=["npy", "nii.gz"], default="npy")
    given = parser.parse_args()
    if len(given.size) not in (1, 3):
        parser.error("--size takes one number or three")
    shape = given.size * 3 if len(given.size) == 1 else given.size
    rows = make(
        given.folder,
        given.volumes,
        shape=shape,
        seed=given.seed,
        effect=given.effect,
        scanners=given.scanners,
        shift=given.shift,
        form=given.format,
    )
    print(f"wrote {len(rows):,} volumes of {' x '.join(map(str, shape))} voxels and volumes.csv to {given.folder}")


if __name__ == "__main__":
    main()
