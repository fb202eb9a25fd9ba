"""Moments of the channels of images, in one pass over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from v6_algorithm.data.imaging.stack import TableImages
from v6_algorithm.data.preparation.statistics import Moments

Array = np.ndarray
# Pixels that are in memory as float64 at once, 32 MB.
_BLOCK = 2**22


def image_moments(images: TableImages, folds: Sequence[Array], *, with_range: bool) -> Moments:
    """Measure the pixels of each fold's training rows, (folds, channels).

    `count` is of images, and `squares` of an image is the mean over its pixels: as all have as many, mean and deviation
    are those of the pixels, and what is told of a channel is known to come from so many patients.
    """
    rows, channels = len(images.position), images.shape[0]
    mean, squares = np.empty((rows, channels)), np.empty((rows, channels))
    low, high = np.zeros((rows, channels)), np.zeros((rows, channels))
    for block, read in images.blocks(_BLOCK):
        pixels = read.reshape(len(block), channels, -1)
        mean[block] = pixels.mean(axis=2, dtype=np.float64)
        squares[block] = ((pixels - mean[block][:, :, None]) ** 2).mean(axis=2)
        if with_range:
            low[block], high[block] = pixels.min(axis=2), pixels.max(axis=2)
    parts = [_of_rows(mean[fold_rows], squares[fold_rows], low[fold_rows], high[fold_rows]) for fold_rows in folds]
    counts = np.array([float(len(fold_rows)) for fold_rows in folds])
    return Moments(
        counts, np.repeat(counts[:, None], channels, axis=1), *(np.stack(part) for part in zip(*parts, strict=True))
    )


def _of_rows(mean: Array, squares: Array, low: Array, high: Array) -> tuple[Array, ...]:
    """Return mean, squares, low and high of some images together, (channels,)."""
    if not len(mean):
        return tuple(np.zeros(mean.shape[1]) for _ in range(4))
    centre = mean.mean(axis=0)
    return centre, (squares + (mean - centre) ** 2).sum(axis=0), low.min(axis=0), high.max(axis=0)
