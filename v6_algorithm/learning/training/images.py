"""Images as inputs of a network: read when a batch asks for them, scaled by channel, and put on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from v6_algorithm.data.imaging.stack import TableImages
from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import WireError
from v6_algorithm.learning.training.device import Device

_channels_last: ContextVar[bool] = ContextVar("channels_last", default=False)


@contextmanager
def channels_last() -> Iterator[None]:
    """Let images of two dimensions lie with a pixel's channels beside each other: for simulations, not exact.

    Convolutions and pooling on a CPU then take about half the time, and differ by rounding.
    """
    token = _channels_last.set(True)
    try:
        yield
    finally:
        _channels_last.reset(token)


@dataclass(frozen=True)
class ImageInputs:
    """Scaled images by row; a tensor of all of them would not fit.

    Attributes
    ----------
    images
        Where they are read.
    shift, scale
        (channels, 1, …) of one fold, on the device.
    exact
        The same as float64, not on the device: images that are so far from 0 that they are float64 are scaled there.
    """

    images: TableImages
    shift: Tensor
    scale: Tensor
    exact: tuple[Tensor, Tensor]
    nbytes: int = 0

    @classmethod
    def of(cls, images: TableImages, setup: Setup, fold: int, dtype: str, device: Device) -> ImageInputs:
        """Scale with the setup's numbers of a fold."""
        if setup.preparation is None:
            raise WireError("the request carries no preparation")
        ones = [1] * (len(images.shape) - 1)
        exact = tuple(
            torch.from_numpy(array[fold]).double().reshape(-1, *ones)
            for array in (setup.preparation.shift, setup.preparation.scale)
        )
        shift, scale = (numbers.to(device.kind, getattr(torch, dtype)) for numbers in exact)
        return cls(images, shift, scale, (exact[0], exact[1]))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return (rows, channels, lengths …) by row number, on the device."""
        images = torch.from_numpy(self.images.read(rows.cpu().numpy()))
        if images.dtype == torch.float64:
            shift, scale = self.exact
            centred = ((images - shift) / scale).to(self.shift.device, self.shift.dtype)
        else:
            if self.shift.is_cuda:
                # As they are in the file, often a byte a number, and while the GPU still works on the batch before.
                images = images.pin_memory().to(self.shift.device, non_blocking=True)
            centred = (images.to(self.shift.device, self.shift.dtype) - self.shift) / self.scale
        if _channels_last.get() and centred.ndim == 4:
            return centred.contiguous(memory_format=torch.channels_last)
        return centred
