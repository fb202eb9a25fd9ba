"""Tables that are NumPy arrays, whose first axis are the rows: an npz file, or npy files that go in pairs.

A flat array is a column. One of two axes is a column for each number of a row, ``X_0``, ``X_1``, …, unless the
experiment reads it whole, as its time series. Of arrays of more axes a cell is one row's array: an image or a series.
`sources` reads through here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# X.npy goes with y.npy, X_train.npy with y_train.npy, images.npy with labels.npy.
_INPUTS, _TARGETS = "x|data|features|inputs|images|volumes|samples", "y|labels?|targets?|outcomes?|classes"
_BESIDE = "groups?|patients?|subjects?|ids?"
_NAME = re.compile(rf"(?:(?P<inputs>{_INPUTS})|(?P<targets>{_TARGETS})|(?P<beside>{_BESIDE}))(?P<rest>[_.-].+)?", re.I)
# More numbers a row make no columns.
_MOST_COLUMNS = 200_000


def read_arrays(uri: str, whole: Collection[str] = ()) -> pd.DataFrame:
    """Read an npz file, the npy files that go with one, or those of a folder.

    Parameters
    ----------
    uri
        An npz file, an npy file or a folder.
    whole
        Arrays of which a row is one cell, whatever their axes.

    Raises
    ------
    DataError
        When the arrays have different numbers of rows, one holds Python objects, which are never unpickled, or an npy
        file has no other beside it.
    """
    path = Path(uri)
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as file:
            try:
                arrays = {name: file[name] for name in file.files}
            except ValueError:
                raise DataError("an array of the npz file holds Python objects; save numbers or text") from None
        what = "npz file"
    else:
        arrays = {}
        for name, place in pair_of(path).items():
            try:
                arrays[name] = np.load(place, allow_pickle=False)
            except ValueError:
                raise DataError("an npy file is damaged, or holds Python objects; save numbers or text") from None
        what = "npy files"
    return _table(arrays, what, whole)


def pair_of(path: Path) -> dict[str, Path]:
    """Return the npy files that are one table, by the names of their columns.

    Raises
    ------
    DataError
        When there is no pair, or more than one.
    """
    if path.is_file():
        match = _NAME.fullmatch(path.stem)
        rest = match["rest"] if match else None
        files = _pairs(path.parent).get(rest or "", {}) if match else {}
        if len(files) < 2 or path not in files.values():
            raise DataError(
                f"{path.name} has no other array beside it: its targets go in y{rest or ''}.npy; or put both into one "
                "npz file"
            )
        return files
    pairs = {rest: files for rest, files in _pairs(path).items() if len(files) > 1}
    if len(pairs) != 1:
        raise DataError(
            f"the folder {path.name} has {len(pairs) or 'no'} pairs of npy files, such as X.npy and y.npy; it must "
            "have one"
        )
    return next(iter(pairs.values()))


def has_pair(folder: Path) -> bool:
    """Say whether a folder has npy files that are one table or several."""
    return any(len(files) > 1 for files in _pairs(folder).values())


def _pairs(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the npy files that have the names of a table's, by what follows in their names, where inputs are there."""
    pairs: dict[str, dict[str, Path]] = {}
    with_inputs = set()
    for path in sorted(folder.glob("*.npy")) + sorted(folder.glob("*.NPY")):
        match = _NAME.fullmatch(path.stem)
        # A link may lead out of the folder.
        if match is not None and not path.is_symlink():
            rest = match["rest"] or ""
            pairs.setdefault(rest, {})[path.stem.removesuffix(rest)] = path
            with_inputs |= {rest} if match["inputs"] else set()
    return {rest: files for rest, files in pairs.items() if rest in with_inputs}


def _table(arrays: dict[str, Array], what: str, whole: Collection[str]) -> pd.DataFrame:
    import pandas as pd

    # A record array is as many columns as it has fields.
    arrays = {
        part if array.dtype.names else name: array[part] if array.dtype.names else array
        for name, array in arrays.items()
        for part in (array.dtype.names or (name,))
    }
    rows = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(rows) > 1 or 0 in rows:
        raise DataError(
            f"the arrays of the {what} have different numbers of rows, or none; the first axis are the rows"
        )
    if any(array.dtype.kind not in "biufUSM" for array in arrays.values()):
        raise DataError(f"an array of the {what} is of complex numbers or of bytes; save numbers or text")
    parts = []
    for name, given in arrays.items():
        # As pandas has it: bytes as text, and numbers in this machine's order.
        array = np.char.decode(given, "utf-8", "replace") if given.dtype.kind == "S" else given
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.ndim == 2 and name not in whole and array.shape[1] <= _MOST_COLUMNS:
            width = array.shape[1]
            names = [name] if width == 1 and name.lower() != "x" else [f"{name}_{place}" for place in range(width)]
            parts.append(pd.DataFrame(array, columns=names))
        else:
            parts.append(pd.DataFrame({name: array if array.ndim == 1 else list(array)}))
    return pd.concat(parts, axis=1)
