"""Files that the cells of a table name: found within the table's folder, and identified without reading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


# Whole numbers that float64 holds.
_MOST = 2**53
# Names whose files are looked at for what names leave out.
_LOOKED_AT = 20


def names_files(column: pd.Series) -> bool:
    """Say whether the cells of a column are text, which can only be names of files."""
    known = column.dropna()
    return len(known) > 0 and isinstance(known.iloc[0], str)


def as_names(column: pd.Series) -> pd.Series:
    """Return a column of names whose whole numbers are text: 1377, as of RSNA's bone ages, goes with 1377.png."""
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return column
    known = column.dropna()
    if not len(known) or not (known == known.round()).all() or (known.abs() >= _MOST).any():
        return column
    return column.astype(object).where(column.isna(), [f"{number:.0f}" for number in column.fillna(0).tolist()])


def folder_of(column: pd.Series, folder: Path | None, role: str) -> Path:
    """Return the folder, resolved, in which the files are; raises DataError when the table is in none."""
    if folder is None:
        raise DataError(
            f"column '{column.name}' (data.{role}) holds text; a database, or a table without a file, "
            "has no folder whose files it could name"
        )
    return folder.resolve()


def within(base: Path, cell: Any, endings: tuple[str, ...]) -> Path | None:
    """Return the file that a cell names, there or not; None where it is beyond the folder or of another type.

    Nothing above the folder, and no link to it: the rest of the machine is no part of the database.
    """
    try:
        file = (base / cell.strip()).resolve()
        if "\\" in cell and not file.exists():
            # As Windows writes folders.
            file = (base / cell.strip().replace("\\", "/")).resolve()
    except (ValueError, OSError, RuntimeError):
        return None
    return file if file.is_relative_to(base) and file.name.lower().endswith(endings) else None


def left_out_of(cells: Sequence[str], folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Return what follows most of these names in those of files in the folder, such as ``_T1w.nii.gz``."""
    if any({"/", "\\"} & set(cell) for cell in cells):
        return []
    names = {path.name for path in folder.iterdir() if path.name.lower().endswith(endings)}
    follow = {
        name[len(cell) :]
        for cell in cells[:_LOOKED_AT]
        for name in names
        if name.startswith(cell) and name[len(cell) :][:1] in tuple("._-")
    }
    return sorted(end for end in follow if 2 * sum(f"{cell}{end}" in names for cell in cells) > len(cells))


def cache_key(*parts: Any) -> str:
    """Hash what something that is kept depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def print_files(files: Iterable[Path | str | None]) -> str:
    """Identify the content of files as far as that is possible without reading them."""
    return hashlib.sha256(
        json.dumps([_print(file) if isinstance(file, Path) else file for file in files]).encode()
    ).hexdigest()


def _print(file: Path) -> tuple[str, int, int]:
    try:
        stat = file.stat()
    except OSError:
        return str(file), -1, -1
    return str(file), stat.st_size, stat.st_mtime_ns
