"""Metric states whose every number may be added up, and back: what secure aggregation sends of a state.

Most states are sums already. A regression's mean and sum of squared deviations are not: they become the sums of the
targets and of their squares, exact fractions, so that nothing cancels on the way back.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

_ADDITIVE = ("classification", "regression", "plugin")


def to_sums(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state in the form that adds up; raises ValueError for a kind that has none."""
    if state["kind"] not in _ADDITIVE:
        raise ValueError(f"metrics of kind {state['kind']} are not sums of numbers, one by one")
    if state["kind"] != "regression":
        return state
    n, mean, m2 = state["n"], Fraction(state["target_mean"]), Fraction(state["target_m2"])
    rest = {key: value for key, value in state.items() if key not in ("target_mean", "target_m2")}
    return rest | {"target_sum": n * mean, "target_squares": m2 + n * mean**2}


def from_sums(sums: dict[str, Any]) -> dict[str, Any]:
    """Return the state that sums of the form of `to_sums` are of; its reals are exact fractions, in and out."""
    if sums["kind"] != "regression":
        return sums
    n, total, squares = sums["n"], sums["target_sum"], sums["target_squares"]
    rest = {key: value for key, value in sums.items() if key not in ("target_sum", "target_squares")}
    mean = total / n if n else Fraction(0)
    # What is left of rounding at 2^-96 must not make a constant target vary, nor its spread negative.
    spread = squares - n * mean**2
    return rest | {"target_mean": mean, "target_m2": spread if spread > (1 + abs(mean)) / 2**80 else Fraction(0)}
