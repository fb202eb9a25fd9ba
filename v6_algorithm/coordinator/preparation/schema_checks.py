"""The checks on what sites say before training: each part has its type, its size and its bounds before it is used.

`negotiate` calls them; a reply that fails one is dropped, counted and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from v6_algorithm.coordinator.preparation.notes.leaks import check_leaks
from v6_algorithm.coordinator.preparation.notes.value_ranges import check_codes
from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.data.preparation.columns import Agreement
from v6_algorithm.data.preparation.setup import unpack_arrays
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.reading.assumed import check_assumed
from v6_algorithm.data.rows import RowKind
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.text import printable
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import PARTS

_MOST_RULES = 100
# Of a site's description; a site itself tells of no more.
_MOST_LABELS = 10_000
_LONGEST_LABEL = 1000
_MOST_ROWS = 10**9
_LONGEST_RULE = 60
# Of what float64 holds.
_LONGEST_LOG = 1100
_LONGEST_NAME = 200
Counts = list[dict[str, dict[str, int]]]


def check_policy(policy: Any) -> dict[str, Any]:
    """Read the rules that a node says are in force: names, numbers, switches and None; {} where it says none."""
    if policy is None:
        return {}
    if not isinstance(policy, dict) or len(policy) > _MOST_RULES:
        raise WireError("the rules that it says are in force are malformed")
    for name, value in policy.items():
        short = isinstance(value, str) and len(value) <= _LONGEST_RULE
        if len(name) > _LONGEST_RULE or not (short or value is None or isinstance(value, (bool, int, float))):
            raise WireError("the rules that it says are in force are malformed")
    return dict(policy)


def is_silent(rules: Mapping[str, Any]) -> bool:
    """Say whether a node measures no model in the rounds, by the rules that it says are in force."""
    return rules.get("round_metrics") is False


def check_schema(schema: Any, kind: RowKind) -> Mapping[str, Any]:
    """Read what a hospital tells of its table before anything is learned."""
    labels = [schema["labels"], *schema["task_labels"].values(), *schema["categories"].values()]
    if not all(isinstance(column, list) and len(column) <= _MOST_LABELS for column in labels):
        raise WireError(f"labels must be lists of at most {_MOST_LABELS}")
    if not all(is_label(label) for column in labels for label in column):
        raise WireError(f"labels must be numbers or text of at most {_LONGEST_LABEL} letters")
    if not (is_rows(schema["rows"]) and is_count(schema["rows_without_target"])):
        raise WireError("row counts must be whole numbers")
    columns = schema["columns"]
    if not isinstance(columns, dict) or any(len(str(name)) > _LONGEST_LABEL for name in columns):
        raise WireError(f"names of columns must be text of at most {_LONGEST_LABEL} letters")
    few = schema.get("few", [])
    if not isinstance(few, list) or not set(few) <= set(schema["categories"]):
        raise WireError("columns with few rows of a category must be some of the categorical ones")
    if type(schema["synthetic"]) is not int or not 0 <= schema["synthetic"] <= schema["rows"]:
        raise WireError("synthetic rows must be some of the rows")
    hints = schema["hints"]
    if not isinstance(hints, dict) or not (set(hints) <= set(columns) and set(hints.values()) <= set(HINTS)):
        raise WireError("what it says of columns must be of the known hints")
    if not is_rows(schema.get("left_out", 0)):
        raise WireError("rows that data.where leaves out must be a count")
    check_leaks(schema.get("leaks", {}), columns)
    check_codes(schema.get("codes", {}), columns)
    fingerprint = schema.get("fingerprint", "")
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{0,64}", fingerprint):
        raise WireError("the fingerprint of its table must be hexadecimal digits")
    if schema.get("at_zero") is not None and not is_rows(schema["at_zero"]):
        raise WireError("rows with a time of 0 must be a count")
    sizes = schema.get("target_sizes", {})
    if not isinstance(sizes, dict) or not set(sizes) <= set(columns):
        raise WireError("its sizes of targets must be of its columns")
    if "log_times" in schema:
        check_mean_logarithm("event times", *schema["log_times"])
    for rows, mean, sign in sizes.values():
        check_mean_logarithm("targets", rows, 0.0 if mean is None else mean)
        if type(sign) is not int or sign not in (-1, 0, 1):
            raise WireError("the sign of its targets must be -1, 0 or 1")
    if not is_count(schema.get("repeated", 0)):
        raise WireError("rows that are copies of others must be a count")
    if not re.fullmatch("[0-9a-f]{0,64}", str(schema.get("table", ""))):
        raise WireError("the hash of its rows must be hexadecimal digits")
    check_assumed(schema.get("assumed", []))
    groups = schema.get("groups")
    if groups is not None and not (isinstance(groups["keyed"], bool) and all(map(is_label, groups["hashes"]))):
        raise WireError("hashes of groups must be texts")
    kind.check(schema)
    return {**schema, "columns": {str(name): str(kind) for name, kind in schema["columns"].items()}}


def check_mean_logarithm(what: str, rows: Any, mean: Any) -> None:
    """Raise WireError unless these are a number of rows and a mean binary logarithm that float64 numbers can have."""
    if not is_rows(rows) or not isinstance(mean, (int, float)) or not abs(mean) <= _LONGEST_LOG:
        raise WireError(f"the mean logarithm of its {what} must be a count and a number")


def is_rows(number: Any) -> bool:
    """Say whether this is a number of rows that a table may have."""
    return type(number) is int and 0 <= number <= _MOST_ROWS


def is_label(label: Any) -> bool:
    """Say whether this is a label: a number, or a text that is not endless."""
    return isinstance(label, (int, float)) or (isinstance(label, str) and len(label) <= _LONGEST_LABEL)


def check_names(names: Iterable[Any]) -> None:
    """Refuse a hospital's name that would be shown as something else."""
    if any(str(name) != printable(name, _LONGEST_NAME) for name in names):
        raise WireError(f"names must be printable text of at most {_LONGEST_NAME} letters")


def check_counts(counts: Any) -> Counts:
    """Read the rows of each part of each fold, by hospital."""
    checked = [{str(name): {part: member[part] for part in PARTS} for name, member in fold.items()} for fold in counts]
    if not checked or any(not is_rows(n) for fold in checked for member in fold.values() for n in member.values()):
        raise WireError("its row counts are malformed")
    return checked


def check_class_counts(counts: Any, folds: int, agreement: Agreement) -> list[list[int]] | None:
    """Read the training rows of each class in each fold; None where there are no classes."""
    if counts is None:
        return None
    checked = [list(fold) for fold in counts]
    classes = len(agreement.classes or [])
    if len(checked) != folds or any(len(fold) != classes or not all(map(is_rows, fold)) for fold in checked):
        raise WireError("its class counts are malformed")
    return checked


def check_hidden(names: Any, columns: Sequence[str]) -> list[str]:
    """Read the names of columns that a site tells nothing of."""
    if not isinstance(names, list) or not set(names) <= set(columns):
        raise WireError("it leaves out statistics of columns that it was not asked about")
    return names


def is_count(number: Any) -> bool:
    """Say whether this is a number of rows, or None, which are too few to be told."""
    return number is None or (type(number) is int and 0 <= number < 10**9)


def check_trained_on(seen: Any, folds: int, columns: int) -> list[list[int]]:
    """Read which categories the training rows of each fold have."""
    checked = [list(fold) for fold in seen]
    if len(checked) != folds or any(len(fold) != columns or not all(map(is_rows, fold)) for fold in checked):
        raise WireError("what it says of the categories of its training rows is malformed")
    return checked


def check_copies(copies: Any) -> dict[str, int | None]:
    """Read how many images are copies of others, and how many of them the split has in several parts."""
    if copies is None:
        return {"rows": 0, "apart": 0}
    if not (is_count(copies["rows"]) and is_count(copies["apart"])):
        raise WireError("its counts of copies are malformed")
    return {"rows": copies["rows"], "apart": copies["apart"]}


def check_targets(packed: Any, folds: int, targets: int) -> list[Moments]:
    """Read the moments of the targets that are scaled; none where none is."""
    return [Moments.check(unpack_arrays(packed), folds, targets)] if targets else []


def check_sums(packed: Any, others: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Read the sums a problem asked for; they must be finite, and have the names and shapes of the other sites'."""
    arrays = unpack_arrays(packed) if packed else {}
    shapes = {name: array.shape for name, array in arrays.items()}
    if not all((np.abs(array) <= LARGEST_NUMBER).all() for array in arrays.values()):
        raise WireError("the problem's sums are not finite")
    if others is not None and shapes != {name: array.shape for name, array in others.items()}:
        raise WireError("the problem's sums have other names or shapes than those of the other sites")
    return arrays
