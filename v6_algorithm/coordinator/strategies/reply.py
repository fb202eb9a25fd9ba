"""What a strategy knows of one site's answer to a round; `pipeline` makes it, and every strategy takes it in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.errors import WireError

# What a request tells a site's training, under the key "strategy"; `training.objectives` reads it.
Message = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One site's checked reply.

    Attributes
    ----------
    site
        Its name.
    state
        Its model, or where `transform` says so something else of the same names and shapes.
    rows, steps
        Training rows, and optimiser steps made.
    loss
        Mean training loss over the round.
    start
        The model that it started from, where it was asked for.
    start_loss
        Mean loss of that model over its training rows, where it was asked for.
    sums
        What its rows come to by name, (…) float64 arrays, where it was asked for.
    term, share
        Of all sites under masks: how the terms that they keep changed, weighted by their shares, float64 by name of the
        parameter; and the share of the sites that are in the sum.
    """

    site: str
    state: State
    rows: int
    steps: int
    loss: float
    start: State | None = None
    start_loss: float | None = None
    sums: dict[str, Any] | None = None
    term: State | None = None
    share: float | None = None


def read_counts(item: Mapping[str, Any]) -> tuple[int, int, float]:
    """Check what a site's item of a reply counts; return its training rows, its steps and its mean training loss.

    Raises
    ------
    WireError
        When a count is no whole number in its range, or the loss is not finite.
    """
    rows, steps, loss = item["rows"], item["steps"], item["loss"]
    if any(type(count) is not int for count in (rows, steps, loss["rows"])) or rows < 0 or loss["rows"] < 1:
        raise WireError("its row counts must be whole numbers")
    if steps < 1:
        raise WireError("its number of steps must be a whole number from 1")
    if not isinstance(loss["sum"], (int, float)) or not math.isfinite(loss["sum"]):
        raise WireError("its training loss is not a finite number")
    return rows, steps, loss["sum"] / loss["rows"]
