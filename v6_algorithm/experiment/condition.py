"""Conditions on a column, as ``"> 0"`` or ``"== yes"``: what makes a target 0/1, and which rows a list holds."""

from __future__ import annotations

from math import isfinite, nan
from typing import Annotated

from pydantic import AfterValidator

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
    raise refuse("must be an operator (<=, >=, ==, !=, <, >) and a value, such as '> 0' or '== yes'")


def _readable(text: str) -> str:
    parse_condition(text)
    return text


# A condition in an experiment file, refused there when it cannot be read.
Condition = Annotated[str, AfterValidator(_readable)]
