"""What steps of Newton's method share: whether one made the fit worse, the way back from it, and how long it may be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def risen(objective: Any, before: Any) -> Any:
    """Say whether what is minimised, a number or an array of fits, has grown by more than rounding, 1e-12 of it."""
    return objective > before + 1e-12 * (1 + abs(objective))


def taken_back(present: Tensor, before: Tensor) -> tuple[Tensor, bool]:
    """Return what is halfway back to where a step began, and whether that is where it led, but for rounding."""
    halved = (present + before) / 2
    return halved, bool(torch.allclose(halved, present, rtol=1e-14, atol=1e-14))


def shortened(step: Tensor, longest: float) -> Tensor:
    """Return a step, or where one of its numbers is larger than `longest` so much of it that none is."""
    return step * (longest / max(float(step.abs().max()), longest))
