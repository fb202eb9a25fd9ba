"""What the sites agree on before training: columns, classes, fill values and scales, from per-site sums only.

`master` combines here what `site` measured here; both sides share the formulas, so a pooled table and its parts give
the same numbers.
"""

from v6_algorithm.data.preparation.agreement import Agreement
from v6_algorithm.data.preparation.columns import agree
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.preparation.statistics import (
    Moments,
    Preparation,
    merge_moments,
    needs_quantiles,
    needs_range,
    prepare,
)

__all__ = [
    "Agreement",
    "Moments",
    "Preparation",
    "Setup",
    "agree",
    "merge_moments",
    "needs_quantiles",
    "needs_range",
    "prepare",
]
