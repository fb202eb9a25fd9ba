"""What the sites agree on before training: columns, classes, fill values and scales, from per-site sums only.

`master` combines here what `site` measured here; both sides share the formulas, so a pooled table and its parts give
the same numbers.
"""

from v6_algorithm.data.preparation.agreement import Agreement
from v6_algorithm.data.preparation.columns import agree
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.preparation.statistics import (
    Histograms,
    Moments,
    Preparation,
    merge_histograms,
    merge_moments,
    needs_histograms,
    needs_range,
    prepare,
)

__all__ = [
    "Agreement",
    "Histograms",
    "Moments",
    "Preparation",
    "Setup",
    "agree",
    "merge_histograms",
    "merge_moments",
    "needs_histograms",
    "needs_range",
    "prepare",
]
