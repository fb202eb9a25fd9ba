"""The folder that survives between rounds at one site, and the encoded table kept in it.

On a node it is `TEMPORARY_FOLDER`, shared by the runs of one job. Losing it costs time, never correctness: what is
not there, or does not read back whole, is made again from the source.

A table is a safetensors file. It is written array by array and mapped, not read: the library's own functions hold a
second copy of what they save or load, which for a table of gigabytes is what does not fit.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.files import cache_key
from v6_algorithm.data.splits import Fold
from v6_algorithm.data.table import TableData
from v6_algorithm.experiment import PARTS

__all__ = ["cache_key", "keep", "load_cached", "map_arrays", "write_arrays", "write_whole"]
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 2**26
# Of a table; its images have a file of their own.
_ARRAYS = (
    "values",
    "one_hot",
    "target",
    "member",
    "covariates",
    "lengths",
    "position",
    "groups",
    "synthetic",
    "origin",
    "patient",
    "weights",
)


def load_cached(folder: Path, key: str) -> TableData | None:
    """Map the table kept under `key`, or return None."""
    try:
        arrays, metadata = map_arrays(folder / f"table-{key}.safetensors")
        members, group_names = json.loads(metadata["members"]), json.loads(metadata["groups"])
        folds = [
            Fold(*(arrays[f"fold.{number}.{part}"] for part in PARTS))
            for number in range(sum(name.endswith(".train") for name in arrays))
        ]
        numbers = {name: arrays[name] for name in _ARRAYS}
        return TableData(members=members, folds=folds, group_names=group_names, images=None, **numbers)
    except (OSError, KeyError, ValueError, TypeError):
        return None


def keep(folder: Path, key: str, data: TableData) -> None:
    """Keep a table under `key`; a full or read-only disk is no error, the next round just reads the source again."""
    arrays = {name: getattr(data, name) for name in _ARRAYS}
    for number, fold in enumerate(data.folds):
        arrays |= {f"fold.{number}.{part}": fold[part] for part in PARTS}
    about = {"members": json.dumps(data.members), "groups": json.dumps(data.group_names)}
    write_whole(folder, f"table-{key}.safetensors", lambda path: write_arrays(path, arrays, about))


def write_whole(folder: Path, name: str, write: Callable[[Path], None]) -> bool:
    """Write a file of the folder whole or not at all; a disk that refuses is no error, but False is returned."""
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".part-")
        os.close(handle)
        # Runs of one job may be writing at the same time: the rename makes one of them win, whole.
        write(Path(temporary))
        os.replace(temporary, folder / name)
        return True
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file without a copy of the arrays.

    The format (https://github.com/huggingface/safetensors#format): eight bytes with the length of a JSON header, the
    header, and the arrays' bytes in the order of their offsets, without gaps.
    """
    # The widest numbers first, so that every array is aligned.
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        array = arrays[name]
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            np.ascontiguousarray(arrays[name]).tofile(file)


def map_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map the arrays of a safetensors file into memory; writing to one changes the memory, not the file.

    Raises
    ------
    OSError, KeyError, ValueError, TypeError
        When it is not there, is no such file, or was cut short.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= _LONGEST_HEADER:
            raise ValueError("not a safetensors file")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    if path.stat().st_size != 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0):
        raise ValueError("the file is cut short")
    arrays = {}
    for name, item in header.items():
        dtype, shape = np.dtype(_DTYPES[item["dtype"]]), tuple(item["shape"])
        start, end = item["data_offsets"]
        if end - start != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise ValueError("an array has another size than its shape")
        # Nothing cannot be mapped.
        arrays[name] = (
            np.memmap(path, dtype, mode="c", offset=8 + length + start, shape=shape)
            if end > start
            else np.empty(shape, dtype)
        )
    return arrays, metadata
