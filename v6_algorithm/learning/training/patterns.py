"""Which of the networks' tensors an experiment's patterns mean: those that stay at a site, and those that are frozen.

Substrings of names are not looked at: `bn` is in many names, and misses the normalisation of a ResNet's shortcuts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase

from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.layers import Frozen, Layers
from v6_algorithm.experiment.strategy.private import PrivateSection
from v6_algorithm.learning.training.state import parameters_of, state_of

# torch's name for what all BatchNorm and InstanceNorm layers have in common.
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_SHOWN = 12


def private_names(networks: Mapping[str, nn.Module], section: PrivateSection | None) -> frozenset[str]:
    """Return the names of the tensors, buffers included, that stay at the site; none without a section.

    Raises
    ------
    ExperimentError
        When a pattern fits nothing, or all tensors, so that nothing would be learned together.
    """
    return _some(networks, section, "strategy.private", "some must be private and some shared")


def frozen_names(networks: Mapping[str, nn.Module], section: Frozen | None, round: int | None = None) -> frozenset[str]:
    """Return the names of the tensors, buffers included, that training leaves alone; none without a section.

    With `round` those of that round: none when the section's `rounds` are over.

    Raises
    ------
    ExperimentError
        When a pattern fits nothing, or all parameters, so that nothing would be learned.
    """
    if section is not None and round is not None and section.rounds is not None and round > section.rounds:
        return frozenset()
    return _some(networks, section, "training.freeze", "some must be left to be trained")


def _some(networks: Mapping[str, nn.Module], section: Layers | None, key: str, must: str) -> frozenset[str]:
    """Return what a section's patterns mean: some of the tensors, and not all of the parameters."""
    if section is None:
        return frozenset()
    matched = [
        frozenset().union(*(_fitting(networks, pattern, key) for pattern in patterns))
        for patterns in (section.include, section.exclude)
    ]
    names = matched[0] - matched[1]
    if not names or not parameters_beside(networks, names):
        what = "no tensor of the model" if not names else "all of the model's parameters"
        raise ExperimentError(f"{key}: names {what}; {must}")
    return names


def parameters_beside(networks: Mapping[str, nn.Module], names: Collection[str]) -> list[str]:
    """Return the names of the parameters that are trained and not among these names."""
    return [name for name, parameter in parameters_of(networks) if parameter.requires_grad and name not in names]


def _fitting(networks: Mapping[str, nn.Module], pattern: str, key: str) -> frozenset[str]:
    if "." in pattern:
        names = frozenset(name for name in state_of(networks) if fnmatchcase(name, pattern))
    elif pattern == "head":
        names = frozenset(name for key, network in networks.items() for name in _last_layer(key, network))
    else:
        names = frozenset(
            name
            for path, module in _modules(networks)
            if (isinstance(module, _NORMS) if pattern == "norm" else fnmatchcase(type(module).__name__, pattern))
            for name in _tensors(path, module)
        )
    if not names:
        classes = sorted({type(module).__name__ for path, module in _modules(networks) if any(_tensors(path, module))})
        raise ExperimentError(
            f"{key}: '{pattern}' fits no tensor of the model; allowed: norm, head, a class of layers "
            f"({', '.join(classes[:_SHOWN])}), a tensor's name ({next(iter(state_of(networks)))}), also with *"
        )
    return names


def _last_layer(key: str, network: nn.Module) -> Iterator[str]:
    """Name the tensors of the last layer with parameters that normalises nothing, in the order of the code."""
    layers = [
        (path, module)
        for path, module in _modules({key: network})
        if not isinstance(module, _NORMS) and any(True for _ in module.parameters(recurse=False))
    ]
    return _tensors(*layers[-1]) if layers else iter(())


def _modules(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for key, network in networks.items():
        for path, module in network.named_modules():
            yield f"{key}.{path}" if path else key, module


def _tensors(path: str, module: nn.Module) -> Iterator[str]:
    return (f"{path}.{name}" for name in module.state_dict())
