"""All randomness comes from here: the experiment's seed and who, when, what for.

The same (seed, site, round, fold, purpose) gives the same numbers on every engine and after every restart.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *keys: str | int) -> int:
    """Hash the experiment's seed and a path of keys into a 63-bit seed."""
    text = "\x1f".join([str(seed), *(f"{type(key).__name__}:{key}" for key in keys)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return a numpy generator for this purpose."""
    import numpy as np

    return np.random.default_rng(derive(seed, *keys))


def torch_generator(seed: int, *keys: str | int) -> torch.Generator:
    """Return a torch CPU generator for this purpose."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(derive(seed, *keys))
    return generator
