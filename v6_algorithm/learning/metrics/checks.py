"""Checks of a state that came over a network. Each kind of metric uses them to refuse a wrong reply
before it enters a sum. Messages name the field and what was expected, never the value given."""

from typing import Any

# Largest integer up to which a double, and so any JSON reader, keeps every integer apart.
LARGEST_COUNT = 2**53
# A row beyond this counts as non-finite: its square, summed over LARGEST_COUNT rows, must not overflow.
LARGEST_ROW_VALUE = 1e60
# No smaller than (2 * LARGEST_ROW_VALUE)**2 * LARGEST_COUNT; sums of sums stay far from overflow at 1e308.
LARGEST_SUM = 1e150


def require_keys(state: dict[str, Any], keys: frozenset[str]) -> None:
    """Refuse a state with missing keys or with any that do not belong."""
    missing = sorted(keys - state.keys())
    if missing:
        raise ValueError(f"the metric state lacks {', '.join(missing)}")
    unexpected = len(state.keys() - keys)
    if unexpected:
        raise ValueError(f"the metric state has {unexpected} unexpected keys; expected are {', '.join(sorted(keys))}")


def require_count(value: Any, name: str, least: int = 0) -> None:
    """Refuse anything but an integer from `least` to 2**53 (a bool is not an integer here)."""
    if type(value) is not int or not least <= value <= LARGEST_COUNT:
        raise ValueError(f"{name} of the metric state must be an integer from {least} to 2**53")


def require_counts(table: Any, rows: int, columns: int, name: str) -> None:
    """Refuse anything but `rows` lists of `columns` counts each."""
    if not isinstance(table, list) or len(table) != rows:
        raise ValueError(f"{name} of the metric state must be a list of {rows} lists")
    for row in table:
        if not isinstance(row, list) or len(row) != columns:
            raise ValueError(f"{name} of the metric state must hold lists of {columns} integers")
        for value in row:
            require_count(value, f"each entry of {name}")


def require_number(value: Any, name: str, *, least: float = -LARGEST_SUM, most: float = LARGEST_SUM) -> None:
    """Refuse anything but a finite number from `least` to `most`; NaN fails every comparison."""
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"{name} of the metric state must be a finite number from {least:g} to {most:g}")


def require_nothing_without_rows(state: dict[str, Any], sums: tuple[str, ...]) -> None:
    """Refuse sums over no rows that are not zero."""
    if state["n"] == 0:
        for name in sums:
            if state[name] != 0:
                raise ValueError(f"{name} of the metric state must be 0, since n is 0")
