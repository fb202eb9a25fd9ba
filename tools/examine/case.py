"""One input and what is expected of it, and the registry that the samples fill."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Expected:
    """What may come of an input: any of a refusal, and a result that is right, told of, or both.

    Attributes
    ----------
    refused
        Patterns that the one line of a refusal must match, all of them; None: it must not be refused.
    told
        Patterns that the notes of a result must match, all of them.
    right
        Says of ``result.json`` whether its numbers are right; None: they are not looked at.
    seeded
        Whether that holds only where rows are dealt by the seed alone, as they are by no node of policy standard.
    """

    refused: tuple[str, ...] | None = None
    told: tuple[str, ...] | None = None
    right: Callable[[Outcome], bool] | None = None
    seeded: bool = False


@dataclass(frozen=True)
class Input:
    """Sites as for `v6_algorithm.api.run`, or None where the experiment (YAML text) names them."""

    sites: Mapping[str, Any] | None
    experiment: Mapping[str, Any] | str
    expected: Expected


@dataclass(frozen=True)
class Case:
    """An input by its kind of issue 13 (`A1` to `A11`) and sample; `make` writes its files into a folder."""

    sample: str
    kind: str
    name: str
    make: Callable[[Path], Input]


CASES: list[Case] = []


def case(sample: str, kind: str, name: str) -> Callable[[Callable[[Path], Input]], Callable[[Path], Input]]:
    """Register a function that writes an input's files and returns it."""

    def register(make: Callable[[Path], Input]) -> Callable[[Path], Input]:
        CASES.append(Case(sample, kind, name, make))
        return make

    return register


def refused(*patterns: str) -> Expected:
    """Expect one clear line."""
    return Expected(refused=patterns)


def told(*patterns: str, right: Callable[[Outcome], bool] | None = None) -> Expected:
    """Expect a result and a note."""
    return Expected(told=patterns, right=right)


def right(check: Callable[[Outcome], bool]) -> Expected:
    """Expect a right result."""
    return Expected(right=check)


def told_or_refused(*patterns: str, right: Callable[[Outcome], bool] | None = None) -> Expected:
    """Expect either, with the same things named."""
    return Expected(refused=patterns, told=patterns, right=right)


def matches(patterns: Sequence[str], text: str) -> list[str]:
    """Return the patterns that a text lacks; upper and lower case are alike."""
    return [pattern for pattern in patterns if not re.search(pattern, text, re.IGNORECASE | re.DOTALL)]
