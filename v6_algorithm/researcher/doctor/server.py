"""What a vantage6 server's configuration says of long runs: where it keeps inputs and results, and for how long.

`v6-algorithm doctor --server-config FILE`, for whoever runs the server. With SQLite, vantage6 4.15 reads past all runs
each time it looks for those of a task, since `run.task_id` has no index; rounds of a large model then grow slower.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.doctor.finding import Finding, note, ok, problem, size

INDEX = "CREATE INDEX run_task ON run(task_id)"


def server(path: Path) -> Iterator[Finding]:
    """Yield what a server's configuration file says.

    Raises
    ------
    ExperimentError
        When it cannot be read, or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ExperimentError(f"{path}: is no YAML") from None
    if not isinstance(content, dict):
        raise ExperimentError(f"{path}: is no server's configuration, which is a mapping with `uri`")
    yield from _database(content.get("uri"))
    yield _kept(content.get("runs_data_cleanup_days"))


def _database(uri: Any) -> Iterator[Finding]:
    if not isinstance(uri, str) or "://" not in uri:
        yield problem("uri: names no database", "set uri, as postgresql://USER:PASSWORD@HOST/DATABASE")
        return
    # Never the rest, which may have a password.
    kind = uri.partition("://")[0].partition("+")[0]
    if kind != "sqlite":
        yield ok(f"the database is {kind}: rounds of large models stay as fast as they begin", database=kind)
        return
    file = Path(uri.removeprefix("sqlite:///"))
    indexed, bytes_there = _look(file)
    details = {"database": kind, "indexed": indexed, "bytes": bytes_there}
    there = "" if bytes_there is None else f", {size(bytes_there)} now"
    if indexed:
        yield ok(f"the database is SQLite{there}, with an index on run(task_id)", **details)
        return
    lacks = "" if indexed is None else " without an index on run(task_id)"
    yield note(
        f"the database is SQLite{there}{lacks}: it keeps all inputs and results, and each look at a task reads past "
        "them, so rounds of large models grow slower",
        f'use PostgreSQL; or stop the server and run: sqlite3 FILE "{INDEX}"',
        **details,
    )


def _look(file: Path) -> tuple[bool | None, int | None]:
    """Return whether `run.task_id` has an index, and the file's size; None of what cannot be seen from here."""
    if not file.is_absolute() or not file.is_file():
        return None, None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            names = [row[1] for row in connection.execute("PRAGMA index_list(run)")]
            info = "SELECT name FROM pragma_index_info(?)"
            columns = [connection.execute(info, (name,)).fetchone() for name in names]
        return any(column and column[0] == "task_id" for column in columns), file.stat().st_size
    except (sqlite3.Error, OSError):
        return None, None


def _kept(days: Any) -> Finding:
    if type(days) is int and days > 0:
        return ok(f"runs_data_cleanup_days: inputs and results are cleared after {days} days", days=days)
    return note(
        "runs_data_cleanup_days is not set: every round's models stay in the database for good",
        "set it, as runs_data_cleanup_days: 30; `master` writes before the first round what a round leaves",
    )
