"""Elastic deformation and bias fields, by MONAI: kinds of `training.augmentation` that need the optional package.

`augmentation` calls them as it calls its own: on a batch, with the generator of all numbers. Of MONAI's elastic
transforms only the filter is used: in two dimensions they move an image by up to a pixel and a half when told to leave
it as it is, and up to four times as far as they are told.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from v6_algorithm.errors import SiteError


def elastic(images: Tensor, generator: torch.Generator, *, displacement: float, smoothness: float) -> Tensor:
    """Move each image's pixels by a smooth field, at random; what comes from outside is the mirror image.

    Parameters
    ----------
    images
        (n, channels, lengths …).
    generator
        Of the CPU.
    displacement
        In pixels: two standard deviations of how far a pixel moves along an axis, of which each image draws a share.
    smoothness
        In pixels: the width of the Gaussian filter that makes the field of independent numbers.

    References
    ----------
    Simard et al., Best practices for convolutional neural networks applied to visual document analysis, ICDAR 2003.
    """
    layers = _monai("elastic", "networks.layers")
    dims, lengths = images.ndim - 2, torch.tensor(images.shape[:1:-1], dtype=images.dtype)
    share = torch.rand(len(images), generator=generator, dtype=torch.float64)
    # A field so smooth needs no number for every pixel: it is made on a coarser grid, where the filter is narrow.
    step = max(1, int(smoothness // 2))
    coarse = [math.ceil(length / step) + 1 for length in images.shape[2:]]
    noise = torch.randn(len(images), dims, *coarse, generator=generator)
    # What the filter leaves of a standard deviation of 1.
    left = (2 * math.sqrt(math.pi) * smoothness / step) ** (-dims / 2)
    filtered = layers.GaussianFilter(dims, smoothness / step)(noise) * (displacement / 2 / left)
    mode = "bilinear" if dims == 2 else "trilinear"
    field = functional.interpolate(filtered, size=list(images.shape[2:]), mode=mode)
    moved = field.movedim(1, -1) * share.view(-1, *[1] * (dims + 1))
    identity = torch.eye(dims, dims + 1).expand(len(images), -1, -1).to(images)
    grid = functional.affine_grid(identity, list(images.shape), align_corners=False)
    # grid_sample's coordinates are -1 to 1 along each axis, the last axis (width) first.
    grid = grid + (moved.to(images) * 2 / lengths.to(images))
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def bias_field(images: Tensor, generator: torch.Generator, *, coefficient: float, degree: int) -> Tensor:
    """Brighten and darken each image smoothly, as an uneven coil of a scanner does.

    Values above the image's lowest are multiplied by the exponential of a polynomial of the place, so that what was
    scaled to mean 0 is changed as the image in the file would be.

    Parameters
    ----------
    coefficient
        The most that each of the polynomial's is, up or down.
    degree
        Of the polynomial.

    References
    ----------
    Van Leemput et al., Automated model-based bias field correction of MR images of the brain, IEEE TMI 1999.
    """
    transforms = _monai("bias_field", "transforms")
    # MONAI draws from seeds of its own, of each image one.
    seeds: list[int] = torch.randint(2**31, (len(images),), generator=generator).tolist()
    change = transforms.RandBiasField(degree=degree, coeff_range=(-coefficient, coefficient), prob=1.0)
    ones = torch.ones(1, *images.shape[2:])
    field = torch.stack([torch.as_tensor(change.set_random_state(seed=seed)(ones)) for seed in seeds]).to(images)
    low = images.amin(dim=tuple(range(1, images.ndim)), keepdim=True)
    return (images - low) * field + low if coefficient else images


def _monai(kind: str, module: str) -> Any:
    try:
        return import_module(f"monai.{module}")
    except ImportError:
        raise SiteError(
            f"training.augmentation: {kind} needs the package monai: pip install 'v6-algorithm[imaging]'", "request"
        ) from None
