"""Reading a parquet file: some columns at a time, so that one of 18,000 is in memory once; called by `sources`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.data.reading.cells import bare, blurred, some_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

# Columns that are read at once, and as many are on their way: at 17,000 rows of float64, 70 MB.
_BLOCK = 512
# Cells from which on threads take less time than waking them does.
_CELLS_FOR_THREADS = 100_000
# Columns as long as these, and so few of them, stay where Arrow has put them: one array of them all would be a copy.
_ROWS_OF_LONG, _MOST_LONG = 10_000, 64


def read_parquet(
    uri: str, wanted: Callable[[str], bool] | None, exact: Collection[str] | None, assumed: Assumed
) -> pd.DataFrame:
    """Read a parquet file.

    Parameters
    ----------
    uri
        The file.
    wanted, exact
        See `TableSource.read`.
    assumed
        Gets the names of what pandas wrote as rows' names, and is left out.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    with pq.ParquetFile(uri) as file, ThreadPoolExecutor(1) as reader:
        schema = file.schema_arrow
        # What pandas wrote as a row's name is no column.
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        columns = [name for name in schema.names if name not in index]
        # Whole numbers that count on are kept as a range.
        named = [item["name"] if isinstance(item, dict) else item for item in index]
        if named := [str(name) for name in named if name is not None and not str(name).startswith("__index_level_")]:
            assumed["row names"] = named, len(named)
        names = [name for name in columns if wanted is None or wanted(bare(str(name)))]
        rows = file.metadata.num_rows
        threads = rows * len(names) >= _CELLS_FOR_THREADS
        blocks = _Blocks(rows, len(names) if exact is not None and len(names) > _BLOCK else 0)
        # A table without rows or wanted columns still has its columns' names to tell.
        parts: list[list[str] | None] = [names[start : start + _BLOCK] for start in range(0, len(names), _BLOCK)]
        parts = [None] if len(parts) == 1 and names == schema.names else parts
        for table in _read_blocks(file, parts, reader, threads=threads) if rows else ():
            if exact is not None:
                # What pandas wrote of 18,000 columns would be read again with each block; a cast leaves it out as well.
                table = table.replace_schema_metadata(None)
                narrow = _narrowed(table, exact)
                table = table if narrow == table.schema else table.cast(narrow, safe=False)
            blocks.add(table)
    return blocks.frame() if rows and names else pd.DataFrame(columns=columns)


def _read_blocks(
    file: pq.ParquetFile, blocks: list[list[str] | None], reader: ThreadPoolExecutor, *, threads: bool
) -> Iterator[pa.Table]:
    """Yield columns of a file, or all for None, some at a time; the next are read while the former are looked at."""

    def read(block: list[str] | None) -> pa.Table:
        table = file.read(block, use_threads=threads)
        # Arrow takes `a` to mean `a.b` as well.
        return table if block is None else table.select(block)

    coming: list[Future[pa.Table]] = []
    for number, block in enumerate(blocks, 1):
        table = coming.pop().result() if coming else read(block)
        coming = [reader.submit(read, following) for following in blocks[number : number + 1]]
        yield table


class _Blocks:
    """The blocks of a file as they become one table; those of float32 stand in one array, which pandas takes as it is.

    pandas makes a table of a block of many columns in twice the time that reading it takes.
    """

    def __init__(self, rows: int, columns: int) -> None:
        """Take so many columns for those that may stand together; 0 of one block, which pandas keeps as it is."""
        self._frames: list[pd.DataFrame] = []
        # Memory is only taken for what is written.
        self._numbers = np.empty((columns, rows), dtype=np.float32)
        self._names: list[str] = []
        self._before = 0

    def add(self, table: pa.Table) -> None:
        """Add the next columns."""
        import pyarrow as pa

        if not len(self._numbers) or any(kind != pa.float32() for kind in table.schema.types):
            self._close()
            long = len(table) >= _ROWS_OF_LONG and table.num_columns <= _MOST_LONG
            # Threads are woken for each of many columns, and copying one takes less than that.
            self._frames.append(table.to_pandas(use_threads=False, split_blocks=long))
            return
        place = self._before + len(self._names)
        for row, column in enumerate(table.columns, place):
            self._numbers[row] = column.to_numpy()
        self._names += table.schema.names

    def frame(self) -> pd.DataFrame:
        """Return all columns in their order."""
        import pandas as pd

        self._close()
        return self._frames[0] if len(self._frames) == 1 else pd.concat(self._frames, axis=1)

    def _close(self) -> None:
        """Make a table of the columns of float32 that stand beside each other."""
        import pandas as pd

        if self._names:
            end = self._before + len(self._names)
            numbers = self._numbers[self._before : end].T
            self._frames.append(pd.DataFrame(numbers, columns=self._names, copy=False))
            self._before, self._names = end, []


def _narrowed(table: pa.Table, exact: Collection[str]) -> Any:
    """Return the schema with numbers as float32, but for columns that stay exact or that float32 is too coarse for."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = list(table.schema)
    places = [
        place
        for place, field in enumerate(fields)
        if (pa.types.is_integer(field.type) or pa.types.is_float64(field.type)) and bare(field.name) not in exact
    ]
    if not places:
        return table.schema
    # Of a long column its ends and some rows.
    some = table.select(places).take(pa.array(some_rows(len(table))))
    ends = [pc.min_max(table.column(place)).as_py() for place in places]
    rows = [[end[which] for end in ends] for which in ("min", "max")]
    numbers = np.concatenate([np.array(rows, dtype=np.float64), some.to_pandas().to_numpy(np.float64, na_value=np.nan)])
    for place, coarse in zip(places, blurred(numbers), strict=True):
        if not coarse:
            fields[place] = fields[place].with_type(pa.float32())
    return pa.schema(fields)
