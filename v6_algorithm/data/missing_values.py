"""Cells that hold a hospital's code for "not known", such as -9, made empty before anything else sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.reading.cells import cleaned
from v6_algorithm.data.sequences import holds_arrays
from v6_algorithm.data.targets import canonical, coded

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.experiment.missing_values import Code, MissingValues
    from v6_algorithm.experiment.table_form import TableForm

Array = np.ndarray
# Columns that are compared and copied at once.
_BLOCK_COLUMNS = 512


def without_codes(
    frame: pd.DataFrame, codes: MissingValues, *, smallest: int = 1, form: TableForm | None = None
) -> pd.DataFrame:
    """Return the table with coded cells empty; the given one is left as it is.

    Parameters
    ----------
    frame
        The rows.
    codes
        Of every column, or by column; columns that are not there are passed over. 9, 9.0 and "9" are one code, and
        text is compared without the spaces around it.
    smallest
        A code that fewer cells of a column hold is left there: a description would tell how many they are.
    form
        How the table is written: a column that was text for its codes alone is numbers without them.
    """
    import pandas as pd

    if not codes:
        return frame
    blocks, any_changed = [], False
    for start in range(0, frame.shape[1], _BLOCK_COLUMNS):
        block = frame.iloc[:, start : start + _BLOCK_COLUMNS]
        columns, changed = [column for _, column in block.items()], False
        for number, column in enumerate(columns):
            column_codes = codes.get(str(column.name), []) if isinstance(codes, dict) else codes
            coded = (
                [cells for cells in _holding(column, column_codes) if cells.sum() >= smallest] if column_codes else []
            )
            if any(cells.any() for cells in coded):
                without = column.mask(np.logical_or.reduce(coded))
                columns[number], changed = without if form is None else cleaned(without, form), True
        blocks.append(pd.concat(columns, axis=1) if changed else block)
        any_changed |= changed
    return pd.concat(blocks, axis=1) if any_changed else frame


def _holding(column: pd.Series, codes: Sequence[Code]) -> Iterator[Array]:
    """Say for each code which cells hold it, (rows,) bool; lists and dates hold none."""
    import pandas as pd

    labels = canonical(pd.Series(codes, dtype=object))
    if pd.api.types.is_numeric_dtype(column):
        # A column of float32 holds 99.9 as float32 does.
        kind = np.float32 if str(column.dtype).lower() == "float32" else np.float64
        numbers = column.to_numpy(dtype=kind, na_value=np.nan)
        yield from (numbers == kind(label) for label in labels if not isinstance(label, str))
    elif not holds_arrays(column) and not pd.api.types.is_datetime64_any_dtype(column):
        known = column.notna().to_numpy()
        spelled, code = coded(column[known])
        for label in labels:
            cells = np.zeros(len(column), dtype=bool)
            cells[known] = np.array([cell == label for cell in spelled], dtype=bool)[code]
            yield cells
