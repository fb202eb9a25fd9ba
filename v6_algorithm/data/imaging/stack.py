"""The images of one table: read from files or from columns of pixels, brought to one size, and kept mapped to disk.

`site` makes one `Stack` for each table, in which a row's image stands at the row's place in the table. It is made once:
later rounds map the file that it is kept in, and read from it what a batch needs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.files import folder_of, names_files, within
from v6_algorithm.data.imaging.files import ENDINGS, UnreadableImageError, read_image
from v6_algorithm.data.imaging.fitting import fitted, levelled
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.imaging.images import Image

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# Without a folder to keep them in, images up to this many bytes stay in memory, and others go to a temporary file.
_MEMORY_BYTES = 2**28
# Rows without an image that are named.
SHOWN_ROWS = 30


@dataclass(frozen=True)
class Stack:
    """The images of one table.

    Attributes
    ----------
    array
        (rows, channels, lengths …) uint8 or float32, zeros where there is no image.
    unit
        What 1 in `array` is worth.
    unreadable
        Ascending rows of the table without an image.
    """

    array: Array
    unit: float
    unreadable: Array

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


def find_images(column: pd.Series, folder: Path | None) -> list[Path | None]:
    """Return the file that each cell names, there or not; None where a cell is empty.

    Raises
    ------
    DataError
        When the table is in no folder, or a cell names no image file, or one that is not within the folder.
    """
    if not names_files(column):
        raise DataError(f"column '{column.name}' (data.image) does not hold names of files")
    base, files = folder_of(column, folder, "image"), []
    for cell in column.tolist():
        file = within(base, cell, ENDINGS) if isinstance(cell, str) else None
        if file is None and isinstance(cell, str):
            raise DataError(
                f"column '{column.name}' (data.image) has cells that do not name a file in the table's folder, or "
                f"below, that ends in {', '.join(ENDINGS)}"
            )
        files.append(file)
    return files


def read_stack(files: list[Path | None], image: Image, kept: Path | None) -> Stack:
    """Read all images, one at a time, into an array that is mapped to the file `kept`, or to a temporary one.

    Raises
    ------
    DataError
        When more of them are missing or unreadable than `image.tolerance` allows, or they differ in shape and
        `image.size` says nothing.
    """
    stack = _read_stack(files, image, kept, np.dtype(np.uint8)) or _read_stack(files, image, kept, np.dtype(np.float32))
    if stack is None:
        raise DataError("the images (data.image) cannot be held in one array")
    return stack


def _read_stack(files: list[Path | None], image: Image, kept: Path | None, dtype: np.dtype) -> Stack | None:
    """Read all images as `dtype`; None when that is uint8 and they are not, or not all of one unit."""
    room: _Room | None = None
    unit, unreadable = 1.0, []
    try:
        for row, file in enumerate(files):
            try:
                if file is None:
                    raise UnreadableImageError
                picture = read_image(file, image.dimensions, image.channels)
            except UnreadableImageError:
                unreadable.append(row)
                _check_tolerance(unreadable, len(files), image, row + 1)
                continue
            values = fitted(picture, image)
            values, own_unit = levelled(values, picture.unit, image)
            if room is None:
                room = _Room((len(files), *values.shape), dtype, kept)
                unit = own_unit if dtype == np.uint8 else 1.0
            if dtype == np.uint8 and (values.dtype != np.uint8 or own_unit != unit):
                return None
            if values.shape != room.array.shape[1:]:
                raise DataError(
                    "the images (data.image) differ in size or channels; give data.image.size, and channels: 1 or 3"
                )
            room.array[row] = values if dtype == np.uint8 else values * np.float32(own_unit)
        if room is None:
            raise DataError("none of the images (data.image) is there and can be read")
        stack = Stack(room.array, unit, np.asarray(unreadable, dtype=np.int64))
        return room.finish(stack)
    finally:
        if room is not None:
            room.tidy()


def stack_pixels(pixels: Array, image: Image, kept: Path | None) -> Stack:
    """Return images whose pixels are the columns of (rows, pixels); a row with an empty pixel has none.

    Values stay as stored; whole numbers up to 255 take a byte each.
    """
    empty = ~np.isfinite(pixels).all(axis=1)
    _check_tolerance(np.flatnonzero(empty).tolist(), len(pixels), image, len(pixels))
    values = np.where(empty[:, None], 0, pixels).reshape(len(pixels), *(image.shape or []))
    values, _ = levelled(values.astype(np.float32), 1.0, image)
    small = np.array_equal(values, np.clip(np.rint(values), 0, 255))
    room = _Room(values.shape, np.dtype(np.uint8 if small else np.float32), kept)
    try:
        room.array[:] = values
        return room.finish(Stack(room.array, 1.0, np.flatnonzero(empty)))
    finally:
        room.tidy()


def _check_tolerance(unreadable: list[int], rows: int, image: Image, seen: int) -> None:
    """Raise DataError when there are too many; positions are told as a reader of the table counts, from 1."""
    if len(unreadable) > image.tolerance * rows:
        before = "" if seen == rows else f" of the first {seen}"
        raise DataError(
            f"{len(unreadable)} images{before} (data.image) are missing or cannot be read: {_listed(unreadable)}; "
            f"data.image.tolerance allows {image.tolerance:.1%} of {rows}"
        )


def _listed(rows: list[int]) -> str:
    """Name rows of a table by their place, from 1."""
    more = f", … {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return f"row {', '.join(str(row + 1) for row in rows[:SHOWN_ROWS])}{more}"


def load_stack(kept: Path) -> Stack | None:
    """Map the images that are kept in a file, or return None."""
    try:
        about = json.loads(kept.with_suffix(".json").read_text())
        array = np.load(kept, mmap_mode="c", allow_pickle=False)
        return Stack(array, float(about["unit"]), np.asarray(about["unreadable"], dtype=np.int64))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


class _Room:
    """Where images are written: a file beside `kept`, renamed to it when they are complete; else memory or a file
    without a name.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, kept: Path | None) -> None:
        self._kept, self._temporary = kept, None
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        try:
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=kept.parent, prefix=".images-", suffix=".npy")
                os.close(handle)
                self._temporary = Path(name)
                self.array: Array = np.lib.format.open_memmap(self._temporary, "w+", dtype, shape)
                _reserve(self._temporary)
                return
        except OSError:
            # A full or read-only disk is no error: without the file the next round reads the images again.
            self.tidy()
            self._kept = None
        if size <= _MEMORY_BYTES:
            self.array = np.zeros(shape, dtype)
            return
        try:
            with tempfile.TemporaryFile() as file:
                os.posix_fallocate(file.fileno(), 0, size)
                self.array = np.memmap(file, dtype, "r+", shape=shape)
        except OSError:
            raise DataError(f"the images (data.image) take {size / 2**30:.1f} GB of disk, which is not there") from None

    def finish(self, stack: Stack) -> Stack:
        """Give the file its name, so that it is there whole or not at all; map it anew, not to be written to."""
        if self._kept is None or self._temporary is None:
            return stack
        stack.array.flush()  # type: ignore[attr-defined]
        try:
            about = {"unit": stack.unit, "unreadable": stack.unreadable.tolist()}
            self._kept.with_suffix(".json").write_text(json.dumps(about))
            os.replace(self._temporary, self._kept)
        except OSError:
            return stack
        self._temporary = None
        return load_stack(self._kept) or stack

    def tidy(self) -> None:
        """Remove a file that was not finished."""
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None


def _reserve(file: Path) -> None:
    """Raise OSError now when the disk is too small: writing to a mapped file that cannot grow ends the process."""
    with file.open("r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)


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

    def read(self, rows: Array) -> Array:
        """Return (rows, channels, lengths …) float32 images by row number."""
        images = np.empty((len(rows), *self.shape), dtype=np.float32)
        for number, stack in enumerate(self.stacks):
            own = np.flatnonzero(self.member[rows] == number)
            images[own] = stack.array[self.position[rows[own]]] * np.float32(stack.unit)
        return images

    def blocks(self, numbers: int) -> Iterator[tuple[Array, Array]]:
        """Yield row numbers and their images, with at most so many pixels at once."""
        step = max(1, numbers // max(int(np.prod(self.shape)), 1))
        for start in range(0, len(self.position), step):
            rows = np.arange(start, min(start + step, len(self.position)))
            yield rows, self.read(rows)
