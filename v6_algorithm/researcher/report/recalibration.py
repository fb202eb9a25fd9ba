"""Lines for the terminal on tested models: calibration as intercept and slope, and two models on the same rows.

`judging` has calibration in the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, label, mapping

_WIDTH = 1.959964  # of a 95 % interval in standard errors


def recalibration_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for all sites together and one for each, as a terminal shows them."""
    return [
        f"recalibration{f' of {target}' if several else ''}, {name}: intercept {values[0]}, slope {values[1]}, "
        f"in the large {values[2]} (95 % CI)"
        for several, target, name, values in _fits(result)
    ]


# How the difference of a metric of two models was tested; of other metrics the bootstrap of rows.
_TESTS = {"auroc": "DeLong", "brier": "paired", "log_loss": "paired"}


def comparison_rows(compared: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, str]]:
    """Return of each metric by which two models were compared its name, the test, both values, difference and p."""
    rows = []
    for key, told in compared.items():
        if key == "metrics" or not isinstance(told, Mapping) or finite(told.get("difference")) is None:
            continue
        first, second, gap, low, high = (
            number(finite(told.get(name))) for name in ("first", "second", "difference", "low", "high")
        )
        p = finite(told.get("p"))
        # The bootstrap's smallest is 2 / (replicates + 1), which three decimals show as 0.001.
        shown = "not defined" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
        rows.append((label(key), _TESTS.get(key, "bootstrap"), first, second, f"{gap} ({low} to {high})", shown))
    return rows


def comparison_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each metric by which two models were compared on the same rows."""
    return [
        f"{name} of the two models: {first} and {second}, difference {gap}, p {p} ({test})"
        for name, test, first, second, gap, p in comparison_rows(mapping(result, "comparison", "test"))
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
