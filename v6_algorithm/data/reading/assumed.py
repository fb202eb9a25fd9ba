"""What the readers of a site's table took for granted, because the files allowed one reading only: told, never silent.

Readers write it into the `assumed` of their `TableSource`; a site sends what its rules allow (`disclosed`), and the
coordinator makes notes of it (`coordinator.preparation.assumed_notes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.text import printable

# Details, such as an ending or columns, and how many cells, files or rows it is about.
Assumed = dict[str, tuple[list[str], int]]
# What crosses the wire: the kind, the details that may be told, and the count, None where that may not.
Told = list[Any]
_MOST_DETAILS, _LONGEST_DETAIL = 10, 200
_MOST = 10**9


@dataclass(frozen=True)
class Kind:
    """One thing that is assumed: what a note says, with ``{count}``, and what makes it another.

    `details` says whose they are: words that the package knows itself (``known``), a part of many files' names
    (``common``, told of at least a cell's rows), names of columns, or of a sheet. `rows`: the count is of rows.
    """

    text: str
    remedy: str = ""
    details: Literal["known", "common", "columns", "sheet"] = "known"
    rows: bool = True


KINDS: dict[str, Kind] = {
    "sheet": Kind(
        "of the Excel book's {count} sheets the only one with more than one column is read",
        "sheet_name names another",
        "sheet",
        rows=False,
    ),
    "image suffix": Kind("{count} names in data.image have no ending, and are read as those of the files that have"),
    "image ending": Kind(
        "{count} names in data.image are read with what follows them in the names of the files", details="common"
    ),
    "image below": Kind("{count} names in data.image are those of files in folders below the one that is named"),
    "image spelling": Kind("{count} names in data.image end otherwise than their files, such as .jpg and .JPG"),
    "image folder": Kind("{count} names in data.image are folders, of which the one image in each is read"),
    "series": Kind(
        "{count} names in data.image are folders of DICOM slices, which are put together as volumes, by their positions"
    ),
    "masks": Kind(
        "{count} images in data.image are called as another one is, with _mask, _seg or the like "
        "behind it, and are read as images",
        "where they are masks, leave them out of the table or of data.image.files",
    ),
    "channel axis": Kind(
        "{count} arrays in data.image have a further axis of 1 or 3, which is taken for that of the channels",
        "data.image.channel_axis says which",
    ),
    "transparency": Kind(
        "{count} images in data.image are transparent in part, or have a channel for that (the second, or the fourth), "
        "which is left out: their colours are read as they are stored"
    ),
    "orientation": Kind(
        "{count} volumes in data.image have no affine that says how they lie in the patient; they are turned as "
        "nibabel, or of NRRD and MetaImage ITK, takes such files to lie",
    ),
    "two affines": Kind(
        "{count} volumes in data.image have two affines (sform and qform) by which they lie otherwise, or have "
        "other spacings; the sform is read, as nibabel does",
    ),
    "sheared": Kind(
        "{count} volumes in data.image have axes that are not at right angles, such as slices of a tilted gantry; "
        "their voxels are read as stored",
        "to straighten them, resample before",
    ),
    "slice axes": Kind(
        "{count} single slices in data.image are of kinds of volumes (NIfTI, NRRD, MetaImage, MINC): their first axis "
        "goes to the patient's right, front or head as volumes' do, where that of PNG and DICOM goes down the image",
        "where sites differ in this, store all as one kind",
    ),
    "eight bits": Kind(
        "{count} images in data.image have colours of 16 bits (or grey with transparency); the upper 8 are read",
        "npy keeps all",
    ),
    "gaps": Kind(
        "{count} time series in data.sequence have empty or infinite numbers, which are filled as empty cells are"
    ),
    "measures suffix": Kind("{count} names in data.measures have no ending, and are read as those of files that have"),
    "excel errors": Kind(
        "{count} cells of the Excel sheet hold errors such as #DIV/0!, which count as empty", details="columns"
    ),
    "decimal points": Kind(
        "{count} cells have a point in their number where data.decimal says a comma; it is read as a decimal mark too, "
        "so that 1.234 is no thousand",
        'if it is one, data.thousands: "." says so; where a column has both kinds, write one there',
        "columns",
    ),
    "hidden rows": Kind(
        "{count} rows are hidden in the Excel sheet, as those are that a filter takes out, and are read as all others"
    ),
    "hidden columns": Kind(
        "{count} columns are hidden in the Excel sheet, and are read as all others",
        "data.exclude leaves them out",
        "columns",
        rows=False,
    ),
    "hidden sheet": Kind(
        "{count} sheet that is read is hidden in the Excel book", "sheet_name names another", "sheet", rows=False
    ),
    "row names": Kind(
        "{count} columns of the parquet file are the names of its rows to pandas, and are not read",
        "reset_index() before it is written makes them columns",
        "columns",
        rows=False,
    ),
    **{
        f"word {word}": Kind(
            f"{{count}} cells of columns that hold labels say {word}, which counts as empty",
            f"data.not_missing: [{word}] keeps it as a label",
            "columns",
        )
        for word in ("None", "NA", "N/A", "n/a")
    },
    "one-hot": Kind(
        "{count} arrays of labels are one-hot, and the class of a row is the place of its 1, from 0",
        "",
        "columns",
        rows=False,
    ),
    "parts": Kind(
        "arrays of {count} parts are read as one table, whose column split says which: data.split_column: split, with "
        "split: given, keeps them apart",
        rows=False,
    ),
    "other arrays": Kind(
        "{count} npy files of the folder go with no others by their names, and are not read", rows=False
    ),
    "other tables": Kind(
        "{count} files beside the folder's table could be tables as well, and are not read",
        "naming a file in place of the folder reads that",
        rows=False,
    ),
    "measures ending": Kind(
        "{count} names in data.measures are read with what follows them in the names of the files", details="common"
    ),
}


def add(assumed: Assumed, kind: str, detail: str = "", count: int = 1) -> None:
    """Count one more, with its detail where it has one."""
    details, before = assumed.get(kind, ([], 0))
    assumed[kind] = sorted({*details, detail} - {""}), before + count


def disclosed(
    assumed: Assumed, count_of: Callable[[int], int | None], allows: Callable[[str], bool], *, every: bool
) -> list[Told]:
    """Return what may be told of a site's table.

    Parameters
    ----------
    assumed
        What its readers wrote.
    count_of
        The count as it may be told, None where it may not: `Policy.disclosed`.
    allows
        Whether a column may be named.
    every
        Whether all columns may be, and with them what else files are made of.
    """
    told: list[Told] = []
    for name in sorted(set(assumed) & set(KINDS)):
        kind, (details, count) = KINDS[name], assumed[name]
        shown = count_of(count) if kind.rows else count
        if kind.details == "columns":
            named = [column for column in details if allows(column)]
            if not named:
                continue
            # The count is of cells in all of them.
            details, shown = named, shown if len(named) == len(details) else None
        elif (kind.details == "sheet" and not every) or (kind.details == "common" and shown is None):
            details = []
        told.append([name, [printable(text, _LONGEST_DETAIL) for text in details[:_MOST_DETAILS]], shown])
    return told


def without_counts(told: Iterable[Told]) -> list[Told]:
    """Return what is told without the counts of rows."""
    return [[name, details, None if KINDS[name].rows else count] for name, details, count in told]


def check_assumed(told: Any) -> list[Told]:
    """Read what a site tells; raises WireError for what is none of the known kinds, or too long."""
    if not isinstance(told, list) or len(told) > len(KINDS):
        raise WireError("what it assumed of its files must be a list of known kinds")
    for item in told:
        name, details, count = item
        texts = isinstance(details, list) and len(details) <= _MOST_DETAILS
        if name not in KINDS or not texts or any(text != printable(text, _LONGEST_DETAIL) for text in details):
            raise WireError("what it assumed of its files must be of known kinds, with short details")
        if count is not None and not (type(count) is int and 0 <= count <= _MOST):
            raise WireError("what it assumed of its files must have counts")
    return told
