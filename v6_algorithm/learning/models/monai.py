"""ResNet, DenseNet, EfficientNet and SENet of MONAI, an optional package that needs nothing but numpy and torch."""

from __future__ import annotations

from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import MLP, MonaiNetwork
from v6_algorithm.learning.models.normalisation import norm_layers
from v6_algorithm.learning.models.tabular import build_model


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
    network: nn.Module
    if model.kind == "resnet":
        # Without a bias before a norm, as torchvision's: with norm batch its weights fit, by name and shape.
        network = getattr(nets, variant)(
            spatial_dims=dimensions, n_input_channels=channels, num_classes=outputs, bias_downsample=False
        )
    elif model.kind == "densenet":
        name = variant.replace("densenet", "DenseNet")
        network = getattr(nets, name)(spatial_dims=dimensions, in_channels=channels, out_channels=outputs)
    elif model.kind == "senet":
        network = getattr(nets, variant)(spatial_dims=dimensions, in_channels=channels, num_classes=outputs)
    else:
        network = nets.EfficientNetBN(
            variant, pretrained=False, spatial_dims=dimensions, in_channels=channels, num_classes=outputs
        )
    if model.norm != "batch":
        _replace_batch_norms(network, model.norm)
    if model.head or model.dropout is not None:
        _replace_head(network, model, outputs)
    return network


def _replace_head(network: nn.Module, model: MonaiNetwork, outputs: int) -> None:
    """Put dropout and hidden layers where the last layer is, and take out a dropout that the network has before it."""
    path, last = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    layers: list[nn.Module] = []
    if model.dropout is not None:
        for name in ("dropout", "_dropout"):
            if isinstance(getattr(network, name, None), nn.Dropout):
                setattr(network, name, nn.Identity())
        layers.append(nn.Dropout(model.dropout))
    head = build_model(MLP(hidden=model.head, norm="none"), last.in_features, outputs)
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Sequential(*layers, head))


def _replace_batch_norms(network: nn.Module, norm: str) -> None:
    """Put another norm wherever there is a BatchNorm, whose running sums fit no single site."""
    for name, module in network.named_children():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            layers = norm_layers(norm, module.num_features)
            setattr(network, name, layers[0] if layers else nn.Identity())
        else:
            _replace_batch_norms(module, norm)
