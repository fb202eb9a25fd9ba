"""Where images are kept once they are read: a file of the run's state, memory, a file without a name, or nowhere.

`stack` writes them here. Where they fit nowhere they are decoded again whenever a batch asks for them (`Stream`), from
the same files by the same code, so that a run on a small disk gives the numbers of one on a large disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
# Without a folder to keep them in, images up to this many bytes stay in memory, and others go to a temporary file.
_MEMORY_BYTES = 2**28
# Images that a stream keeps decoded: as many as a few batches have.
_STREAM_BYTES = 2**26


class Stream:
    """Images that are decoded when they are asked for; read like the (rows, channels, lengths …) array they would be.

    Parameters
    ----------
    decode
        From a row to its image.
    shape, dtype
        Of all images together.
    absent
        Rows without an image, which are zeros.
    """

    def __init__(
        self, decode: Callable[[int], Array], shape: tuple[int, ...], dtype: np.dtype, absent: Collection[int]
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._decode, self._absent = decode, frozenset(absent)
        self._recent: OrderedDict[int, Array] = OrderedDict()
        self._room = max(_STREAM_BYTES // max(int(np.prod(shape[1:])) * dtype.itemsize, 1), 1)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Array) -> Array:
        images = np.zeros((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows.tolist()):
            if row not in self._absent:
                images[place] = self._image(row)
        return images

    def _image(self, row: int) -> Array:
        image = self._recent.pop(row, None)
        if image is None:
            image = self._decode(row)
        self._recent[row] = image
        if len(self._recent) > self._room:
            self._recent.popitem(last=False)
        return image


class Room:
    """Where the images of one table are written.

    Parameters
    ----------
    shape, dtype
        Of all of them together.
    kept
        The file that they are to be in when they are complete, or None.

    Attributes
    ----------
    array
        What to write them to; None where there is no room for them.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, kept: Path | None) -> None:
        self.shape, self.dtype = shape, dtype
        self.array: Array | None = None
        self._kept, self._temporary = kept, None
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        try:
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=kept.parent, prefix=".images-", suffix=".npy")
                os.close(handle)
                self._temporary = Path(name)
                self.array = np.lib.format.open_memmap(self._temporary, "w+", dtype, shape)
                reserve(self._temporary)
                return
        except OSError:
            # A full or read-only disk is no error: without the file the next round reads the images again.
            self.array = None
            self.tidy()
        if size <= _MEMORY_BYTES:
            self.array = np.zeros(shape, dtype)
            return
        try:
            with tempfile.TemporaryFile() as file:
                os.posix_fallocate(file.fileno(), 0, size)
                self.array = np.memmap(file, dtype, "r+", shape=shape)
        except OSError:
            self.array = None

    def finish(self, about: Mapping[str, Any]) -> Array | None:
        """Give the file its name, so that it is there whole or not at all; map it anew, not to be written to.

        `about` is kept beside it; where there is no room for images it says so, and no round looks for them again.
        """
        if self._kept is None:
            return self.array
        try:
            if self._temporary is not None and self.array is not None:
                self.array.flush()  # type: ignore[attr-defined]
                self._kept.with_suffix(".json").write_text(json.dumps(about))
                os.replace(self._temporary, self._kept)
                self._temporary = None
                return np.load(self._kept, mmap_mode="c", allow_pickle=False)
            if self.array is None:
                streamed = {"shape": self.shape, "dtype": self.dtype.name}
                self._kept.with_suffix(".json").write_text(json.dumps({**about, "streamed": streamed}))
        except (OSError, ValueError):
            pass
        return self.array

    def tidy(self) -> None:
        """Remove a file that was not finished."""
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None


def load(kept: Path) -> tuple[Array | None, dict[str, Any]] | None:
    """Map the images that are kept in a file, with what is told of them; no array: they are to be streamed.

    Returns None where nothing is kept, or it does not read back whole.
    """
    try:
        about = dict(json.loads(kept.with_suffix(".json").read_text()))
        if "streamed" in about:
            return None, about
        return np.load(kept, mmap_mode="c", allow_pickle=False), about
    except (OSError, ValueError, TypeError, EOFError):
        return None


def reserve(file: Path) -> None:
    """Raise OSError now when the disk is too small: writing to a mapped file that cannot grow ends the process."""
    with file.open("r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
