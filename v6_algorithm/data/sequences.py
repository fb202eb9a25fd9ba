"""Time series, one for each row: from cells that are lists or arrays or that name files, stacked into one array.

A table holds them in a column whose cells are (time, channels) or (channels, time) numbers, or a list of numbers where
there is one channel; or the name of an npy file with such an array, or of an npz file with one. `site` and `encoding`
read that column through here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.files import folder_of, within
from v6_algorithm.data.reading.cells import blurred
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Sequence

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


def holds_arrays(column: pd.Series) -> bool:
    """Say whether the cells of a column are lists or arrays."""
    known = column.dropna()
    return len(known) > 0 and isinstance(known.iloc[0], (list, tuple, np.ndarray))


def find_files(column: pd.Series, folder: Path | None) -> list[Path | None]:
    """Return the file that each cell names, None where a cell is empty.

    Raises
    ------
    DataError
        When the table is in no folder, or a cell names a file that is not there, or not within the folder.
    """
    base, files = folder_of(column, folder, "sequence"), []
    for cell in column.tolist():
        file = within(base, cell, (".npy", ".npz")) if isinstance(cell, str) else None
        if isinstance(cell, str) and (file is None or not file.is_file()):
            raise DataError(
                f"column '{column.name}' (data.sequence) has cells that do not name an .npy or .npz file in "
                "the table's folder, or below; of EDF, WFDB, CSV, MATLAB and other files write each as npy"
            )
        files.append(file)
    return files


def read_files(column: pd.Series, files: Iterable[Path | None]) -> pd.Series:
    """Return the column with the array of each file, NaN where a cell is empty.

    Raises
    ------
    DataError
        When a file is no array, holds Python objects, which are never unpickled, or is an npz file of several arrays.
    """
    import pandas as pd

    return pd.Series(
        [np.nan if file is None else _read_array(file, column.name) for file in files], column.index, object
    )


def _read_array(file: Path, column: Any) -> Array:
    try:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content as arrays:
            (name,) = arrays.files
            array: Array = arrays[name]
            return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(
            f"column '{column}' (data.sequence) names files that are not one array of numbers each"
        ) from None


def count_gaps(column: pd.Series) -> int:
    """Count the series that have empty or infinite numbers; what is no series is left to `describe_sequences`."""
    count = 0
    for value in column.tolist():
        if isinstance(value, (list, tuple, np.ndarray)):
            try:
                count += not np.isfinite(_array(value)).all()
            except (TypeError, ValueError):
                continue
    return count


def describe_sequences(column: pd.Series, sequence: Sequence) -> dict[str, int]:
    """Return the `shortest` and `longest` number of times, and the number of `channels`.

    Raises
    ------
    DataError
        When a cell is not an array of numbers, or cells have different numbers of channels.
    """
    shapes = np.array([cell.shape for cell in _cells(column, sequence)])
    if len(np.unique(shapes[:, 1])) > 1:
        raise DataError(
            f"column '{sequence.column}' (data.sequence) has rows of different numbers of channels; "
            f"data.sequence.axes is {sequence.axes}"
        )
    return {"shortest": int(shapes[:, 0].min()), "longest": int(shapes[:, 0].max()), "channels": int(shapes[0, 1])}


def stack_sequences(
    column: pd.Series, sequence: Sequence, length: int, channels: int, dtype: str
) -> tuple[Array, Array]:
    """Return (rows, length, channels), and (rows,) lengths, none where rows are cut; raises as `describe_sequences`.

    Rows are cut to their first `length` times; with `sequence.length` longest, shorter ones are padded with NaN. As
    columns of numbers, they are float64 where float32 could not tell neighbouring values apart, and are rounded when
    they are centred.
    """
    padded = sequence.length == "longest"
    cells = _cells(column, sequence)
    if dtype == "float32" and {cell.shape[1] for cell in cells} == {channels} and blurred(np.concatenate(cells)).any():
        dtype = "float64"
    stacked = np.full((len(column), length, channels), np.nan, dtype=dtype)
    lengths = np.empty(len(column), dtype=np.int64)
    for row, cell in enumerate(cells):
        times = len(cell)
        if (times > length if padded else times < length) or cell.shape[1] != channels:
            raise DataError(f"column '{sequence.column}' (data.sequence) has rows of other shapes than at preparation")
        lengths[row] = times
        stacked[row, :times] = cell[:length]
    return stacked, lengths if padded else lengths[:0]


def _cells(column: pd.Series, sequence: Sequence) -> list[Array]:
    """Return a (time, channels) float array for each row."""
    cells = []
    for value in column.tolist():
        try:
            cell = _array(value)
        except (TypeError, ValueError):
            cell = np.empty(0)
        if cell.ndim not in (1, 2) or not cell.size:
            raise DataError(
                f"column '{sequence.column}' (data.sequence) has cells that are no arrays of numbers; "
                "each must be a list over time, of numbers or of equally long lists"
            )
        if cell.ndim == 1:
            cell = cell[:, None]
        elif sequence.axes == "channels_time":
            cell = cell.T
        cells.append(cell)
    return cells


def _array(value: Any) -> Array:
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.dtype.kind in "cMm":  # NumPy would drop the imaginary part, and count days.
            raise TypeError
        return value.astype(np.float64, copy=False)
    # A list of lists from parquet is an array of arrays.
    return np.asarray([np.asarray(item, dtype=np.float64) for item in value], dtype=np.float64)
