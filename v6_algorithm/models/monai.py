"""ResNet, DenseNet and EfficientNet of MONAI, an optional package that needs nothing but numpy and torch."""

from __future__ import annotations

from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import MonaiNetwork
from v6_algorithm.models.tabular import norm_layers


def build_monai_model(model: MonaiNetwork, channels: int, dimensions: int, outputs: int) -> nn.Module:
    """Build a network from (rows, channels, lengths …) to (rows, outputs), without downloaded weights.

    Raises
    ------
    ExperimentError
        When MONAI is not installed.
    """
    try:
        from monai.networks import nets
    except ImportError:
        raise ExperimentError(
            f"model.kind {model.kind} needs the package monai: pip install 'v6-algorithm[imaging]'"
        ) from None
    variant = str(model.variant)
    if model.kind == "resnet":
        network = getattr(nets, variant)(spatial_dims=dimensions, n_input_channels=channels, num_classes=outputs)
    elif model.kind == "densenet":
        name = variant.replace("densenet", "DenseNet")
        network = getattr(nets, name)(spatial_dims=dimensions, in_channels=channels, out_channels=outputs)
    else:
        network = nets.EfficientNetBN(
            variant, pretrained=False, spatial_dims=dimensions, in_channels=channels, num_classes=outputs
        )
    if model.norm != "batch":
        _replace_batch_norms(network, model.norm)
    built: nn.Module = network
    return built


def _replace_batch_norms(network: nn.Module, norm: str) -> None:
    """Put another norm wherever there is a BatchNorm, whose running sums fit no single site."""
    for name, module in network.named_children():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            layers = norm_layers(norm, module.num_features)
            setattr(network, name, layers[0] if layers else nn.Identity())
        else:
            _replace_batch_norms(module, norm)
