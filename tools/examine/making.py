"""Makes image files, by other code than the package's readers where that can be, and reads files as a site does."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
CT, SECONDARY, ENHANCED_CT = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.2.1",
)  # fmt: skip


def read(folder: Path, names: Sequence[str] | str, *, dimensions: int = 2, **image: Any) -> tuple[Array, str]:
    """Read files as a site does; return (images, channels, lengths …) and what is told of them."""
    import pandas as pd

    from v6_algorithm.data.imaging.stack import find_images, read_stack
    from v6_algorithm.data.reading.assumed import KINDS
    from v6_algorithm.experiment.imaging.images import Image

    assumed: dict[str, Any] = {}
    section = Image.model_validate({"column": "file", "dimensions": dimensions, **image})
    listed = [names] if isinstance(names, str) else list(names)
    stack = read_stack(find_images(pd.Series(listed, name="file"), folder, assumed), section, None)
    assumed.update(stack.assumed)
    values = np.asarray(stack.array[np.arange(len(listed))], dtype=np.float64) * stack.unit
    return values, "; ".join(KINDS[kind].text for kind in assumed)


def png(path: Path, samples: Array, colour: int, bits: int) -> None:
    """Write a PNG file by hand: (height, width[, channels]) samples, of 16 bits as big-endian numbers."""
    height, width = samples.shape[:2]
    dtype = ">u2" if bits == 16 else "u1"
    if bits == 1:
        lines = np.packbits(samples.astype(bool), axis=1)
    else:
        lines = samples.astype(dtype).reshape(height, -1).view("u1").reshape(height, -1)
    raw = b"".join(b"\0" + line.tobytes() for line in lines)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def item(**attributes: Any) -> Any:
    """Return a DICOM item with these attributes."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def dicom(path: Path, pixels: Array, *, syntax: str = "1.2.840.10008.1.2.1", bits: int = 0, **attributes: Any) -> Path:
    """Write a DICOM file: (rows, columns), (frames, rows, columns) or (…, 3) colours."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    colour = pixels.ndim > 2 and pixels.shape[-1] == 3 and attributes.pop("colour", True)
    lengths = pixels.shape[:-1] if colour else pixels.shape
    size = pixels.dtype.itemsize * 8
    content = item(
        SOPClassUID=attributes.pop("SOPClassUID", SECONDARY), SOPInstanceUID=generate_uid(),
        SeriesInstanceUID=attributes.pop("SeriesInstanceUID", generate_uid()), StudyInstanceUID=generate_uid(),
        PatientID="p", Modality="OT", Rows=lengths[-2], Columns=lengths[-1], SamplesPerPixel=3 if colour else 1,
        PhotometricInterpretation="RGB" if colour else "MONOCHROME2", BitsAllocated=size, BitsStored=bits or size,
        HighBit=(bits or size) - 1, PixelRepresentation=int(pixels.dtype.kind == "i"),
    )  # fmt: skip
    if colour:
        content.PlanarConfiguration = 0
    if len(lengths) == 3:
        content.NumberOfFrames = lengths[0]
    big = syntax == "1.2.840.10008.1.2.2"
    if pixels.dtype.kind == "f":
        del content.PixelRepresentation, content.BitsStored, content.HighBit
        name = "FloatPixelData" if size == 32 else "DoubleFloatPixelData"
        setattr(content, name, pixels.tobytes())
    else:
        body = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes() if big else pixels.tobytes()
        content.PixelData = body + b"\0" * (len(body) % 2)
        content["PixelData"].VR = "OW"
    for name, value in attributes.items():
        setattr(content, name, value)
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = syntax
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    content.save_as(path, enforce_file_format=True)
    return path


def transcoded(path: Path, syntax: str) -> Path:
    """Compress a DICOM file by GDCM (JPEG-LS, lossless JPEG, JPEG 2000) or pydicom (RLE)."""
    import pydicom

    if syntax == "1.2.840.10008.1.2.5":
        content = pydicom.dcmread(path)
        content.compress(syntax)
        content.save_as(path)
        return path
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise OSError("gdcm cannot read what was written")
    change = gdcm.ImageChangeTransferSyntax()
    wanted = {
        "1.2.840.10008.1.2.4.80": gdcm.TransferSyntax.JPEGLSLossless,
        "1.2.840.10008.1.2.4.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        "1.2.840.10008.1.2.4.90": gdcm.TransferSyntax.JPEG2000Lossless,
    }[syntax]
    change.SetTransferSyntax(gdcm.TransferSyntax(wanted))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise OSError("gdcm cannot compress it")
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    if not writer.Write():
        raise OSError("gdcm cannot write it")
    return path


def geometry(orientation: Sequence[float], spacing: Sequence[float], step: float, origin: Sequence[float]) -> Array:
    """Return the affine to right, anterior, superior of (columns, rows, frames), from DICOM's numbers."""
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    affine = np.eye(4)
    affine[:3, 0] = across * spacing[1]
    affine[:3, 1] = down * spacing[0]
    affine[:3, 2] = np.cross(across, down) * step
    affine[:3, 3] = origin
    return np.diag([-1, -1, 1, 1]) @ affine


def enhanced(
    path: Path,
    volume: Array,
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: Sequence[float] = (1.0, 1.0),
    step: float = 2.0,
    order: Sequence[int] | None = None,
    slopes: Sequence[tuple[float, float]] | None = None,
    shared: tuple[float, float] | None = None,
    positions: Array | None = None,
    **attributes: Any,
) -> Path:
    """Write an enhanced multi-frame object of (frames, rows, columns), whose frames are stored in `order`."""
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(across, down)
    places = np.arange(len(volume))[:, None] * step * normal if positions is None else positions
    order = range(len(volume)) if order is None else order
    groups = []
    for frame in order:
        group = item(PlanePositionSequence=[item(ImagePositionPatient=[f"{v:.6g}" for v in places[frame]])])
        if slopes is not None:
            slope, intercept = slopes[frame]
            group.PixelValueTransformationSequence = [
                item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
            ]
        groups.append(group)
    common = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[f"{v:.10g}" for v in orientation])],
        PixelMeasuresSequence=[item(PixelSpacing=[f"{v:.10g}" for v in spacing], SliceThickness="9")],
    )
    if shared is not None:
        common.PixelValueTransformationSequence = [
            item(RescaleSlope=shared[0], RescaleIntercept=shared[1], RescaleType="HU")
        ]
    return dicom(
        path,
        volume[list(order)],
        SOPClassUID=ENHANCED_CT,
        colour=False,
        SharedFunctionalGroupsSequence=[common],
        PerFrameFunctionalGroupsSequence=groups,
        **attributes,
    )


def canonical(values: Array, affine: Array) -> Array:
    """Return a volume turned to right, anterior, superior by nibabel, with an axis of channels in front."""
    import nibabel

    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asarray(values, dtype=np.float64), affine))
    return np.asarray(turned.dataobj)[None]


def nifti(path: Path, values: Array, affine: Array, version: int = 1, **header: Any) -> Path:
    """Write a NIfTI file."""
    import nibabel

    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(values, affine)
    for name, value in header.items():
        getattr(image.header, f"set_{name}")(*value)
    nibabel.save(image, path)
    return path


def area(values: Array, lengths: Sequence[int]) -> Array:
    """Average (lengths …) over areas, exactly: every entry repeated, then means of equal blocks."""
    result = np.asarray(values, dtype=np.float64)
    for axis, length in enumerate(lengths):
        many = np.repeat(result, length, axis=axis)
        shape = [*many.shape[:axis], length, result.shape[axis], *many.shape[axis + 1 :]]
        result = many.reshape(shape).mean(axis=axis + 1)
    return result


def hospital(folder: Path, name: str, images: Sequence[tuple[str, Any]], labels: Sequence[int]) -> str:
    """Write a folder with a table of images and labels; each image is a name and a function that writes the file."""
    place = folder / name
    place.mkdir()
    lines = ["file,label"]
    for (file, write), label in zip(images, labels, strict=True):
        write(place / file)
        lines.append(f"{file},{label}")
    (place / "table.csv").write_text("\n".join(lines) + "\n")
    return str(place)


def train(sites: dict[str, str], *, dimensions: int = 2, **image: Any) -> Any:
    """Train a small network for a round on folders of images; return the result."""
    import v6_algorithm.api as v6

    kind = "image_classification" if dimensions == 2 else "volume_classification"
    return v6.run(
        {
            "data": {"target": "label", "image": {"column": "file", **image}},
            "problem": kind,
            "model": {"kind": "cnn", "widths": [2], "head": []},
            "rounds": 1,
        },
        sites=sites,
    )
