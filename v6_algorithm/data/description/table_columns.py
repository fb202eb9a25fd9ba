"""A table's columns as numbers and as texts, looked up once: what describes a table asks here, again and again.

`description`, `leaks` and `repeats` share one `TableColumns` of a table while a site answers; a small table's numbers
stay in it, a long one's are taken out some columns at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.reading.cells import columns_at
from v6_algorithm.data.reading.texts import Texts, texts_of

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray
# Cells of numbers that are looked at together, and as many of a table stay.
_MOST_CELLS = 2_000_000


class TableColumns:
    """The columns of one table, which nobody changes; each name is in it once.

    Attributes
    ----------
    frame
        The table.
    names
        Of its columns, in their order.
    numeric
        Columns of numpy's numbers, and where they stand in the table.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.names: list[str] = frame.columns.tolist()
        self.numeric = {
            name: place
            for place, (name, dtype) in enumerate(zip(self.names, frame.dtypes.tolist(), strict=True))
            if isinstance(dtype, np.dtype) and dtype.kind in "biuf"
        }
        self._rows = len(frame)
        self._texts: dict[str, Texts | None] = {}

    def texts_of(self, name: str) -> Texts | None:
        """Return the texts of a column; None where it holds anything else."""
        if name not in self._texts:
            self._texts[name] = None if name in self.numeric else texts_of(self.frame[name])
        return self._texts[name]

    def numbers_of(self, name: str) -> Array:
        """Return one column as numbers, (rows,) float64, NaN where a cell is empty or no number."""
        import pandas as pd

        if (texts := self.texts_of(name)) is not None:
            return texts.numbers
        numbers: Array = pd.to_numeric(self.frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers

    def blocks(
        self, names: Sequence[str] | None = None, rows: Array | None = None
    ) -> Iterator[tuple[Sequence[str], Array]]:
        """Yield columns some at a time: their names, and (rows, columns) float64, NaN where empty or no number.

        Parameters
        ----------
        names
            The columns; None: those of numpy's numbers. Those come first, and the others behind them.
        rows
            Places of the rows, in their order; None: all.
        """
        if names is None:
            plain, others = list(self.numeric), []
        else:
            plain = [name for name in names if name in self.numeric]
            others = [name for name in names if name not in self.numeric]
        step = max(_MOST_CELLS // max(self._rows if rows is None else len(rows), 1), 1)
        for start in range(0, len(plain), step):
            some = plain[start : start + step]
            yield some, self._block(some, rows)
        for start in range(0, len(others), step):
            some = others[start : start + step]
            block = np.column_stack([self.numbers_of(name) for name in some])
            yield some, block if rows is None else block[rows]

    def _block(self, names: list[str], rows: Array | None) -> Array:
        """Return columns of numpy's numbers as (rows, columns) float64."""
        if self._rows * len(self.numeric) <= _MOST_CELLS:
            whole, place = self._kept
            block = whole if len(names) == len(place) else whole[:, [place[name] for name in names]]
            return block if rows is None else block[rows]
        columns = columns_at(self.frame, [self.numeric[name] for name in names])
        numbers: Array = (columns if rows is None else columns.iloc[rows]).to_numpy(dtype=np.float64)
        return numbers

    @cached_property
    def _kept(self) -> tuple[Array, dict[str, int]]:
        """The columns of numpy's numbers of a small table, which nobody writes into, and the place of each."""
        numbers = columns_at(self.frame, list(self.numeric.values())).to_numpy(dtype=np.float64)
        return numbers, {name: place for place, name in enumerate(self.numeric)}
