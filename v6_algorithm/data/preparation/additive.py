"""Statistics of the preparation as sums that add up number by number, and back, for secure aggregation.

Means and sums of squared deviations become sums of values and of squares: exact fractions, so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.errors import WireError


def moments_to_sums(packed: str | None) -> dict[str, Any] | None:
    """Return packed moments as nested lists: `rows`, `count`, `total` and `squares`; None of none."""
    if packed is None:
        return None
    moments = Moments(**unpack_arrays(packed))
    if moments.low.any() or moments.high.any():
        raise WireError("a smallest and a largest value are no sums")
    total, squares = [], []
    for counts, means, deviations in zip(moments.count, moments.mean, moments.squares, strict=True):
        exact = [(int(n), Fraction(mean)) for n, mean in zip(counts.tolist(), means.tolist(), strict=True)]
        total.append([n * mean for n, mean in exact])
        squares.append(
            [Fraction(m2) + n * mean * mean for (n, mean), m2 in zip(exact, deviations.tolist(), strict=True)]
        )
    whole = {"rows": moments.rows.astype(np.int64).tolist(), "count": moments.count.astype(np.int64).tolist()}
    return whole | {"total": total, "squares": squares}


def moments_from_sums(sums: Mapping[str, Any] | None) -> str | None:
    """Return the packed moments of sums in the form of `moments_to_sums`; None of none."""
    if sums is None:
        return None
    mean, squares = [], []
    for counts, totals, powers in zip(sums["count"], sums["total"], sums["squares"], strict=True):
        mean.append([float(total / n) if n else 0.0 for n, total in zip(counts, totals, strict=True)])
        squares.append(
            [
                max(float(power - total * total / n), 0.0) if n else 0.0
                for n, total, power in zip(counts, totals, powers, strict=True)
            ]
        )
    # Without features the lists are empty, and still one a fold.
    shape = (len(sums["rows"]), len(mean[0]) if mean else 0)
    arrays = {
        "count": np.array(sums["count"], dtype=np.float64).reshape(shape),
        "mean": np.array(mean, dtype=np.float64).reshape(shape),
        "squares": np.array(squares, dtype=np.float64).reshape(shape),
    }
    arrays |= {"low": np.zeros(shape), "high": np.zeros(shape)}
    return pack_arrays({"rows": np.array(sums["rows"], dtype=np.float64), **arrays})


def arrays_to_lists(packed: str | None) -> dict[str, Any] | None:
    """Return packed arrays as nested lists by name; None of none."""
    return None if packed is None else {name: array.tolist() for name, array in sorted(unpack_arrays(packed).items())}


def lists_to_arrays(lists: Mapping[str, Any] | None) -> str | None:
    """Return what `arrays_to_lists` took apart, of sums that are exact fractions."""
    if lists is None:
        return None
    return pack_arrays({name: np.array(values, dtype=np.float64) for name, values in lists.items()})
