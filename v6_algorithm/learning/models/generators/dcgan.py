"""DCGAN's strided convolutions, told the class: small enough to learn on a CPU.

Its batch norm is left out, for running statistics are those of no single site. In its place the generator has group
norm with a scale and shift of each class, and the discriminator, which has a penalty on its slope, no norm at all.

References
----------
Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, ICLR 2016.
Miyato and Koyama, cGANs with Projection Discriminator, ICLR 2018.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm.experiment import DCGAN
from v6_algorithm.learning.models.generators.layers import MinibatchSpread, doublings
from v6_algorithm.learning.models.normalisation import groups_of

_SLOPE = 0.2
_MOST_DOUBLINGS = 3  # of the width: 8 times at 4 pixels and wherever there would be more


class ConditionalNorm(nn.GroupNorm):
    """Group norm, with a scale and a shift that each class has of its own."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(groups_of(channels), channels, affine=classes == 0)
        self.of_class = nn.Linear(classes, 2 * channels, bias=False) if classes else None
        if self.of_class is not None:
            nn.init.zeros_(self.of_class.weight)

    def forward(self, input: Tensor, classes: Tensor | None = None) -> Tensor:
        """Normalise (rows, channels, height, width) of (rows, classes)."""
        output = super().forward(input)
        if self.of_class is None or classes is None:
            return output
        scale, shift = self.of_class(classes)[:, :, None, None].chunk(2, dim=1)
        scaled: Tensor = output * (1 + scale) + shift
        return scaled


class DCGenerator(nn.Module):
    """From latents and classes to images: a dense layer to 4 x 4 pixels, then transposed convolutions that double."""

    def __init__(self, model: DCGAN, shape: list[int], classes: int, latent: int) -> None:
        super().__init__()
        widths = _widths(model.width, shape[1])[::-1]
        self.first = nn.Linear(latent + classes, widths[0] * 16)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(ConditionalNorm(width, classes) for width in widths)
        self.last = nn.Conv2d(widths[-1], shape[0], 3, padding=1)
        _initialise(self.first, self.convolutions)

    def forward(self, latents: Tensor, classes: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Map (rows, latent) and (rows, classes) to (rows, channels, height, width) from -1 to 1; it has no noise."""
        features = self.first(torch.cat([latents, classes], dim=1)).view(len(latents), -1, 4, 4)
        features = functional.leaky_relu(self.norms[0](features, classes), _SLOPE)
        for convolution, norm in zip(self.convolutions, self.norms[1:], strict=True):
            features = functional.leaky_relu(norm(convolution(features), classes), _SLOPE)
        return torch.tanh(self.last(features))


class DCDiscriminator(nn.Module):
    """From images to one number: convolutions that halve, and how the features, `width` of them, fit the class."""

    def __init__(self, model: DCGAN, shape: list[int], classes: int) -> None:
        super().__init__()
        widths = _widths(model.width, shape[1])
        layers: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 3, padding=1), nn.LeakyReLU(_SLOPE)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(_SLOPE)]
        self.convolutions = nn.Sequential(*layers, MinibatchSpread())
        self.width = widths[-1]
        self.features = nn.Linear((widths[-1] + 1) * 16, widths[-1])
        self.of_class = nn.Linear(classes, widths[-1], bias=False) if classes else None
        self.last = nn.Linear(widths[-1], 1)
        _initialise(self.convolutions, self.features)
        if self.of_class is not None:
            nn.init.zeros_(self.of_class.weight)

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Map (rows, channels, height, width) and (rows, classes) to (rows,) and (rows, width)."""
        features = functional.leaky_relu(self.features(self.convolutions(images).flatten(1)), _SLOPE)
        output: Tensor = self.last(features)[:, 0]
        if self.of_class is not None:
            output = output + (self.of_class(classes) * features).sum(dim=1)
        return output, features


def _widths(width: int, size: int) -> list[int]:
    """Return the channels at full size, half of it, … and 4 pixels."""
    return [width * 2 ** min(number, _MOST_DOUBLINGS) for number in range(doublings(size) + 1)]


def _initialise(*layers: nn.Module) -> None:
    """Keep the spread of numbers from one leaky ReLU to the next (He et al., ICCV 2015)."""
    for module in (module for layer in layers for module in layer.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, _SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
