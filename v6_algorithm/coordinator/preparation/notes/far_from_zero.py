"""What the researcher is told of columns and images that nothing centres before they are rounded to float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.experiment import Experiment

# As in `data.cells`: rounding by more than this share of what a column spans is too coarse. Most values lie within four
# standard deviations.
_COARSEST, _SPANNED = 1e-3, 4.0


def tell_far(experiment: Experiment, features: Sequence[str], merged: Moments) -> list[str]:
    """Name the columns, or channels, that `data.scaling: none` leaves so far from 0 that float32 loses their digits.

    `merged` are all sites' moments, before they are scaled; they are told apart in float64.
    """
    data = experiment.data
    centred = data.scaling.kind != "none" or data.harmonisation.kind != "none"
    if centred or experiment.training.dtype != "float32" or experiment.model.kind in ("glm", "cox"):
        return []
    spread = merged.deviation
    far = (spread > 0) & (np.abs(merged.mean) * 2.0**-24 > _COARSEST * _SPANNED * spread)
    names = [name for name, is_far in zip(features, far.any(axis=0), strict=True) if is_far]
    if not names:
        return []
    return [
        f"{listed(names)}: so far from 0, beside how much the values differ, that float32 loses digits of them, for "
        "data.scaling none centres nothing; data.scaling: standard keeps them, and so does training.dtype: float64"
    ]
