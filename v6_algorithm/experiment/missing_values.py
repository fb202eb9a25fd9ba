"""`data.missing_values`: what hospitals write into a cell they know nothing of, such as -9, or 0 for cholesterol."""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from v6_algorithm.experiment.base import refuse

Code = int | float | str


def _codes(value: Any) -> list[Code]:
    codes = list(value) if isinstance(value, (list, tuple)) else [value]
    for code in codes:
        if isinstance(code, bool) or not isinstance(code, (int, float, str)) or not _finite(code):
            raise refuse(f"a code is a number or a text (in quotes if it is yes or no), not {code!r}")
        if isinstance(code, str) and not code.strip():
            raise refuse(f"{code!r} is no code: an empty cell is missing anyway")
    if not codes:
        raise refuse("[] names no code; leave it out")
    return codes


def _finite(code: Code) -> bool:
    # A whole number can be too large for `isfinite`.
    return isinstance(code, str) or -float_info.max <= code <= float_info.max


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(column): _codes(codes) for column, codes in value.items()}
    return None if value is None else _codes(value)


# One code or a list of them for every column, or a mapping of columns to theirs.
MissingValues: TypeAlias = Annotated[list[Code] | dict[str, list[Code]] | None, BeforeValidator(_listed)]
