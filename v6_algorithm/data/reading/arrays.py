"""Tables that are NumPy arrays, whose first axis are the rows: an npz file, or npy files that go in pairs.

A flat array is a column. One of two axes is a column for each number of a row, ``X_0``, ``X_1``, …, unless the
experiment reads it whole, as its time series, or learns it: a single 1 in each row (one-hot) is then the class of that
number. Of arrays of more axes a cell is one row's array: an image or a series. Arrays that are cut into parts
(``train_images`` and ``test_images``, ``x_train`` and ``x_test``) are one table with a column ``split``. `sources`
reads through here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# X.npy goes with y.npy, X_train.npy with y_train.npy, images.npy with labels.npy.
_INPUTS, _TARGETS = "x|data|features|inputs|images|volumes|samples", "y|labels?|targets?|outcomes?|classes"
_BESIDE = "groups?|patients?|subjects?|ids?"
_NAME = re.compile(rf"(?:(?P<inputs>{_INPUTS})|(?P<targets>{_TARGETS})|(?P<beside>{_BESIDE}))(?P<rest>[_.-].+)?", re.I)
# MedMNIST writes train_images, Keras x_train; what these are in `data.split_column`.
_PARTS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_WORDS = "|".join(_PARTS)
_OF_PART = re.compile(rf"(?:(?P<first>{_WORDS})[_.-](?P<of>.+)|(?P<name>.+?)[_.-](?P<last>{_WORDS}))", re.I)
_SPLIT = "split"
# More numbers a row make no columns.
_MOST_COLUMNS = 200_000


def read_arrays(
    uri: str, whole: Collection[str] = (), learned: Collection[str] = (), assumed: Assumed | None = None
) -> pd.DataFrame:
    """Read an npz file, the npy files that go with one, or those of a folder.

    Parameters
    ----------
    uri
        An npz file, an npy file or a folder.
    whole
        Arrays of which a row is one cell, whatever their axes.
    learned
        Arrays of labels, of which a row of one 1 and zeros is the number of its class.
    assumed
        What is taken for granted is written here.

    Raises
    ------
    DataError
        When the arrays have different numbers of rows, one holds Python objects, which are never unpickled, or an npy
        file has no other beside it.
    """
    path, assumed = Path(uri), {} if assumed is None else assumed
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as file:
            try:
                arrays = {name: file[name] for name in file.files}
            except ValueError:
                raise DataError("an array of the npz file holds Python objects; save numbers or text") from None
        return _table(arrays, "npz file", whole, learned, assumed)
    arrays = {}
    for place, file_path in files_of(path).items():
        try:
            arrays[place] = np.load(file_path, allow_pickle=False)
        except ValueError:
            raise DataError("an npy file is damaged, or holds Python objects; save numbers or text") from None
    if path.is_dir() and (others := sum(file.suffix.lower() == ".npy" for file in path.iterdir()) - len(arrays)) > 0:
        assumed["other arrays"] = [], others
    return _table(arrays, "npy files", whole, learned, assumed)


def files_of(path: Path) -> dict[str, Path]:
    """Return the npy files that are one table, by the names of their columns, or of a part's columns.

    Raises
    ------
    DataError
        When there is no pair, or more than one that are no parts of one table.
    """
    if path.is_file():
        match = _NAME.fullmatch(path.stem)
        rest = match["rest"] if match else None
        files = next((files for files in _pairs(path.parent).values() if path in files.values()), {})
        if len(files) < 2:
            raise DataError(
                f"{path.name} has no other array beside it: its targets go in y{rest or ''}.npy; or put both into one "
                "npz file"
            )
        return files
    pairs = {rest: files for rest, files in _pairs(path).items() if len(files) > 1}
    if len(pairs) > 1 and all(rest[1:].lower() in _PARTS for rest in pairs):
        return {f"{name}{rest}": file for rest, files in pairs.items() for name, file in files.items()}
    if len(pairs) != 1:
        raise DataError(
            f"the folder {path.name} has {len(pairs) or 'no'} pairs of npy files, such as X.npy and y.npy; it must "
            "have one, or one for each part: X_train.npy, y_train.npy, X_test.npy, y_test.npy"
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
        part = _OF_PART.fullmatch(path.stem)
        stem = f"{part['of']}_{part['first']}" if part is not None and part["first"] else path.stem
        match = _NAME.fullmatch(stem)
        # A link may lead out of the folder.
        if match is not None and not path.is_symlink():
            rest = match["rest"] or ""
            pairs.setdefault(rest, {})[stem.removesuffix(rest)] = path
            with_inputs |= {rest} if match["inputs"] else set()
    return {rest: files for rest, files in pairs.items() if rest in with_inputs}


def _table(
    arrays: dict[str, Array], what: str, whole: Collection[str], learned: Collection[str], assumed: Assumed
) -> pd.DataFrame:
    import pandas as pd

    # A record array is as many columns as it has fields.
    arrays = {
        part if array.dtype.names else name: array[part] if array.dtype.names else array
        for name, array in arrays.items()
        for part in (array.dtype.names or (name,))
    }
    parts = _by_part(arrays)
    for of_part in parts.values():
        rows = {len(array) if array.ndim else 0 for array in of_part.values()}
        if len(rows) > 1 or 0 in rows:
            raise DataError(
                f"the arrays of the {what} have different numbers of rows, or none; the first axis are the rows"
            )
    if any(array.dtype.kind not in "biufUSM" for array in arrays.values()):
        raise DataError(f"an array of the {what} is of complex numbers or of bytes; save numbers or text")
    if len(parts) > 1:
        assumed["parts"] = list(parts), len(parts)
    one_hot = {
        name
        for of in parts.values()
        for name, array in of.items()
        if name in {*learned} - {*whole} and _is_one_hot(array)
    }
    if one_hot:
        assumed["one-hot"] = sorted(one_hot), len(one_hot)
    frames = [
        _columns(of_part, whole, learned).assign(**({_SPLIT: part} if part else {})) for part, of_part in parts.items()
    ]
    if any(list(frame.columns) != list(frames[0].columns) for frame in frames):
        raise DataError(f"the parts of the {what} (train, validation, test) are of arrays with other lengths of a row")
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _by_part(arrays: dict[str, Array]) -> dict[str, dict[str, Array]]:
    """Return the arrays of each part by the names that they share; all as one part "" where they are not cut so."""
    parts: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        match = _OF_PART.fullmatch(name)
        if match is None:
            return {"": arrays}
        part = _PARTS[(match["first"] or match["last"]).lower()]
        if (shared := match["of"] or match["name"]) in parts.setdefault(part, {}):
            return {"": arrays}
        parts[part][shared] = array
    alike = {frozenset(of_part) for of_part in parts.values()}
    if len(parts) < 2 or len(alike) > 1 or any(_SPLIT in names for names in alike):
        return {"": arrays}
    names = list(next(iter(parts.values())))
    return {part: {name: parts[part][name] for name in names} for part in parts}


def _columns(arrays: dict[str, Array], whole: Collection[str], learned: Collection[str]) -> pd.DataFrame:
    import pandas as pd

    columns = []
    for name, given in arrays.items():
        # As pandas has it: bytes as text, and numbers in this machine's order.
        array = _decoded(name, given) if given.dtype.kind == "S" else given
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if name in learned and name not in whole and _is_one_hot(array):
            array = array.argmax(axis=1)
        if array.ndim == 2 and name not in whole and array.shape[1] <= _MOST_COLUMNS:
            width = array.shape[1]
            names = [name] if width == 1 and name.lower() != "x" else [f"{name}_{place}" for place in range(width)]
            columns.append(pd.DataFrame(array, columns=names))
        else:
            columns.append(pd.DataFrame({name: array if array.ndim == 1 else list(array)}))
    return pd.concat(columns, axis=1)


def _decoded(name: str, array: Array) -> Array:
    """Return an array of bytes as text; raises DataError where it is not UTF-8, and letters could only be guessed."""
    try:
        text: Array = np.char.decode(array, "utf-8")
    except UnicodeDecodeError:
        raise DataError(
            f"array '{name}' holds bytes that are not text in UTF-8; save it as text (dtype str), decoded as it was "
            "written"
        ) from None
    return text


def _is_one_hot(array: Array) -> bool:
    """Say whether each row of (rows, classes) is zeros but for a single 1."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "biuf":
        return False
    ones = array == 1
    return bool((ones | (array == 0)).all() and (ones.sum(axis=1) == 1).all())
