"""The package's structure from its own imports: ``python -m tools.house [CHECKOUT]``.

Prints the rooms at the top level with their lines, who imports whom, and what the plan forbids: an arrow that runs up,
coordinator and site meeting, vantage6 outside engines and researcher, circles of files. `tests/test_house.py` holds
that there is none. Imports inside functions and for type checking count like any other.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "v6_algorithm"
# Imports go down this list only.
WINGS = ("researcher", "engines", "coordinator", "site", "learning", "data", "exchange", "experiment")
FLOOR = ("errors", "seeding")
# The package's own `__init__` (what the network may call) reaches down; `problems.base` is what plug-ins import.
ABOVE = ("", "api", "problems", "__main__")
APART = frozenset({"coordinator", "site"})
KNOW_VANTAGE6 = frozenset({"researcher", "engines"})


@dataclass(frozen=True)
class House:
    """The modules of a package, their lines, and which modules each imports."""

    lines: dict[str, int]
    imports: dict[str, set[str]]
    foreign: dict[str, set[str]]

    @property
    def arrows(self) -> set[tuple[str, str]]:
        """Pairs of rooms of which the first imports the second."""
        pairs = {(room_of(name), room_of(other)) for name, others in self.imports.items() for other in others}
        return {(first, second) for first, second in pairs if first != second}

    def upward(self) -> list[str]:
        """Return the imports that run up the list of wings, or between coordinator and site."""
        order = {room: place for place, room in enumerate((*WINGS, *FLOOR))}
        found = []
        for name, others in sorted(self.imports.items()):
            for other in sorted(others):
                first, second = room_of(name), room_of(other)
                if first in ABOVE:
                    continue
                if second in ABOVE or order.get(first, 99) > order.get(second, 99) or {first, second} == APART:
                    found.append(f"{name} -> {other}")
        return found

    def strangers(self) -> list[str]:
        """Return the modules outside engines and researcher that import vantage6."""
        return sorted(
            name for name, tops in self.foreign.items() if "vantage6" in tops and room_of(name) not in KNOW_VANTAGE6
        )

    def circles(self) -> list[list[str]]:
        """Return the circles of files: strongly connected components of more than one (Tarjan, 1972)."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(name: str) -> None:
            index[name] = low[name] = len(index)
            stack.append(name)
            for other in self.imports[name]:
                if other not in index:
                    visit(other)
                    low[name] = min(low[name], low[other])
                elif other in stack:
                    low[name] = min(low[name], index[other])
            if low[name] == index[name]:
                place = stack.index(name)
                if len(stack) - place > 1:
                    found.append(sorted(stack[place:]))
                del stack[place:]

        for name in sorted(self.imports):
            if name not in index:
                visit(name)
        return found


def room_of(name: str) -> str:
    """Return the room of a module: the first name below the package, empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


def read_house(root: Path) -> House:
    """Read the package below the checkout `root`."""
    files = {module_of(path, root): path for path in sorted((root / PACKAGE).rglob("*.py"))}
    imports: dict[str, set[str]] = {}
    foreign: dict[str, set[str]] = {}
    for name, path in files.items():
        names = set(imported(path, root))
        ours = {_module(each, files) for each in names if each.split(".")[0] == PACKAGE}
        imports[name] = ours - {name, PACKAGE, ""}
        foreign[name] = {each.split(".")[0] for each in names} - {PACKAGE}
    return House({name: len(path.read_text().splitlines()) for name, path in files.items()}, imports, foreign)


def module_of(path: Path, root: Path) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, root: Path, *, at_start_only: bool = False) -> Iterator[str]:
    """Yield the full names that a file imports, wherever in it they stand.

    With `at_start_only` those of functions, and those for type checking, are left out.
    """
    package = module_of(path, root).split(".")[: None if path.name == "__init__.py" else -1]
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [above, node.module or ""]))
            # A name may be a module: `from v6_algorithm.exchange import wire`.
            yield from (f"{source}.{alias.name}" for alias in node.names)
        if at_start_only and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        elif not (at_start_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            pending.extend(ast.iter_child_nodes(node))


def _module(name: str, known: dict[str, Path]) -> str:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def main(root: Path) -> None:
    """Print the structure of the checkout at `root`."""
    house = read_house(root)
    lines: Counter[str] = Counter()
    files = Counter(room_of(name) for name in house.lines)
    for name, count in house.lines.items():
        lines[room_of(name)] += count
    order = [*ABOVE, *WINGS, *FLOOR]
    rooms = sorted(files, key=lambda room: (order.index(room) if room in order else 99, room))
    arrows = house.arrows
    print(f"{'room':16}{'files':>6}{'lines':>7}  imports")
    for room in rooms:
        targets = [other for other in rooms if (room, other) in arrows]
        print(f"{room or PACKAGE:16}{files[room]:6}{lines[room]:7}  {' '.join(targets)}")
    between = [(first, second) for first, second in arrows if first not in ABOVE]
    print(f"\n{len(rooms)} rooms, {sum(files.values())} files, {sum(lines.values())} lines, {len(between)} arrows")
    if set(WINGS) <= set(rooms):
        print(f"{len(house.upward())} imports that run up:", *house.upward(), sep="\n  ")
        print(f"{len(house.strangers())} modules that know vantage6 and may not:", *house.strangers(), sep="\n  ")
    circles = house.circles()
    print(f"{len(circles)} circles of files:", *(" ".join(circle) for circle in circles), sep="\n  ")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
