"""A reply as a skeleton and a list of numbers: the numbers are added up under masks, the skeleton says where they were.

`site.secure_aggregation` takes a reply apart, `coordinator.secure_aggregation` puts the sums in the place of the
numbers. A skeleton holds no number of a site's: names, kinds and lengths only, the same at every site.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.secure_aggregation.fixed_point import Number

# Keys whose values say what the numbers are, and are the same everywhere.
_CLEAR = frozenset(
    (
        "fold", "kind", "n_classes", "bins", "specificities", "problem", "huber_delta", "spec", "start", "shape",
        "edges", "horizons", "dimensions",
    )
)  # fmt: skip
_MOST_NUMBERS = 10**8


def take_apart(content: Any) -> tuple[Any, list[Number]]:
    """Return the skeleton of some JSON, and its numbers in order.

    A number becomes ``{"#": "whole" | "real", "shape": [...]}``, with the lengths of the (nested) list that it is in.
    """
    numbers: list[Number] = []
    return _skeleton(content, numbers), numbers


def count_numbers(skeleton: Any) -> int:
    """Return how many numbers a skeleton has places for; raises WireError when it is none."""
    if isinstance(skeleton, dict):
        if "#" in skeleton:
            return _length(skeleton)
        return sum(count_numbers(value) for key, value in skeleton.items() if key not in _CLEAR)
    if isinstance(skeleton, list):
        return sum(map(count_numbers, skeleton))
    return 0


def put_together(skeleton: Any, numbers: Sequence[Fraction]) -> Any:
    """Return the content of a skeleton with these numbers in their places: whole ones as int, the others exact."""
    left = iter(numbers)
    content = _filled(skeleton, left)
    if next(left, None) is not None:
        raise WireError("there are more sums than places for them")
    return content


def rounded(content: Any) -> Any:
    """Return content with every fraction rounded once, to the nearest double: JSON again."""
    if isinstance(content, Fraction):
        return float(content)
    if isinstance(content, dict):
        return {key: rounded(item) for key, item in content.items()}
    if isinstance(content, list):
        return [rounded(item) for item in content]
    return content


def _skeleton(value: Any, numbers: list[Number]) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float, Fraction)):
        numbers.append(value)
        return {"#": _kind([value]), "shape": []}
    if isinstance(value, dict):
        return {key: item if key in _CLEAR else _skeleton(item, numbers) for key, item in value.items()}
    shape, flat = _table(value)
    if shape is None:
        return [_skeleton(item, numbers) for item in value]
    numbers.extend(flat)
    return {"#": _kind(flat), "shape": shape}


def _table(value: Sequence[Any]) -> tuple[list[int] | None, list[Number]]:
    """Return shape and numbers of a (nested) list that is rectangular and of numbers only; else None."""
    if not value:
        return None, []
    if all(isinstance(item, (int, float, Fraction)) and not isinstance(item, bool) for item in value):
        return [len(value)], list(value)
    if not all(isinstance(item, list) for item in value):
        return None, []
    inner = [_table(item) for item in value]
    shape = inner[0][0]
    if shape is None or any(other != shape for other, _ in inner):
        return None, []
    return [len(value), *shape], [number for _, flat in inner for number in flat]


def _kind(numbers: Sequence[Number]) -> str:
    return "whole" if all(isinstance(number, int) for number in numbers) else "real"


def _length(place: dict[str, Any]) -> int:
    shape = place.get("shape")
    if place["#"] not in ("whole", "real") or not isinstance(shape, list):
        raise WireError("a place for a sum is malformed")
    length = 1
    for count in shape:
        if type(count) is not int or count < 1:
            raise WireError("a place for a sum is malformed")
        length *= count
        if length > _MOST_NUMBERS:
            raise WireError("a place is for more sums than there can be")
    return length


def _filled(skeleton: Any, numbers: Iterator[Fraction]) -> Any:
    if isinstance(skeleton, dict):
        if "#" not in skeleton:
            return {key: item if key in _CLEAR else _filled(item, numbers) for key, item in skeleton.items()}
        length = _length(skeleton)
        taken: list[Any] = list(islice(numbers, length))
        if len(taken) < length:
            raise WireError("there are fewer sums than places for them")
        if skeleton["#"] == "whole":
            if any(number.denominator != 1 for number in taken):
                raise WireError("a sum of whole numbers is none")
            taken = [int(number) for number in taken]
        for count in reversed(skeleton["shape"][1:]):
            taken = [taken[start : start + count] for start in range(0, len(taken), count)]
        return taken if skeleton["shape"] else taken[0]
    if isinstance(skeleton, list):
        return [_filled(item, numbers) for item in skeleton]
    return skeleton
