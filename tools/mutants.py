"""Mutants: small faults put into the package, one at a time, to see whether the tests beside the code notice.

    python -m tools.mutants --sample 30 --seed 1 v6_algorithm/exchange/wire.py v6_algorithm/learning/metrics

A mutant changes one comparison, one operator, one `and` or `or`, or one number. It is killed if a test of the
mirrored folder of tests/ (or of its nearest parent that there is) fails or runs into the time limit. The package is
copied first: the working tree stays as it is. Survivors are printed with their line: each is a test to write, or makes
no difference. Not part of the everyday tests; whoever changes core modules runs it on them.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = [
    "v6_algorithm/coordinator/strategies",
    "v6_algorithm/exchange/wire.py",
    "v6_algorithm/coordinator/rounds/reply_checks.py",
    "v6_algorithm/coordinator/rounds/comparable.py",
    "v6_algorithm/learning/metrics",
    "v6_algorithm/data/preparation",
    "v6_algorithm/data/splits.py",
    "v6_algorithm/site",
]
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A file with one fault: where it is, what the line was and is."""

    path: Path
    line: int
    before: str
    after: str
    source: str


def places_of(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield the number of every node of a file's syntax tree that a mutant can change."""
    for number, node in enumerate(ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if _changed(node) is not None:
            yield path, number


def mutant_at(path: Path, number: int) -> Mutant:
    """Return the mutant that changes this node."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node = list(ast.walk(tree))[number]
    before = ast.unparse(node)
    for field, value in (_changed(node) or {}).items():
        setattr(node, field, value)
    return Mutant(
        path, getattr(node, "lineno", 0), before, ast.unparse(node), ast.unparse(ast.fix_missing_locations(tree))
    )


def _changed(node: ast.AST) -> dict[str, object] | None:
    """Return the fields that make a node wrong; None where it is left alone."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        return {"ops": [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]}
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _is_text(node):
        return {"op": _OPERATORS[type(node.op)]()}
    if isinstance(node, ast.BoolOp):
        return {"op": ast.Or() if isinstance(node.op, ast.And) else ast.And()}
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return {"value": node.value + 1}
    return None


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr | ast.Constant) and not _is_number(side) for side in (node.left, node.right)
    )


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def tests_of(path: Path) -> Path:
    """Return the folder of tests that mirrors a module's."""
    folder = Path("tests", *path.relative_to(ROOT / "v6_algorithm").parts[:-1])
    while not (ROOT / folder).is_dir():
        folder = folder.parent
    return folder


def survives(mutant: Mutant, copy: Path, limit_s: float, tests: list[str]) -> bool:
    """Run the tests on a mutant in a copy of the repository; return whether they all pass."""
    place = copy / mutant.path.relative_to(ROOT)
    original = place.read_text(encoding="utf-8")
    place.write_text(mutant.source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not network"]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(  # noqa: S603
            [*command, *(tests or [str(tests_of(mutant.path))])],
            cwd=copy, env=environment, timeout=limit_s, capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        place.write_text(original, encoding="utf-8")


def main() -> int:
    """Sample mutants, run them and print what survived; the exit status is 1 below the share that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=CORE, help="files or folders; default: the core modules")
    parser.add_argument("--sample", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=300)
    parser.add_argument("--tests", nargs="*", default=[], help="instead of the mirrored folder")
    parser.add_argument("--least", type=float, default=0.9, help="share that must be killed")
    options = parser.parse_args()
    files = [
        file
        for path in options.paths
        for file in ([ROOT / path] if path.endswith(".py") else sorted((ROOT / path).rglob("*.py")))
    ]
    everything = [place for file in files for place in places_of(file)]
    chosen = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))  # noqa: S311
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "runs", ".venv", "shared"))
        for number, place in enumerate(chosen, start=1):
            mutant = mutant_at(*place)
            alive = survives(mutant, copy, options.limit_s, options.tests)
            killed += not alive
            where = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
            print(
                f"{number:3d} {'SURVIVED' if alive else 'killed  '} {where}: {mutant.before} -> {mutant.after}",
                flush=True,
            )
    print(f"killed {killed} of {len(chosen)} mutants, sampled from {len(everything)} in {len(files)} files")
    return 0 if killed >= options.least * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
