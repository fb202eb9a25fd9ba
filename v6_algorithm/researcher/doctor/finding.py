"""What a check of the self test says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One line of the self test.

    Attributes
    ----------
    status
        ``ok``; ``note``, something is missing or odd and v6_algorithm runs without it; ``problem``, it does not run, or
        not as the operator meant it.
    message
        What is there.
    advice
        What to do about it; empty when ok.
    name
        Which check this is from; `found` fills it in.
    details
        The same for scripts: sizes in bytes, counts.
    """

    status: Literal["ok", "note", "problem"]
    message: str
    advice: str = ""
    name: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def ok(message: str, **details: Any) -> Finding:
    """Make a finding that all is well."""
    return Finding("ok", message, details=details)


def note(message: str, advice: str, **details: Any) -> Finding:
    """Make a finding that does not stand in the way."""
    return Finding("note", message, advice, details=details)


def problem(message: str, advice: str, *, name: str = "", **details: Any) -> Finding:
    """Make a finding that does."""
    return Finding("problem", message, advice, name, details)


def missing(message: str, advice: str, **details: Any) -> Finding:
    """Make a finding about what the image must have, and a researcher's laptop need not."""
    return (problem if in_image() else note)(message, advice, **details)


def in_image() -> bool:
    """Say whether this is the algorithm's image, or one built from it: only a Dockerfile of vantage6 sets this."""
    return "PKG_NAME" in os.environ


def named(name: str, findings: Finding | Iterable[Finding]) -> Iterator[Finding]:
    """Yield a check's findings with its name."""
    for finding in [findings] if isinstance(findings, Finding) else findings:
        yield replace(finding, name=finding.name or name)


def size(count: float) -> str:
    """Write bytes as people read them: 64 MB, 1.1 GB, in powers of ten as Docker does."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5 or unit == "GB":
            return f"{count:.{0 if count >= 10 or unit == 'kB' else 1}f} {unit}"
    raise AssertionError
