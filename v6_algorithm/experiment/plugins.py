"""Problems and kinds of row that others ship, found by the entry-point groups of what is installed.

Problems are of group ``v6_algorithm.problems``, kinds of row of ``v6_algorithm.rows``.

A plug-in is part of the image, as this package is: an experiment only names it, and no code comes from a payload.
`experiment` asks for its options and metrics, `problems` for the class, `metrics` for what becomes of its sums.
"""

from __future__ import annotations

import functools
from typing import Any

GROUP = "v6_algorithm.problems"
ROWS = "v6_algorithm.rows"


def names(group: str = GROUP) -> list[str]:
    """Return the names of the installed plug-ins."""
    from importlib.metadata import entry_points

    return sorted(entry.name for entry in entry_points(group=group))


@functools.cache
def problem(name: str) -> type[Any]:
    """Load the class of an installed plug-in.

    Raises
    ------
    LookupError
        When no installed package has a problem of this name, or two have.
    """
    return _load(GROUP, "problem", name)


@functools.cache
def row_kind(name: str) -> type[Any]:
    """Load the class of an installed kind of row; raises LookupError as `problem` does."""
    return _load(ROWS, "kind of row", name)


def _load(group: str, what: str, name: str) -> type[Any]:
    from importlib.metadata import entry_points

    found = list(entry_points(group=group, name=name))
    if len(found) != 1:
        raise LookupError(f"{len(found)} installed packages have a {what} '{name}'; one is needed")
    loaded: type[Any] = found[0].load()
    return loaded


def metric_names(name: str) -> tuple[str, ...]:
    """Return what an installed plug-in measures."""
    cls = problem(name)
    return cls.metrics if cls.Metrics is None else ("loss", *cls.Metrics.higher_is_better)
