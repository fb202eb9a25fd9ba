"""One thread for small networks: handing work of microseconds to a second core costs more than it saves.

On a machine whose cores are shared, as a hospital's node is, torch's threads wait for each other in a busy loop, and
the training of a small network takes ten times as long. One thread also makes its result independent of the number of
cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

# Multiplications in one forward pass of a batch, below which one thread does it all; about a millisecond's work.
_SMALL = 5_000_000


@contextmanager
def threads_for(networks: Mapping[str, nn.Module], batch_rows: int) -> Iterator[None]:
    """Set torch's threads for training these networks in batches of this size, and set them back."""
    weights = sum(parameter.numel() for network in networks.values() for parameter in network.parameters())
    if weights * batch_rows >= _SMALL or any(_convolves(network) for network in networks.values()):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _convolves(network: nn.Module) -> bool:
    """Say whether a network uses its weights at every place of an image, so that their number says little."""
    return any(isinstance(module, torch.nn.modules.conv._ConvNd) for module in network.modules())
