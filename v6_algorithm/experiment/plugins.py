"""Problems that others ship: found by the entry-point group ``v6_algorithm.problems`` of what is installed.

A plug-in is part of the image, as this package is: an experiment only names it, and no code comes from a payload.
`experiment` asks for its options and metrics, `problems` for the class, `metrics` for what becomes of its sums.
"""

from __future__ import annotations

import functools
from typing import Any

GROUP = "v6_algorithm.problems"


def names() -> list[str]:
    """Return the names of the installed plug-ins."""
    from importlib.metadata import entry_points

    return sorted(entry.name for entry in entry_points(group=GROUP))


@functools.cache
def problem(name: str) -> type[Any]:
    """Load the class of an installed plug-in.

    Raises
    ------
    LookupError
        When no installed package has a problem of this name, or two have.
    """
    from importlib.metadata import entry_points

    found = list(entry_points(group=GROUP, name=name))
    if len(found) != 1:
        raise LookupError(f"{len(found)} installed packages have a problem '{name}'; one is needed")
    loaded: type[Any] = found[0].load()
    return loaded


def metric_names(name: str) -> tuple[str, ...]:
    """Return what an installed plug-in measures."""
    cls = problem(name)
    return cls.metrics if cls.Metrics is None else ("loss", *cls.Metrics.higher_is_better)
