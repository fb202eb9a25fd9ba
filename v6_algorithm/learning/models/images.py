"""Networks for images (channels, height, width) and volumes (channels, three lengths)."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import CNN, MLP, LinearModel, MnistCNN, MonaiNetwork, VBMNet
from v6_algorithm.learning.models.normalisation import norm_layers
from v6_algorithm.learning.models.tabular import build_model

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEANS = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_BATCH_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_VBM_WIDTHS = (4, 8, 16, 24, 32)
# A first layer of MONAI's networks has about so many channels at half the length of the image.
_MONAI_EXPANSION = 64


def build_image_model(model: Any, shape: list[int], outputs: int) -> nn.Module:
    """Build a network from (rows, channels, lengths …) to (rows, outputs), in float32.

    Raises
    ------
    ExperimentError
        When the images are too small for the network, or it needs a package that is not installed.
    """
    channels, *lengths = shape
    if isinstance(model, (MLP, LinearModel)):
        return nn.Sequential(nn.Flatten(), build_model(model, prod(shape), outputs))
    if isinstance(model, CNN):
        return _cnn(model, channels, lengths, outputs)
    if isinstance(model, MnistCNN):
        return _mnist_cnn(channels, lengths, outputs)
    if isinstance(model, VBMNet):
        return _vbmnet(model, channels, lengths, outputs)
    if isinstance(model, MonaiNetwork):
        from v6_algorithm.learning.models.monai import build_monai_model

        return build_monai_model(model, channels, len(lengths), outputs)
    raise ExperimentError(f"model.kind {model.kind} is not for images")


def widest(model: Any) -> int:
    """Return about how many numbers a network holds at once for each of its input, when it only predicts."""
    if isinstance(model, MnistCNN):
        return 96
    if isinstance(model, (CNN, VBMNet)):
        # What a convolution, its norm and the ReLU give, of which two are there at once, and the first's input.
        return 3 * (model.widths[0] if isinstance(model, CNN) else _VBM_WIDTHS[0] * model.scale)
    return _MONAI_EXPANSION if isinstance(model, MonaiNetwork) else 1


def _cnn(model: CNN, channels: int, lengths: list[int], outputs: int) -> nn.Module:
    blocks = _blocks(model.widths, model.norm, channels, lengths, "cnn")
    dropout = [nn.Dropout(model.dropout)] if model.dropout else []
    head = build_model(MLP(hidden=model.head, norm="none"), model.widths[-1], outputs)
    return nn.Sequential(*blocks, _MEANS[len(lengths)](1), nn.Flatten(), *dropout, head)


def _mnist_cnn(channels: int, lengths: list[int], outputs: int) -> nn.Module:
    """With 28 x 28 pixels and ten classes the 1,199,882 parameters of torch-vantage6's Net."""
    height, width = ((length - 4) // 2 for length in lengths)
    if min(height, width) < 1:
        raise ExperimentError(f"model.kind mnist_cnn needs images of 6 x 6 pixels, these have {_written(lengths)}")
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(64 * height * width, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, outputs),
    )  # fmt: skip


def _vbmnet(model: VBMNet, channels: int, lengths: list[int], outputs: int) -> nn.Module:
    """With 121 x 145 x 121 voxels, two outputs and norm batch, the 792,394 parameters of dinunet's VBMNet."""
    widths = [width * model.scale for width in _VBM_WIDTHS]
    blocks = _blocks(widths, model.norm, channels, lengths, "vbmnet")
    inputs, dense = widths[-1] * prod(length // 2 ** len(widths) for length in lengths), []
    for width in (512, 256, 128):
        dense += [nn.Linear(inputs, width), *norm_layers(model.norm, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*blocks, nn.Flatten(), *dense, nn.Linear(inputs, outputs))


def _blocks(widths: list[int], norm: str, channels: int, lengths: list[int], kind: str) -> list[nn.Module]:
    """Return blocks of convolution, norm, ReLU and pooling by 2."""
    if min(lengths) < 2 ** len(widths):
        raise ExperimentError(
            f"model.kind {kind} halves images {len(widths)} times, and these have {_written(lengths)} pixels; they "
            f"need {2 ** len(widths)} each way"
        )
    dimensions = len(lengths)
    blocks: list[nn.Module] = []
    for width in widths:
        norms = [_BATCH_NORMS[dimensions](width)] if norm == "batch" else norm_layers(norm, width)
        convolution = _CONVOLUTIONS[dimensions](channels, width, 3, padding=1)
        blocks.append(nn.Sequential(convolution, *norms, nn.ReLU(), _POOLS[dimensions](2)))
        channels = width
    return blocks


def _written(lengths: list[int]) -> str:
    return " x ".join(map(str, lengths))
