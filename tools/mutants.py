"""Mutants: small faults put into the package, one at a time, to see whether the everyday tests notice.

    python -m tools.mutants --sample 300 --seed 13 --record mutants.jsonl
    python -m tools.mutants --sample 30 v6_algorithm/exchange/wire v6_algorithm/learning/metrics

A mutant changes one comparison, one operator, one `and` or `or`, or one number. It is killed if an everyday test that
reaches it fails or runs into the time limit. All mutants of a sample are put into the package in memory, each behind a
switch, so that tests are imported and collected once: first they run as they are, to learn which test reaches which
mutant and how long it takes; then each mutant is switched on in a fork that runs those tests until one fails. What is
worked out while a module is imported needs an import of its own, and the tests that enter the module or are of a file
that imports it.

`--record` is a file of lines that a later call goes on from; a call after more tests were written tries the survivors
again (`--again`). Survivors are printed with their line: each is a test to write, or makes no difference. Tests in
processes of their own do not see mutants. Needs fork. Not part of the everyday tests; whoever changes core modules runs
it on them.

equivalent_mutants.txt beside this file lists mutants that cannot change what comes out, each with the reason: they are
left out of a sample and named at its end.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import functools
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = [
    "v6_algorithm/coordinator/strategies",
    "v6_algorithm/coordinator/preparation",
    "v6_algorithm/coordinator/rounds/reply_checks.py",
    "v6_algorithm/coordinator/rounds/comparable.py",
    "v6_algorithm/exchange/wire",
    "v6_algorithm/learning/metrics",
    "v6_algorithm/data/preparation",
    "v6_algorithm/data/splits.py",
    "v6_algorithm/site",
    "v6_algorithm/engines",
]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
# All everyday tests; those under network/ are none.
TESTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "tests").iterdir())
    if path.name not in ("network", "__pycache__") and (path.is_dir() or path.match("test_*.py"))
]
# Mutants of which the tests are collected together: those of all take seconds to import.
_AT_ONCE = 25
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
_SWITCH = "__mutant__"


@dataclass(frozen=True)
class Mutant:
    """One fault: its file, the number of the node in the file's syntax tree, what the line was and is."""

    path: str
    number: int
    line: int
    before: str
    after: str
    in_function: bool
    source: str

    @property
    def listed(self) -> tuple[str, str, str]:
        """What names the mutant in the list of equivalent ones: file, line as it is written, and the change."""
        return self.path, self.source, f"{self.before} -> {self.after}"

    @property
    def key(self) -> str:
        """What names the mutant in the record; not its line, which moves."""
        return f"{self.path}#{self.number} {self.before} -> {self.after}"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield a file's mutants."""
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    fixed = _fixed(tree)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for part in (function.body if isinstance(function.body, list) else [function.body])
        for node in ast.walk(part)
    }
    for number, node in enumerate(ast.walk(tree)):
        changed = None if number in fixed else _changed(node)
        if changed is not None:
            name = path.relative_to(ROOT).as_posix()
            line: int = node.lineno  # type: ignore[attr-defined]
            before, after, source = ast.unparse(node), ast.unparse(changed), lines[line - 1].strip()
            yield Mutant(name, number, line, before, after, id(node) in inside, source)


def _fixed(tree: ast.AST) -> set[int]:
    """Return the numbers of nodes that are no code: annotations, and what a `match` or `Literal` takes as it stands."""
    leave: set[int] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            parts.append(node.slice)
        if isinstance(node, ast.pattern | ast.JoinedStr):
            parts.append(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reshape":
            # numpy takes any negative length for -1.
            parts += [part for part in node.args if isinstance(part, ast.UnaryOp)]
        leave |= {id(inner) for part in parts if part is not None for inner in ast.walk(part)}
    return {number for number, node in enumerate(ast.walk(tree)) if id(node) in leave}


def _changed(node: ast.AST) -> ast.expr | None:
    """Return an expression made wrong; None where it is left alone."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        return ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _is_text(node):
        return ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    # One more than 1e100 is 1e100.
    if _is_number(node) and node.value + 1 != node.value:
        return ast.Constant(node.value + 1)
    return None


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr | ast.Constant) and not _is_number(side) for side in (node.left, node.right)
    )


def _is_number(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


class _Switches(ast.NodeTransformer):
    """Put each of some mutants of a file behind its switch, and a mark at the beginning of every function."""

    def __init__(self, numbers: dict[int, int], mark: int) -> None:
        self.by_node, self.mark = numbers, mark

    def visit(self, node: ast.AST) -> Any:
        switch = self.by_node.get(id(node))
        wrong = _changed(node) if switch is not None else None
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = 1 if ast.get_docstring(node, clean=False) is not None else 0
            node.body.insert(first, ast.Expr(_call(self.mark)))
        if wrong is None:
            return node
        # The wrong one shares its parts with the right one, and they may have switches too.
        again = _changed(node)
        return ast.IfExp(_call(switch or 0), again, node)


def _call(switch: int) -> ast.Call:
    return ast.Call(ast.Name(_SWITCH, ast.Load()), [ast.Constant(switch)], [])


class Package(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import the package's files with the mutants in them; `active` is the one that is switched on."""

    def __init__(self, mutants: Sequence[Mutant]) -> None:
        self.active: int | None = None
        self.reached: set[int] = set()
        self.of_file: dict[str, dict[int, int]] = defaultdict(dict)
        for place, mutant in enumerate(mutants):
            self.of_file[mutant.path][mutant.number] = place
        # The mark of a file is a negative number: no mutant.
        self.marks = {path: -1 - place for place, path in enumerate(sorted(self.of_file))}
        reached = self.reached

        def switch(number: int) -> bool:
            reached.add(number)
            return number == self.active

        setattr(builtins, _SWITCH, switch)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if not fullname.startswith("v6_algorithm"):
            return None
        file = ROOT.joinpath(*fullname.split("."))
        for candidate, folder in ((file.with_suffix(".py"), None), (file / "__init__.py", [str(file)])):
            if candidate.is_file() and candidate.relative_to(ROOT).as_posix() in self.of_file:
                return importlib.util.spec_from_file_location(
                    fullname, candidate, loader=self, submodule_search_locations=folder
                )
        return None

    def exec_module(self, module: ModuleType) -> None:
        file = str(module.__file__)
        name = Path(file).relative_to(ROOT).as_posix()
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        nodes = dict(enumerate(ast.walk(tree)))
        switches = {id(nodes[number]): place for number, place in self.of_file[name].items()}
        mutated = ast.fix_missing_locations(_Switches(switches, self.marks[name]).visit(tree))
        exec(compile(mutated, file, "exec"), module.__dict__)  # noqa: S102


class Record:
    """What is known: of tests the mutants they reach and their seconds, of mutants whether they were killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tests: dict[str, dict[str, Any]] = {}
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.at_import: set[str] = set()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            self._take(json.loads(line))

    def add(self, entry: dict[str, Any]) -> None:
        """Take an entry, and write it down."""
        self._take(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _take(self, entry: dict[str, Any]) -> None:
        if "test" in entry:
            self.tests[entry["test"]] = entry
        elif "mutant" in entry:
            self.verdicts[entry["mutant"]] = entry
        else:
            self.at_import |= set(entry["at_import"])


class Runner:
    """The pytest plug-in: collected tests, and a loop of ours instead of pytest's."""

    def __init__(self, loop: Callable[[pytest.Session], int]) -> None:
        self.loop = loop

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            os._exit(2)
        # pytest holds a copy of the terminal, and forks of it would write its dots.
        session.config.get_terminal_writer()._file = open(os.devnull, "w")  # noqa: SIM115
        os._exit(self.loop(session))


def run_items(session: pytest.Session, items: Sequence[pytest.Item]) -> int:
    """Run tests until one fails; return 1 if it does."""
    for place, item in enumerate(items):
        following = items[place + 1] if place + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return 1
    return 0


def in_fork(work: Callable[[], int], limit_s: float) -> str:
    """Do something in a fork; return "passed", "failed", or "time" after so many seconds of CPU."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 5))
        _silence()
        try:
            status = work()
        except BaseException:
            status = 1
        os._exit(status)
    ends = time.monotonic() + 3 * limit_s
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return "time" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "failed"
            return "failed" if os.WEXITSTATUS(status) else "passed"
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "time"


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def collected(tests: Iterable[str], loop: Callable[[pytest.Session], int]) -> int:
    """Collect the everyday tests of some folders, and do something with them; it ends the process."""
    return int(
        pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not network and not docker",
             *tests],
            plugins=[Runner(loop)],
        )
    )  # fmt: skip


def reach(package: Package, mutants: Sequence[Mutant], record: Record, tests: list[str]) -> None:
    """Run the tests as the code is, and write down which mutants each reaches."""
    caches: list[Any] = []
    _remember_caches(caches)

    def loop(session: pytest.Session) -> int:
        record.add({"at_import": [mutants[place].key for place in sorted(package.reached) if place >= 0]})
        for item in session.items:
            if item.nodeid in record.tests:
                continue
            for cache in caches:
                cache.cache_clear()
            package.reached.clear()
            failed, began = session.testsfailed, time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            names = {mark: path for path, mark in package.marks.items()}
            record.add(
                {
                    "test": item.nodeid,
                    "seconds": round(time.process_time() - began, 3),
                    "failed": session.testsfailed > failed,
                    "reaches": [mutants[place].key for place in sorted(package.reached) if place >= 0],
                    "enters": [names[place] for place in sorted(package.reached) if place < 0],
                }
            )
        return 0

    in_fork(lambda: collected(tests, loop), 3600)


def _remember_caches(caches: list[Any]) -> None:
    """Have every cache of a function noted, so that it can be emptied between tests."""
    original = functools.lru_cache

    def remembering(*arguments: Any, **named: Any) -> Any:
        made = original(*arguments, **named)
        if hasattr(made, "cache_clear"):
            caches.append(made)
            return made

        def decorate(function: Any) -> Any:
            caches.append(made(function))
            return caches[-1]

        return decorate

    functools.lru_cache = remembering  # type: ignore[assignment]


def worked_out_at_import(mutant: Mutant, record: Record) -> bool:
    """Say whether a mutant is one of what a module works out while it is imported, perhaps in the midst of a test."""
    return mutant.key in record.at_import or not mutant.in_function


@functools.cache
def imported_by(file: str) -> frozenset[str]:
    """Return the files of the package that a file of tests imports by name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{part.name}" for part in node.names)}
        elif isinstance(node, ast.Import):
            names |= {part.name for part in node.names}
    paths = (name.replace(".", "/") for name in names if name.startswith("v6_algorithm"))
    return frozenset(ending for path in paths for ending in (f"{path}.py", f"{path}/__init__.py"))


def equivalent() -> dict[tuple[str, str, str], str]:
    """Read the list of mutants that change nothing, with the reason of each."""
    listed = {}
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            # The line may have the mark in it.
            path, *source, change, reason = (part.strip() for part in line.split(" | "))
            listed[path, " | ".join(source), change] = reason
    return listed


def tests_for(mutant: Mutant, record: Record, most_s: float) -> tuple[list[str], float]:
    """Return the tests to try on a mutant, of `most_s` seconds in all, and their seconds.

    Those of its own folder come before others, and among them the cheapest file first.
    """
    known = "enters" if worked_out_at_import(mutant, record) else "reaches"
    wanted = mutant.path if known == "enters" else mutant.key
    by_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for test in record.tests.values():
        file = test["test"].split("::")[0]
        reaches = wanted in test[known] or (known == "enters" and wanted in imported_by(file))
        if reaches and not test["failed"]:
            by_file[file].append(test)
    beside = Path("tests", *Path(mutant.path).parts[1:-1])
    files = sorted(
        by_file.items(),
        key=lambda item: (
            -len(os.path.commonpath([item[0], beside]).split("/")),
            sum(test["seconds"] for test in item[1]) / len(item[1]),
        ),
    )
    chosen, seconds = [], 0.0
    for _, tests in files:
        for test in sorted(tests, key=lambda test: float(test["seconds"])):
            if not chosen or seconds + test["seconds"] <= most_s:
                chosen.append(test["test"])
                seconds += test["seconds"]
    return chosen, seconds


def say(mutant: Mutant, verdict: str, record: Record, tests: int, number: int) -> None:
    """Write a mutant's verdict down and print it."""
    record.add({"mutant": mutant.key, "line": mutant.line, "verdict": verdict, "tests": tests})
    alive = verdict in ("passed", "no test")
    print(
        f"{number:3d} {'SURVIVED' if alive else 'killed  '} {mutant.path}:{mutant.line}: "
        f"{mutant.before} -> {mutant.after} ({verdict}, {tests} tests)",
        flush=True,
    )


def try_all(
    package: Package, mutants: Sequence[Mutant], record: Record, *, again: bool, ends: float, most_s: float
) -> None:
    """Switch on each mutant that has no verdict yet, or survived and is to be tried again."""
    chosen_for = {mutant.key: tests_for(mutant, record, most_s) for mutant in mutants}

    def waits(mutant: Mutant) -> bool:
        known = record.verdicts.get(mutant.key)
        if known is None:
            return True
        # With the same tests it would survive again.
        return again and known["verdict"] in ("passed", "no test") and known["tests"] != len(chosen_for[mutant.key][0])

    waiting = [(place, mutant) for place, mutant in enumerate(mutants) if waits(mutant)]
    at_run = [(place, mutant) for place, mutant in waiting if not worked_out_at_import(mutant, record)]

    def loop(session: pytest.Session, members: Sequence[tuple[int, Mutant]]) -> int:
        items = {item.nodeid: item for item in session.items}
        for place, mutant in members:
            if time.monotonic() > ends:
                break
            chosen, seconds = chosen_for[mutant.key]

            def work(place: int = place, chosen: list[str] = chosen) -> int:
                package.active = place
                return run_items(session, [items[name] for name in chosen if name in items])

            verdict = in_fork(work, 20 + 4 * seconds) if chosen else "no test"
            say(mutant, verdict, record, len(chosen), place + 1)
        return 0

    for start in range(0, len(at_run), _AT_ONCE):
        members = at_run[start : start + _AT_ONCE]
        files = sorted({name.split("::")[0] for _, mutant in members for name in chosen_for[mutant.key][0]})
        if time.monotonic() < ends:
            in_fork_loudly(lambda members=members, files=files: collected(files, lambda run: loop(run, members)))  # type: ignore[misc]
    for place, mutant in waiting:
        if worked_out_at_import(mutant, record) and time.monotonic() < ends:
            chosen, seconds = chosen_for[mutant.key]

            def fresh(place: int = place, chosen: list[str] = chosen) -> int:
                package.active = place
                return collected(chosen, lambda session: run_items(session, session.items))

            verdict = in_fork(fresh, 40 + 4 * seconds) if chosen else "no test"
            say(mutant, verdict, record, len(chosen), place + 1)


def in_fork_loudly(work: Callable[[], int]) -> None:
    """Do something in a fork that prints."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os._exit(work())
    os.waitpid(child, 0)


def _prepare() -> None:
    """Import what is slow and not ours before any fork; property tests draw the same examples, and do not shrink."""
    os.environ |= {"CI": "1", "OMP_NUM_THREADS": "1"}
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = str(ROOT)
    os.chdir(ROOT)
    import pandas  # noqa: F401
    import sklearn  # noqa: F401
    import torch
    from hypothesis import Phase, settings

    torch.set_num_threads(1)
    settings.register_profile(
        "mutants", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
    )
    load = settings.load_profile
    # conftest.py loads its profile later; the class forbids to be changed in the usual way.
    type.__setattr__(settings, "load_profile", staticmethod(lambda name: load("mutants")))


def main() -> int:
    """Sample mutants, run them and print what survived; the exit status is 1 below the share that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=CORE, help="files or folders; default: the core modules")
    parser.add_argument("--sample", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="a file to go on from")
    parser.add_argument("--again", action="store_true", help="try those that survived again")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="folders or files of tests")
    parser.add_argument("--tests-seconds", type=float, default=40, help="of tests that are tried on one mutant")
    parser.add_argument("--least", type=float, default=0.9, help="share that must be killed")
    parser.add_argument("--reach-only", action="store_true", help="only learn which test reaches which mutant")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin with no other mutant after these")
    options, began = parser.parse_args(), time.monotonic()
    files = [
        file
        for path in options.paths
        for file in ([ROOT / path] if path.endswith(".py") else sorted((ROOT / path).rglob("*.py")))
    ]
    everything = [mutant for file in files for mutant in mutants_of(file)]
    drawn = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))  # noqa: S311
    same = equivalent()
    mutants = [mutant for mutant in drawn if mutant.listed not in same]
    written = {mutant.listed for mutant in everything}
    for entry in [] if options.paths != CORE else [entry for entry in same if entry not in written]:
        print(f"{EQUIVALENT.name}: not there any more: {' | '.join(entry)}")
    # Forks write down what they find out: there is always a file.
    record = Record((options.record or Path(tempfile.mkdtemp(), "mutants.jsonl")).resolve())
    _prepare()
    package = Package(mutants)
    sys.meta_path.insert(0, package)
    if not record.tests or options.reach_only:
        reach(package, mutants, record, options.tests)
    record = Record(record.path)
    if options.reach_only:
        return 0
    try_all(package, mutants, record, again=options.again, ends=began + options.seconds, most_s=options.tests_seconds)
    record = Record(record.path)
    verdicts = [record.verdicts[mutant.key]["verdict"] for mutant in mutants if mutant.key in record.verdicts]
    killed = sum(verdict not in ("passed", "no test") for verdict in verdicts)
    for mutant in drawn:
        if mutant.listed in same:
            print(f"    changes nothing {mutant.path}:{mutant.line}: {mutant.listed[2]}: {same[mutant.listed]}")
    print(f"killed {killed} of {len(verdicts)} mutants, sampled from {len(everything)} in {len(files)} files")
    if len(mutants) < len(drawn):
        print(f"{len(drawn) - len(mutants)} more of the sample change nothing, as {EQUIVALENT.name} says why")
    return 0 if killed >= options.least * len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
