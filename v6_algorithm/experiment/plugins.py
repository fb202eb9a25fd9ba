"""What others ship, found by entry points of what is installed: problems (``v6_algorithm.problems``), networks
(``v6_algorithm.models``), kinds of row (``v6_algorithm.rows``), strategies (``v6_algorithm.strategies``) and stages of
compression (``v6_algorithm.compressors``).

A plug-in is part of the image, as this package is: an experiment only names it, and no code comes from a payload.
`experiment` asks for options and metrics, `problems` for the class, `metrics` for what becomes of its sums. The Python
API registers a notebook's own network or problem for the process that it runs in, which no network can reach.
"""

from __future__ import annotations

import functools
from typing import Any

GROUP = "v6_algorithm.problems"
MODELS = "v6_algorithm.models"
ROWS = "v6_algorithm.rows"
STRATEGIES = "v6_algorithm.strategies"
COMPRESSORS = "v6_algorithm.compressors"

# Of this process only: (group, name) to what the Python API was given.
_REGISTERED: dict[tuple[str, str], Any] = {}


def register(group: str, name: str, value: Any) -> None:
    """Let experiments of this process name `value`; one that is registered again takes the place of the old one."""
    _REGISTERED[group, name] = value
    _load.cache_clear()


def names(group: str = GROUP) -> list[str]:
    """Return the names of the plug-ins that are installed, or registered in this process."""
    from importlib.metadata import entry_points

    here = {name for of, name in _REGISTERED if of == group}
    return sorted(here | {entry.name for entry in entry_points(group=group)})


def installed(group: str, name: str) -> bool:
    """Say whether an installed package has a plug-in of this name."""
    from importlib.metadata import entry_points

    return bool(entry_points(group=group, name=name))


def problem(name: str) -> type[Any]:
    """Load the class of a problem that is a plug-in.

    Raises
    ------
    LookupError
        When no installed package has a problem of this name, or two have.
    """
    loaded: type[Any] = _load(GROUP, name)
    return loaded


def network(name: str) -> Any:
    """Load a network: a torch module, or what makes one; see `learning.models.own`.

    Raises
    ------
    LookupError
        When no installed package has a network of this name, or two have.
    """
    return _load(MODELS, name)


def row_kind(name: str) -> type[Any]:
    """Load the class of an installed kind of row; raises LookupError as `problem` does."""
    loaded: type[Any] = _load(ROWS, name)
    return loaded


def strategy(name: str) -> type[Any]:
    """Load the class of an installed strategy; raises LookupError as `problem` does."""
    loaded: type[Any] = _load(STRATEGIES, name)
    return loaded


def compressor(name: str) -> type[Any]:
    """Load the class of an installed stage of compression; raises LookupError as `problem` does."""
    loaded: type[Any] = _load(COMPRESSORS, name)
    return loaded


@functools.cache
def _load(group: str, name: str) -> Any:
    from importlib.metadata import entry_points

    if (group, name) in _REGISTERED:
        return _REGISTERED[group, name]
    what = group.rpartition(".")[2].removesuffix("s").replace("strategie", "strategy")
    candidates = list(entry_points(group=group, name=name))
    if len(candidates) != 1:
        raise LookupError(f"{len(candidates)} installed packages have a {what} '{name}'; one is needed")
    return candidates[0].load()


def metric_names(name: str) -> tuple[str, ...]:
    """Return what an installed plug-in measures."""
    cls = problem(name)
    return cls.metrics if cls.Metrics is None else ("loss", *cls.Metrics.higher_is_better)
