"""Reading one site's table: csv, parquet, excel, npz, SQL, names of files, or a dataframe that is already there.

The engines make `TableSource`s (from a vantage6 node's environment, an experiment file, or a mock's dataframes);
`encoding` reads them. pandas is imported on the first read, so that a round whose data are cached never loads it.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.files import print_files
from v6_algorithm.data.reading.arrays import has_pair
from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.data.reading.cells import EMPTY_WORDS, bare, uniform
from v6_algorithm.data.reading.file_kinds import OF_PROGRAMS, begins_as
from v6_algorithm.data.reading.margins import check_margins
from v6_algorithm.errors import DataError, SiteError
from v6_algorithm.exchange.text import printable
from v6_algorithm.experiment.table_form import USUAL, TableForm

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = {
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xlsm": "excel", ".xls": "excel",
    ".npz": "npz", ".npy": "npz", ".sqlite": "sql", ".sqlite3": "sql", ".db": "sql",
}  # fmt: skip
_READERS = {"csv": "pandas", "parquet": "pyarrow", "excel": "openpyxl", "sql": "sqlalchemy"}
_IN_FOLDERS = (".csv", ".parquet", ".pq", ".xlsx", ".xlsm", ".xls")
# What SQLite says of a query, which has nothing of the rows.
_SAID_OF_QUERY = re.compile(r"no such (?:column|function): [\w.\" ]+|near \"[^\"]*\": syntax error|incomplete input")
# Tables that a message names.
_SHOWN = 30
# Where the folder of its files is told of a dataframe that is passed on alone, among its `attrs`.
FOLDER = "v6_algorithm.folder"
# What the reading of a dataframe of the mock took for granted.
ASSUMED = "v6_algorithm.assumed"
# What a dataframe of the mock is told of a folder that lasts from call to call.
STATE = "v6_algorithm.state"


@dataclass(frozen=True)
class TableSource:
    """Where a table is: a dataframe, or a uri with its type (``csv``, ``parquet``, ``excel``, ``npz`` or ``sql``).

    `base` is the folder of the files that cells name, where that is not the table's own. With `names`, which is a
    template and the column of the names, the uri is a folder that has no table, and the type ``names``. `readable` says
    of each column of a SQLite table whether a query may read it. Into `assumed` goes what reading takes for granted.
    """

    uri: str = ""
    type: str | None = None
    query: str | None = None
    sheet_name: str | None = None
    frame: pd.DataFrame | None = None
    base: Path | None = None
    names: tuple[str, str] | None = None
    form: TableForm = USUAL
    readable: Callable[[str], bool] | None = None
    assumed: Assumed = field(default_factory=dict, compare=False, repr=False)

    @property
    def fingerprint(self) -> str | None:
        """Identify the content as far as that is possible without reading it; None: it cannot be told."""
        if self.frame is not None or self.kind == "sql":
            return None
        if self.names is not None:
            # Which files there are is told by themselves.
            return f"{self.uri}:{self.names}"
        try:
            stat = os.stat(self.uri)
            beside = self._beside() if self.form.measures is not None or self.kind == "npz" else []
        except (OSError, DataError):
            return None
        of_files = f":{print_files(beside)}" if beside else ""
        return f"{self.uri}:{self.base or ''}:{self.sheet_name}:{stat.st_size}:{stat.st_mtime_ns}{of_files}"

    def _beside(self) -> list[Path]:
        """Return the files that are read with the table: of measures those that cells name, of arrays all of a pair."""
        if self.kind == "npz":
            from v6_algorithm.data.reading.arrays import files_of

            return [] if self.uri.lower().endswith(".npz") else list(files_of(Path(self.uri)).values())
        from v6_algorithm.data.reading.measures import find_measures

        frame = self._read(None, None)
        frame = frame.set_axis([bare(str(name)) for name in frame.columns], axis=1)
        named = find_measures(frame[self.form.measures], self.folder) if self.form.measures in frame.columns else []
        return [file for files in named for file in files or ()]

    def keyed_fingerprint(self, key: bytes) -> str | None:
        """Return HMAC-SHA256 of the file's bytes, its first 16 hexadecimal digits; None of what is not a file.

        Without the key nobody can try tables against it, however small. It is of the whole file, whatever an experiment
        asks of it, so that two experiments' rows cannot be compared by it.
        """
        if self.frame is not None or self.kind == "sql" or self.names is not None:
            return None
        mac = hmac.new(key, b"v6-algorithm table\0", "sha256")
        try:
            with open(self.uri, "rb") as file:
                while block := file.read(1 << 20):
                    mac.update(block)
        except OSError:
            return None
        return mac.hexdigest()[:16]

    @cached_property
    def kind(self) -> str:
        """Return ``csv``, ``parquet``, ``excel``, ``npz``, ``sql`` or ``names``: as given, or by the uri's ending."""
        if self.names is not None:
            return "names"
        # vantage6 knows no npz: a node calls it `other`.
        if self.type and self.type != "other":
            return self.type
        return "sql" if "://" in self.uri else _ENDINGS.get(Path(self.uri).suffix.lower(), "csv")

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a query to a SQLite file."""
        suffix = Path(self.uri).suffix.lower()
        return self.kind == "sql" and (suffix in _ENDINGS or self.uri.startswith("sqlite:///"))

    @property
    def folder(self) -> Path | None:
        """The folder in which files are that cells name; None of a dataframe or a database, which is in none."""
        if self.base is not None or self.frame is not None or "://" in self.uri or self.kind == "sql":
            return self.base
        return Path(self.uri) if self.names is not None else Path(self.uri).parent

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
        measures = self.form.measures
        # A column's name that is not wanted may be needed all the same, for what its cells name.
        asked = wanted if measures is None or wanted is None else lambda name: name == measures or wanted(name)
        frame = self.frame if self.frame is not None else self._read(asked, exact)
        if not len(frame.columns):
            raise DataError("the table is empty: it has no columns")
        if not len(frame):
            raise DataError("the table is empty: it has column names but no rows")
        if frame.columns.nlevels > 1:
            raise DataError(
                f"its columns have names of {frame.columns.nlevels} levels; join each to one name there, as 'labs_crp'"
            )
        names = [bare(str(name)) for name in frame.columns.tolist()]
        frame = frame if names == frame.columns.tolist() else frame.set_axis(names, axis=1)
        if measures is not None:
            from v6_algorithm.data.reading.measures import with_measures

            frame = with_measures(frame, measures, self.folder, self.assumed)
        needed = [wanted is None or wanted(name) for name in frame.columns.tolist()]
        return uniform(frame if all(needed) else frame.loc[:, needed], self.form, self.assumed)

    def read_as_it_is(self) -> pd.DataFrame:
        """Read the whole table with its empty words and marks, for a copy that is read again; raises DataError."""
        return self.frame if self.frame is not None else self._read(None, None)

    def _read(self, wanted: Callable[[str], bool] | None, exact: Collection[str] | None) -> pd.DataFrame:
        import pandas as pd

        kind = self.kind
        # An address may hold a password, in front of the host or among the options.
        name = "the database" if "://" in self.uri else Path(self.uri).name
        try:
            if kind == "csv":
                from v6_algorithm.data.reading.lines import COMPRESSED, read_csv

                if (program := OF_PROGRAMS.get(Path(self.uri).suffix.lower())) is not None and self.type is None:
                    raise DataError(f"{name} is {program}, which is not read; save it as csv or parquet")
                packed = self.uri.lower().endswith(tuple(COMPRESSED))
                if why := "" if packed else begins_as(self.uri, kind):
                    # What such a file has of lines or of an encoding would lead astray.
                    raise DataError(f"{name} cannot be read as {kind}{why}")
                frame = read_csv(self.uri, name, self.form, self._empty_words, self.assumed)
                check_margins(frame, name)
                return frame
            if kind == "parquet":
                from v6_algorithm.data.reading.parquet import read_parquet

                return read_parquet(self.uri, wanted, exact, self.assumed)
            if kind == "excel":
                from v6_algorithm.data.reading.excel import read_excel

                # That is not a word for an empty cell in every column, and `uniform` sees to it.
                words = [word for word in self._empty_words if word != "None"]
                frame = read_excel(self.uri, name, self.sheet_name, words, self.assumed)
                check_margins(frame, name)
                return frame
            if kind == "npz":
                from v6_algorithm.data.reading.arrays import read_arrays

                return read_arrays(self.uri, self.form.whole, self.form.codes, self.assumed)
            if kind == "sql":
                return self._read_sql()
            if self.names is not None:
                from v6_algorithm.data.imaging.naming import table_of_names

                return table_of_names(Path(self.uri), *self.names)
        except FileNotFoundError:
            raise DataError(f"there is no file {name}") from None
        except pd.errors.EmptyDataError:
            raise DataError(f"the file {name} is empty") from None
        except ImportError as error:
            package = "xlrd" if "xlrd" in str(error) else error.name or _READERS[kind]
            from v6_algorithm.data.reading.excel import is_locked

            if package == "xlrd" and is_locked(self.uri or ""):
                raise DataError(f"{name} is protected by a password: save it without one, or as csv") from None
            other = ", or save it as xlsx" if package == "xlrd" else ""
            raise DataError(f"reading {kind} needs the package {package}: pip install {package}{other}") from None
        except DataError:
            raise
        except IsADirectoryError:
            raise DataError(f"{name} is a folder; a table is a file") from None
        except (PermissionError, NotADirectoryError) as error:
            raise DataError(f"{name} cannot be read: {error.strerror}") from None
        except Exception as error:  # a parser's own message may quote the data
            why = begins_as(self.uri, kind) or f" ({type(error).__name__})"
            raise DataError(f"{name} cannot be read as {kind}{why}") from None
        raise DataError(f"a database of type '{kind}' cannot be read; allowed: csv, parquet, excel, npz, sql")

    @property
    def _empty_words(self) -> list[str]:
        """Cells that a reader of files takes for empty; those with spaces around them are seen to by `uniform`."""
        return [word for word in (*EMPTY_WORDS, " ?") if word.strip() not in self.form.kept]

    def _tables(self) -> list[str]:
        """Name the tables and views of a SQLite file; none where it cannot be opened."""
        import contextlib
        import sqlite3

        path = Path(re.sub(r"^sqlite(\+\w+)?:///", "", self.uri)).absolute()
        if not path.exists():
            raise DataError(f"there is no file {path.name}")
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return _names_in(connection)

    def _read_sql(self) -> pd.DataFrame:
        import contextlib
        import sqlite3

        import pandas as pd

        if not self.query:
            there = f"; it has: {', '.join(sorted(self._tables())[:_SHOWN])}" if self.is_sqlite else ""
            raise DataError(
                f"a SQL database needs a query: give it with the site's uri, or with the task's database{there}"
            )
        if self.is_sqlite:
            path = Path(re.sub(r"^sqlite(\+\w+)?:///", "", self.uri)).absolute()
            if not path.exists():
                raise DataError(f"there is no file {path.name}")
            # Read-only: a query is the researcher's, the file is the hospital's.
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                denied: list[str] = []
                if self.readable is not None:
                    connection.set_authorizer(_authorizer(self.readable, denied))
                try:
                    return pd.read_sql_query(self.query, connection)
                except (sqlite3.Error, pd.errors.DatabaseError) as error:
                    if denied:
                        raise DataError(
                            f"the query reads column '{denied[0]}', which this node does not allow"
                        ) from None
                    connection.set_authorizer(None)
                    _check_tables(self.query, path.name, _names_in(connection))
                    if said := _SAID_OF_QUERY.search(str(error)):
                        raise DataError(f"{path.name}: the query cannot be run: {printable(said[0], 200)}") from None
                    raise
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.uri)
        # A colon would begin a parameter.
        query = sqlalchemy.text(self.query.replace(":", r"\:"))
        # Rolled back, and read-only where the driver can: SQLAlchemy 1.4 commits a query that deletes. Against one that
        # ends this transaction first, the hospital gives the database a user that may only read.
        with engine.connect().execution_options(postgresql_readonly=True) as connection, connection.begin() as read:
            try:
                result = connection.execute(query)
            except sqlalchemy.exc.SQLAlchemyError:
                read.rollback()
                inspector = sqlalchemy.inspect(engine)
                _check_tables(self.query, "the database", [*inspector.get_table_names(), *inspector.get_view_names()])
                raise
            frame = pd.DataFrame(result.mappings().all(), columns=list(result.keys()))
            read.rollback()
        return frame


def _names_in(connection: Any) -> list[str]:
    """Name a SQLite file's tables and views."""
    there = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    return [str(name) for (name,) in there]


def _check_tables(query: str, name: str, there: Collection[str]) -> None:
    """Raise DataError naming a table that a query reads, and those that are there, where it is not among them."""
    known = {table.lower() for table in there}
    # Names that the query itself makes: WITH name AS (…).
    known |= {match.lower() for match in re.findall(r"(?i)\b(\w+)\s+as\s*\(", query)}
    for quoted in re.findall(r"(?i)\b(?:from|join)\s+([^\s(),;]+)", query):
        table = re.sub(r"[\[\]`\"']", "", quoted).rpartition(".")[2]
        if table and table.lower() not in known:
            shown = ", ".join(sorted(there)[:_SHOWN])
            raise DataError(f"{name} has no table '{table}'; it has: {shown or 'none'}")


def _authorizer(readable: Callable[[str], bool], denied: list[str]) -> Callable[..., int]:
    """Make what SQLite asks of each column before a query runs; of none, as for count(*), the name is empty."""
    import sqlite3

    def authorize(action: int, table: str | None, column: str | None, *_: Any) -> int:
        name = str(column or "").strip()
        if action == sqlite3.SQLITE_READ and name and not readable(name):
            denied.append(name)
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    return authorize


def source_in(folder: Path, names: tuple[str, str] | None = None) -> TableSource:
    """Find the one table in a folder, in which other files are that its cells name; without one, read their names.

    Parameters
    ----------
    folder
        Of a site.
    names
        The experiment's `data.image.files`, and the column that the names become.

    Raises
    ------
    DataError
        When there is no table and no template of names, or more than one table.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in _IN_FOLDERS and path.name[0] not in ".~"]
    except OSError as error:
        raise DataError(f"the folder {folder.name} cannot be read: {error.strerror}") from None
    if not paths and names is not None:
        return TableSource(str(folder), names=names)
    archives = [] if paths else [path for path in folder.glob("*.[nN][pP][zZ]") if path.name[0] not in ".~"]
    if not paths and has_pair(folder):
        if archives:
            raise DataError(
                f"the folder {folder.name} has pairs of npy files and npz files; name the file that is the table in "
                "place of the folder"
            )
        return TableSource(str(folder), "npz")
    if not paths:
        # BIDS has participants.tsv; beside a table they are more likely one subject's each.
        paths = [path for path in folder.iterdir() if path.suffix.lower() == ".tsv" and path.name[0] not in ".~"]
    # Beside a table they are one row's each.
    paths = paths or archives
    if len(paths) != 1:
        below = 0 if paths else sum(path.suffix.lower() in _IN_FOLDERS for path in folder.glob("*/**/*"))
        if below:
            raise DataError(
                f"the folder {folder.name} has no table of its own, and {below} in folders below, as of a table "
                "that is written in parts; write it as one file (csv, parquet), and name that"
            )
        raise DataError(
            f"the folder {folder.name} has {len(paths)} tables (csv, tsv, parquet, excel, npz); it must have one"
            + (
                "; name the table in place of the folder, "
                f"as {{uri: {folder.name}/….{paths[0].suffix[1:]}, images: {folder.name}}} where its cells name files"
                if paths
                else ", or X.npy and y.npy, or data.image.files say how its images are named"
            )
        )
    return TableSource(str(paths[0]), assumed=_beside(folder, paths[0]))


def _beside(folder: Path, table: Path) -> Assumed:
    """Write down how many files beside a folder's table could be tables as well."""
    others = [path for path in folder.iterdir() if path != table and path.suffix.lower() in (".tsv", ".npz")]
    count = sum(path.name[0] not in ".~" for path in others) + has_pair(folder)
    return {"other tables": ([table.suffix.lower()], count)} if count else {}


def source_from_node(environment: Mapping[str, str] = os.environ, names: tuple[str, str] | None = None) -> TableSource:
    """Find the databases that the task asked for in a vantage6 v4 node's environment (decoded by the wrapper).

    One is a table, or a folder with a table or with names that say as much as one; two are a table and the folder of
    the files that its cells name. Which is which is seen at each node, and of two labels a node may have only one.

    Parameters
    ----------
    environment
        The container's.
    names
        As for `source_in`.

    Raises
    ------
    DataError
        When the task names no database, or more than two, or two tables or two folders.
    SiteError
        Of kind ``absent`` when this node has none of them.
    """
    labels = [label for label in environment.get("USER_REQUESTED_DATABASE_LABELS", "").split(",") if label]
    if not 1 <= len(labels) <= 2:
        raise DataError(
            f"the task must ask for one database, or for a table and a folder; it asks for {len(labels)}: "
            "databases=[{'label': …}]"
        )
    uris = {label: environment.get(f"{label.upper()}_DATABASE_URI") for label in labels}
    there = {label: uri for label, uri in uris.items() if uri}
    if not there:
        # An organisation without data, such as a coordinating hub, is no mistake: it just does not take part.
        raise SiteError("this node has no database " + " or ".join(f"'{label}'" for label in labels), "absent")
    folders = {label: Path(uri) for label, uri in there.items() if "://" not in uri and Path(uri).is_dir()}
    tables = [label for label in there if label not in folders]
    if len(folders) > 1 or len(tables) > 1:
        what = "folders" if folders else "tables"
        raise DataError(f"databases '{labels[0]}' and '{labels[1]}' are two {what} here; allowed: a table and a folder")
    folder = next(iter(folders.values()), None)
    if not tables and folder is not None:
        return source_in(folder, names)
    prefix = tables[0].upper()
    return TableSource(
        there[tables[0]],
        environment.get(f"{prefix}_DATABASE_TYPE"),
        environment.get(f"{prefix}_QUERY"),
        environment.get(f"{prefix}_SHEET_NAME"),
        base=folder,
    )
