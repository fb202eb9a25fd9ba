"""The source of a class or function with all that it needs, as the text of one module; `package` writes it.

What is defined in the same file or notebook is copied, what is installed is imported, a constant is written out.
Nothing is pickled. What cannot be written, such as an array of the notebook that a function reads, is refused by name.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import inspect
import linecache
import re
import symtable
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from types import CodeType, ModuleType
from typing import Any

from v6_algorithm.errors import ExperimentError

_PLAIN = (int, float, str, bytes, bool, type(None))
_LONGEST = 10_000


class SourceText:
    """The text of a module that defines some objects again.

    Parameters
    ----------
    objects
        Classes and functions.

    Attributes
    ----------
    imported
        Top-level names of what is installed and imported, such as ``torch``.

    Raises
    ------
    ExperimentError
        Naming what has no source, or needs something that cannot be written.
    """

    def __init__(self, *objects: Any) -> None:
        self.imported: set[str] = set()
        self._imports: list[str] = []
        self._constants: list[str] = []
        self._definitions: list[str] = []
        self._known: dict[str, Any] = {}
        self._postponed = False
        for thing in objects:
            self._define(thing.__name__, thing)

    def __str__(self) -> str:
        head = ["from __future__ import annotations\n"] if self._postponed else []
        imports = sorted(
            self._imports, key=lambda line: (line.split()[1].split(".")[0] not in _STDLIB, line.split()[1])
        )
        blocks = ["\n".join([*head, *imports]), "\n".join(self._constants), *self._definitions]
        return "\n\n\n".join(block.strip("\n") for block in blocks if block.strip()) + "\n"

    def _define(self, name: str, thing: Any) -> None:
        """Add a definition behind what it needs."""
        if name in self._known:
            if self._known[name] is not thing:
                raise ExperimentError(f"package: two different things are called '{name}'; give one another name")
            return
        self._known[name] = thing
        text, code = _definition(name, thing)
        self._postponed |= bool(code.co_flags & __future__.annotations.compiler_flag)
        space = _namespace(thing)
        for needed in _global_names(text):
            if needed in space:
                self._need(needed, space[needed], name)
            elif not hasattr(builtins, needed):
                raise ExperimentError(f"package: '{name}' uses '{needed}', which is not defined where '{name}' is")
        self._definitions.append(text)

    def _need(self, name: str, value: Any, by: str) -> None:
        if name in self._known and self._known[name] is value:
            return
        if isinstance(value, ModuleType):
            top = value.__name__.partition(".")[0]
            if not _is_installed(top):
                raise ExperimentError(
                    f"package: '{by}' uses the module '{name}', a file of yours that is not installed; import from it "
                    "the functions and classes that are needed, and they are copied"
                )
            parent, _, last = value.__name__.rpartition(".")
            plain = name == value.__name__
            line = f"import {name}" if plain else f"import {value.__name__} as {name}"
            self._import(name, value, f"from {parent} import {last}" if parent and last == name else line, top)
            return
        home = getattr(value, "__module__", None)
        defined = getattr(value, "__qualname__", getattr(value, "__name__", None))
        callable_here = isinstance(value, type) or inspect.isfunction(value)
        if callable_here and not _is_installed(str(home).partition(".")[0]):
            if defined != name:
                raise ExperimentError(
                    f"package: '{by}' uses '{name}', which is defined as '{defined}'; call it by that name"
                )
            self._define(name, value)
        elif (statement := _home(name, value)) is not None:
            self._import(name, value, statement, statement.split()[1].partition(".")[0])
        elif _is_plain(value) and len(repr(value)) <= _LONGEST:
            self._known[name] = value
            self._constants.append(f"{name} = {value!r}")
        else:
            raise ExperimentError(
                f"package: '{by}' uses '{name}', a {type(value).__name__} of this session, which is not written into a "
                "package; make it inside, or give it as an argument"
            )

    def _import(self, name: str, value: Any, line: str, top: str) -> None:
        self._known[name] = value
        self._imports.append(line)
        if top not in _STDLIB:
            self.imported.add(top)


_STDLIB = sys.stdlib_module_names


def _definition(name: str, thing: Any) -> tuple[str, CodeType]:
    """Return the text of a class or function that stands at the top of its file or cell, and a code object of it."""
    if getattr(thing, "__name__", "") == "<lambda>":
        raise ExperimentError("package: a lambda has no name; write it with def")
    if "<locals>" in thing.__qualname__:
        raise ExperimentError(
            f"package: '{name}' is defined inside another function; define it at the top of a file or a notebook's cell"
        )
    code = next(_codes(thing), None)
    if code is None:
        raise ExperimentError(f"package: '{name}' has no method of its own, so its source is not found")
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        tree = ast.Module([], [])
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    # The last of that name is the one that holds.
    for node in reversed(tree.body):
        if isinstance(node, kinds) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "".join(lines[first - 1 : node.end_lineno]), code
    raise ExperimentError(
        f"package: the source of '{name}' is not found; it must stand in a file or in a notebook's cell of this session"
    )


def _codes(thing: Any) -> Iterator[CodeType]:
    if inspect.isfunction(thing):
        yield thing.__code__
        return
    for value in vars(thing).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if inspect.isfunction(function) and function.__qualname__.startswith(f"{thing.__qualname__}."):
            yield function.__code__


def _namespace(thing: Any) -> dict[str, Any]:
    if inspect.isfunction(thing):
        return thing.__globals__
    return vars(sys.modules[thing.__module__])


def _global_names(text: str) -> list[str]:
    """Return the names that a definition reads from around it, in the order of the alphabet."""
    table = symtable.symtable(text, "package", "exec")
    names: set[str] = set()

    def look(part: symtable.SymbolTable) -> None:
        for symbol in part.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or (part is table and not symbol.is_assigned())):
                names.add(symbol.get_name())
        for child in part.get_children():
            look(child)

    look(table)
    return sorted(names)


def _home(name: str, value: Any) -> str | None:
    """Return the line that imports an installed object under this name."""
    first = getattr(value, "__module__", None)
    loaded = [module for key, module in sorted(sys.modules.items(), key=lambda item: len(item[0])) if "._" not in key]
    for module in [sys.modules.get(str(first)), *loaded]:
        space = getattr(module, "__dict__", {})
        if not isinstance(module, ModuleType) or not _is_installed(module.__name__.partition(".")[0]):
            continue
        if isinstance(value, _PLAIN):
            return None
        if space.get(name) is value:
            return f"from {module.__name__} import {name}"
        other = getattr(value, "__name__", None)
        if module is sys.modules.get(str(first)) and other and space.get(other) is value:
            return f"from {module.__name__} import {other} as {name}"
    return None


def _is_installed(top: str) -> bool:
    return top == "v6_algorithm" or (top != "__main__" and (top in _STDLIB or top in distributions_by_top()))


@functools.cache
def distributions_by_top() -> Mapping[str, list[str]]:
    """Return the installed packages' distributions by their top-level names; reading them all takes a while."""
    return packages_distributions()


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    # Infinity and not-a-number have no literal.
    return isinstance(value, _PLAIN) and not (isinstance(value, float) and not re.match(r"-?\d", repr(value)))
