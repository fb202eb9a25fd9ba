"""Tables of one subject each, as FreeSurfer leaves them, whose measures become columns beside the covariates.

`sources` reads through here where the experiment has ``data.measures``, a column whose cells name such a table: a
`.stats` file; a text file of a name and a number a line (``Measure:volume`` and the subject on top, as
`asegstats2table` and coinstac-dinunet have them); or a subject's folder, of which ``stats/aseg.stats``,
``lh.aparc.stats`` and ``rh.aparc.stats`` are read. Columns are named as `asegstats2table` and `aparcstats2table` do.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.files import as_names, folder_of, left_out_of, within
from v6_algorithm.data.names import not_there
from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# What a cell may leave out, and of a subject's folder what is read.
_ENDINGS = ("", ".stats", "_aseg_stats.txt", ".txt", ".tsv", ".csv")
_IN_FOLDERS = ("aseg.stats", "lh.aparc.stats", "rh.aparc.stats")
# What `aparcstats2table` calls the columns of a parcellation.
_PARCELS = {"SurfArea": "area", "GrayVol": "volume", "ThickAvg": "thickness"}
_TABLES = (".stats", ".txt", ".tsv", ".csv")
_SHOWN_ROWS, _SHOWN_ENDINGS = 30, 10
_MOST_BYTES = 2**22
_MOST_MEASURES = 20_000


def find_measures(column: pd.Series, folder: Path | None, assumed: Assumed | None = None) -> list[list[Path] | None]:
    """Return the files of each cell, None where it is empty or names nothing that is there; raises DataError.

    What most cells leave out of their files' names, such as ``_aparc.txt``, may be anything, as long as it is one. What
    they leave out is written into `assumed`.
    """
    base = folder_of(column, folder, "measures")
    cells = [cell.strip() if isinstance(cell, str) else "" for cell in as_names(column).tolist()]
    files = [_find(base, cell) if cell else None for cell in cells]
    if any(files) or not any(cells):
        ends = [found[0].name[len(Path(cell).name) :] for cell, found in zip(cells, files, strict=True) if found]
        if assumed is not None and (left_out := [end for end in ends if end in _ENDINGS[1:]]):
            assumed["measures suffix"] = sorted(set(left_out)), len(left_out)
        return files
    endings = left_out_of([cell for cell in cells if cell], base, _TABLES)
    if len(endings) > 1:
        raise DataError(
            f"column '{column.name}' (data.measures) names subjects of which there is more than one table each: "
            f"{', '.join(endings[:_SHOWN_ENDINGS])}; write the one that is meant behind each name there"
        )
    if not endings:
        return files
    files = [_find(base, f"{cell}{endings[0]}") if cell else None for cell in cells]
    if assumed is not None:
        assumed["measures ending"] = endings, sum(file is not None for file in files)
    return files


def _find(base: Path, cell: str) -> list[Path] | None:
    for ending in _ENDINGS:
        place = within(base, cell + ending, ("",))
        if place is None or not cell:
            return None
        if place.is_file():
            return [place]
        if place.is_dir() and not ending:
            stats = place / "stats" if (place / "stats").is_dir() else place
            files = [stats / name for name in _IN_FOLDERS if (stats / name).is_file()]
            return [file for file in files if file.resolve().is_relative_to(base)] or None
    return None


def with_measures(frame: pd.DataFrame, name: str, folder: Path | None, assumed: Assumed | None = None) -> pd.DataFrame:
    """Return a table with the measures of the files that a column names as further columns, NaN where one has none.

    Raises
    ------
    DataError
        When the column is not there, cells name no file that can be read (their rows are told, from 1), or a measure is
        called as a column is.
    """
    import pandas as pd

    if name not in frame.columns:
        raise DataError(not_there(f"column '{name}' (data.measures)", name, frame.columns))
    subjects: list[dict[str, float]] = []
    wrong = []
    for row, files in enumerate(find_measures(frame[name], folder, assumed)):
        measures: dict[str, float] = {}
        for file in files or ():
            measures |= _read(file)
        if not measures:
            wrong.append(row + 1)
        subjects.append(measures)
    if wrong:
        more = f", … {len(wrong) - _SHOWN_ROWS} more" if len(wrong) > _SHOWN_ROWS else ""
        raise DataError(
            f"column '{name}' (data.measures) has {len(wrong)} cells that name no table of measures that can be read: "
            f"row {', '.join(map(str, wrong[:_SHOWN_ROWS]))}{more}; allowed: .stats, .txt, .tsv or .csv files, or "
            "folders of subjects, in the table's folder or below"
        )
    columns = list(dict.fromkeys(measure for measures in subjects for measure in measures))
    if len(columns) > _MOST_MEASURES:
        raise DataError(f"column '{name}' (data.measures) names tables of over {_MOST_MEASURES} different measures")
    if both := [column for column in columns if column in frame.columns]:
        raise DataError(f"column '{both[0]}' is in the table and in the files that '{name}' (data.measures) names")
    values = np.array([[measures.get(column, np.nan) for column in columns] for measures in subjects])
    return pd.concat([frame, pd.DataFrame(values, frame.index, columns)], axis=1)


def _read(file: Path) -> dict[str, float]:
    """Return the measures of one file; none where it is no such table."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return {}
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    try:
        return _of_stats(lines) if lines and lines[0].startswith("#") else _of_lines(lines)
    except (ValueError, IndexError):
        return {}


def _of_stats(lines: Sequence[str]) -> dict[str, float]:
    """Read a `.stats` file: `# Measure` lines, and a table under `# ColHeaders`."""
    measures: dict[str, float] = {}
    headers: list[str] = []
    hemisphere = ""
    for line in lines:
        words = line[1:].split() if line.startswith("#") else line.split()
        if not words:
            continue
        if not line.startswith("#"):
            if not headers or len(words) != len(headers):
                raise ValueError("a line that does not fit the headers")
            cells = dict(zip(headers, words, strict=True))
            if "Volume_mm3" in cells:
                measures[cells["StructName"]] = float(cells["Volume_mm3"])
            else:
                for column, measure in _PARCELS.items():
                    measures[f"{hemisphere}{cells['StructName']}_{measure}"] = float(cells[column])
        elif words[0] == "ColHeaders":
            headers = words[1:]
        elif words[0] == "hemi":
            hemisphere = f"{words[1]}_"
        elif words[0] == "Measure":
            # Structure, name, description, value, unit.
            parts = [part.strip() for part in line.split("Measure", 1)[1].split(",")]
            # Those of a hemisphere's file repeat what aseg says, or have its names.
            if not hemisphere:
                measures[parts[1]] = float(parts[3])
    return measures


def _of_lines(lines: Sequence[str]) -> dict[str, float]:
    """Read lines of a name and a number, or a header of names above one line of numbers."""
    used = [line for line in lines if line.strip()]
    separator = next(mark for mark in ("\t", ",", ";", None) if mark is None or mark in used[0])
    rows = [line.split() for line in used] if separator is None else list(csv.reader(used, delimiter=separator))
    if len(rows) == 2 and len(rows[0]) == len(rows[1]) and len(rows[0]) > 2:
        rows = list(map(list, zip(*rows, strict=True)))
    if any(len(row) != 2 for row in rows):
        raise ValueError("more than a name and a number")
    # The first line may say what is measured, and of whom.
    if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", rows[0][1]) or rows[0][0].startswith("Measure"):
        rows = rows[1:]
    measures = {name.strip(): float(number) for name, number in rows}
    if len(measures) < len(rows):
        raise ValueError("a measure is there twice")
    return measures
