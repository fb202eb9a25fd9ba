"""Changes of what a discriminator sees, real and made alike, through which the generator learns (ADA).

Each kind of change is made to an image with probability p, in a strength drawn for it, so that for p below 1 many
images stay as they are and only the generator of the unchanged images fits all changed ones. Changes of place are
products with a matrix for each axis: exact where nothing is interpolated, differentiable as often as is wanted, and
the same bits each time on a GPU too.

References
----------
Karras et al., Training Generative Adversarial Networks with Limited Data, NeurIPS 2020.
Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Collection
from math import log

import torch
from torch import Tensor

# Strengths are those of the first paper's appendix B.
_TRANSLATE = 0.125  # of a side
_SCALE = 0.2 * log(2)  # standard deviation of the logarithm
_BRIGHTNESS = 0.2  # standard deviation, of images from -1 to 1
_CONTRAST = 0.5 * log(2)
_SATURATION = 1.0 * log(2)
_CUTOUT = 0.5  # of a side
PLACES = ("flip", "rotate90", "translate", "scale")


def augment(images: Tensor, probability: float, kinds: Collection[str], generator: torch.Generator) -> Tensor:
    """Change a batch.

    Parameters
    ----------
    images
        (n, channels, size, size) from -1 to 1.
    probability
        p, with which each kind of change is made to an image.
    kinds
        Of `flip`, `rotate90`, `translate`, `scale`, `color` and `cutout`.
    generator
        A CPU one; it gives as many numbers whatever p is.

    Returns
    -------
    Tensor
        The changed images, of the same shape, dtype and device.
    """
    drawn = _AugmentationDraw(len(images), probability, generator)
    plan = {kind: drawn.of(kind) for kind in (*PLACES, "color", "cutout") if kind in kinds}
    if not probability:
        return images
    images = _moved(images, plan)
    if "color" in plan:
        images = _coloured(images, *plan["color"])
    return _cut(images, *plan["cutout"]) if "cutout" in plan else images


class _AugmentationDraw:
    """Draws, for each kind of change, which images it is made to, and how."""

    def __init__(self, count: int, probability: float, generator: torch.Generator) -> None:
        self._count, self._probability, self._generator = count, probability, generator

    def of(self, kind: str) -> tuple[Tensor, Tensor]:
        """Return whom it is made to, (n,) bool, and (n, 3) numbers: normal for scale and color, else from 0 to 1."""
        chosen = torch.rand(self._count, generator=self._generator) < self._probability
        draw = torch.randn if kind in ("scale", "color") else torch.rand
        return chosen, draw(self._count, 3, generator=self._generator)


def _moved(images: Tensor, plan: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Turn, mirror, shift and enlarge: a transposition of some images, and a resampling along each axis.

    A pixel's place x along an axis takes the value at a x + b, from the middle; beyond the edge is the mirror image.
    """
    count, size = len(images), images.shape[-1]
    factor, offset = torch.ones(2, count), torch.zeros(2, count)  # of height, of width
    transposed = torch.zeros(count, dtype=torch.bool)
    if "scale" in plan:
        chosen, numbers = plan["scale"]
        factor = factor * torch.where(chosen, torch.exp(-_SCALE * numbers[:, 0]), 1.0)
    if "translate" in plan:
        chosen, numbers = plan["translate"]
        pixels = torch.round((2 * numbers[:, :2].T - 1) * _TRANSLATE * size)
        offset = offset + torch.where(chosen, pixels, 0.0) * factor
    if "rotate90" in plan:
        chosen, numbers = plan["rotate90"]
        quarters = torch.where(chosen, (numbers[:, 0] * 4).floor(), 0.0)
        # A quarter turn is a transposition and a mirror image; so is every one of a square's eight symmetries.
        transposed = (quarters == 1) | (quarters == 3)
        signs = torch.stack([torch.where(quarters >= 2, -1.0, 1.0), torch.where(quarters % 3 != 0, -1.0, 1.0)])
        factor, offset = factor * signs, offset * signs
    if "flip" in plan:
        chosen, numbers = plan["flip"]
        sign = torch.where(chosen & (numbers[:, 0] < 0.5), -1.0, 1.0)
        factor, offset = torch.stack([factor[0], factor[1] * sign]), torch.stack([offset[0], offset[1] * sign])
    unmoved = ~transposed & (factor == 1).all(dim=0) & (offset == 0).all(dim=0)
    if unmoved.all():
        return images
    device = images.device
    turned = torch.where(transposed.to(device).view(-1, 1, 1, 1), images.transpose(2, 3), images)
    rows, columns = (_resampling(size, factor[axis], offset[axis]).to(images) for axis in (0, 1))
    moved = rows[:, None] @ turned @ columns[:, None].transpose(2, 3)
    # Not a product with ones and zeros: of those that stay, every bit stays on a GPU too.
    return torch.where(unmoved.to(device).view(-1, 1, 1, 1), images, moved)


def _resampling(size: int, factor: Tensor, offset: Tensor) -> Tensor:
    """Return (n, size, size) matrices of linear interpolation at ``factor * x + offset``."""
    middle = (size - 1) / 2
    place = factor[:, None] * (torch.arange(size) - middle) + offset[:, None] + middle
    # Reflected at the edges' middles, 0 and size - 1.
    period = 2 * (size - 1)
    place = (size - 1) - (place.remainder(period) - (size - 1)).abs()
    return (1 - (place[:, :, None] - torch.arange(size)).abs()).clamp_min(0)


def _coloured(images: Tensor, chosen: Tensor, numbers: Tensor) -> Tensor:
    """Change brightness, contrast around the middle of the range, and of three channels the saturation."""
    brightness, contrast, saturation = (
        number.to(images).view(-1, 1, 1, 1)
        for number in (
            numbers[:, 0] * _BRIGHTNESS,
            torch.exp(numbers[:, 1] * _CONTRAST),
            torch.exp(numbers[:, 2] * _SATURATION),
        )
    )
    coloured = (images + brightness) * contrast
    if images.shape[1] == 3:
        grey = coloured.mean(dim=1, keepdim=True)
        coloured = grey + (coloured - grey) * saturation
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), coloured, images)


def _cut(images: Tensor, chosen: Tensor, numbers: Tensor) -> Tensor:
    """Set a square at a random place, of half a side, to the middle of the range."""
    size = images.shape[-1]
    axis = torch.arange(size) + 0.5
    away = (axis - numbers[:, :2, None] * size).abs() < _CUTOUT * size / 2
    hole = away[:, 0, :, None] & away[:, 1, None, :] & chosen[:, None, None]
    return images * (~hole[:, None]).to(images)
