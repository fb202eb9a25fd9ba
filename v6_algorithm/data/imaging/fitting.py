"""Images brought to one spacing, one size and one range of values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from v6_algorithm.data.imaging.picture import Picture, UnreadableImageError
from v6_algorithm.experiment.imaging.images import Image

Array = np.ndarray


def fitted(picture: Picture, image: Image) -> tuple[Array, float]:
    """Return the image in the size and range that `image` asks for, and what 1 in it is worth; bytes stay bytes."""
    values = picture.values
    if image.spacing is not None:
        if picture.spacing is None:
            raise UnreadableImageError("spacing")
        values = resized(values, *_at_spacing(values.shape[1:], picture.spacing, image.spacing))
    if image.size is None or list(values.shape[1:]) == image.size:
        return levelled(values, picture.unit, image)
    if image.fit == "crop":
        # What is filled up has a value of the range, and not one that happens to be 0 in the file's units.
        levels, unit = levelled(values, picture.unit, image)
        lowest = levels.min() if image.range is None and levels.dtype != np.uint8 else 0
        return cropped(levels, image.size, lowest), unit
    if image.fit == "cover":
        factor = max(wanted / current for wanted, current in zip(image.size, values.shape[1:], strict=True))
        lengths = [
            max(round(current * factor), wanted) for wanted, current in zip(image.size, values.shape[1:], strict=True)
        ]
        return levelled(cropped(resized(values, lengths), image.size, 0), picture.unit, image)
    return levelled(resized(values, image.size), picture.unit, image)


def voxel_size(picture: Picture, image: Image) -> tuple[float, ...] | None:
    """Return the millimetres from one voxel of the fitted image to the next; None where the file does not say them."""
    if picture.spacing is None:
        return None
    spacing: Sequence[float] = picture.spacing
    lengths: Sequence[int] = picture.values.shape[1:]
    if image.spacing is not None:
        lengths, spacing = _at_spacing(lengths, spacing, image.spacing)[0], image.spacing
    if image.size is None or image.fit == "crop":
        return tuple(spacing)
    factors = [wanted / length for wanted, length in zip(image.size, lengths, strict=True)]
    if image.fit == "cover":
        factors = [max(factors)] * len(factors)
    return tuple(current / factor for current, factor in zip(spacing, factors, strict=True))


def _at_spacing(
    lengths: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]
) -> tuple[list[int], list[float]]:
    """Return the lengths of an image brought to another spacing, and how many of its voxels one of the result spans."""
    scales = [of_result / current for current, of_result in zip(spacing, wanted, strict=True)]
    return [max(1, round(length / scale)) for length, scale in zip(lengths, scales, strict=True)], scales


def resized(values: Array, lengths: Sequence[int], scales: Sequence[float] | None = None) -> Array:
    """Bring (channels, lengths …) to other lengths: each axis is averaged over where it gets smaller, else linear.

    Parameters
    ----------
    values
        Bytes are rounded to bytes again.
    lengths
        Of the result.
    scales
        How many entries of `values` one of the result spans, along each axis, about the same middle; without, the
        result spans just what `values` does.
    """
    if list(values.shape[1:]) == list(lengths) and scales is None:
        return values
    result = values
    for axis, length in enumerate(lengths, 1):
        current = result.shape[axis]
        scale = current / length if scales is None else scales[axis - 1]
        if length != current or scale != 1:
            result = _resampled(result, axis, *resampling(current, length, scale))
    if result is values or values.dtype != np.uint8:
        return result
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def resampling(current: int, length: int, scale: float) -> tuple[Array, Array]:
    """Return which entries of an axis make each entry of the result, (length, taps), and their weights, of sum 1.

    An entry of the result covers `scale` entries. Where that is more than one, weights are the shares of it that they
    cover (area averaging), so that each counts as much as any other; else they interpolate between the two nearest
    middles. What lies beyond the ends is as at the ends.
    """
    centres = (current - length * scale) / 2 + (np.arange(length) + 0.5) * scale
    if scale > 1:
        starts, ends = (centres - scale / 2)[:, None], (centres + scale / 2)[:, None]
        # Rounding must not begin a cell one entry early, with a weight of 1e-16.
        taps = np.floor(starts + 1e-9).astype(np.int64) + np.arange(math.ceil(scale - 1e-9) + 1)
        weights = np.maximum(np.minimum(ends, taps + 1) - np.maximum(starts, taps), 0)
    else:
        places = (centres - 0.5)[:, None]
        taps = np.floor(places).astype(np.int64) + np.arange(2)
        weights = 1 - np.abs(places - taps)
    return np.clip(taps, 0, current - 1), weights / weights.sum(axis=1, keepdims=True)


def _resampled(values: Array, axis: int, taps: Array, weights: Array) -> Array:
    """Add up the weighted entries of one axis, a tap at a time."""
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    lengths = [len(taps) if place == axis else current for place, current in enumerate(values.shape)]
    total: Array = np.zeros(lengths, dtype=np.float64 if values.dtype == np.float64 else np.float32)
    for tap, weight in zip(taps.T, weights.astype(total.dtype).T, strict=True):
        if weight.any():
            # A large photograph stays bytes until it is small.
            total += values.take(tap, axis=axis).astype(total.dtype, copy=False) * weight.reshape(shape)
    return total


def cropped(values: Array, lengths: Sequence[int], padding: float) -> Array:
    """Cut (channels, lengths …) around its middle, and fill up with `padding` where it is too short."""
    result = np.full((len(values), *lengths), padding, dtype=values.dtype)
    source, target = [slice(None)], [slice(None)]
    for current, wanted in zip(values.shape[1:], lengths, strict=True):
        both = min(current, wanted)
        source.append(slice((current - both) // 2, (current - both) // 2 + both))
        target.append(slice((wanted - both) // 2, (wanted - both) // 2 + both))
    result[tuple(target)] = values[tuple(source)]
    return result


def levelled(values: Array, unit: float, image: Image) -> tuple[Array, float]:
    """Apply `range` and `threshold`; return values and what 1 of them is worth."""
    if image.range is None and image.threshold is None:
        return values, unit
    levels = (
        values.astype(np.float64) * unit if values.dtype == np.float64 else values.astype(np.float32) * np.float32(unit)
    )
    if image.range is not None:
        low, high = image.range
        # Now that they are near 0, float32 holds what was far from it.
        levels = np.clip((levels - low) / (high - low), 0, 1).astype(np.float32, copy=False)
    if image.threshold is not None:
        levels[levels < image.threshold] = 0
    return levels, 1.0
