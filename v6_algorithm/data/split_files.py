"""Split files of coinstac-dinunet, turned into columns of the table, which is how a split gets to a node.

A node is given one table and nothing beside it, so who trains and who is tested has to be in there. Called by
`v6-algorithm split-columns` at the hospital; the experiment names the columns in `data.split_column`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import PARTS

if TYPE_CHECKING:
    import pandas as pd


def add_split_columns(frame: pd.DataFrame, files: Sequence[Path], key: str | None = None) -> pd.DataFrame:
    """Add one column for each split file, called like the file: train, validation, test or, in no list, unused.

    Parameters
    ----------
    frame
        The site's table.
    files
        JSON files ``{"train": […], "validation": […], "test": […]}``, one for each fold.
    key
        Column that holds the entries of the lists, such as file names; None: they are row numbers from 0.

    Raises
    ------
    ExperimentError
        When a file is not such a split, or names a row twice or one that is not there.
    """
    if key is not None and key not in frame.columns:
        raise ExperimentError(f"--key {key}: the table has no such column")
    names = [str(name).strip() for name in (frame[key] if key is not None else range(len(frame)))]
    if len(set(names)) < len(names):
        raise ExperimentError(f"--key {key}: holds a value twice, so the files do not say which row they mean")
    row_of = {name: row for row, name in enumerate(names)}
    columns: dict[str, list[str]] = {}
    for file in files:
        column = ["unused"] * len(names)
        for part, entries in _read(file).items():
            rows = [row_of.get(str(entry)) for entry in entries]
            if None in rows:
                raise ExperimentError(f"{file}: {rows.count(None)} entries of '{part}' are no rows of the table")
            for row in rows:
                if column[row or 0] != "unused":
                    raise ExperimentError(f"{file}: a row is named twice")
                column[row or 0] = part
        if file.stem in frame.columns or file.stem in columns:
            raise ExperimentError(f"{file}: the table has a column '{file.stem}' already")
        columns[file.stem] = column
    return frame.assign(**columns)


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ExperimentError(f"{file}: is not JSON") from None
    if (
        not isinstance(content, dict)
        or not content
        or not all(part in PARTS and isinstance(entries, list) for part, entries in content.items())
    ):
        raise ExperimentError(f"{file}: must hold lists called {', '.join(PARTS)}, and nothing else")
    return content
