"""The outside examination: inputs written before they were tried, each with the outcome that is right beside it.

    python -m tools.examine.outside [--only B3] [--list] [--all]

Each input is a file, a table or a run, whose outcome was computed by other libraries (pydicom, nibabel, SciPy, Pillow,
statsmodels, lifelines, scikit-learn) or by hand. What comes is counted by kind: `right`, right or refused as it should
be; `told`, not what was wanted and a note says so; `clear`, refused in one sentence that was not needed; `unclear`,
refused in words that do not help, or a traceback; `silent`, wrong without a word. No everyday test: minutes.
"""

from __future__ import annotations

import re
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from v6_algorithm.errors import V6AlgorithmError

VERDICTS = ("right", "told", "clear", "unclear", "silent")
# Of messages that help nobody: names of exceptions and of Python's types.
_NO_WORDS = re.compile(r"Traceback|\b\w+(?:Error|Exception)\b|NoneType|object at 0x|\bdtype\b|errno", re.I)
_LONGEST_MESSAGE = 900


@dataclass(frozen=True)
class Seen:
    """What came of an input: whether its numbers are right (None: there are none), what was told, how far off."""

    equal: bool | None
    told: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes
    ----------
    kind
        Of issue 13, such as B3.
    name
        What it is.
    try_it
        Makes it in a folder and says what came.
    wanted
        ``right``, ``told`` or ``refused``.
    words
        Of which one is in the note or the message, for ``told`` and ``refused``.
    """

    kind: str
    name: str
    try_it: Callable[[Path], Seen]
    wanted: str
    words: tuple[str, ...]


CASES: dict[str, list[Case]] = defaultdict(list)


def case(kind: str, *, told: str = "", refused: str = "", sample: str = "first") -> Callable[[Any], Any]:
    """Register a function that tries one input; its docstring says which. Words are parted by ``|``."""

    def register(function: Callable[[Path], Seen]) -> Callable[[Path], Seen]:
        wanted = "told" if told else "refused" if refused else "right"
        words = tuple((told or refused).split("|")) if told or refused else ()
        CASES[sample].append(Case(kind, " ".join((function.__doc__ or "").split()), function, wanted, words))
        return function

    return register


def judge(case: Case) -> tuple[str, str]:
    """Try one input; return the verdict and what came."""
    with tempfile.TemporaryDirectory(prefix="examine-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            seen = case.try_it(Path(folder))
        except V6AlgorithmError as error:
            message = str(error)
            helps = not _NO_WORDS.search(message) and len(message) < _LONGEST_MESSAGE
            if case.wanted == "right":
                return ("clear" if helps else "unclear"), message
            named = any(word.lower() in message.lower() for word in case.words)
            return ("right" if helps and named else "unclear"), message
        except Exception:
            return "unclear", traceback.format_exc(limit=-3)
    named = [word for word in case.words if word.lower() in seen.told.lower()]
    if case.wanted == "right":
        return ("right" if seen.equal else "silent"), f"{seen.detail} told: {seen.told[:600]}"
    if named and (seen.equal is not False or case.wanted == "refused"):
        return ("right" if case.wanted == "told" else "told"), seen.told
    if named:
        return "told", f"{seen.detail} told: {seen.told[:600]}"
    return "silent", f"{seen.detail} told: {seen.told[:900]}"


def count(verdicts: Iterator[tuple[Case, str]]) -> dict[str, Counter[str]]:
    """Count verdicts by kind."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for tried, verdict in verdicts:
        counted[tried.kind][verdict] += 1
    return counted


@contextmanager
def policy(preset: str) -> Iterator[None]:
    """Let all sites of this process hold a preset of a node's rules, as ``v6-algorithm run --policy`` does."""
    from v6_algorithm.engines.simulation import simulate

    federation_of, rules = simulate.local_federation, simulate.own_policy(preset)

    def with_rules(experiment: Any, tables: Any, *arguments: Any, **options: Any) -> Any:
        return federation_of(experiment, tables, rules, way=options.get("way", "wire"))

    with patch.object(simulate, "local_federation", with_rules):
        yield


def same(value: Any, expected: Any, *, within: float = 1e-5, told: str = "") -> Seen:
    """Compare arrays, by shape and by value, `within` the expected ones' largest number."""
    given, wanted = np.asarray(value, dtype=float), np.asarray(expected, dtype=float)
    if given.shape != wanted.shape:
        return Seen(False, told, f"shape {given.shape} for {wanted.shape};")
    if not wanted.size:
        return Seen(True, told)
    apart = np.abs(given - wanted)
    apart = np.where(np.isnan(given) & np.isnan(wanted), 0, apart)
    worst = float(apart.max())
    near = bool(worst <= within * max(1.0, float(np.nanmax(np.abs(wanted)))))
    place = np.unravel_index(int(np.nanargmax(apart)), apart.shape) if wanted.ndim else ()
    return Seen(near, told, f"{given[place]:.6g} for {wanted[place]:.6g} (off {worst:.3g});")


def true(condition: Any, detail: Any = "", told: str = "") -> Seen:
    """Say whether something holds."""
    return Seen(bool(condition), told, f"{detail};")
