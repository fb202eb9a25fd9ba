"""What the comparisons of `paper_numbers.py` give, and how they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

# What was compared, and what is wrong with it; empty text: equal.
Outcome = tuple[str, str]
# The number, what is compared with what, and the comparison.
Kind = tuple[str, str, Callable[[np.random.Generator], Iterator[Outcome]]]


def apart(found: Any, wanted: Any, most: float) -> str:
    """Say by how much numbers differ where that is more than `most`."""
    differs = np.abs(np.asarray(found, dtype=float) - np.asarray(wanted, dtype=float)).max()
    return "" if differs <= most else f"differs by {differs:.2g}"


def hospitals(frame: pd.DataFrame, generator: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Deal rows to three hospitals of unequal size."""
    site = generator.choice(3, len(frame), p=[0.5, 0.3, 0.2])
    return {f"h{number}": frame[site == number].reset_index(drop=True) for number in range(3)}


def within(what: str, ways: Mapping[str, Any], exact: Mapping[str, float]) -> Iterator[Outcome]:
    """Say of each metric whether the pooled one is as near as the resolution says."""
    from v6_algorithm.learning.metrics import compute

    for way, state in ways.items():
        found = compute(state)
        for metric, true in exact.items():
            value, resolution = found[metric], found.get(f"{metric}_resolution") or 0.0
            if value is None:
                yield f"{what}, {way}, {metric}", ""
                continue
            off = abs(value - true)
            yield (
                f"{what}, {way}, {metric}",
                "" if off <= resolution + 1e-9 else f"off {off:.4f}, told {resolution:.4f}",
            )
