"""Reading one site's table: csv, parquet, excel, npz, SQL, or a dataframe that is already there.

The engines make `TableSource`s (from a vantage6 node's environment, an experiment file, or a mock's dataframes);
`table` reads them. pandas is imported on the first read, so that a round whose data are cached never loads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import DataError, SiteError

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = {
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xls": "excel",
    ".npz": "npz", ".sqlite": "sql", ".sqlite3": "sql", ".db": "sql",
}  # fmt: skip
_READERS = {"csv": "pandas", "parquet": "pyarrow", "excel": "openpyxl", "sql": "sqlalchemy"}
# pandas reads NA, NaN, null and empty cells as missing; the UCI archives write a question mark.
_MISSING_MARKS = ["?", " ?"]
_IN_FOLDERS = (".csv", ".parquet", ".pq", ".xlsx", ".xls")
# Columns of a parquet file that are read at once: at 17,000 rows of float64, 70 MB.
_BLOCK = 512


@dataclass(frozen=True)
class TableSource:
    """Where a table is: a dataframe, or a uri with its type (``csv``, ``parquet``, ``excel``, ``npz`` or ``sql``).

    `base` is the folder of the files that cells name, where that is not the table's own.
    """

    uri: str = ""
    type: str | None = None
    query: str | None = None
    sheet_name: str | None = None
    frame: pd.DataFrame | None = None
    base: Path | None = None

    @property
    def fingerprint(self) -> str | None:
        """Identify the content as far as that is possible without reading it; None: it cannot be told."""
        if self.frame is not None or self.kind == "sql":
            return None
        try:
            stat = Path(self.uri).stat()
        except OSError:
            return None
        return f"{self.uri}:{self.sheet_name}:{stat.st_size}:{stat.st_mtime_ns}"

    @property
    def kind(self) -> str:
        """Return ``csv``, ``parquet``, ``excel``, ``npz`` or ``sql``: as given, or by the ending of the uri."""
        # vantage6 knows no npz: a node calls it `other`.
        if self.type and self.type != "other":
            return self.type
        return "sql" if "://" in self.uri else _ENDINGS.get(Path(self.uri).suffix.lower(), "csv")

    @property
    def folder(self) -> Path | None:
        """The folder in which files are that cells name; None of a dataframe or a database, which is in none."""
        if self.base is not None or self.frame is not None or "://" in self.uri or self.kind == "sql":
            return self.base
        return Path(self.uri).parent

    def read(
        self, wanted: Callable[[str], bool] | None = None, *, exact: Collection[str] | None = None
    ) -> pd.DataFrame:
        """Read the table.

        Parameters
        ----------
        wanted
            Says of a column's name whether it is needed; None: all are. Other columns are not in the result, and of a
            parquet file they are not even read.
        exact
            Columns whose numbers stay as they are stored; those of the others are read as float32 from a parquet
            file, which is what a network gets and half the memory. None: all stay.

        Raises
        ------
        DataError
            When there is no such file, it cannot be read as its type, or it has no rows or columns.
        """
        frame = self.frame if self.frame is not None else self._read(wanted, exact)
        if not len(frame.columns):
            raise DataError("the table is empty: it has no columns")
        if not len(frame):
            raise DataError("the table is empty: it has column names but no rows")
        frame = frame.set_axis([str(name).strip() for name in frame.columns], axis=1)
        needed = [wanted is None or wanted(name) for name in frame.columns]
        return frame if all(needed) else frame.loc[:, needed]

    def _read(self, wanted: Callable[[str], bool] | None, exact: Collection[str] | None) -> pd.DataFrame:
        import pandas as pd

        kind = self.kind
        # An address may hold a password, in front of the host or among the options.
        name = "the database" if "://" in self.uri else Path(self.uri).name
        try:
            if kind == "csv":
                return pd.read_csv(self.uri, na_values=_MISSING_MARKS, low_memory=False)
            if kind == "parquet":
                return _read_parquet(self.uri, wanted, exact)
            if kind == "excel":
                return pd.read_excel(self.uri, sheet_name=self.sheet_name or 0, na_values=_MISSING_MARKS)
            if kind == "npz":
                from v6_algorithm.data.sequences import read_npz

                return read_npz(self.uri)
            if kind == "sql":
                return self._read_sql()
        except FileNotFoundError:
            raise DataError(f"there is no file {name}") from None
        except pd.errors.EmptyDataError:
            raise DataError(f"the file {name} is empty") from None
        except ImportError as error:
            package = error.name or _READERS[kind]
            raise DataError(f"reading {kind} needs the package {package}: pip install {package}") from None
        except DataError:
            raise
        except Exception as error:  # a parser's own message may quote the data
            raise DataError(f"{name} cannot be read as {kind} ({type(error).__name__})") from None
        raise DataError(f"a database of type '{kind}' cannot be read; allowed: csv, parquet, excel, npz, sql")

    def _read_sql(self) -> pd.DataFrame:
        import contextlib
        import sqlite3

        import pandas as pd

        if not self.query:
            raise DataError("a SQL database needs a query: give it with the site's uri, or with the task's database")
        if Path(self.uri).suffix.lower() in _ENDINGS or self.uri.startswith("sqlite:///"):
            path = Path(self.uri.removeprefix("sqlite:///")).absolute()
            if not path.exists():
                raise DataError(f"there is no file {path.name}")
            # Read-only: a query is the researcher's, the file is the hospital's.
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                return pd.read_sql_query(self.query, connection)
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.uri)
        # A colon would begin a parameter.
        query = sqlalchemy.text(self.query.replace(":", r"\:"))
        # Rolled back, and read-only where the driver can: SQLAlchemy 1.4 commits a query that deletes. Against one that
        # ends this transaction first, the hospital gives the database a user that may only read.
        with engine.connect().execution_options(postgresql_readonly=True) as connection, connection.begin() as read:
            result = connection.execute(query)
            frame = pd.DataFrame(result.mappings().all(), columns=list(result.keys()))
            read.rollback()
        return frame


def _read_parquet(uri: str, wanted: Callable[[str], bool] | None, exact: Collection[str] | None) -> pd.DataFrame:
    """Read a parquet file some columns at a time, so that one of 18,000 is in memory once."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(uri) as file:
        schema = file.schema_arrow
        # What pandas wrote as a row's name is no column.
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        columns = [name for name in schema.names if name not in index]
        names = [name for name in columns if wanted is None or wanted(str(name).strip())]
        blocks = []
        # A table without rows or wanted columns still has its columns' names to tell.
        for start in range(0, len(names), _BLOCK) if file.metadata.num_rows else ():
            block = names[start : start + _BLOCK]
            # Arrow takes `a` to mean `a.b` as well.
            table = file.read(columns=block).select(block)
            if exact is not None:
                table = table.cast(pa.schema([_narrow(field, exact) for field in table.schema]), safe=False)
            blocks.append(table.to_pandas())
            del table
    return pd.concat(blocks, axis=1) if blocks else pd.DataFrame(columns=columns)


def _narrow(field: Any, exact: Collection[str]) -> Any:
    import pyarrow as pa

    number = pa.types.is_integer(field.type) or pa.types.is_float64(field.type)
    return field.with_type(pa.float32()) if number and field.name.strip() not in exact else field


def table_in(folder: Path) -> str:
    """Find the one table in a folder, in which other files are that its cells name.

    Raises
    ------
    DataError
        When there is none, or more than one.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in _IN_FOLDERS and path.name[0] not in ".~"]
    if len(found) != 1:
        raise DataError(f"the folder {folder.name} has {len(found)} tables (csv, parquet, excel); it must have one")
    return str(found[0])


def source_from_node(environment: Mapping[str, str] = os.environ) -> TableSource:
    """Find the database that the task asked for in a vantage6 v4 node's environment (decoded by the wrapper).

    Raises
    ------
    DataError
        When the task names no database, or more than one.
    SiteError
        Of kind ``absent`` when this node does not have it.
    """
    labels = [label for label in environment.get("USER_REQUESTED_DATABASE_LABELS", "").split(",") if label]
    if len(labels) != 1:
        raise DataError(f"the task must ask for one database, it asks for {len(labels)}: databases=[{{'label': …}}]")
    prefix = labels[0].upper()
    uri = environment.get(f"{prefix}_DATABASE_URI")
    if not uri:
        # An organisation without data, such as a coordinating hub, is no mistake: it just does not take part.
        raise SiteError(f"this node has no database '{labels[0]}'", "absent")
    if Path(uri).is_dir():
        return TableSource(table_in(Path(uri)))
    return TableSource(
        uri,
        environment.get(f"{prefix}_DATABASE_TYPE"),
        environment.get(f"{prefix}_QUERY"),
        environment.get(f"{prefix}_SHEET_NAME"),
    )
