"""Conditions on a column, as ``"> 0"`` or ``"== yes"``: what makes a target 0/1, and which rows a list holds."""

from __future__ import annotations

import re
from math import isfinite, nan
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from v6_algorithm.experiment.base import refuse

_OPERATORS = ("<=", ">=", "==", "!=", "<", ">")


def parse_condition(text: str) -> tuple[str, float | str]:
    """Split a condition such as ``"> 0"`` into operator and value; order comparisons need a number."""
    for operator in _OPERATORS:
        if text.strip().startswith(operator):
            value = text.strip()[len(operator) :].strip().strip("'\"")
            try:
                number = float(value)
            except ValueError:
                number = nan
            if isfinite(number):
                return operator, number
            if operator in ("==", "!=") and value:
                return operator, value
            break
    if re.match(r"(<=?|>=?)\s*\S", text.strip()):
        raise refuse(
            "must be an operator and, behind <, <=, > and >=, a number such as '> 0'; dates and words are only == or !="
        )
    remedy = f"; if the label is meant, '== {text.strip()}'" if re.fullmatch(r"[\w .-]{1,40}", text.strip()) else ""
    raise refuse(f"must be an operator (<=, >=, ==, !=, <, >) and a value, such as '> 0' or '== yes'{remedy}")


def _as_text(value: Any) -> Any:
    """Refuse a label without an operator, which YAML reads as a number or a truth."""
    if isinstance(value, (bool, int, float)):
        raise refuse(f"must be an operator and a value in quotes, such as '== {str(value).lower()}'")
    return value


def _readable(text: str) -> str:
    parse_condition(text)
    return text


# A condition in an experiment file, refused there when it cannot be read.
Condition = Annotated[str, BeforeValidator(_as_text), AfterValidator(_readable)]
