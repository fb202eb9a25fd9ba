"""The images of one table: read from files or from columns of pixels, brought to one size, and kept mapped to disk.

`site` makes one `Stack` for each table, in which a row's image stands at the row's place in the table. It is made once:
later rounds map the file that it is kept in, and read from it what a batch needs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.files import as_names, folder_of, left_out_of, names_files, within
from v6_algorithm.data.imaging.copies import NONE, CopyFinder, identities
from v6_algorithm.data.imaging.files import ENDINGS, read_as_asked
from v6_algorithm.data.imaging.fitting import fitted, levelled, voxel_size
from v6_algorithm.data.imaging.naming import AMBIGUOUS, OTHER, NamedImages, without_ending
from v6_algorithm.data.imaging.picture import OTHER_ENDINGS, UnreadableImageError, described_causes, narrowed, scaled_by
from v6_algorithm.data.imaging.room import Room, Stream, load
from v6_algorithm.data.reading.assumed import Assumed, add
from v6_algorithm.data.sequences import holds_arrays
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.imaging.images import Image

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# A row's image: a file, an array, why there is none (of `picture.CAUSES`), or no name of one.
File = Path | Array | str | None
# What follows an image's name in that of its mask.
_MASK = re.compile(
    r"(.+?)[ ._-](?:d?seg(?:mentation)?s?|masks?|labels?|lesions?|rois?|gt|ground[_-]?truth|annotations?|contours?)",
    re.I,
)
# Rows without an image that are named.
SHOWN_ROWS = 30
# Between which shares of the images sizes of voxels are told, so that one odd image does not count, and their digits.
_MIDDLE, _DIGITS = (0.1, 0.9), 2
# Counts up when files are read in another way, so that images that were kept before are read again.
READING = 9


@dataclass(frozen=True)
class Stack:
    """The images of one table.

    Attributes
    ----------
    array
        (rows, channels, lengths …) uint8 or float32, or float64 where they are too far from 0 for float32; zeros where
        there is no image; read by rows.
    unit
        What 1 in `array` is worth.
    unreadable
        Ascending rows of the table without an image.
    copies
        (copies, 2) int64: the row of an exact copy, and the first row with the same image.
    causes
        How many of the unreadable rows have which of `picture.CAUSES`.
    assumed
        What the files do not say, and what was taken for it.
    voxels
        Millimetres from one voxel to the next along each axis, once fitted: of the image at a tenth of all, and of
        that at nine tenths, to two digits. Empty where no file says them.
    """

    array: Array | Stream
    unit: float
    unreadable: Array
    copies: Array = field(default_factory=NONE.copy)
    causes: Mapping[str, int] = field(default_factory=dict)
    assumed: Assumed = field(default_factory=dict)
    voxels: list[list[float]] = field(default_factory=list)

    @property
    def streamed(self) -> bool:
        """Whether images are decoded anew whenever they are asked for."""
        return isinstance(self.array, Stream)

    @property
    def readable(self) -> Array:
        """Say which rows of the table have an image: (rows,) bool."""
        readable = np.ones(len(self.array), dtype=bool)
        readable[self.unreadable] = False
        return readable

    @property
    def shape(self) -> list[int]:
        """Channels and lengths of an image."""
        return list(self.array.shape[1:])


def find_images(column: pd.Series, folder: Path | None, assumed: Assumed | None = None) -> list[File]:
    """Return the file that each cell names, there or not, or the array that it is; None where a cell is empty.

    Of a name with an ending of no image the cause, of `picture.OTHER_ENDINGS` or ``ending``.

    A cell may leave the ending out where one file goes with it, and may name a folder with one image in it. Where no
    cell names a file in the folder itself, bare names are those of images in folders below. Whatever a cell does not
    say of the file that it is read as is written into `assumed`.

    Raises
    ------
    DataError
        When the table is in no folder, or a cell names a file that is not within the folder, or several go with it.
    """
    if holds_arrays(column):
        return [cell if isinstance(cell, np.ndarray) else None for cell in column.tolist()]
    column = as_names(column)
    if not names_files(column):
        raise DataError(f"column '{column.name}' (data.image) does not hold names of files")
    base = folder_of(column, folder, "image")
    named = NamedImages(base)
    files: list[File] = [named.find(cell) if isinstance(cell, str) else None for cell in column.tolist()]
    # Where none of the names is one in the folder itself; else what is not there would be taken from another folder.
    if not any(file in (AMBIGUOUS, OTHER) or (isinstance(file, Path) and file.exists()) for file in files):
        files = _found_otherwise(column, files, named, base, {} if assumed is None else assumed)
    beyond = sum(file is None and isinstance(cell, str) for file, cell in zip(files, column.tolist(), strict=True))
    if beyond:
        raise DataError(
            f"column '{column.name}' (data.image) has {beyond:,} cells that do not name a file in the table's folder, "
            f"or below, that ends in {', '.join(ENDINGS)} or, of DICOM, in nothing"
        )
    if several := [cell for file, cell in zip(files, column.tolist(), strict=True) if file is AMBIGUOUS]:
        if all((within(base, cell, ("",)) or OTHER).is_dir() for cell in several):
            raise DataError(
                f"column '{column.name}' (data.image) has {len(several)} cells that name folders with several images "
                "each; allowed: one for each cell, a DICOM series (a file for each slice, and no other images), or the "
                "image's name behind the folder's, also where a mask lies beside it"
            )
        folders = named.folders_of(several)
        beside = (
            f"; they are in the folders {', '.join(folders[:10])}: with images: beside the site's uri one of them is "
            "looked in"
            if len(folders) > 1
            else ""
        )
        raise DataError(
            f"column '{column.name}' (data.image) has {len(several)} cells without an ending, or without a folder, "
            "that several images go with, such as an image and its mask; allowed: one for each cell, or names with "
            f"their folders and endings{beside}"
        )
    if assumed is not None:
        _note_names(column, files, assumed)
    cells = column.tolist()
    return [_of_other(cell) if file is OTHER else file for file, cell in zip(files, cells, strict=True)]


def _of_other(cell: str) -> str:
    """Return why a name with an ending of no image is none, by what it is an ending of."""
    name = cell.strip().lower()
    return next((cause for cause, endings in OTHER_ENDINGS.items() if name.endswith(endings)), "ending")


def _note_names(column: pd.Series, files: list[File], assumed: Assumed) -> None:
    """Write down how files are called otherwise than the cells that they go with."""
    counted: Counter[str] = Counter()
    suffixes = set()
    for cell, file in zip(column.tolist(), files, strict=True):
        if not isinstance(file, Path) or not isinstance(cell, str):
            continue
        name = cell.strip().replace("\\", "/").rstrip("/").rpartition("/")[2]
        rest = file.name.removeprefix(name)
        if file.name == name or file in (OTHER, AMBIGUOUS):
            continue
        if rest != file.name and rest.lower() in ENDINGS:
            counted["image suffix"] += 1
            suffixes.add(rest)
        elif file.stem == Path(name).stem:
            counted["image spelling"] += 1
        elif name in file.parts:
            counted["image folder"] += 1
    named = {file.parent / without_ending(file.name) for file in files if isinstance(file, Path)}
    counted["masks"] = sum(
        isinstance(file, Path)
        and (mask := _MASK.fullmatch(without_ending(file.name))) is not None
        and file.parent / mask[1] in named
        for file in files
    )
    counted = +counted
    assumed |= {kind: (sorted(suffixes) if kind == "image suffix" else [], count) for kind, count in counted.items()}


def _found_otherwise(
    column: pd.Series, files: list[File], named: NamedImages, base: Path, assumed: Assumed
) -> list[File]:
    """Look for images that no cell names as they stand: in folders below, or with what all names leave out.

    Raises DataError where the cells are addresses of another machine, or the files have another ending.
    """
    cells = [cell.strip() if isinstance(cell, str) else "" for cell in column.tolist()]
    what = f"column '{column.name}' (data.image)"
    if cells and all(re.match(r"[A-Za-z]:[\\/]|\w+://", cell) for cell in cells if cell):
        raise DataError(f"{what} holds addresses of another machine or of the web; write names in the table's folder")
    found = [
        named.find_below(cell) or file if isinstance(file, Path) and not {"/", "\\"} & set(cell) else file
        for file, cell in zip(files, cells, strict=True)
    ]
    if found != files:
        below = sum(one is not other and one is not AMBIGUOUS for one, other in zip(found, files, strict=True))
        assumed |= {"image below": ([], below)} if below else {}
        return found
    ends = left_out_of([cell for cell in cells if cell], base, ENDINGS)
    if len(ends) > 1:
        raise DataError(
            f"{what} leaves out what follows in its files' names, and there is more than one: {', '.join(ends[:10])}; "
            "write the one that is meant behind each name there"
        )
    if ends:
        assumed["image ending"] = ends, sum(isinstance(file, Path) for file in files)
        return [
            base / f"{cell}{ends[0]}" if isinstance(file, Path) else file
            for file, cell in zip(files, cells, strict=True)
        ]
    if other := [ending for cell in cells if cell and (ending := named.others(cell))]:
        raise DataError(
            f"{what} has {len(other)} cells whose files are there with another ending, {other[0]}; write that, or none"
        )
    return files


def read_stack(files: list[File], image: Image, kept: Path | None) -> Stack:
    """Read all images, one at a time, into an array that is mapped to the file `kept`, or to a temporary one.

    Where they fit on no disk, they are read all the same, for what cannot be and what are copies, and streamed. All are
    tried, so that every cause of failure is told at once.

    Raises
    ------
    DataError
        When more of them are missing or unreadable than `image.tolerance` allows, or they differ in shape and
        `image.size` says nothing.
    """
    for dtype in (np.uint8, np.float32, np.float64):
        if (stack := _read_stack(files, image, kept, np.dtype(dtype))) is not None:
            return stack
    raise DataError("the images (data.image) cannot be held in one array")


def _read_stack(files: list[File], image: Image, kept: Path | None, dtype: np.dtype) -> Stack | None:
    """Read all images as `dtype`; None when it does not hold them, or is uint8 and they are not all of one unit."""
    room: Room | None = None
    unit, unreadable, copies = 1.0, [], CopyFinder()
    causes: Counter[str] = Counter()
    assumed: Assumed = {}
    sizes: list[tuple[float, ...]] = []
    try:
        for row, file in enumerate(files):
            try:
                picture = read_as_asked(file, image)
                values, own_unit = fitted(picture, image)
            except UnreadableImageError as error:
                unreadable.append(row)
                causes[error.cause] += 1
                continue
            for kind, detail in picture.assumed.items():
                add(assumed, kind, detail)
            if (size := voxel_size(picture, image)) is not None:
                sizes.append(size)
            if dtype == np.float32 and values.dtype == np.float64:
                return None
            if room is None:
                room = Room((len(files), *values.shape), dtype, kept)
                unit = own_unit if dtype == np.uint8 else 1.0
            if dtype == np.uint8 and (values.dtype != np.uint8 or own_unit != unit):
                return None
            if values.shape != room.shape[1:]:
                raise DataError(
                    "the images (data.image) differ in size or channels; give data.image.size, and channels: 1 or 3"
                )
            values = _stored(values, own_unit, dtype)
            copies.see(row, values)
            if room.array is not None:
                room.array[row] = values
        if room is None:
            raise DataError(
                "none of the images (data.image) is there and can be read"
                + (f" ({described_causes(causes)})" if causes else "")
            )
        _check_tolerance(unreadable, len(files), image, causes)
        about = {"unit": unit, "unreadable": unreadable, "copies": copies.pairs.tolist(), "causes": dict(causes)}
        about |= {"assumed": assumed, "voxels": _middle_of(sizes)}
        array: Array | Stream | None = room.finish(about)
        if array is None:
            array = _stream(files, image, room.shape, dtype, unreadable)
        return _stack(array, about)
    finally:
        if room is not None:
            room.tidy()


def _middle_of(sizes: list[tuple[float, ...]]) -> list[list[float]]:
    """Return the lower and the upper end of most sizes of voxels, along each axis; empty of none."""
    if not sizes:
        return []
    ends = np.quantile(np.asarray(sizes, dtype=np.float64), _MIDDLE, axis=0, method="nearest")
    return [[float(f"{length:.{_DIGITS}g}") for length in end] for end in ends.tolist()]


def _stored(values: Array, unit: float, dtype: np.dtype) -> Array:
    """Return an image as a stack of this dtype holds it: bytes in the files' unit, or floats whose unit is 1."""
    return values if dtype == np.uint8 else (values * np.float32(unit)).astype(dtype, copy=False)


def _stream(
    files: list[File], image: Image, shape: tuple[int, ...], dtype: np.dtype, unreadable: Collection[int]
) -> Stream:
    def decode(row: int) -> Array:
        try:
            return _stored(*fitted(read_as_asked(files[row], image), image), dtype)
        except UnreadableImageError:
            raise DataError(f"the image of row {row + 1} (data.image) was there, and can no longer be read") from None

    return Stream(decode, shape, dtype, unreadable)


def stack_pixels(pixels: Array, image: Image, kept: Path | None) -> Stack:
    """Return images whose pixels are the columns of (rows, pixels); a row with an empty pixel has none.

    Values stay as stored; whole numbers up to 255 take a byte each.
    """
    if image.fill is not None:
        pixels = np.where(np.isfinite(pixels), pixels, pixels.dtype.type(image.fill))
    empty = ~np.isfinite(pixels).all(axis=1)
    causes = {"not_finite": int(empty.sum())} if empty.any() else {}
    _check_tolerance(np.flatnonzero(empty).tolist(), len(pixels), image, causes)
    values = np.where(empty[:, None], 0, pixels).reshape(len(pixels), *(image.shape or []))
    values, _ = levelled(narrowed(values, scaled_by(image), leading=2), 1.0, image)
    small = np.array_equal(values, np.clip(np.rint(values), 0, 255))
    values = values.astype(np.uint8) if small else values
    copies = CopyFinder()
    for row in np.flatnonzero(~empty).tolist():
        copies.see(row, values[row])
    unreadable = np.flatnonzero(empty).tolist()
    about = {"unit": 1.0, "unreadable": unreadable, "copies": copies.pairs.tolist(), "causes": causes}
    room = Room(values.shape, values.dtype, kept)
    try:
        if room.array is None:  # They are in memory as they are.
            return _stack(values, about)
        room.array[:] = values
        return _stack(room.finish(about), about)
    finally:
        room.tidy()


def _check_tolerance(unreadable: list[int], rows: int, image: Image, causes: Mapping[str, int]) -> None:
    """Raise DataError when there are too many; positions are told as a reader of the table counts, from 1."""
    if len(unreadable) > image.tolerance * rows:
        raise DataError(
            f"{len(unreadable)} images (data.image) are missing or cannot be read ({described_causes(causes)}): "
            f"{_listed(unreadable)}; data.image.tolerance allows {image.tolerance:.1%} of {rows}"
        )


def _listed(rows: list[int]) -> str:
    """Name rows of a table by their place, from 1."""
    more = f", … {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return f"row {', '.join(str(row + 1) for row in rows[:SHOWN_ROWS])}{more}"


def load_stack(kept: Path, files: Callable[[], list[File]], image: Image) -> Stack | None:
    """Map the images that are kept in a file, or go on to stream them from `files`; None where nothing is kept."""
    cached = load(kept)
    if cached is None:
        return None
    array, about = cached
    try:
        if array is not None:
            return _stack(array, about)
        streamed, paths = about["streamed"], files()
        shape, dtype = tuple(int(length) for length in streamed["shape"]), np.dtype(streamed["dtype"])
        return (
            _stack(_stream(paths, image, shape, dtype, about["unreadable"]), about) if len(paths) == shape[0] else None
        )
    except (ValueError, KeyError, TypeError):
        return None


def _stack(array: Array | Stream | None, about: Mapping[str, Any]) -> Stack:
    if array is None:
        raise DataError("the images (data.image) are in no array")
    return Stack(
        array,
        float(about["unit"]),
        np.asarray(about["unreadable"], dtype=np.int64),
        np.asarray(about["copies"], dtype=np.int64).reshape(-1, 2),
        about["causes"],
        {kind: (details, count) for kind, (details, count) in about.get("assumed", {}).items()},
        about.get("voxels", []),
    )


@dataclass(frozen=True)
class TableImages:
    """The images of a `TableData`: of each member hospital a stack, and where in it each row's image stands.

    Attributes
    ----------
    stacks
        One a member.
    member, position
        (rows,) index into `stacks`, and place there.
    """

    stacks: list[Stack]
    member: Array
    position: Array

    @property
    def shape(self) -> list[int]:
        """Channels and lengths of an image."""
        return self.stacks[0].shape

    @property
    def identities(self) -> Array:
        """Number the images of each member so that copies have one number: (rows,)."""
        numbers = np.empty(len(self.position), dtype=np.int64)
        for number, stack in enumerate(self.stacks):
            of_stack = self.member == number
            numbers[of_stack] = identities(stack.copies, self.position[of_stack])
        return numbers

    def read(self, rows: Array) -> Array:
        """Return (rows, channels, lengths …) images by row number: float32, or float64 where a stack is."""
        wide = any(stack.array.dtype == np.float64 for stack in self.stacks)
        images = np.empty((len(rows), *self.shape), dtype=np.float64 if wide else np.float32)
        for number, stack in enumerate(self.stacks):
            of_stack = np.flatnonzero(self.member[rows] == number)
            images[of_stack] = stack.array[self.position[rows[of_stack]]] * np.float32(stack.unit)
        return images

    def blocks(self, numbers: int) -> Iterator[tuple[Array, Array]]:
        """Yield row numbers and their images, with at most so many pixels at once."""
        step = max(1, numbers // max(int(np.prod(self.shape)), 1))
        for start in range(0, len(self.position), step):
            rows = np.arange(start, min(start + step, len(self.position)))
            yield rows, self.read(rows)
