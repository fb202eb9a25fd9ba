"""The scripts beside the tests, and the PostgreSQL and the registry that they start."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v6process import free_ports

from v6_algorithm.researcher.network.server_python import MissingError

SCRIPTS = Path(__file__).parents[1]
IMPOSSIBLE = 3  # exit code of the scripts for "not on this machine"


def run_script(name: str, *arguments: str | Path, timeout_s: float = 600, **environment: str) -> str:
    """Run a script of tests/network and return the last line it printed.

    Raises
    ------
    MissingError
        When it says that it cannot be done on this machine.
    RuntimeError
        When it fails.
    """
    command = [str(SCRIPTS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **environment})
    if done.returncode == IMPOSSIBLE:
        raise MissingError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"{name} failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return (done.stdout.strip().splitlines() or [""])[-1]


class Postgres:
    """A private PostgreSQL on loopback and the addresses given; `password` is in nobody's list of processes."""

    user = database = "v6"

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        (self.port,) = free_ports(1)
        self.password = secrets.token_urlsafe(16)
        self._folder = run_script(
            "postgres.sh", "start", str(self.port), *addresses, V6_POSTGRES_PASSWORD=self.password
        )

    def stop(self) -> None:
        run_script("postgres.sh", "stop", self._folder)

    def uri(self, host: str = "127.0.0.1", password: str | None = None) -> str:
        """Address with the user and, by default the right, password; an empty one is left out."""
        password = self.password if password is None else password
        return f"postgresql://{self.user}{password and ':'}{password}@{host}:{self.port}/{self.database}"

    def execute(self, statement: str, rows: Sequence[Mapping[str, Any]] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, once for each row when there are some, and return what it gives."""
        import psycopg2

        connection = psycopg2.connect(self.uri())
        try:
            with connection, connection.cursor() as cursor:
                if rows:
                    cursor.executemany(statement, rows)
                else:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class Registry:
    """A container registry on loopback, at `address`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = run_script("registry.sh", "start", folder, str(*free_ports(1)))

    def stop(self) -> None:
        run_script("registry.sh", "stop", self._folder)
