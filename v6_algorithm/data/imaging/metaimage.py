"""MetaImage files, which ITK writes: a header of lines, and values behind it or in a second file.

Read here: the library that does, SimpleITK, is 264 MB. Axes and origin are the patient's left, posterior and
superior, as ITK takes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from v6_algorithm.data.imaging.detached import beside
from v6_algorithm.data.imaging.picture import Picture, Span, UnreadableImageError
from v6_algorithm.data.imaging.volume import affine_of, placed

Array = np.ndarray
ENDINGS = (".mha", ".mhd")
_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4", "ULONG": "u4",
    "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8",
}  # fmt: skip
_LONGEST_HEADER = 2**16
# zlib's own form or gzip's, by how it begins.
_EITHER = 47


def read_metaimage(file: Path, dimensions: int, channels: int | None, spans: Sequence[Span] | None) -> Picture:
    """Read an image or a volume, turned to the patient; a fourth axis is time.

    `spans` is what has to stay apart, as `narrowed` takes it.
    """
    content = file.read_bytes()
    header, behind = _header(content)
    sizes = [int(size) for size in header["dimsize"].split()]
    if len(sizes) != int(header["ndims"]) or min(sizes) < 1:
        raise UnreadableImageError("damaged")
    if len(sizes) < 2 or len(sizes) > 4:
        raise UnreadableImageError("axes")
    if len(sizes) == 4 and sizes[3] > 1:
        raise UnreadableImageError("time")
    if dimensions == 3 and len(sizes) == 2:
        raise UnreadableImageError("flat")
    colours = int(header.get("elementnumberofchannels", 1))
    local = header["elementdatafile"].upper() == "LOCAL"
    raw = content[behind:] if local else beside(file, header["elementdatafile"]).read_bytes()
    stored = _values(header, raw, int(np.prod(sizes)) * colours, local)
    # The first axis is that of the channels, and then comes x.
    values = np.moveaxis(stored.reshape((colours, *sizes[:3], 1)[:4], order="F"), 0, -1)
    axes = min(len(sizes), 3)
    turn = _numbers(header, len(sizes) ** 2, "transformmatrix", "rotation", "orientation")
    directions = np.eye(axes) if turn is None else turn.reshape(len(sizes), -1)[:axes, :axes]
    steps = _numbers(header, len(sizes), "elementspacing", "elementsize")
    origin = _numbers(header, len(sizes), "offset", "position", "origin")
    scaled = directions * (1.0 if steps is None else np.abs(steps[:axes, None]))
    return placed(
        values,
        affine_of(scaled, None if origin is None else origin[:axes]),
        dimensions,
        channels,
        spans,
        millimetres=None if steps is None else 1.0,
        assumed={"orientation": ""} if turn is None else {},
    )


def _header(content: bytes) -> tuple[Mapping[str, str], int]:
    """Return the lines up to the one that says where the values are, and where that ends."""
    header: dict[str, str] = {}
    place = 0
    while (end := content.find(b"\n", place, _LONGEST_HEADER)) >= 0:
        key, _, value = content[place:end].decode("latin-1").partition("=")
        header[key.strip().lower()] = value.strip()
        place = end + 1
        if key.strip().lower() == "elementdatafile":
            return header, place
    raise UnreadableImageError("damaged")


def _numbers(header: Mapping[str, str], count: int, *names: str) -> Array | None:
    """Return the numbers of the first of these lines that is there."""
    line = next((header[name] for name in names if name in header), None)
    if line is None:
        return None
    numbers = np.array([float(number) for number in line.split()])
    if len(numbers) != count:
        raise UnreadableImageError("damaged")
    return numbers


def _values(header: Mapping[str, str], raw: bytes, count: int, local: bool) -> Array:
    """Return (values,) numbers as they follow each other."""
    name = header["elementtype"].upper().removeprefix("MET_").removesuffix("_ARRAY")
    if name not in _TYPES:
        raise UnreadableImageError("no_numbers")
    most = _is_true(header, "binarydatabyteordermsb") or _is_true(header, "elementbyteordermsb")
    dtype = np.dtype((">" if most else "<") + _TYPES[name])
    if not _is_true(header, "binarydata", default=True):
        return np.array(raw.split()[:count], dtype=np.float64).astype(dtype)
    size = count * dtype.itemsize
    skipped = int(header.get("headersize", 0))
    if skipped and not local:
        # -1: whatever stands before the values, which end with the file.
        raw = raw[len(raw) - size :] if skipped < 0 else raw[skipped:]
    if _is_true(header, "compresseddata"):
        raw = zlib.decompressobj(_EITHER).decompress(raw, size)
    if len(raw) < size:
        raise UnreadableImageError("damaged")
    return np.frombuffer(raw, dtype, count)


def _is_true(header: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    return header[name][:1].upper() in ("T", "1", "Y") if header.get(name) else default
