"""What is installed, and whether it works together: versions, file readers, the functions the network calls."""

from __future__ import annotations

import importlib
import inspect
import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from v6_algorithm.researcher.doctor.finding import Finding, in_image, missing, note, ok, problem

_REPORTED = (
    "v6-algorithm", "torch", "numpy", "pandas", "safetensors", "pydantic", "pybase64", "pyarrow", "openpyxl",
    "SQLAlchemy", "vantage6-algorithm-tools", "vantage6-client", "docker",
)  # fmt: skip
_CORE = ("numpy", "pandas", "safetensors", "pydantic", "pybase64")
_OLDEST_PYTHON = (3, 10)


def versions() -> dict[str, str | None]:
    """Return the versions of what matters, Python's first; None for what is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _REPORTED}}


def python() -> Finding:
    """Check the interpreter."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST_PYTHON:
        return problem(text, f"use Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer")
    return ok(text)


def package() -> Finding:
    """Name this package's version, and where it is when it is no installed one."""
    installed = _version("v6-algorithm")
    if installed is None:
        return note("v6-algorithm is not installed, only its source is here", "pip install v6-algorithm")
    return ok(f"v6-algorithm {installed}{', in the algorithm image' if in_image() else ''}")


def torch() -> Finding:
    """Check that torch loads and computes."""
    try:
        import torch
    except Exception as error:  # a library of another build fails in many ways
        return problem(f"torch {_version('torch')} does not load ({type(error).__name__})", "install torch again")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if float((torch.ones(3, 3) @ torch.ones(3, 3)).sum()) != 27:
        return problem(f"torch {torch.__version__} multiplies wrongly", "install torch again")
    return ok(f"torch {torch.__version__}, {build} build", cuda=torch.version.cuda)


def libraries() -> Finding:
    """Check that the packages v6_algorithm always needs load."""
    broken = [name for name in _CORE if not _loads(name)]
    if broken:
        return problem(f"{', '.join(broken)} cannot be loaded", f"pip install {' '.join(broken)}")
    return ok(", ".join(f"{name} {_version(name)}" for name in _CORE))


def vantage6() -> Finding:
    """Check that vantage6's wrapper, the entry of every container, loads."""
    installed = _version("vantage6-algorithm-tools")
    if installed is None:
        return missing("vantage6's tools are not installed", "pip install 'v6-algorithm[vantage6]'")
    try:
        importlib.import_module("vantage6.algorithm.tools.wrap")
    except Exception as error:
        return missing(
            f"vantage6's tools {installed} do not load ({type(error).__name__})",
            "pip install 'v6-algorithm[vantage6]'",
        )
    if not installed.startswith(("4.", "5.")):
        return missing(f"vantage6's tools are {installed}", "v6_algorithm needs 4.15 or newer of 4, or 5")
    return ok(f"tools {installed}, client {_version('vantage6-client')}")


def readers() -> Finding:
    """Read a small table back in every format a node's database may have."""
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError:
        return note("not tried: there is no folder to write a test file in", "see folders below")
    with folder as name:
        broken = [kind for kind in _FORMATS if not _reads(kind, Path(name))]
    drivers = [name for name in ("psycopg2", "pymysql", "pyodbc") if importlib.util.find_spec(name)]
    details = {"works": [kind for kind in _FORMATS if kind not in broken], "sql_drivers": drivers}
    if broken:
        return missing(f"{', '.join(broken)} cannot be read", "pip install 'v6-algorithm[files,vantage6]'", **details)
    return ok(f"{', '.join(_FORMATS)}; SQL servers with {', '.join(drivers) or 'no driver'}", **details)


def functions() -> Finding:
    """List what the network may call in the module that vantage6's wrapper loads."""
    name = os.environ.get("PKG_NAME", "v6_algorithm")
    try:
        module = importlib.import_module(name)
        importlib.import_module("v6_algorithm.engines.entry")
    except Exception as error:
        return problem(f"{name} cannot be imported ({type(error).__name__})", f"python -c 'import {name}' says why")
    names = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
    if not names:
        return problem(f"{name} has no function that the network could call", "check PKG_NAME in the Dockerfile")
    return ok(f"{name}: {', '.join(names)}", names=names)


def plug_ins() -> Finding:
    """Load the problems that other packages add."""
    points = entry_points(group="v6_algorithm.problems")
    broken = []
    for point in points:
        try:
            point.load()
        except Exception as error:
            broken.append(f"{point.name} ({type(error).__name__})")
    if broken:
        return problem(f"cannot be loaded: {', '.join(broken)}", "install the package that brings it again")
    return ok(", ".join(point.name for point in points) or "none", names=[point.name for point in points])


# -- file formats --------------------------------------------------------------------------------------------------

_FORMATS = {"csv": "csv", "parquet": "parquet", "excel": "xlsx", "sqlite": "sqlite"}


def _reads(kind: str, folder: Path) -> bool:
    import contextlib
    import sqlite3

    import pandas as pd

    from v6_algorithm.data.sources import TableSource

    path = folder / f"table.{_FORMATS[kind]}"
    table = pd.DataFrame({"age": [61, 47], "dose": [2.5, 7.25]})
    try:
        if kind == "sqlite":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                table.to_sql("patients", connection, index=False)
        else:
            getattr(table, f"to_{kind}")(path, index=False)
        query = "SELECT * FROM patients" if kind == "sqlite" else None
        return bool(TableSource(str(path), query=query).read().equals(table))
    except Exception:  # no package, one of another version, a full disk: it is the answer either way
        return False


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _loads(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True
