"""Means over folds and sites of what was measured: shared by the result, progress events and external evaluation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.learning.metrics import is_score


def round_scores(folds: Sequence[FoldProgress], number: int, part: str, site: str | None = None) -> dict[str, float]:
    """Return what was measured in a round of training, or of the model that the round made.

    Parameters
    ----------
    folds
        Over which to average.
    number
        The round.
    part
        ``train`` or ``validation``, with which the names begin.
    site
        Where; None: at all sites together.
    """
    rows: list[dict[str, float | None]] = [
        fold.at(number) if site is None else dict(fold.at_sites.get(site, {}).get(number, {})) for fold in folds
    ]
    return {name: value for name, value in mean_of(rows).items() if value is not None and name.startswith(f"{part}_")}


def mean_of(rows: Iterable[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each name over the rows that have it; a name no row has a number for is None."""
    values_of: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values_of.setdefault(name, []).extend([] if value is None else [value])
    return {name: sum(values) / len(values) if values else None for name, values in values_of.items()}


def scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what goes with the scores, such as the number of rows."""
    return {name: value for name, value in metrics.items() if is_score(name)}


def mean_and_spread(rows: Sequence[dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Return mean and sample standard deviation over the folds, of each score that some fold has."""
    mean = mean_of(rows)
    spread: dict[str, float | None] = {}
    for name in mean:
        values = [value for row in rows if (value := row.get(name)) is not None]
        spread[name] = statistics.stdev(values) if len(values) > 1 else None
    return {"mean_over_folds": mean, "sd_over_folds": spread}
