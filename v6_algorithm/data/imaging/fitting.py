"""Images brought to one size and one range of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from v6_algorithm.data.imaging.files import Picture, UnreadableImageError
from v6_algorithm.experiment.imaging.images import Image

Array = np.ndarray


def fitted(picture: Picture, image: Image) -> Array:
    """Return the image in the size that `image` asks for; bytes stay bytes."""
    values = picture.values
    if image.spacing is not None:
        if picture.spacing is None:
            raise UnreadableImageError
        steps = zip(values.shape[1:], picture.spacing, image.spacing, strict=True)
        values = resized(values, [max(1, round(length * own / wanted)) for length, own, wanted in steps])
    if image.size is None or list(values.shape[1:]) == image.size:
        return values
    if image.fit == "cover":
        factor = max(wanted / own for wanted, own in zip(image.size, values.shape[1:], strict=True))
        lengths = [max(round(own * factor), wanted) for wanted, own in zip(image.size, values.shape[1:], strict=True)]
        values = resized(values, lengths)
    if image.fit == "stretch":
        return resized(values, image.size)
    return cropped(values, image.size)


def resized(values: Array, lengths: Sequence[int]) -> Array:
    """Interpolate (channels, lengths …) linearly to other lengths; what gets smaller is averaged over first."""
    import torch
    from torch.nn import functional

    if list(values.shape[1:]) == list(lengths):
        return values
    tensor = torch.from_numpy(values.astype(np.float32))[None]
    if len(lengths) == 2:
        tensor = functional.interpolate(tensor, list(lengths), mode="bilinear", antialias=True)
    else:
        # torch has no such average for volumes: a whole number of voxels is pooled.
        pools = [max(1, own // wanted) for own, wanted in zip(values.shape[1:], lengths, strict=True)]
        if max(pools) > 1:
            tensor = functional.avg_pool3d(tensor, pools)
        tensor = functional.interpolate(tensor, list(lengths), mode="trilinear")
    smaller: Array = tensor[0].numpy()
    return np.clip(np.rint(smaller), 0, 255).astype(np.uint8) if values.dtype == np.uint8 else smaller


def cropped(values: Array, lengths: Sequence[int]) -> Array:
    """Cut (channels, lengths …) around its middle, and fill up with zeros where it is too short."""
    fitted = np.zeros((len(values), *lengths), dtype=values.dtype)
    source, target = [slice(None)], [slice(None)]
    for own, wanted in zip(values.shape[1:], lengths, strict=True):
        both = min(own, wanted)
        source.append(slice((own - both) // 2, (own - both) // 2 + both))
        target.append(slice((wanted - both) // 2, (wanted - both) // 2 + both))
    fitted[tuple(target)] = values[tuple(source)]
    return fitted


def levelled(values: Array, unit: float, image: Image) -> tuple[Array, float]:
    """Apply `range` and `threshold`; return values and what 1 of them is worth."""
    if image.range is None and image.threshold is None:
        return values, unit
    levels = values.astype(np.float32) * np.float32(unit)
    if image.range is not None:
        low, high = image.range
        levels = np.clip((levels - low) / (high - low), 0, 1, dtype=np.float32)
    if image.threshold is not None:
        levels[levels < image.threshold] = 0
    return levels, 1.0
