"""Numbers that may change with the round, such as `local_epochs: {1: 1, 5: 2}`: two passes from round 5 on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from v6_algorithm.experiment.base import refuse

_EXAMPLE = "such as {1: 1, 5: 2}"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _schedule(value: Any) -> Any:
    """Check a mapping, and put it in order: one from JSON has text as keys, and a mapping has no order to rely on."""
    rounds: dict[int, int] = {}
    for key, number in value.items():
        first = int(key) if isinstance(key, str) and key.isdecimal() else key
        if not _whole(first) or not _whole(number):
            raise refuse(
                f"by round, both the round and the number from there on must be whole numbers from 1, {_EXAMPLE}"
            )
        rounds[first] = number
    if 1 not in rounds:
        raise refuse(f"by round, the first key must be 1, {_EXAMPLE}: each number counts from its round on")
    return dict(sorted(rounds.items()))


def _form(value: Any) -> str:
    return "by_round" if isinstance(value, Mapping) else "always"


ByRound = Annotated[
    Annotated[Annotated[int, Field(ge=1)], Tag("always")]
    | Annotated[dict[int, int], BeforeValidator(_schedule), Tag("by_round")],
    Discriminator(_form),
]


def in_round(value: int | dict[int, int] | None, number: int) -> int | None:
    """Return what a number is in a round, counted from 1; the pretraining, which is round 0, is like the first."""
    if not isinstance(value, dict):
        return value
    return value[max(first for first in value if first <= max(number, 1))]
