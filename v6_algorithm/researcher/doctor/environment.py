"""Folders that can be written to, variables that vantage6's wrapper would change, and the node owner's guards."""

from __future__ import annotations

import base64
import binascii
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from v6_algorithm.errors import PolicyError
from v6_algorithm.researcher.doctor.finding import Finding, in_image, note, ok, problem, size
from v6_algorithm.site import policy
from v6_algorithm.site.rules import BY_VARIABLE, PRESET

_LITTLE_SPACE_BYTES = 1e9


def folders() -> Iterator[Finding]:
    """Write to the node's folder, the home and the system's folder for temporary files."""
    given = os.environ.get("TEMPORARY_FOLDER")
    if given:
        # A node promises this one: tables and states are kept in it between rounds.
        yield _folder("TEMPORARY_FOLDER", Path(given), promised=True)
    yield _folder("home", Path.home())
    try:
        yield _folder("tmp", Path(tempfile.gettempdir()))
    except FileNotFoundError:
        yield problem(
            "there is no folder for temporary files, which torch insists on", "make /tmp writable, or set TMPDIR",
            folder="tmp", writable=False,
        )  # fmt: skip


def _folder(name: str, path: Path, *, promised: bool = False) -> Finding:
    details: dict[str, Any] = {"folder": name, "path": str(path)}
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"v6_algorithm")
        free = shutil.disk_usage(path).free
    except OSError as error:
        text = f"{name} {path} cannot be written to: {error.strerror}"
        if promised:
            return problem(text, "mount a volume there, or leave TEMPORARY_FOLDER out", writable=False, **details)
        return note(text, "nothing is kept there; check its owner if you expected to", writable=False, **details)
    text = f"{name} {path} can be written to, {size(free)} free"
    details |= {"writable": True, "free_bytes": free}
    if free < _LITTLE_SPACE_BYTES:
        return note(text, "make room: tables and models are kept between rounds", **details)
    return ok(text, **details)


def variables() -> Finding:
    """Find variables of the image that vantage6's wrapper takes for its own encoding, without naming their values."""
    if not in_image():
        return ok("not in an algorithm image, nothing decodes them")
    garbled, fatal = [], []
    for name, value in os.environ.items():
        try:
            if base64.b32decode(value.replace("!", "=").encode()).decode() != value:
                garbled.append(name)
        except binascii.Error:
            pass
        except UnicodeError:
            fatal.append(name)
    advice = "its value is valid base32 (only A-Z and 2-7): change it in the Dockerfile, a small letter will do"
    if fatal:
        return problem(f"vantage6's wrapper stops at {', '.join(fatal)}", advice, names=fatal + garbled)
    if garbled:
        return note(f"vantage6's wrapper changes {', '.join(garbled)}", advice, names=garbled)
    return ok("vantage6's wrapper leaves them as they are")


def guards() -> Finding:
    """Read the node owner's rules as a site would: one that cannot be read refuses every task."""
    given = [name for name in (PRESET, *BY_VARIABLE) if name in os.environ]
    try:
        policy.Policy.from_environment()
    except PolicyError as error:
        return problem(str(error), "correct the node's algorithm_env; until then it refuses every task", names=given)
    return ok(", ".join(given) or "none set here, the defaults hold", names=given)
