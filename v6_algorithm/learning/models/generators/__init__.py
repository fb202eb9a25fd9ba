"""Pairs of networks that make images and tell them from real ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from v6_algorithm.experiment import DCGAN, StyleGAN2
from v6_algorithm.learning.models.generators.layers import Discriminator


def build_pair(
    model: DCGAN | StyleGAN2, shape: list[int], classes: int, latent: int, *, classifies: bool = False
) -> tuple[nn.Module, nn.Module]:
    """Build a generator and a discriminator, in float32.

    Parameters
    ----------
    model
        The experiment's `model`.
    shape
        Channels, height and width of an image: square, 4 pixels doubled some times.
    classes
        Number of classes that both are told; 0: none.
    latent
        Numbers that an image is made of.
    classifies
        Whether the discriminator tells the classes apart, too; see `Discriminator.judge`.

    Returns
    -------
    (module, module)
        From (rows, latent) and (rows, classes), ones and zeros, to (rows, channels, height, width) images from -1 to 1;
        and from such images and classes to (rows,), above 0 where they look real.
    """
    judged_classes = classes if classifies else 0
    if isinstance(model, DCGAN):
        from v6_algorithm.learning.models.generators.dcgan import DCDiscriminator, DCGenerator

        of_images = DCDiscriminator(model, shape, classes)
        return DCGenerator(model, shape, classes, latent), Discriminator(of_images, judged_classes)
    from v6_algorithm.learning.models.generators.stylegan2 import StyleDiscriminator, StyleGenerator

    in_blocks = StyleDiscriminator(model, shape, classes)
    return StyleGenerator(model, shape, classes, latent), Discriminator(in_blocks, judged_classes)


def widest(model: Any, size: int) -> int:
    """Return about how many numbers a generator holds at once for each of an image."""
    channels: int = (
        model.width if isinstance(model, DCGAN) else max(min(model.channel_base // size, model.channel_max), 1)
    )
    # What a layer gets and gives, and what its norm, noise or activation makes of it.
    return 4 * channels
