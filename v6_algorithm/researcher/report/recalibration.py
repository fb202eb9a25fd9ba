"""Calibration of a tested model, as intercept and slope: lines for the terminal; `judging` has them in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from v6_algorithm.researcher.report.reading import finite, mapping, number

_WIDTH = 1.959964  # of a 95 % interval in standard errors


def recalibration_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for all sites together and one for each, as a terminal shows them."""
    return [
        f"recalibration{f' of {target}' if several else ''}, {name}: intercept {values[0]}, slope {values[1]}, "
        f"in the large {values[2]} (95 % CI)"
        for several, target, name, values in _fits(result)
    ]


def _fits(result: Mapping[str, Any]) -> Iterator[tuple[bool, str, str, list[str]]]:
    targets = mapping(result, "recalibration", "test")
    for target, fits in targets.items():
        scopes = {
            "pooled": mapping(fits, "pooled"),
            **{name: mapping(fits, "sites", name) for name in mapping(fits, "sites")},
        }
        for name, fit in scopes.items():
            values = [_with_interval(fit, key) for key in ("intercept", "slope", "in_the_large")]
            yield len(targets) > 1, str(target), str(name), values


def _with_interval(fit: Mapping[str, Any], key: str) -> str:
    estimate, error = finite(fit.get(key)), finite(fit.get(f"{key}_se"))
    if estimate is None or error is None:
        return "not defined"
    return f"{number(estimate)} ({number(estimate - _WIDTH * error)} to {number(estimate + _WIDTH * error)})"
