"""Quantiles of a federation from cumulative counts at the edges of a lattice; `site` fills it, `federated` reads it.

The lattice comes from mean and standard deviation, which are told anyway, rounded to powers of two: it says nothing
about a smallest or a largest value. Values beyond it count into its outermost leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v6_algorithm.data.summary.cells import tell_cumulative
from v6_algorithm.errors import WireError

Array = np.ndarray
# A leaf is a 32nd of a power of two next above the standard deviation: 1/32 to 1/16 of one.
LEAVES = 256
_LEAVES_PER_WIDTH = 32
# A site cuts nothing finer than this part of its own standard deviation, whatever lattice it is asked for.
_FINEST = 1 / 16


@dataclass(frozen=True)
class Lattice:
    """For each feature `LEAVES` leaves of equal width: `low` (features,) is where they start, `width` of 32 of them.

    Widths are powers of two and `low` a multiple of its width, so that any two lattices have their edges in common.
    """

    low: Array
    width: Array

    @classmethod
    def around(cls, mean: Array, sd: Array) -> Lattice:
        """Cover four standard deviations on either side of the mean, (features,) each."""
        spread = np.where(sd > 0, sd, np.maximum(np.abs(mean), 1.0))
        width = np.exp2(np.ceil(np.log2(spread)))
        return cls((np.floor(mean / width) - LEAVES // _LEAVES_PER_WIDTH // 2) * width, width)

    @classmethod
    def check(cls, low: Array, width: Array, features: int) -> Lattice:
        """Read what a request asks for; raises WireError unless it is a lattice of the common kind."""
        if low.shape != (features,) or width.shape != (features,):
            raise WireError("a lattice needs a start and a width for each column")
        if not np.isfinite([low, width]).all() or not (width > 0).all() or (np.frexp(width)[0] != 0.5).any():
            raise WireError("the widths of a lattice must be powers of two")
        if (np.abs(low / width) > 2**52).any() or (low / width != np.round(low / width)).any():
            raise WireError("a lattice must start at a multiple of its width")
        return cls(low, width)

    def edges(self) -> Array:
        """Return the (features, LEAVES + 1) edges of the leaves."""
        return self.low[:, None] + np.arange(LEAVES + 1) * (self.width / _LEAVES_PER_WIDTH)[:, None]

    def cumulative(self, values: Array, feature: int, smallest: int) -> Array:
        """Count the known values of one feature below each edge; see `tell_cumulative` for what is told."""
        leaf = np.floor((values - self.low[feature]) / (self.width[feature] / _LEAVES_PER_WIDTH))
        counts = np.bincount(np.clip(leaf, 0, LEAVES - 1).astype(np.int64), minlength=LEAVES)
        if len(values) and self.width[feature] < _FINEST * values.std():
            smallest = len(values) + 1  # too fine for this site: only the total is told
        return tell_cumulative(counts, smallest)


def check_cumulative(counts: Array, features: int) -> Array:
    """Read a site's cumulative counts; raises WireError unless they are ones of these features."""
    if counts.shape != (features, LEAVES + 1) or counts.dtype != np.int64:
        raise WireError(f"cumulative counts must be {features} x {LEAVES + 1} whole numbers")
    filled = np.maximum.accumulate(counts, axis=1)
    if (
        (counts < -1).any()
        or (counts[:, 0] != 0).any()
        or (counts[:, -1] < 0).any()
        or ((counts != filled) & (counts >= 0)).any()
    ):
        raise WireError("cumulative counts must start at 0 and not fall")
    return counts


def quantile(counts: Array, edges: Array, q: float, mean: Array, sd: Array) -> dict[str, float | None]:
    """Find one quantile of one feature over all sites.

    Parameters
    ----------
    told
        (sites, LEAVES + 1) cumulative counts, -1 where not told.
    edges
        (LEAVES + 1,) edges of the leaves.
    q
        The quantile, from 0 to 1, between the two nearest rows as numpy's default has it.
    mean, sd
        (sites,) what is known of a site that tells no edge.

    Returns
    -------
    dict
        `value`, interpolated; `low` and `high`, between which the true one lies for certain: None where it may lie
        beyond the lattice.
    """
    # What is certainly below an edge is what was told at the last edge before it; what may be, at the next one after.
    surely = np.maximum.accumulate(counts, axis=1)
    perhaps = np.where(counts < 0, np.iinfo(np.int64).max, counts)
    perhaps = np.minimum.accumulate(perhaps[:, ::-1], axis=1)[:, ::-1]
    spread = [
        _spread(edges[row >= 0], row[row >= 0], edges, *mean_and_sd)
        for row, *mean_and_sd in zip(counts, mean, sd, strict=True)
    ]
    likely = np.sum([np.interp(edges, *points) for points in spread], axis=0)
    least, most = surely.sum(axis=0), perhaps.sum(axis=0)
    position = q * max(int(least[-1]) - 1, 0)
    # The row of rank r is not below an edge that at most r rows may be below, and below one that r + 1 surely are.
    below = int(np.searchsorted(most, np.floor(position), side="right")) - 1
    above = int(np.searchsorted(least, np.ceil(position) + 1, side="left"))
    value = float(np.clip(np.interp(position + 0.5, likely, edges), edges[below], edges[above]))
    return {
        "value": value,
        "low": float(edges[below]) if below > 0 else None,
        "high": float(edges[above]) if above < len(edges) - 1 else None,
    }


def _spread(edges: Array, below: Array, leaves: Array, mean: float, sd: float) -> tuple[Array, Array]:
    """Take the rows of a cell as evenly spread over it.

    The two open cells at the ends are a long way to the lattice's end, mostly empty: there, rows are taken to be as
    dense as in the cell beside. One cell alone is the even spread of the site's mean and standard deviation.
    """
    leaf = leaves[1] - leaves[0]
    if len(edges) < 3:
        reach = max(np.sqrt(3) * sd, leaf / 2)
        return np.array([mean - reach, mean + reach]), below
    rows, width = np.diff(below), np.diff(edges)
    ends = [rows[end] * width[beside] / rows[beside] if rows[beside] else leaf for end, beside in ((0, 1), (-1, -2))]
    first = min(max(edges[0], edges[1] - ends[0]), edges[1] - leaf)
    last = max(min(edges[-1], edges[-2] + ends[1]), edges[-2] + leaf)
    return np.concatenate([[first], edges[1:-1], [last]]), below
