"""Fill values and scales of numeric features, from sums over the training rows of each site.

Arrays have one row for each fold and one column for each feature. Sites send `Moments`, and `Cells` when a median is
asked for; merged, they give what the pooled training rows would give: moments up to rounding, quantiles as close as the
smallest cells of the nodes let them be, see `data.quantiles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from v6_algorithm.data.quantiles import CellColumn, Cells, next_windows, one_value, quantiles
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Data

Array = np.ndarray
QUARTILES = (0.25, 0.5, 0.75)
# Cells that are in memory as float64 at once, 4 MB each time, which come from memory that was used before: a table of
# 18,000 columns is worked on in blocks.
_BLOCK_CELLS = 2**19


class Arrays:
    """Named arrays that travel as tensors."""

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Moments(Arrays):
    """Count, mean and sum of squared deviations, each (folds, features) float64.

    `rows` (folds,) counts training rows with and without a value; `low` and `high` are the range, or NaN-free
    zeros when no scaler needs it: a smallest and a largest value are somebody's, so they stay home unless used.
    """

    rows: Array
    count: Array
    mean: Array
    squares: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, folds: Iterable[Array], *, with_range: bool) -> Moments:
        """Measure training rows: one (rows, features) array a fold, NaN where a value is missing."""
        rows, stacks = [], []
        for values in folds:
            blocks = [_measure(values[:, block], with_range=with_range) for block in column_blocks(values)]
            rows.append(len(values))
            stacks.append([np.concatenate(parts) for parts in zip(*blocks, strict=True)])
        return cls(np.asarray(rows, dtype=np.float64), *(np.stack(parts) for parts in zip(*stacks, strict=True)))

    @classmethod
    def check(cls, arrays: Mapping[str, Array], folds: int, features: int) -> Moments:
        """Read what a site sent; raises WireError unless shapes fit and all numbers are finite."""
        check_arrays(
            arrays, {item.name: (folds,) if item.name == "rows" else (folds, features) for item in fields(cls)}
        )
        count, squares = arrays["count"], arrays["squares"]
        if (count < 0).any() or (count > arrays["rows"][:, None]).any() or (squares < 0).any():
            raise WireError("the statistics contradict themselves")
        return cls(**arrays)

    def without(self, hidden: Array) -> Moments:
        """Return the moments as if the features that are `hidden`, (features,) bool, had no values."""
        kept = (np.where(hidden, 0.0, part) for part in (self.count, self.mean, self.squares, self.low, self.high))
        return Moments(self.rows, *kept)

    @property
    def deviation(self) -> Array:
        """Population standard deviation, (folds, features)."""
        return np.sqrt(self.squares / np.maximum(self.count, 1))


def column_blocks(values: Array) -> list[slice]:
    """Cut the columns of a table into blocks whose float64 copies are small beside it; one if it has no columns."""
    width = max(1, _BLOCK_CELLS // max(len(values), 1))
    return [slice(start, start + width) for start in range(0, max(values.shape[1], 1), width)]


def _measure(values: Array, *, with_range: bool) -> tuple[Array, ...]:
    """Return count, mean, squares, low and high of each column."""
    # A copy, which is worked on where it is: most tables have no empty cell, and nothing to be put in its place.
    values = np.array(values, dtype=np.float64)
    total = values.sum(axis=0)
    count = np.full(values.shape[1], float(len(values)))
    # A sum with an empty cell is NaN.
    empty = np.isnan(values) if np.isnan(total).any() else None
    if empty is not None:
        count -= empty.sum(axis=0)
    low = high = np.zeros(values.shape[1])
    if with_range and len(values):
        low = np.where(count > 0, values.min(axis=0, initial=np.inf, where=True if empty is None else ~empty), 0.0)
        high = np.where(count > 0, values.max(axis=0, initial=-np.inf, where=True if empty is None else ~empty), 0.0)
    if empty is not None:
        values[empty] = 0.0
        total = values.sum(axis=0)
    mean = total / np.maximum(count, 1)
    values -= mean
    if empty is not None:
        values[empty] = 0.0
    squares = np.square(values, out=values).sum(axis=0)
    return count, mean, squares, low, high


@dataclass(frozen=True)
class Preparation(Arrays):
    """What turns raw features into inputs: ``(filled - shift) / scale``, each (folds, features) float64."""

    fill: Array
    shift: Array
    scale: Array

    def apply(self, values: Array, fold: int, out: Array | None = None) -> Array:
        """Fill and scale (rows, features) of one fold into `out` or a new array; rows keep their order."""
        out = np.empty_like(values) if out is None else out
        fill, step = self.fill[fold].astype(values.dtype), max(1, _BLOCK_CELLS // max(values.shape[1], 1))
        shift, scale = self.shift[fold], self.scale[fold]
        # Without a scale nothing is left to round: the same bits, without a float64 copy.
        as_they_are = self._scales_nothing(fold)
        for start in range(0, len(values), step):
            rows = values[start : start + step]
            filled = np.where(np.isnan(rows), fill, rows)
            if not as_they_are:
                filled = filled - shift
                filled /= scale
            out[start : start + step] = filled
        return out

    def leaves(self, values: Array, fold: int) -> bool:
        """Say whether `apply` would give the same numbers: nothing to scale, and no cell to fill."""
        # The least of numbers of which one is NaN is NaN.
        return self._scales_nothing(fold) and not bool(np.isnan(values.min(initial=0.0)))

    def _scales_nothing(self, fold: int) -> bool:
        return not self.shift[fold].any() and bool((self.scale[fold] == 1).all())


def check_arrays(arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WireError unless a message holds these arrays, of these shapes and finite."""
    if set(arrays) != set(shapes):
        raise WireError(f"the statistics must be {', '.join(shapes)}, got {', '.join(arrays)}")
    for name, shape in shapes.items():
        # Sums over the sites, and of squares, must not overflow.
        if arrays[name].shape != shape or not (np.abs(arrays[name]) <= LARGEST_NUMBER**2).all():
            raise WireError(f"statistic '{name}' must be {list(shape)} finite numbers")


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Add up sites: the update of Chan, Golub and LeVeque (1979), which does not cancel as raw sums of squares do."""
    merged: Moments | None = None
    for part in parts:
        merged = part if merged is None else _merge_two(merged, part)
    if merged is None:
        raise ValueError("no moments to merge")
    return merged


def _merge_two(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    safe = np.maximum(count, 1)
    delta = b.mean - a.mean
    low = np.where(a.count == 0, b.low, np.where(b.count == 0, a.low, np.minimum(a.low, b.low)))
    high = np.where(a.count == 0, b.high, np.where(b.count == 0, a.high, np.maximum(a.high, b.high)))
    return Moments(
        rows=a.rows + b.rows,
        count=count,
        mean=a.mean + delta * b.count / safe,
        squares=a.squares + b.squares + delta**2 * a.count * b.count / safe,
        low=low,
        high=high,
    )


def needs_range(data: Data) -> bool:
    """Say whether the sites' smallest and largest values are used at all."""
    return data.scaling.scope == "federation" and data.scaling.kind == "minmax"


def needs_quantiles(data: Data) -> bool:
    """Say whether a median or a quantile is asked for."""
    return data.missing.kind == "median" or _is_robust(data)


def _is_robust(data: Data) -> bool:
    return data.scaling.scope == "federation" and data.scaling.kind == "robust" and data.fixed_scale is None


def cells_of(folds: Iterable[Array], hidden: Array, smallest: int, windows: Array | None) -> Cells:
    """Cut the training values of each fold and feature into cells; a `hidden` feature, (features,) bool, has none."""
    columns = (
        np.empty(0) if few else _known(values[:, number]) for values in folds for number, few in enumerate(hidden)
    )
    return Cells.of(columns, smallest, windows)


def _known(column: Array) -> Array:
    known = column.astype(np.float64)
    return known[~np.isnan(known)]


def quantile_windows(data: Data, moments: Moments, cells: Sequence[Cells]) -> tuple[Array, bool]:
    """Return where the sites should cut further, (folds x features, places, 2), and whether that could help."""
    windows, wanted = [], False
    columns = [site.columns() for site in cells]
    if data.missing.kind == "median":
        places, more = next_windows(columns, (0.5,))
        windows.append(places)
        wanted |= more
    if _is_robust(data):
        places, more = next_windows([*columns, _filled_in(moments, _fill(data, moments, cells))], QUARTILES)
        windows.append(places)
        wanted |= more
    return np.concatenate(windows, axis=1), wanted


def prepare(data: Data, moments: Moments, cells: Sequence[Cells] = ()) -> Preparation:
    """Turn merged sums, and the cells of each site, into fill values and scales.

    Scaling is of the filled column, as an imputer followed by a scaler gives it: mean and population standard
    deviation (``standard``), range (``minmax``), median and interquartile range (``robust``). A constant column is
    shifted, not scaled.
    """
    fill = _fill(data, moments, cells)
    shift, scale = np.zeros_like(fill), np.ones_like(fill)
    if data.fixed_scale is not None:
        return Preparation(fill, *(np.tile(numbers, (len(fill), 1)) for numbers in data.fixed_scale))
    if data.scaling.scope == "federation" and data.scaling.kind != "none":
        empty = moments.rows[:, None] - moments.count
        more = Moments(np.zeros_like(moments.rows), empty, fill, np.zeros_like(fill), fill, fill)
        filled = _merge_two(moments, more)
        if data.scaling.kind == "standard":
            shift, scale = filled.mean, filled.deviation
        elif data.scaling.kind == "minmax":
            shift, scale = filled.low, filled.high - filled.low
        else:
            columns = [*(site.columns() for site in cells), _filled_in(moments, fill)]
            first, shift, third = _quantiles(columns, QUARTILES, fill)
            # Where half of the rows have one value, as when most are 0, the deviation gives inputs of order one.
            scale = np.where(third > first, third - first, filled.deviation)
    return Preparation(fill, shift, unit_where_constant(scale, shift))


def loose_quantiles(data: Data, moments: Moments, cells: Sequence[Cells]) -> Array:
    """Say by how much the quartiles, or the median, may be off at most, as a share of the spread: (features,) float64.

    The spread is the interquartile range, or the standard deviation where that is 0 or not asked for; of all folds it
    is the worst. Infinite where a bound is not known, 0 where nothing was seen.
    """
    columns = [site.columns() for site in cells]
    if robust := _is_robust(data):
        columns.append(_filled_in(moments, _fill(data, moments, cells)))
    share = np.zeros(moments.mean.size)
    for place, (sites, deviation) in enumerate(zip(zip(*columns, strict=True), moments.deviation.ravel(), strict=True)):
        if not any(len(rows) for rows, *_ in sites):
            continue
        estimates = quantiles(sites, QUARTILES if robust else (0.5,))
        spread = (estimates[-1].value - estimates[0].value) or float(deviation) or 1.0
        share[place] = max(estimate.doubt for estimate in estimates) / spread
    return share.reshape(moments.mean.shape).max(axis=0, initial=0.0)


def _fill(data: Data, moments: Moments, cells: Sequence[Cells]) -> Array:
    if data.missing.kind == "constant":
        return np.full_like(moments.mean, data.missing.value)
    if data.missing.kind == "median":
        return _quantiles([site.columns() for site in cells], (0.5,), moments.mean)[0]
    return moments.mean


def _filled_in(moments: Moments, fill: Array) -> list[CellColumn]:
    """Return the empty cells of all sites, once they are filled, as one more site's."""
    empty = moments.rows[:, None] - moments.count
    return [one_value(int(rows), float(value)) for rows, value in zip(empty.ravel(), fill.ravel(), strict=True)]


def _quantiles(columns: Sequence[Sequence[CellColumn]], shares: Sequence[float], otherwise: Array) -> list[Array]:
    """Return an array, (folds, features), for each share; `otherwise` where no site has a row."""
    values = np.empty((len(shares), otherwise.size))
    for place, sites in enumerate(zip(*columns, strict=True)):
        seen = any(len(rows) for rows, *_ in sites)
        values[:, place] = [q.value for q in quantiles(sites, shares)] if seen else otherwise.ravel()[place]
    return list(values.reshape(len(shares), *otherwise.shape))


def scale_targets(columns: list[str], moments: Moments) -> dict[str, Array]:
    """Return mean and standard deviation, (folds, 2), of each target; of one that does not vary the deviation is 1."""
    scales = np.stack([moments.mean, unit_where_constant(moments.deviation, moments.mean)], axis=2)
    return {column: scales[:, number] for number, column in enumerate(columns)}


def site_scaling(kind: str, folds: Iterable[Array], preparation: Preparation) -> Preparation:
    """Scale with one site's own training rows; fill values stay the federation's."""
    shift, scale = [], []
    for fold, values in enumerate(folds):
        blocks = [_own_scale(kind, values[:, b], preparation.fill[fold, b]) for b in column_blocks(values)]
        centre, spread = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        shift.append(centre)
        scale.append(unit_where_constant(spread, centre))
    return Preparation(preparation.fill, np.stack(shift), np.stack(scale))


def _own_scale(kind: str, values: Array, fill: Array) -> tuple[Array, Array]:
    """Return centre and spread of each filled column."""
    filled = np.where(np.isnan(values), fill, values).astype(np.float64)
    if kind == "standard":
        return filled.mean(axis=0), filled.std(axis=0)
    if kind == "minmax":
        return filled.min(axis=0), np.ptp(filled, axis=0)
    low, centre, high = np.quantile(filled, [0.25, 0.5, 0.75], axis=0)
    return centre, high - low


def unit_where_constant(scale: Array, centre: Array) -> Array:
    """Replace spreads that are nothing but rounding of a constant by 1."""
    return np.where(is_constant(scale, centre), 1.0, scale)


def is_constant(scale: Array, centre: Array) -> Array:
    """Say of which columns the spread is nothing but rounding of one value."""
    constant: Array = ~(scale > 1e-12 * np.maximum(np.abs(centre), 1e-300))
    return constant
