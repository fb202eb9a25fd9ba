"""What the researcher is told of inputs that tell the target by themselves; `negotiate` makes the notes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from v6_algorithm.data.description.describe import MOST_HINTED
from v6_algorithm.data.description.leaks import REASONS
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.errors import WireError


def check_leaks(leaks: Any, columns: Collection[str]) -> None:
    """Raise WireError unless a site names its own columns, with known reasons."""
    if not isinstance(leaks, dict) or not (set(leaks) <= set(columns) and set(leaks.values()) <= set(REASONS)):
        raise WireError("what it says of columns that tell the target must be of known reasons")


def tell_unsearched(schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say so where tables are so wide that their columns are not looked at one by one."""
    wide = [site for site, schema in schemas.items() if len(schema["columns"]) > MOST_HINTED]
    if not wide:
        return []
    return [
        f"{listed(wide)}: the table has more than {MOST_HINTED:,} columns, which are not searched for inputs that tell "
        "the target, numbers of patients, dates and codes for empty cells, nor its rows for copies"
    ]


def tell_leaks(schemas: Mapping[str, Mapping[str, Any]], used: Collection[str]) -> list[str]:
    """Return a note for each input that tells the target at some site, and how: it may be known only afterwards."""
    notes = []
    telling = {name for schema in schemas.values() for name in schema.get("leaks", {})}
    for name in (name for name in used if name in telling):
        for reason, text in REASONS.items():
            if sites := [site for site, schema in schemas.items() if schema.get("leaks", {}).get(name) == reason]:
                notes.append(
                    f"column '{name}' at {listed(sites)}: it {text}; is it known before the target is? "
                    "data.exclude leaves it out"
                )
    return notes
