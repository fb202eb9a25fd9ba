"""Names of columns: each is in a table once, and one that is not there may only be spelled differently.

The readers (`lines`, `excel`), `description` and `summary` ask here, and whoever looks for a column that an experiment
names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from v6_algorithm.data.measurements import without_unit
from v6_algorithm.errors import DataError

_SHOWN = 30


def check_once(names: Iterable[object]) -> None:
    """Raise DataError for a name that is there twice: which column is meant could only be guessed."""
    seen: set[object] = set()
    for name in names:
        if name in seen:
            raise DataError(f"column '{name}' is there twice; name each column differently")
        seen.add(name)


def named(columns: Sequence[str]) -> str:
    """List column names for a message, unless they look like a row: a file without a header line starts with one."""
    if sum(name.startswith("Unnamed: ") for name in columns) * 2 > len(columns):
        return (
            "most of its columns have no name: does a title stand above the header, or does the table begin further "
            "down or to the right? Take out what stands above and beside it"
        )
    for name in columns:
        try:
            float(name)
        except ValueError:
            continue
        return "its column names hold numbers, which are not shown: does the file begin with a header line?"
    more = f", … {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"it has: {', '.join(columns[:_SHOWN])}{more}"


def not_there(what: str, name: str, columns: Iterable[str]) -> str:
    """Say that a column is not there, with the one that may be meant, or with all that are.

    Parameters
    ----------
    what
        The column and its role, as messages begin with: ``column 'age' (data.group)``.
    name
        Its name.
    columns
        Those that are there.
    """
    there = [str(column) for column in columns]
    if alike := alike_to(name, there):
        meant = " or ".join(f"'{column}'" for column in alike)
        return f"{what} is not there; is it {meant} there? Names must be spelled alike at all sites: rename it there"
    return f"{what} is not there; {named(there)}"


def alike_to(name: str, columns: Iterable[str]) -> list[str]:
    """Return the columns whose names differ from one in case, spaces, Unicode form or underscores, or in a unit."""
    # Not at the start: `spelling` is imported by those who import this.
    from v6_algorithm.data.preparation.spelling import folded

    there = list(columns)
    spelled = [column for column in there if column != name and folded(column) == folded(name)]
    return spelled or [
        column for column in there if column != name and folded(without_unit(column)) == folded(without_unit(name))
    ]
