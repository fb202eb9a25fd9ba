"""A run's history as lines by matplotlib, which is asked for only here; `Result.plot` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import ExperimentError

if TYPE_CHECKING:
    import pandas as pd


def plot(history: pd.DataFrame, metrics: Sequence[str] | str | None = None) -> Any:
    """Draw columns of a history, losses apart from metrics; the losses and the first metric when none are named.

    Raises
    ------
    ExperimentError
        When matplotlib is missing, a column is not in the history, or there is none.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExperimentError("plot needs matplotlib: pip install 'v6-algorithm[plots]'") from None
    columns = list(history.columns)
    if not columns:
        raise ExperimentError("plot: there is no history to draw, for no round was trained")
    metrics = [metrics] if isinstance(metrics, str) else metrics
    unknown = [name for name in metrics or [] if name not in columns]
    if unknown:
        raise ExperimentError(f"plot: '{unknown[0]}' is no column of the history; allowed: {', '.join(columns)}")
    losses = [name for name in columns if name.endswith("loss")]
    others = [name for name in columns if name.startswith("validation_") and name not in losses]
    chosen = list(metrics) if metrics else [*losses, *others[:1]]
    axes = [[name for name in chosen if name in losses], [name for name in chosen if name not in losses]]
    axes = [names for names in axes if names]
    figure = Figure(figsize=(5 * len(axes), 3.4), layout="constrained")
    for place, names in enumerate(axes):
        axis = figure.add_subplot(1, len(axes), place + 1)
        for name in names:
            groups = history.groupby(level="fold") if "fold" in history.index.names else [("", history)]
            for fold, part in groups:
                rounds = part.index.get_level_values("round")
                axis.plot(rounds, part[name].to_numpy(dtype=float), label=f"{name} {fold}".strip())
        axis.set_xlabel("round")
        axis.legend(frameon=False)
    return figure
