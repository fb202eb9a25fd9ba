"""Lines for the terminal on tested models: calibration as intercept and slope, and two models on the same rows.

`judging` has calibration in the report.
"""

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


def comparison_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each metric by which two models were compared on the same rows."""
    lines = []
    names = {"auroc": ("AUROC", "DeLong"), "brier": ("Brier", "paired")}
    for key, told in mapping(result, "comparison", "test").items():
        if key not in names or not isinstance(told, Mapping):
            continue
        first, second, gap, low, high = (
            number(value) if (value := finite(told.get(name))) is not None else "–"
            for name in ("first", "second", "difference", "low", "high")
        )
        p = finite(told.get("p"))
        shown = "not defined" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
        lines.append(
            f"{names[key][0]} of the two models: {first} and {second}, difference {gap} ({low} to {high}), "
            f"p {shown} ({names[key][1]})"
        )
    return lines


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
