"""The network whose features FID and KID compare images by: fixed, its weights drawn once and for all, never trained.

The features that papers use are of a network trained on ImageNet, which would have to be downloaded and knows no
medical images. Features of a network whose weights are drawn at random compare images too: Naeem et al. measure
generated images in 64 random dimensions, and find them the better choice where images are far from ImageNet [1]_; that
random convolutions with pooling respond to what an image shows is in Saxe et al. [2]_. The weights come from a seed of
their own, so that the FIDs of all experiments on images of one size compare with each other. They do not compare with
FIDs of Inception features.

References
----------
.. [1] Naeem et al. (2020), Reliable Fidelity and Diversity Metrics for Generative Models, ICML.
.. [2] Saxe et al. (2011), On Random Weights and Unsupervised Feature Learning, ICML.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from v6_algorithm import seeding
from v6_algorithm.errors import ExperimentError

DIMENSIONS = 64
# Another number here makes FIDs that do not compare with those of before.
_SEED = 20261127
# Each level sees the image at half the size of the one before, down to this many pixels.
_SMALLEST = 16
_FILTERS, _COMBINATIONS = 24, 32
# Means are taken over so many by so many fields of a level: where in the image something is counts a little.
_FIELDS = 2
# Differences between pixels below this, of 1, are as good as none.
_FAINT = 0.01
# Images on which the features are scaled: so many blocks of so many, fewer where they are large, of so many ellipses.
_BLOCKS, _BLOCKS_OF_LARGE, _IN_BLOCK, _LEAVES, _LARGE = 16, 6, 16, 12, 64 * 64
# Share of the mean variance that is added in all directions: one in which references do not vary would outweigh others.
_RIDGE = 0.1
# Pixels that are worked on at once; a layer's numbers take 0.1 GB then.
_PIXELS_AT_ONCE = 2**20

Features = Callable[[Tensor], Tensor]


@lru_cache(maxsize=8)
def feature_network(channels: int, height: int, width: int) -> Features:
    """Return the fixed function from images of one size to features.

    At each of several sizes an image goes through random orthogonal filters that do not see brightness, and
    through combinations of these; the means over a coarse grid, with means and spreads of the colours, are brought to
    64 dimensions at random. Those are rotated and scaled so that no few of them dominate: on reference images all
    directions vary alike. These are drawn as "dead leaves", ellipses over each other, which have the statistics of
    natural images [1]_.

    Returns
    -------
    callable
        From (rows, channels, height, width), 0 to 1, on any device, to (rows, 64) float64 on the CPU.

    Raises
    ------
    ExperimentError
        When images have other than 1 or 3 channels, or fewer than 16 pixels a side.

    References
    ----------
    .. [1] Lee, Mumford and Huang (2001), Occlusion models for natural images, IJCV 41(1/2).
    """
    if channels not in (1, 3) or min(height, width) < _SMALLEST:
        raise ExperimentError(
            f"fid compares images of 1 or 3 channels and {_SMALLEST} pixels a side or more; these have {channels} "
            f"channels and {height} x {width} pixels"
        )
    levels, shorter = 1, min(height, width)
    while shorter >= 2 * _SMALLEST:
        levels, shorter = levels + 1, shorter // 2
    weights = [_weights(level) for level in range(levels)]
    blocks = _BLOCKS if height * width <= _LARGE else _BLOCKS_OF_LARGE
    raw = torch.cat([_pooled(_references(channels, height, width, block), weights) for block in range(blocks)])
    centre, spread = raw.mean(0), raw.std(0)
    # A spread near 0, as of hue in grey images, is no measure.
    spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
    projection = _orthogonal(raw.shape[1], DIMENSIONS, "projection", levels) / spread[:, None]
    covariance = torch.cov(((raw - centre) @ projection).T)
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(DIMENSIONS, dtype=torch.float64)
    # Not by eigenvectors, whose signs and order are another machine's guess: the hospitals' sums must be of one basis.
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance + ridge)).T
    to_features = projection @ whitening

    def features(images: Tensor) -> Tensor:
        chunks = images.split(max(_PIXELS_AT_ONCE // (height * width), 1)) if len(images) else []
        parts = [(_pooled(chunk, weights) - centre) @ to_features for chunk in chunks]
        return torch.cat(parts) if parts else centre.new_empty(0, DIMENSIONS)

    return features


def _weights(level: int) -> tuple[Tensor, Tensor]:
    """Return the filters of a level, (24, 3, 3, 3), and their combinations, (32, 24, 3, 3)."""
    # Without the constant each filter sees differences only; colours have features of their own.
    filters = _orthogonal(27, _FILTERS, "filters", level).T.reshape(_FILTERS, 3, 3, 3)
    filters = filters - filters.mean(dim=(2, 3), keepdim=True)
    combined = _orthogonal(9 * _FILTERS, _COMBINATIONS, "combinations", level).T
    return filters.float(), combined.reshape(_COMBINATIONS, _FILTERS, 3, 3).float()


def _orthogonal(rows: int, columns: int, *keys: str | int) -> Tensor:
    """Draw a (rows, columns) float64 matrix with orthonormal columns; where there are too few rows, just normal."""
    drawn = torch.randn(rows, columns, generator=seeding.torch_generator(_SEED, "features", *keys), dtype=torch.float64)
    if rows < columns:
        return drawn / columns**0.5
    q, r = torch.linalg.qr(drawn)
    # The signs of a QR decomposition are the library's choice.
    signed: Tensor = q * r.diagonal().sign()
    return signed


def _pooled(images: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the raw features of some images, (rows, numbers) float64 on the CPU."""
    images = images.float()
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    features = [_colours(images)]
    # A GPU would multiply in fewer digits by default.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for level, (filters, combinations) in enumerate(weights):
            scaled = F.avg_pool2d(images, 2**level) if level else images
            edges = F.conv2d(scaled, filters.to(images.device)).abs()
            shapes = F.relu(F.conv2d(F.avg_pool2d(edges, 2), combinations.to(images.device), padding=1))
            features += [(_fields(edges) + _FAINT).log(), (_fields(shapes) + _FAINT).log()]
    return torch.cat(features, dim=1).double().cpu()


def _fields(maps: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(maps, _FIELDS).flatten(1)


def _colours(images: Tensor) -> Tensor:
    """Return means of the colours by field, and their spreads and shared variation over the whole image."""
    flat = images.flatten(2)
    away = flat - flat.mean(dim=2, keepdim=True)
    spread = away.square().mean(dim=2).sqrt()
    shared = torch.stack([(away[:, a] * away[:, b]).mean(dim=1) for a, b in ((0, 1), (0, 2), (1, 2))], dim=1)
    return torch.cat([_fields(images), spread, shared.sign() * shared.abs().sqrt()], dim=1)


def _references(channels: int, height: int, width: int, block: int) -> Tensor:
    """Draw images of ellipses over each other, out of focus and grainy to different degrees; (images, channels, …)."""
    generator = seeding.torch_generator(_SEED, "references", block)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(_IN_BLOCK, *shape, 1, 1, generator=generator)

    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    # Colours go together more than not.
    palette = 0.7 * drawn(_LEAVES + 1, 1) + 0.3 * drawn(_LEAVES + 1, channels)
    picture = palette[:, 0] + 0.3 * ((drawn(1) - 0.5) * rows + (drawn(1) - 0.5) * columns)
    for leaf in range(_LEAVES):
        angle, radius, ratio = torch.pi * drawn(), 0.08 * 8 ** drawn(), 0.4 + 0.6 * drawn()
        # More often in the middle than at the edge, as what an image is of.
        y, x = rows - (drawn() + drawn() - 1), columns - (drawn() + drawn() - 1)
        along, across = angle.cos() * y + angle.sin() * x, (angle.cos() * x - angle.sin() * y) / ratio
        inside = torch.sigmoid((1 - torch.hypot(along, across) / radius) / (0.02 + 0.3 * drawn() ** 3))
        # Some images have many leaves, some a single one.
        inside = (inside * (drawn() < (leaf + 1) / _LEAVES)).unsqueeze(1)
        picture = picture + (palette[:, leaf + 1] - picture) * inside
    picture = picture + 0.1 * drawn(1) ** 3 * torch.randn(picture.shape, generator=generator)
    smooth = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return torch.lerp(picture, smooth, drawn(1).square()).clamp(0, 1)
