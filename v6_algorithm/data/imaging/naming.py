"""Images by their names: which files the cells of a table name, and the table of a folder of images that has none.

`sources` reads a site's folder through here where the experiment has `data.image.files`: a row for each image, whose
columns are read from its name. `stack` looks here for the files that a column names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from v6_algorithm.data.files import within
from v6_algorithm.data.imaging.dicom import is_dicom, slices_in
from v6_algorithm.data.imaging.files import ENDINGS, may_be_image
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.imaging.names import Template

if TYPE_CHECKING:
    import pandas as pd


def table_of_names(folder: Path, template: str, column: str) -> pd.DataFrame:
    """Read the names of a folder's images; rows in the order of the names, whatever the file system's.

    Parameters
    ----------
    folder
        Where they are; links in it are not followed, and names that begin with a dot are left out.
    template
        See `experiment.imaging.names`. A field that is whole numbers at this site becomes numbers.
    column
        Of the names themselves, relative to the folder.

    Raises
    ------
    DataError
        When no name fits.
    """
    import pandas as pd

    rows = dict(_fitting(folder, template))
    if not rows:
        raise DataError(f"no image in the folder has a name that data.image.files '{template}' fits")
    table = pd.DataFrame(list(rows.values()))
    for name in table.columns:
        # As a csv file would have them; but 007 is another patient than 7.
        if table[name].map(_is_number).all():
            table[name] = table[name].astype("int64")
    table.insert(0, column, list(rows))
    return table


def count_unfitting(folder: Path, template: str) -> int:
    """Count the images as many folders down as the template has, whose names it does not fit."""
    read = Template.parse(template)
    fit = [read.read(path) is not None for path in images_in(folder, len(read.levels))]
    if not any(fit):
        fit = [read.read(path) is not None for path in images_in(folder, len(read.levels), series=True)]
    return len(fit) - sum(fit)


def _fitting(folder: Path, template: str) -> Iterator[tuple[str, dict[str, str]]]:
    read = Template.parse(template)
    # Where no file has a fitting name, folders of DICOM slices may: each is one volume.
    for series in (False, True):
        found = False
        for path in images_in(folder, len(read.levels), series=series):
            if (fields := read.read(path)) is not None:
                found = True
                yield path, fields
        if found:
            return


def images_in(folder: Path, levels: int, *, series: bool = False) -> Iterator[str]:
    """Yield the images that are so many names below a folder, sorted, as paths with / between their names.

    With `series` it is folders of which each holds the slices of DICOM series, and nothing else.
    """
    with os.scandir(folder) as listing:
        entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        if levels > 1 and entry.is_dir(follow_symlinks=False):
            below = images_in(Path(entry.path), levels - 1, series=series)
            yield from (f"{entry.name}/{path}" for path in below)
        elif levels == 1 and series:
            if entry.is_dir(follow_symlinks=False) and _are_slices(Path(entry.path)):
                yield entry.name
        elif levels == 1 and entry.is_file(follow_symlinks=False) and _is_image(entry):
            yield entry.name


def _is_image(entry: os.DirEntry[str]) -> bool:
    named = entry.name.lower().endswith(_LISTED)
    return named or (may_be_image(entry.name) and is_dicom(Path(entry.path)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text


AMBIGUOUS = Path()
"""In place of a file, where several go with a name."""
OTHER = Path("..")
"""In place of a file whose name has an ending of no image."""


class NamedImages:
    """Finds the files that cells name in a folder, `base`, of which each folder below is listed once."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._listed: dict[Path, dict[str, list[Path]]] = {}
        self._below: dict[str, list[Path]] | None = None

    def find(self, cell: str) -> Path | None:
        """Return the file, there or not; `AMBIGUOUS`, `OTHER` or, where none may be read, None."""
        file = within(self._base, cell, ("",))
        if file is None:
            return None
        if file.name.lower().endswith(ENDINGS):
            return file if file.exists() else self._spelled_otherwise(file) or file
        if file.is_dir():
            images = _images_below(file)
            if len(images) == 1:
                return images[0]
            # A series of DICOM is read from its folder.
            return file if not images or _are_slices(file) else AMBIGUOUS
        if file.is_file():
            return file if may_be_image(file.name) else OTHER
        # As ISIC's tables have them: without an ending.
        named = self._list(file.parent).get(file.name, [])
        return named[0] if len(named) == 1 else AMBIGUOUS if named else file if may_be_image(file.name) else OTHER

    def _spelled_otherwise(self, file: Path) -> Path | None:
        """Return the one file whose ending is written in another way: .JPG or .jpeg for .jpg."""
        stem, ending = _parts(file.name)
        alike = [
            path for path in self._list(file.parent).get(stem, []) if _plain(_parts(path.name)[1]) == _plain(ending)
        ]
        return alike[0] if len(alike) == 1 else None

    def others(self, cell: str) -> str | None:
        """Return the ending with which a file is there that a cell names with another one."""
        file = within(self._base, cell, ("",))
        if file is None or file.exists() or not file.name.lower().endswith(ENDINGS):
            return None
        named = self._list(file.parent).get(_parts(file.name)[0], [])
        return _parts(named[0].name)[1] if named else None

    def find_below(self, cell: str) -> Path | None:
        """Return the one image in a folder below that has the cell's name, with or without its ending.

        `AMBIGUOUS` where several have it, None where none has. Of archives whose images are in folders of their own
        (ISIC's, HAM10000's two parts) tables hold bare names.
        """
        if self._below is None:
            self._below = {}
            for place, folders, _ in os.walk(self._base):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name, paths in self._list(Path(place)).items() if Path(place) != self._base else ():
                    for path in paths:
                        for key in {name, path.name}:
                            self._below.setdefault(key, []).append(path)
        found = self._below.get(cell.strip(), [])
        return found[0] if len(found) == 1 else AMBIGUOUS if found else None

    def folders_of(self, cells: Sequence[str]) -> list[str]:
        """Return the folders in which most of these bare names are, below: such as images and masks."""
        below = self._below or {}
        parents = Counter(
            parent
            for cell in cells
            for parent in {path.parent.relative_to(self._base).as_posix() for path in below.get(cell.strip(), [])}
        )
        return sorted(parent for parent, count in parents.items() if 2 * count > len(cells) and count > 1)

    def _list(self, folder: Path) -> dict[str, list[Path]]:
        """Return the images of a folder by their names without the ending."""
        if folder not in self._listed:
            images: dict[str, list[Path]] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                ending = next((end for end in _LONGEST_FIRST if path.name.lower().endswith(end)), None)
                ending = None if ending not in _LISTED else ending
                # A link may lead out of the folder.
                if ending is not None and not path.is_symlink():
                    images.setdefault(path.name[: -len(ending)], []).append(path)
            self._listed[folder] = images
        return self._listed[folder]


def _parts(name: str) -> tuple[str, str]:
    """Return a name without an image's ending, and the ending."""
    ending = next((end for end in _LONGEST_FIRST if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)], name[len(name) - len(ending) :]


def without_ending(name: str) -> str:
    """Return a file's name without an image's ending."""
    return _parts(name)[0]


def _plain(ending: str) -> str:
    return {".jpeg": ".jpg", ".tiff": ".tif", ".hdr": ".img"}.get(ending.lower(), ending.lower())


# The header of a pair is not counted beside its image.
_LISTED = tuple(ending for ending in ENDINGS if ending != ".hdr")
_LONGEST_FIRST = sorted(ENDINGS, key=len, reverse=True)


def _are_slices(folder: Path) -> bool:
    """Say whether all images of a folder and those below it are DICOM files."""
    slices = set(slices_in(folder))
    return bool(slices) and all(
        Path(place, name) in slices
        for place, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and name.lower().endswith(_LISTED)
    )


def _images_below(folder: Path) -> list[Path]:
    """Return up to two images of a folder and those below it, links apart."""
    images: list[Path] = []
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            if path.is_symlink() or not (name.lower().endswith(_LISTED) or (may_be_image(name) and is_dicom(path))):
                continue
            images.append(path)
            if len(images) == 2:
                return images
    return images
