"""What deserves a second look in a part's metrics, said once for all places where it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from v6_algorithm.learning.metrics.states import explain

_BOUND = re.compile(r"within (\d+\.\d+) of the exact value")
# A place for the bounds, in a sentence that several places share but for them.
_HERE = "\0"
_SHOWN = 10


def explain_part(part: str, pooled: dict[str, Any] | None, sites: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return notes on a part, such as ``test``: each sentence of `explain` once, with the places that it is of.

    Parameters
    ----------
    part
        Its name, with which each note begins.
    pooled
        The metric state over all sites, where there is one.
    sites
        By name the state of each site that is looked at by itself.
    """
    said: dict[str, dict[str, str]] = {}
    places = {} if pooled is None else {"pooled": pooled}
    for place, state in [*places.items(), *((f"'{name}'", state) for name, state in sites.items())]:
        for sentence in explain(state):
            bound = _BOUND.search(sentence)
            said.setdefault(_BOUND.sub(_HERE, sentence), {})[place] = bound[1] if bound else ""
    return [
        f"{part}, {_named(list(bounds))}: "
        + (sentence.replace(_HERE, _within(list(bounds.values()))) if _HERE in sentence else sentence)
        for sentence, bounds in said.items()
    ]


def _named(places: list[str]) -> str:
    """Name places: pooled first, then sites."""
    sites = [place for place in places if place != "pooled"]
    listed = ", ".join(sites[:_SHOWN]) + (f", … {len(sites) - _SHOWN} more" if len(sites) > _SHOWN else "")
    named = [f"{'site' if len(sites) == 1 else 'sites'} {listed}"] if sites else []
    return " and ".join((["pooled"] if "pooled" in places else []) + named)


def _within(found: list[str]) -> str:
    """Say how near the exact values those of the places are, in their order; of many places the least near."""
    if len(found) > _SHOWN + 1:
        return f"within {max(found, key=float)} of the exact values"
    if len(set(found)) == 1:
        return f"within {found[0]} of the exact value{'s' if len(found) > 1 else ''}"
    return f"within {', '.join(found)} of the exact values"
