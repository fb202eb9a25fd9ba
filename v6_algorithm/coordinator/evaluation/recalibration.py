"""Intercept and slope of a tested model, pooled and at each site, from the sums that its AUROC comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v6_algorithm.coordinator.result.diagnostics import by_target
from v6_algorithm.learning.metrics import merge_states
from v6_algorithm.learning.metrics.classification_state import histograms
from v6_algorithm.learning.metrics.histogram import logits
from v6_algorithm.learning.metrics.recalibration import recalibrate


def recalibrations(states: Mapping[str, dict[str, Any]], target: str) -> dict[str, Any]:
    """Return by target ``{"pooled": fit, "sites": {name: fit}}``; a fit is None where there is none.

    Parameters
    ----------
    states
        Hospital to metric state.
    target
        The name of the only target.
    """
    fits: dict[str, Any] = {}
    for name, by_site in by_target(states, target).items():
        pooled = merge_states(by_site.values())
        if pooled["n_classes"] == 2:
            fits[name] = {"pooled": _fit(pooled), "sites": {site: _fit(state) for site, state in by_site.items()}}
    return fits


def _fit(state: dict[str, Any]) -> dict[str, float] | None:
    places, positives, negatives = histograms(state)[0]
    return recalibrate(positives, negatives, logits(places, state["bins"]))
