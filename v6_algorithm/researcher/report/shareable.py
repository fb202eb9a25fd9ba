"""A result that can be sent to a colleague: plain JSON, without passwords; every file and page is made from one."""

from __future__ import annotations

import math
import re
from typing import Any

# user:password@ in the address of a database, and password=… in a connection string; the user name may stay.
_PASSWORD = re.compile(r"(?P<address>\w://[^\s:/@]*:)[^\s/]*@|(?P<key>\b(?:password|pwd)=)[^\s;&]*", re.IGNORECASE)


def shareable(result: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that is plain JSON and can be sent to a colleague.

    Passwords in database addresses are masked. NaN and infinities, which JSON does not have, become null, and a note
    says where: losing the record of a night's training because one loss diverged would be the greater harm.
    """
    places: dict[str, None] = {}

    def walk(value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return {str(key): walk(item, f"{place}.{key}" if place else str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, place) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            places[place] = None
            return None
        # Parameters are megabytes of base64: nothing to mask, much to scan.
        if isinstance(value, str) and ("@" in value or "=" in value) and not place.startswith("parameters"):
            return without_password(value)
        return value

    clean: dict[str, Any] = walk(result, "")
    if places:
        # Said in the result itself, since the file cannot show what it replaced.
        note = f"Not finite and written as null: {', '.join(places)}."
        clean["notes"] = [*(notes if isinstance(notes := clean.get("notes"), list) else []), note]
    return clean


def without_password(text: str) -> str:
    """Return a text with the passwords of database addresses and connection strings masked."""
    return _PASSWORD.sub(_mask, text)


def _mask(match: re.Match[str]) -> str:
    return f"{match['address']}***@" if match["address"] else f"{match['key']}***"
