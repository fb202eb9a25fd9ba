"""Changed copies of images and volumes to train on; `training.loop` calls `augment` on every batch of a training.

Pure functions on batches, (n, channels, height, width) or (n, channels, depth, height, width) floats, that draw all
numbers from the generator they are given: a CPU one, so that they are the same on every device. Each image of a batch
is changed in its own way. Where an image is turned or enlarged, what lies outside is its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Section
from v6_algorithm.learning.training.deformation import bias_field, elastic

_AXES = {"width": -1, "height": -2, "depth": -3}


@dataclass(frozen=True)
class Mix:
    """Which image each image of a batch is mixed with (n,), and its own share in the mixture (n,)."""

    partner: Tensor
    share: Tensor

    def loss(self, losses: Tensor, partners: Tensor) -> Tensor:
        """Return the (n,) loss of the mixture, from those of its output against both targets.

        Cross-entropy is linear in the target, so this is its loss against the mixed probabilities, and no loss has
        to know of mixtures.
        """
        share = self.share.to(losses)
        return share * losses + (1 - share) * partners


def augment(images: Tensor, kinds: Sequence[Section], generator: torch.Generator) -> tuple[Tensor, Mix | None]:
    """Change a batch as the experiment's `training.augmentation` says, in its order.

    Returns
    -------
    tuple of Tensor and Mix or None
        The changed images, of the same dtype and device, and what was mixed.

    Raises
    ------
    SiteError
        Of kind ``request`` when they are no images, or an image is smaller than a crop.
    """
    _check_images(images)
    mix = None
    for section in kinds:
        options = section.model_dump(exclude={"kind"})
        kind = str(section.kind)  # type: ignore[attr-defined]
        if kind == "mixup":
            images, mix = mixup(images, generator, **options)
        else:
            images = _KINDS[kind](images, generator, **options)
    return images, mix


def measured(images: Tensor, kinds: Sequence[Section]) -> Tensor:
    """Return a batch as a model is measured on it: unchanged, but for the middle of a crop."""
    for section in kinds:
        if section.kind == "crop":  # type: ignore[attr-defined]
            _check_images(images)
            images = centre_crop(images, section.size)  # type: ignore[attr-defined]
    return images


def flip(images: Tensor, generator: torch.Generator, *, axes: Sequence[str], probability: float) -> Tensor:
    """Mirror each image along each of the axes (``height``: upside down) with a probability."""
    for name in axes:
        if name == "depth" and images.ndim < 5:
            raise SiteError("training.augmentation: flip: images have no depth, volumes do", "request")
        chosen = torch.rand(len(images), generator=generator) < probability
        mirrored = images.flip(_AXES[name])
        images = torch.where(_per_image(chosen, images), mirrored, images)
    return images


def rotation(images: Tensor, generator: torch.Generator, *, degrees: float) -> Tensor:
    """Turn each image by an angle of up to so many degrees, a volume around an axis of any direction."""
    if not degrees:
        return images
    angle = torch.deg2rad(degrees * _uniform(len(images), generator))
    cos, sin = torch.cos(angle), torch.sin(angle)
    if images.ndim == 4:
        return resample(images, torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2))
    axis = functional.normalize(torch.randn(len(images), 3, generator=generator), dim=1)
    zero = torch.zeros(len(images))
    x, y, z = axis.unbind(dim=1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    # Rodrigues' formula.
    turn = torch.eye(3) + sin.view(-1, 1, 1) * cross + (1 - cos).view(-1, 1, 1) * cross @ cross
    return resample(images, turn)


def zoom(images: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
    """Enlarge a piece of each image, of `share` to 1 of each side, to the whole."""
    if share == 1:
        return images
    dims = images.ndim - 2
    side = 1 - (1 - share) * torch.rand(len(images), 1, generator=generator)
    away = (1 - side) * (2 * torch.rand(len(images), dims, generator=generator) - 1)
    lengths = torch.tensor(images.shape[:1:-1], dtype=torch.float32)
    return resample(images, side[..., None] * torch.eye(dims), away * lengths / 2)


def crop(images: Tensor, generator: torch.Generator, *, size: int | Sequence[int]) -> Tensor:
    """Return a piece of each image, at a place at random."""
    sizes = _sizes(images, size)
    for axis, length in enumerate(sizes, 2):
        room = images.shape[axis] - length
        start = torch.randint(room + 1, (len(images),), generator=generator)
        places = (start[:, None] + torch.arange(length)).to(images.device)
        shape = [len(images)] + [1] * (images.ndim - 1)
        shape[axis] = length
        target = [*images.shape[:axis], length, *images.shape[axis + 1 :]]
        images = images.gather(axis, places.view(shape).expand(target))
    return images


def centre_crop(images: Tensor, size: int | Sequence[int]) -> Tensor:
    """Return the middle of each image; where it cannot be exact, the half pixel nearer to the start."""
    for axis, length in enumerate(_sizes(images, size), 2):
        images = images.narrow(axis, (images.shape[axis] - length) // 2, length)
    return images


def color(
    images: Tensor, generator: torch.Generator, *, brightness: float, contrast: float, saturation: float
) -> Tensor:
    """Change each image's saturation (of three channels), contrast around its mean, and brightness."""
    drawn = [_per_image(_uniform(len(images), generator), images) for _ in range(3)]
    if saturation and images.shape[1] == 3:
        grey = images.mean(dim=1, keepdim=True)
        images = torch.lerp(grey, images, 1 + saturation * drawn[0])
    if contrast:
        images = torch.lerp(_mean(images), images, 1 + contrast * drawn[1])
    return images + brightness * drawn[2] * _spread(images) if brightness else images


def noise(images: Tensor, generator: torch.Generator, *, sd: float) -> Tensor:
    """Add normal noise to every number."""
    if not sd:
        return images
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return images + sd * _spread(images) * drawn


def mixup(images: Tensor, generator: torch.Generator, *, alpha: float) -> tuple[Tensor, Mix]:
    """Mix each image with another of the batch, by shares from Beta(alpha, alpha).

    References
    ----------
    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018; with a share for each image, not each batch.
    """
    partner = torch.randperm(len(images), generator=generator)
    # torch has no Beta distribution with a generator.
    seed = int(torch.randint(2**62, (), generator=generator))
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(images)))
    mix = Mix(partner.to(images.device), share.to(images))
    return torch.lerp(images[mix.partner], images, _per_image(mix.share, images)), mix


def resample(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return images whose pixel at x, from the middle, is the given one's at ``matrix @ x + offset``.

    Parameters
    ----------
    images
        (n, channels, …).
    matrix
        (n, d, d), for the d coordinates in pixels, the last axis (width) first.
    offset
        (n, d) pixels; none if absent.
    """
    # grid_sample's coordinates are -1 to 1 along each axis, so a turn of pixels that are not square there needs both.
    half = torch.tensor(images.shape[:1:-1], dtype=matrix.dtype) / 2
    shift = torch.zeros(len(images), len(half)) if offset is None else offset / half
    theta = torch.cat([matrix * half / half[:, None], shift[..., None]], dim=2).to(images)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


_KINDS: dict[str, Callable[..., Tensor]] = {
    "flip": flip,
    "rotation": rotation,
    "zoom": zoom,
    "crop": crop,
    "color": color,
    "noise": noise,
    "elastic": elastic,
    "bias_field": bias_field,
}


def _check_images(images: Tensor) -> None:
    if images.ndim not in (4, 5) or not images.is_floating_point():
        raise SiteError(
            "training.augmentation is for images and volumes; the inputs of this problem are neither", "request"
        )


def _sizes(images: Tensor, size: int | Sequence[int]) -> list[int]:
    dims = images.ndim - 2
    sizes = [size] * dims if isinstance(size, int) else list(size)
    if len(sizes) != dims:
        raise SiteError(
            f"training.augmentation: crop.size has {len(sizes)} numbers, images have {dims} axes", "request"
        )
    for wanted, length in zip(sizes, images.shape[2:], strict=True):
        if wanted > length:
            raise SiteError(f"training.augmentation: crop.size {wanted} is more than the images' {length}", "request")
    return sizes


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) numbers from -1 to 1."""
    return 2 * torch.rand(count, generator=generator) - 1


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """Shape (n,) values so that each goes with all of its image's numbers."""
    values = values.to(images.device) if values.dtype == torch.bool else values.to(images)
    return values.view(-1, *[1] * (images.ndim - 1))


def _mean(images: Tensor) -> Tensor:
    return images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)


def _spread(images: Tensor) -> Tensor:
    return images.std(dim=tuple(range(1, images.ndim)), keepdim=True, correction=0)
