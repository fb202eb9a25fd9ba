"""The table of a folder of images that has none: a row for each image, whose columns are read from its name.

`sources` reads a site's folder through here where the experiment has `data.image.files`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from v6_algorithm.data.imaging.files import ENDINGS
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
    return sum(read.read(path) is None for path in images_in(folder, len(read.levels)))


def _fitting(folder: Path, template: str) -> Iterator[tuple[str, dict[str, str]]]:
    read = Template.parse(template)
    for path in images_in(folder, len(read.levels)):
        if (fields := read.read(path)) is not None:
            yield path, fields


def images_in(folder: Path, levels: int) -> Iterator[str]:
    """Yield the images that are so many names below a folder, sorted, as paths with / between their names."""
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        if levels > 1 and entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{path}" for path in images_in(Path(entry.path), levels - 1))
        elif levels == 1 and entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(ENDINGS):
            yield entry.name


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text
