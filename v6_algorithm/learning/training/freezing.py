"""Networks in training mode, but for the layers that are frozen: these stay exactly as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from v6_algorithm.learning.training.state import parameters_of


def trained(networks: Mapping[str, nn.Module], frozen: Collection[str]) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, which are all that an optimiser gets to know."""
    return [parameter for name, parameter in parameters_of(networks) if name not in frozen]


@contextmanager
def in_training(networks: Mapping[str, nn.Module], frozen: Collection[str]) -> Iterator[None]:
    """Put networks into training mode; frozen parameters get no gradients, and frozen BatchNorm gathers no statistics.

    Such a BatchNorm normalises with the statistics that it has, as where a model is measured.
    """
    held = [parameter for name, parameter in parameters_of(networks) if name in frozen and parameter.requires_grad]
    for key, network in networks.items():
        network.train()
        for path, module in network.named_modules():
            module_path = f"{key}.{path}" if path else key
            if any(f"{module_path}.{name}" in frozen for name, _ in module.named_buffers(recurse=False)):
                module.training = False
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
