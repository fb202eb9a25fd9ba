"""Quicker steps of simulated sites that are not trained together, and their names in the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

FUSED, CHANNELS_LAST = "fused optimiser", "channels last"
# Where training tells what else was quicker.
_TOLD = "quicker steps"


def quicker_steps(shared: Mapping[str, Any]) -> list[str]:
    """Name the quicker steps of sites that are not trained together, for `quicker` and for the result."""
    known = shared.get("together")
    if known is None:
        return []
    run = known[2]
    ways, model = [FUSED] if run.fuses else [], run.experiment.model
    # A bias before BatchNorm has a gradient that is nothing but rounding, of which Adam makes a step. A volume stays.
    if model.kind == "cnn" and model.norm in ("none", "group") and len(run.setup.image_shape or ()) == 3:
        ways.append(CHANNELS_LAST)
    return ways + sorted(shared.get(_TOLD, ()))


@contextmanager
def quicker(shared: dict[Any, Any]) -> Iterator[None]:
    """Let sites that are not trained together take quicker steps, which differ by rounding from those on a node.

    Large networks step in one pass over the memory; for the network `cnn` without BatchNorm the channels of a pixel lie
    beside each other. Others stay exact to the bit: dropout of maps, say, draws in the order of the memory.
    """
    ways = quicker_steps(shared)
    with ExitStack() as stack:
        if FUSED in ways:
            from v6_algorithm.learning.training.learner import fused_steps

            stack.enter_context(fused_steps(shared.setdefault(_TOLD, set())))
        if CHANNELS_LAST in ways:
            from v6_algorithm.learning.training.images import channels_last

            stack.enter_context(channels_last())
        yield
