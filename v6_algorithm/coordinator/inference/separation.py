"""Which value of a category separates: the reference shows in the terms of all other values, and in the intercept.

`coefficients` names it in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def against_reference(
    coefficients: Mapping[str, float], unbounded: Sequence[str], categories: Mapping[str, Sequence[Any]]
) -> dict[str, list[str]]:
    """Return the references whose rows are all of one class, each with the terms that grow for that alone.

    All other values of such a category grow against it to one side, and the intercept, if there is one, to the other.

    Parameters
    ----------
    coefficients
        By term.
    unbounded
        Terms that grow without end.
    categories
        Column to its values, of which the first is the reference.
    """
    found = {}
    for column, values in categories.items():
        others = [f"{column}={value}" for value in values[1:]]
        if not others or not set(others) <= set(unbounded):
            continue
        sides = {coefficients[term] > 0 for term in others}
        grows = {"(intercept)"} <= set(unbounded) if "(intercept)" in coefficients else sides == {True}
        if len(sides) == 1 and grows:
            found[f"{column}={values[0]}"] = [*others, *({"(intercept)"} & set(coefficients))]
    return found


def with_references(unbounded: Sequence[str], by_reference: Mapping[str, Sequence[str]]) -> str:
    """List terms that grow, with references in the place of what grows against them alone."""
    behind = {term for terms in by_reference.values() for term in terms} | set(by_reference)
    references = [
        f"{term} (a reference, against which {', '.join(terms)} are told)" for term, terms in by_reference.items()
    ]
    return ", ".join([*references, *(term for term in unbounded if term not in behind)])
