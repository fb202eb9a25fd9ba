"""What generators and discriminators of every kind are made of."""

from __future__ import annotations

from itertools import takewhile
from math import log2

import torch
from torch import Tensor, nn

# Images of a batch whose spread the discriminator sees; StyleGAN's.
_GROUP = 4


class Discriminator(nn.Module):
    """A discriminator, with what its training counts: buffers travel with the model, and sites' are averaged.

    Attributes
    ----------
    body
        From (rows, channels, height, width) and (rows, classes) to (rows,) and its features, (rows, `width`).
    classifier
        From the features to two numbers for each of `told` classes, for real images of it and for made ones; None
        without any.
    augment_p
        (), the probability with which each change of adaptive augmentation is made.
    images
        (), images seen, of a mean site: how long the average over training may reach back.
    steps
        (), steps taken, for what is not done in each; the most of all sites.
    """

    augment_p: Tensor
    images: Tensor
    steps: Tensor

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(body.width, 2 * classes) if classes else None  # type: ignore[arg-type]
        self.register_buffer("augment_p", torch.zeros(()))
        self.register_buffer("images", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return (rows,), above 0 where an image looks real."""
        output: Tensor = self.body(images, classes)[0]
        return output

    def judge(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the output, and (rows, 2 told) of the classifier; None where there is none."""
        output, features = self.body(images, classes)
        return output, None if self.classifier is None else self.classifier(features)


class MinibatchSpread(nn.Module):
    """Adds a channel: how much a few images of the batch differ, by which a generator of one image is found out.

    References
    ----------
    Karras et al., Progressive Growing of GANs, ICLR 2018, section 3.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map (rows, channels, height, width) to one channel more."""
        rows, _, height, width = features.shape
        group = next(size for size in range(min(_GROUP, rows), 0, -1) if rows % size == 0)
        grouped = features.view(group, rows // group, *features.shape[1:]).float()
        # The square root has no slope at 0, where all images are alike.
        spread = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = spread.repeat(group).view(rows, 1, 1, 1).expand(rows, 1, height, width)
        return torch.cat([features, channel.to(features.dtype)], dim=1)


def doublings(size: int) -> int:
    """Return how often 4 pixels are doubled."""
    return round(log2(size / 4))


def sizes_to(size: int) -> list[int]:
    """Return 4, 8, … up to a size."""
    return [*takewhile(lambda length: length <= size, (4 * 2**number for number in range(16)))]
