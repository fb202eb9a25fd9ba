"""Data extraction under vantage6 5: a node's database becomes a dataframe of a session.

`v6_algorithm.extract` calls it. Whatever the experiment may still want to read otherwise stays as it is written: empty
words, texts, and files, which are copied into the session's folder because later steps see no database.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from v6_algorithm.data.sources import ASSUMED, FOLDER, TableSource, source_in
from v6_algorithm.engines.vantage6 import session
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment.table_form import TableForm
from v6_algorithm.site.guard.queries import guarded_source
from v6_algorithm.site.policy import Policy


def run_extract(
    query: str | None = None,
    sheet_name: str | None = None,
    files: str | None = None,
    column: str | None = None,
    *,
    mock_uri: Any = None,
    mock_type: str | None = None,
    **form: str | None,
) -> Any:
    """Read this node's database into its session; see `v6_algorithm.extract`.

    Parameters
    ----------
    query, sheet_name, files, column, form
        As for `v6_algorithm.extract`.
    mock_uri, mock_type
        What `MockNetwork` passes.

    Returns
    -------
    pyarrow.Table
        The table as it is written: the experiment says later what of it is missing, a number or a label.

    Raises
    ------
    ExperimentError
        Outside a data extraction step.
    PolicyError
        For a query that the node's list does not have.
    DataError
        When there is no such table, or it cannot be read.
    """
    mock = None if mock_uri is None else (mock_uri, mock_type)
    if mock is None and os.environ.get("FUNCTION_ACTION") != "data_extraction":
        raise ExperimentError("extract: is a data extraction step of vantage6 5; under 4 the sites read for `master`")
    policy = Policy.from_environment(default="standard" if mock is None else "trusted", unavailable=session.UNAVAILABLE)
    source = guarded_source(policy, _database(query, sheet_name, files, column, form, mock))
    if source.kind == "npz" and not source.uri.lower().endswith(".npz"):
        raise DataError("npy files of a pair are not extracted: put them into one npz file")
    if source.kind == "npz":
        return _copied_file(Path(source.uri), mock is None)
    frame = source.read_as_it_is()
    frame.attrs = {ASSUMED: source.assumed} if source.assumed else {}
    # The step's files are gone when it ends: later steps see the session's folder only.
    if source.folder is not None and _is_folder(mock):
        frame.attrs |= {FOLDER: str(source.folder) if mock is not None else _copied_folder(source.folder)}
    return _arrow(frame)


def _database(
    query: str | None,
    sheet_name: str | None,
    files: str | None,
    column: str | None,
    form: Mapping[str, Any],
    mock: tuple[Any, str | None] | None,
) -> TableSource:
    uri, kind = mock or (os.environ.get("DATABASE_URI", ""), os.environ.get("DATABASE_TYPE"))
    if not isinstance(uri, (str, Path)) or not str(uri):
        raise DataError("the step must name one database of this node")
    written = TableForm(**form)
    if _is_folder(mock):
        there = source_in(Path(uri), (files, column or "image") if files else None)
        return TableSource(there.uri, there.type, sheet_name=sheet_name, names=there.names, form=written)
    return TableSource(_with_log_in(str(uri)), kind, query, sheet_name, form=written)


def _is_folder(mock: tuple[Any, str | None] | None) -> bool:
    uri = str(mock[0] if mock else os.environ.get("DATABASE_URI", ""))
    return "://" not in uri and Path(uri).is_dir()


def _with_log_in(uri: str) -> str:
    """Put user and password, which the node passes as secrets of the step, into the address of a database."""
    user, password = (os.environ.get(f"DB_PARAM_{name}") for name in ("USERNAME", "PASSWORD"))
    if "://" not in uri or user is None:
        return uri
    # SQLAlchemy 1.4, which vantage6 4 pins, has it in this place only.
    from sqlalchemy.engine import make_url

    address = make_url(uri)
    return address.set(username=user, password=password).render_as_string(hide_password=False)


def _arrow(frame: Any) -> Any:
    """Make an Arrow table; a column of several types becomes text, cell by cell, with empty cells empty."""
    import pyarrow as pa

    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"column '{twice[0]}' is there twice; a session's dataframe has each name once")
    columns = {}
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        try:
            pa.Array.from_pandas(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = column.map(lambda cell: cell if cell is None or cell != cell else str(cell))
    if columns:
        print(f"{len(columns)} columns hold values of several types, which are stored as text", flush=True)
    return pa.Table.from_pandas(frame.assign(**columns) if columns else frame, preserve_index=False)


def _copied_folder(folder: Path) -> str:
    """Copy a folder of files beside the session's dataframes; returns its name there."""
    name = f"files-{os.environ.get('TASK_ID', 'step')}"
    shutil.copytree(folder, session.our_folder() / name, dirs_exist_ok=True)
    return name


def _copied_file(path: Path, real: bool) -> Any:
    """Keep time series as the file they are; the dataframe then only says how many rows there are."""
    import numpy as np
    import pandas as pd

    if not real:
        raise DataError("MockNetwork passes dataframes only; time series in npz files: v6-algorithm run --engine mock")
    name = f"series-{os.environ.get('TASK_ID', 'step')}.npz"
    (session.our_folder()).mkdir(parents=True, exist_ok=True)
    with np.load(path, allow_pickle=False) as arrays:
        rows = len(arrays[arrays.files[0]]) if arrays.files else 0
    shutil.copyfile(path, session.our_folder() / name)
    frame = pd.DataFrame({"row": np.arange(rows)})
    frame.attrs = {session.FILE: name}
    return _arrow(frame)
