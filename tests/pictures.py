"""Small images of two kinds as sites' tables: a bright disc, or a dark cross, on grounds of different colours.

And DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.imaging.files import read_image
from v6_algorithm.data.imaging.picture import CAUSES, UnreadableImageError
from v6_algorithm.data.sources import TableSource
from v6_algorithm.exchange import png

KINDS = ("cross", "disc")


def images(rows: int, seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, size, size, 3) uint8 images, and what each shows: 0 or 1."""
    generator = np.random.default_rng(seed)
    shown = np.arange(rows) % 2
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    moved = generator.uniform(-0.12, 0.12, (2, rows, 1, 1))
    down, right = np.abs(y - moved[0]), np.abs(x - moved[1])
    mask = np.where(shown[:, None, None] == 1, np.hypot(down, right) < 0.3, np.minimum(down, right) < 0.1)
    ground = generator.uniform(0.3, 0.6, (rows, 1, 1, 3))
    pixels = ground + mask[..., None] * np.where(shown == 1, 0.35, -0.25)[:, None, None, None]
    pixels = pixels + generator.normal(0, 0.02, pixels.shape)
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8), shown


def hospital(folder: Path, rows: int, seed: int, size: int = 16, **columns: Any) -> TableSource:
    """Write images and a table that names them, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels, shown = images(rows, seed, size)
    for row, image in enumerate(pixels):
        (folder / f"{row}.png").write_bytes(png.encode(image))
    frame = pd.DataFrame({"file": [f"{row}.png" for row in range(rows)], "kind": [KINDS[one] for one in shown]})
    frame = frame.assign(patient=[f"p{row // 2}" for row in range(rows)], **columns)
    frame.to_csv(folder / "table.csv", index=False)
    return TableSource(str(folder / "table.csv"))


def scan(file: Path, stored: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 16, **attributes: Any) -> Path:
    """Write a DICOM file of (frames?, rows, columns, colours?) stored values."""
    from pydicom import dcmwrite
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = EnhancedMRImageStorage, meta.MediaStorageSOPInstanceUID
    colours = 3 if photometric == "RGB" else 1
    data.Rows, data.Columns = stored.shape[-3:-1] if colours == 3 else stored.shape[-2:]
    if stored.ndim == (4 if colours == 3 else 3):
        data.NumberOfFrames = len(stored)
    data.SamplesPerPixel, data.PhotometricInterpretation = colours, photometric
    if colours == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = stored.dtype.itemsize * 8
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(data, name, value)
    data.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dcmwrite(file, data, enforce_file_format=True)
    return file


def gan(**changes: Any) -> dict[str, Any]:
    """Return an experiment of problem gan on such tables that takes a second."""
    content: dict[str, Any] = {
        "name": "crosses and discs",
        "data": {"target": "kind", "image": {"column": "file"}},
        "problem": {"kind": "gan", "latent": 8},
        "model": {"kind": "dcgan", "width": 4},
        "split": {"kind": "ratio", "train": 0.3, "validation": 0.4, "test": 0.3},
        "rounds": 2,
        "training": {"batch_size": 16},
    }
    return content | changes


def cause_of(file: Path, dimensions: int = 2, channels: int | None = None, **options: Any) -> str:
    """Return the cause by which an image is counted as unreadable."""
    with pytest.raises(UnreadableImageError) as refused:
        read_image(file, dimensions, channels, **options)
    assert refused.value.cause in CAUSES
    return refused.value.cause
