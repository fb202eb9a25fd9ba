"""Reading one site's table: csv, parquet, excel, npz, SQL, or a dataframe that is already there.

The engines make `TableSource`s (from a vantage6 node's environment, an experiment file, or a mock's dataframes);
`table` reads them. pandas is imported on the first read, so that a round whose data are cached never loads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class TableSource:
    """Where a table is: a dataframe, or a uri with its type (``csv``, ``parquet``, ``excel``, ``npz`` or ``sql``)."""

    uri: str = ""
    type: str | None = None
    query: str | None = None
    sheet_name: str | None = None
    frame: pd.DataFrame | None = None

    @property
    def fingerprint(self) -> str | None:
        """Identify the content as far as that is possible without reading it; None: it cannot be told."""
        if self.frame is not None or self._kind() == "sql":
            return None
        try:
            stat = Path(self.uri).stat()
        except OSError:
            return None
        return f"{self.uri}:{self.sheet_name}:{stat.st_size}:{stat.st_mtime_ns}"

    def _kind(self) -> str:
        # vantage6 knows no npz: a node calls it `other`.
        if self.type and self.type != "other":
            return self.type
        return "sql" if "://" in self.uri else _ENDINGS.get(Path(self.uri).suffix.lower(), "csv")

    def read(self) -> pd.DataFrame:
        """Read the whole table.

        Raises
        ------
        DataError
            When there is no such file, it cannot be read as its type, or it has no rows or columns.
        """
        frame = self.frame if self.frame is not None else self._read()
        if not len(frame.columns):
            raise DataError("the table is empty: it has no columns")
        if not len(frame):
            raise DataError("the table is empty: it has column names but no rows")
        return frame.rename(columns=lambda name: str(name).strip())

    def _read(self) -> pd.DataFrame:
        import pandas as pd

        kind = self._kind()
        # An address may hold a password, in front of the host or among the options.
        name = "the database" if "://" in self.uri else Path(self.uri).name
        try:
            if kind == "csv":
                return pd.read_csv(self.uri, na_values=_MISSING_MARKS, low_memory=False)
            if kind == "parquet":
                return pd.read_parquet(self.uri)
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
    return TableSource(
        uri,
        environment.get(f"{prefix}_DATABASE_TYPE"),
        environment.get(f"{prefix}_QUERY"),
        environment.get(f"{prefix}_SHEET_NAME"),
    )
