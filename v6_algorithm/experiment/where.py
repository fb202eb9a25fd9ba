"""Which rows are used, ``data.where``: conditions on columns, all of them, or any of some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from v6_algorithm.experiment.base import refuse
from v6_algorithm.experiment.condition import parse_condition

# How deep `all` and `any` may lie in each other.
_DEEPEST = 5


def _checked(value: Any, depth: int = 0) -> Any:
    """Return the conditions with a list of them for each column; raises for what is none."""
    if not isinstance(value, Mapping) or not value:
        raise refuse("must be columns and conditions, such as {age: '>= 18'}, or any or all with a list of these")
    if depth > _DEEPEST:
        raise refuse(f"any and all lie in each other deeper than {_DEEPEST}")
    checked: dict[str, Any] = {}
    for name, given in value.items():
        if name in ("any", "all"):
            if not isinstance(given, list) or not given:
                raise refuse(f"{name} needs a list, such as {name}: [{{age: '< 18'}}, {{age: '> 65'}}]")
            checked[name] = [_checked(part, depth + 1) for part in given]
            continue
        conditions = given if isinstance(given, list) else [given]
        for condition in conditions:
            if not isinstance(condition, str):
                raise refuse(f"{name}: a condition is text in quotes, such as '> 0' or '== yes'")
            parse_condition(condition)
        if len(conditions) > 1 and all(condition.strip().startswith("==") for condition in conditions):
            either = ", ".join(f"{{{name}: '{condition}'}}" for condition in conditions)
            raise refuse(f"{name}: no row is all of these at once; any: [{either}] takes rows of each")
        checked[str(name)] = conditions
    return checked


# Columns to conditions that all hold; the keys `any` and `all` hold lists of the same.
Where = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: None if value is None else _checked(value))]


def columns_of(where: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the columns that conditions are about."""
    for name, given in (where or {}).items():
        if name in ("any", "all"):
            for part in given:
                yield from columns_of(part)
        else:
            yield name
