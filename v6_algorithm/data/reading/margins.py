"""Lines of a file that are no rows: units or labels below the header, totals at the end, a header in the middle.

Each would be a patient more, and makes its columns text. `sources` looks here at what it has read of text files and
Excel sheets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
_TOTAL = re.compile(
    r"((grand|sub)[ -]?)?total[es]?|totaal|gesamt|insgesamt|summe|sum|som|mean|average|avg|mittelwert|moyenne|"
    r"gemiddelde?|median|mediaan|m[ée]diane|std|sd|n|count|anzahl|aantal|subtotaal",
    re.I,
)
_WORD = re.compile(r"[^\W\d_]")
# Lines below the header that may be labels or units (Qualtrics has two), and at the end that may be totals.
_LINES = 2
_FEWEST_ROWS = 5
_MOST_BELOW = 12
# A row is the sum of all others in so many columns, to this precision, by no chance.
_FEWEST_SUMS, _ROUNDED = 2, 1e-9
# As databases draw a line below the header.
_RULE = re.compile(r"[-=_+]+")


def check_margins(frame: pd.DataFrame, name: str) -> None:
    """Raise DataError where a line below the header, or at the end, is none of the table's rows.

    Parameters
    ----------
    frame
        What was read, in the file's order.
    name
        How messages call the file.
    """
    if len(frame) < _FEWEST_ROWS:
        return
    # By place: a name may be there twice.
    texts = [place for place, dtype in enumerate(frame.dtypes) if dtype.kind not in "biufcmM"]
    cells = {place: frame.iloc[:, place].tolist() for place in texts}
    headers = {place: str(frame.columns[place]).strip() for place in texts}
    _check_headers(cells, headers, name)
    for lines in range(1, _LINES + 1):
        above = {place: column[:lines] for place, column in cells.items() if _is_text_above(column, lines)}
        words = {str(column[lines - 1]).strip() for column in above.values()}
        # One word in two columns may be a code for "not known"; a unit or label is of its column.
        if len(words) > 1:
            raise DataError(
                f"{name}: the first {'line' if lines == 1 else f'{lines} lines'} below the header "
                f"hold{'s' if lines == 1 else ''} words in {len(above)} columns that are numbers below, as units or "
                "labels do: take it out of the file"
            )
    if len(cells) == frame.shape[1] > 1 and all(_RULE.fullmatch(str(column[0]).strip()) for column in cells.values()):
        raise DataError(f"{name}: the line below the header is of dashes, and no row: take it out of the file")
    below = max((lines for column in cells.values() if (lines := _totals_below(column)) > 1), default=0)
    if below:
        raise DataError(
            f"{name}: the last {below} lines hold words such as total or mean in a column of numbers, so they are no "
            "rows: take them out of the file"
        )
    if any(_TOTAL.fullmatch(str(column[-1]).strip()) and _are_numbers(column[:-1]) for column in cells.values()):
        raise DataError(
            f"{name}: the last line holds a word such as total or mean in a column of numbers, so it is no row: take "
            "it out of the file"
        )
    if _are_sums(frame):
        raise DataError(
            f"{name}: the last line holds the sums or means of the lines above, so it is no row: take it out of the "
            "file"
        )
    if _is_remark(frame.iloc[-1].tolist()) and any(
        isinstance(column[-1], str) and _are_numbers(column[:-1]) for column in cells.values()
    ):
        raise DataError(
            f"{name}: the last line holds one cell, of words in a column of numbers, as a remark does: take it out of "
            "the file"
        )


def _are_sums(frame: pd.DataFrame) -> bool:
    """Say whether the last line has the sums, or the means, of all columns of numbers in which it is not blank."""
    import numpy as np

    ways, counted = [True, True], 0
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "if":
            continue
        numbers = frame.iloc[:, place].to_numpy(dtype=np.float64)
        last, above = numbers[-1], numbers[:-1][~np.isnan(numbers[:-1])]
        # Of a column of zeros, or of one number, the sum or mean is as its rows are.
        if np.isnan(last) or len(above) < _FEWEST_ROWS or np.ptp(above) == 0:
            continue
        found = (above.sum(), above.mean())
        ways = [
            way and bool(np.isclose(last, one, rtol=_ROUNDED, atol=0)) for way, one in zip(ways, found, strict=True)
        ]
        counted += 1
        # Of most tables the first column shows it.
        if not any(ways):
            return False
    return counted >= _FEWEST_SUMS


def _totals_below(column: Sequence[Any]) -> int:
    """Count the lines at the end of a column of numbers that have words or nothing, where one is called a total."""
    if not any(isinstance(cell, str) and _TOTAL.fullmatch(cell.strip()) for cell in column[-_MOST_BELOW:]):
        return 0
    for lines in range(1, min(_MOST_BELOW, len(column) - _FEWEST_ROWS) + 1):
        if _are_numbers(column[:-lines]):
            words = [str(cell).strip() for cell in column[-lines:] if isinstance(cell, str)]
            return lines if any(map(_TOTAL.fullmatch, words)) else 0
    return 0


def _is_remark(row: Sequence[Any]) -> bool:
    """Say whether a row of several cells is empty but for one, which has words."""
    known = [cell for cell in row if cell is not None and cell == cell and str(cell).strip()]
    return len(row) > _LINES and len(known) == 1 and isinstance(known[0], str) and bool(_WORD.search(known[0]))


def _check_headers(cells: dict[int, list[Any]], headers: dict[int, str], name: str) -> None:
    """Raise DataError for a row that holds the names of its columns."""
    rows: dict[int, int] = {}
    for place, column in cells.items():
        if headers[place] in column:
            for row, cell in enumerate(column):
                if isinstance(cell, str) and cell.strip() == headers[place]:
                    rows[row] = rows.get(row, 0) + 1
    for row, count in rows.items():
        if count > 1:
            raise DataError(
                f"{name}: row {row + 1} repeats the header: are these several tables in one file? Keep one header"
            )


def _is_text_above(column: Sequence[Any], lines: int) -> bool:
    """Say whether a column is numbers but for words in its first lines."""
    above = column[:lines]
    words = all(isinstance(cell, str) and _WORD.search(cell) and not _NUMBER.fullmatch(cell) for cell in above)
    return words and _are_numbers(column[lines:])


def _are_numbers(cells: Sequence[Any]) -> bool:
    """Say whether cells are numbers or empty, and some are numbers."""
    known = [cell for cell in cells if cell is not None and cell == cell and str(cell).strip()]
    return bool(known) and all(not isinstance(cell, str) or _NUMBER.fullmatch(cell) for cell in known)
