"""Image files whose values are in a second file that the first names, or that is called as it is.

`nifti`, `nrrd` and `metaimage` look for it here, and what is kept of an image is known by both (`rows.image_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from v6_algorithm.data.imaging.picture import UnreadableImageError

# Headers that name it, and the line that does.
_NAMES = {
    ".nhdr": rb"(?im)^data ?file:=?[ \t]*(.+?)[ \t\r]*$",
    ".mhd": rb"(?im)^ElementDataFile[ \t]*=[ \t]*(.+?)[ \t\r]*$",
}
_PAIRED = {".img": ".hdr", ".hdr": ".img"}
_LONGEST_HEADER = 2**16


def paired(file: Path) -> Path | None:
    """Return the other one of a pair of .hdr and .img, None where it is not there."""
    other = _PAIRED[file.suffix.lower()]
    return next((file.with_suffix(end) for end in (other, other.upper()) if file.with_suffix(end).exists()), None)


def beside(header: Path, name: str) -> Path:
    """Return the file of values that a header names; only one in its own folder, for the rest is no part of the data.

    Raises
    ------
    UnreadableImageError
        When there is none, or the header names several.
    """
    if "%" in name or name.upper().split()[:1] == ["LIST"]:
        raise UnreadableImageError("part")
    name = name.removeprefix("./")
    file = header.parent / name
    if {"/", "\\"} & set(name) or file.is_symlink() or not file.is_file():
        raise UnreadableImageError("pair")
    return file


def with_companions(files: Iterable[Any]) -> list[Any]:
    """Return files and behind them those that hold their values, so that a change of either is seen.

    Of a folder, a DICOM series, the files in it.
    """
    listed = list(files)
    return [*listed, *(other for file in listed if isinstance(file, Path) for other in _companions(file))]


def _companions(file: Path) -> list[Path]:
    if file.is_dir():
        return sorted(path for path in file.rglob("*") if path.is_file())
    other = _companion(file)
    return [] if other is None else [other]


def _companion(file: Path) -> Path | None:
    ending = file.suffix.lower()
    if ending in _PAIRED:
        return paired(file)
    if ending not in _NAMES:
        return None
    try:
        with file.open("rb") as opened:
            found = re.search(_NAMES[ending], opened.read(_LONGEST_HEADER))
        return None if found is None else beside(file, found[1].decode("utf-8", "replace"))
    except (OSError, UnreadableImageError):
        return None
