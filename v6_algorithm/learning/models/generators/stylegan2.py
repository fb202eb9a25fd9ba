"""StyleGAN2: a mapping network, modulated convolutions and noise; a residual discriminator. Written from the paper.

All weights begin as numbers of standard deviation 1 and are scaled where they are used, so that one learning rate fits
all of them (equalised learning rate). No tensor but parameters is kept, so the networks can be built without numbers.

References
----------
Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020.
Karras et al., Training Generative Adversarial Networks with Limited Data, NeurIPS 2020: the class, in both networks.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm.experiment import StyleGAN2
from v6_algorithm.learning.models.generators.layers import MinibatchSpread, sizes_to

_SLOPE = 0.2
_GAIN = sqrt(2)  # of a leaky ReLU, so that numbers keep their spread
_MAPPING_LR = 0.01  # the mapping network learns so much slower
_FILTER = (1.0, 3.0, 3.0, 1.0)  # low pass, around every change of size


class EqualLinear(nn.Module):
    """A dense layer of equalised learning rate; `lr` is a factor of it, `bias` what the bias begins at."""

    def __init__(self, inputs: int, outputs: int, *, lr: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn(outputs, inputs, spread=1 / lr))
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr))
        self._scale, self._lr = lr / sqrt(inputs), lr

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (rows, inputs) to (rows, outputs)."""
        return functional.linear(inputs, self.weight * self._scale, self.bias * self._lr)


class EqualConv(nn.Module):
    """A convolution of equalised learning rate, that halves the size where `down` says so."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._scale, self._kernel, self._down = 1 / sqrt(inputs * kernel**2), kernel, down

    def forward(self, features: Tensor) -> Tensor:
        """Map (rows, inputs, height, width) to (rows, outputs, height, width), or half of each."""
        padding = self._kernel // 2
        if self._down:
            # As much as the filter and the kernel take off, less the pixel that a stride of 2 does not need.
            features, padding = blurred(features, (self._kernel + 1) // 2), 0
        stride = 2 if self._down else 1
        return functional.conv2d(features, self.weight * self._scale, self.bias, stride=stride, padding=padding)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by the style, and its output back to unit spread (demodulation).

    The weights are the same for all rows: scaling input and output in their place comes to the same, and needs no
    convolution for each row.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, *, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn(outputs, inputs, kernel, kernel))
        self.style = EqualLinear(style, inputs, bias=1.0)
        self._scale, self._kernel = 1 / sqrt(inputs * kernel**2), kernel
        self._up, self._demodulate = up, demodulate

    def demodulation(self, styles: Tensor) -> Tensor:
        """Return what each output channel is multiplied by, (rows, outputs): 1 / the norm of its scaled weights."""
        squares = (self.weight * self._scale).square().sum(dim=(2, 3))
        return torch.rsqrt(styles.square() @ squares.T + 1e-8)

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """Map (rows, inputs, height, width) and (rows, style) to (rows, outputs, height, width), or twice of each."""
        with torch.autocast(features.device.type, enabled=False):
            styles = self.style(w.to(self.weight.dtype))
            scales = self.demodulation(styles) if self._demodulate else None
        features = features * styles[:, :, None, None].to(features.dtype)
        weight = self.weight * self._scale
        if self._up:
            features = functional.conv_transpose2d(features, weight.transpose(0, 1), stride=2)
            features = blurred(features, 1, gain=4)
        else:
            features = functional.conv2d(features, weight, padding=self._kernel // 2)
        return features if scales is None else features * scales[:, :, None, None].to(features.dtype)


class StyledLayer(nn.Module):
    """A modulated convolution, noise of a learned strength, bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style: int, *, up: bool = False) -> None:
        super().__init__()
        self.convolution = ModulatedConv(inputs, outputs, 3, style, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, w: Tensor, noise: torch.Generator | None) -> Tensor:
        """Map features and (rows, style); noise is drawn from a CPU generator, or torch's own of the device."""
        features = self.convolution(features, w)
        shape, device = (len(features), 1, *features.shape[2:]), features.device
        # One's own generator is on the CPU, so that it gives the same numbers on every device.
        drawn = torch.randn(shape, generator=noise, device=None if noise else device).to(device, features.dtype)
        features = features + self.strength.to(features.dtype) * drawn + self.bias[:, None, None].to(features.dtype)
        return functional.leaky_relu(features, _SLOPE) * _GAIN


class ToImage(nn.Module):
    """What the features of one size add to the image."""

    def __init__(self, inputs: int, channels: int, style: int) -> None:
        super().__init__()
        self.convolution = ModulatedConv(inputs, channels, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """Map (rows, inputs, height, width) and (rows, style) to (rows, channels, height, width)."""
        image: Tensor = self.convolution(features, w) + self.bias[:, None, None]
        return image


class Mapping(nn.Module):
    """From latents and classes to styles, both brought to unit length first."""

    def __init__(self, model: StyleGAN2, classes: int, latent: int) -> None:
        super().__init__()
        self.of_class = EqualLinear(classes, latent) if classes else None
        widths = [latent * (2 if classes else 1), *[model.style] * model.mapping_layers]
        self.layers = nn.ModuleList(
            EqualLinear(inputs, outputs, lr=_MAPPING_LR) for inputs, outputs in pairwise(widths)
        )

    def forward(self, latents: Tensor, classes: Tensor) -> Tensor:
        """Map (rows, latent) and (rows, classes) to (rows, style)."""
        numbers = _unit(latents)
        if self.of_class is not None:
            numbers = torch.cat([numbers, _unit(self.of_class(classes))], dim=1)
        for layer in self.layers:
            numbers = functional.leaky_relu(layer(numbers), _SLOPE) * _GAIN
        return numbers


class StyleGenerator(nn.Module):
    """From a learned constant of 4 x 4 pixels upwards; what every size adds to the image is summed up (skips)."""

    def __init__(self, model: StyleGAN2, shape: list[int], classes: int, latent: int) -> None:
        super().__init__()
        widths = _widths(model, shape[1])
        self._mixing = model.mixing
        self.mapping = Mapping(model, classes, latent)
        self.constant = nn.Parameter(_drawn(1, widths[0], 4, 4))
        layers, outputs = [StyledLayer(widths[0], widths[0], model.style)], [ToImage(widths[0], shape[0], model.style)]
        for before, after in pairwise(widths):
            layers += [StyledLayer(before, after, model.style, up=True), StyledLayer(after, after, model.style)]
            outputs.append(ToImage(after, shape[0], model.style))
        self.layers, self.outputs = nn.ModuleList(layers), nn.ModuleList(outputs)

    def forward(self, latents: Tensor, classes: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Map (rows, latent) and (rows, classes) to (rows, channels, height, width), about -1 to 1.

        Noise comes from `noise`, a CPU generator, or without it from torch's own. While it trains, a share of the
        images has another latent's style from a random layer on.
        """
        styles = self._styles(latents, classes)
        features = self.constant.expand(len(latents), -1, -1, -1)
        features = self.layers[0](features, styles[0], noise)
        image = self.outputs[0](features, styles[1])
        for number, output in enumerate(self.outputs[1:], 1):
            features = self.layers[2 * number - 1](features, styles[2 * number - 1], noise)
            features = self.layers[2 * number](features, styles[2 * number], noise)
            image = enlarged(image) + output(features, styles[2 * number + 1])
        return image

    def _styles(self, latents: Tensor, classes: Tensor) -> list[Tensor]:
        """Return the style of each layer, (rows, style), the last one's for the image."""
        w, count = self.mapping(latents, classes), 2 * len(self.outputs)
        if not self.training or not self._mixing:
            return [w] * count
        other = self.mapping(torch.randn_like(latents), classes)
        first = torch.randint(1, count, (len(w), 1), device=w.device)
        first = torch.where(torch.rand(len(w), 1, device=w.device) < self._mixing, first, count)
        return [torch.where(layer < first, w, other) for layer in range(count)]


class ResidualBlock(nn.Module):
    """Two convolutions that halve the size, beside one that only halves it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        self.second = EqualConv(inputs, outputs, 3, down=True)
        self.skip = EqualConv(inputs, outputs, 1, down=True, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (rows, inputs, height, width) to (rows, outputs, height / 2, width / 2)."""
        changed = functional.leaky_relu(self.first(features), _SLOPE) * _GAIN
        changed = functional.leaky_relu(self.second(changed), _SLOPE) * _GAIN
        total: Tensor = (changed + self.skip(features)) / sqrt(2)
        return total


class StyleDiscriminator(nn.Module):
    """From images to one number: residual blocks, and how the features fit the class (projection)."""

    def __init__(self, model: StyleGAN2, shape: list[int], classes: int) -> None:
        super().__init__()
        widths = _widths(model, shape[1])[::-1]
        self.first = EqualConv(shape[0], widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(before, after) for before, after in pairwise(widths)))
        self.spread = MinibatchSpread()
        self.convolution = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.width = widths[-1]
        self.features = EqualLinear(widths[-1] * 16, widths[-1])
        self.last = EqualLinear(widths[-1], 1)
        self.of_class = EqualLinear(classes, widths[-1]) if classes else None

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Map (rows, channels, height, width) and (rows, classes) to (rows,) and (rows, width)."""
        features = functional.leaky_relu(self.first(images), _SLOPE) * _GAIN
        features = self.convolution(self.spread(self.blocks(features)))
        features = functional.leaky_relu(features, _SLOPE) * _GAIN
        features = functional.leaky_relu(self.features(features.flatten(1)), _SLOPE) * _GAIN
        output: Tensor = self.last(features)[:, 0]
        if self.of_class is not None:
            output = output + (_unit(self.of_class(classes)) * features).sum(dim=1) / sqrt(features.shape[1])
        return output, features


def blurred(features: Tensor, padding: int, *, gain: float = 1.0) -> Tensor:
    """Return features through the low-pass filter, padded with zeros on all sides: 2 padding - 3 pixels more."""
    return _filtered(features, functional.conv2d, gain, padding=padding)


def enlarged(images: Tensor) -> Tensor:
    """Return images of twice the size: zeros between the pixels, and the filter."""
    return _filtered(images, functional.conv_transpose2d, 4.0, stride=2, padding=1)


def _filtered(features: Tensor, convolve, gain: float, **how: int) -> Tensor:  # type: ignore[no-untyped-def]
    line = torch.tensor(_FILTER, dtype=features.dtype, device=features.device)
    kernel = torch.outer(line, line) * (gain / sum(_FILTER) ** 2)
    channels = features.shape[1]
    filtered: Tensor = convolve(features, kernel.expand(channels, 1, 4, 4), groups=channels, **how)
    return filtered


def _drawn(*shape: int, spread: float = 1.0) -> Tensor:
    """Draw numbers of mean 0 and this standard deviation.

    They are uniform, and not scaled afterwards: where the networks are built without memory (`build_shapes`), torch
    loads for seconds what draws normal numbers, or divides.
    """
    return torch.empty(shape).uniform_(-sqrt(3) * spread, sqrt(3) * spread)


def _unit(numbers: Tensor) -> Tensor:
    """Return rows whose squares have the mean 1."""
    return numbers * torch.rsqrt(numbers.square().mean(dim=1, keepdim=True) + 1e-8)


def _widths(model: StyleGAN2, size: int) -> list[int]:
    """Return the channels at 4 pixels, 8, … and full size."""
    return [max(min(model.channel_base // length, model.channel_max), 1) for length in sizes_to(size)]
