"""Networks as named tensors and back: what is sent, what kind each tensor is, and the common start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from v6_algorithm import seeding
from v6_algorithm.errors import SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.learning.problems.base import Networks, Problem
from v6_algorithm.learning.training.device import Device

# Where an image keeps weights, or a site by its owner's choice; see `start.weights: image:NAME` and `site:NAME`.
WEIGHTS = "V6_ALGORITHM_WEIGHTS"
_WEIGHTS_FOLDER = "/opt/v6_algorithm/weights"


def build_networks(problem: Problem) -> Networks:
    """Build the experiment's networks with what every site has by itself: the seed, or weights in its image or folder.

    Raises
    ------
    SiteError, WireError
        When there are no such weights, or they do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        Device().seed(seeding.derive(problem.experiment.seed, "initial weights"))
        networks = problem.build_networks()
    start = problem.experiment.start
    if start.at_sites:
        overlay(networks, _here(start.image, start.site, problem.folder), partial=start.partial)
    return networks


def overlay(networks: Networks, tensors: Mapping[str, Tensor], *, partial: bool) -> None:
    """Make the networks use these tensors, all or with `partial` those that fit; the others stay as they are."""
    fitting, _ = wire.fit(tensors, spec_of(networks), partial=partial)
    load_state(networks, state_of(networks) | fitting)


def _here(image: str | None, site: str | None, default: Path | None) -> dict[str, Tensor]:
    """Read weights in the image, or in the folder that the node's owner names or that the site's files are in."""
    import safetensors
    import safetensors.torch

    name = image or site or ""
    place = "the image's weights" if image else "the weights at this site"
    chosen = os.environ.get(WEIGHTS)
    folder = Path(chosen) if chosen else Path(_WEIGHTS_FOLDER) if image else default
    missing = "the image at this site has no weights" if image else "this site has no weights"
    if folder is None:
        raise SiteError(f"{missing} '{name}' (start.weights), for its data are in no folder", "request")
    file = (folder / name).resolve()
    if site and not file.is_relative_to(folder.resolve()):
        raise SiteError(f"{place} '{name}' are a link out of their folder (start.weights)", "request")
    try:
        return safetensors.torch.load_file(file)
    except FileNotFoundError:
        raise SiteError(f"{missing} '{name}' (start.weights)", "request") from None
    except (OSError, safetensors.SafetensorError):
        raise SiteError(f"{place} '{name}' cannot be read as safetensors", "request") from None


def build_shapes(problem: Problem) -> Networks:
    """Build the networks without memory or numbers, to be given a state; drawing numbers to overwrite them is slow.

    Networks with tensors that are not part of their state are built in full, for nothing would fill those.
    """
    with torch.device("meta"):
        networks = problem.build_networks()
    stored = set(state_of(networks))
    for name, network in networks.items():
        if any(f"{name}.{key}" not in stored for key, _ in network.named_buffers()):
            return build_networks(problem)
    return networks


def state_of(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return all tensors as ``network.tensor``; they share memory with the networks."""
    return {
        f"{name}.{key}": tensor.detach()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def parameters_of(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter, those included that are not trained; names are those of `state_of`."""
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            yield f"{name}.{key}", parameter


def momenta_of(networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the momentum of each BatchNorm by its running variance's name; 0 of means over all batches."""
    return {
        f"{name}.{path}.running_var".replace("..", "."): float(module.momentum or 0.0)
        for name, network in networks.items()
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    }


def load_state(networks: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> None:
    """Make the networks use these tensors; names and shapes were checked against `spec_of` before."""
    for name, network in networks.items():
        network_state = {
            key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")
        }
        network.load_state_dict(network_state, strict=True, assign=True)


def spec_of(networks: Mapping[str, nn.Module]) -> wire.StateSpec:
    """Describe the tensors: parameters, float buffers (averaged) and integer buffers (counters).

    A parameter that is not trained, as those of an average over training, is a buffer: no optimiser may touch it.
    """
    parameters = {name for name, parameter in parameters_of(networks) if parameter.requires_grad}
    momenta = momenta_of(networks)
    spec = {}
    for key, tensor in state_of(networks).items():
        if key in parameters:
            kind = "parameter"
        else:
            kind = "buffer" if tensor.is_floating_point() else "counter"
        dtype = str(tensor.dtype).removeprefix("torch.")
        spec[key] = wire.TensorSpec(tuple(tensor.shape), dtype, kind, momentum=momenta.get(key))
    return spec
