"""Following a run in TensorBoard or Weights & Biases, on the researcher's side.

`open_tracking` gives an object that is fed with the rounds while they are run, on this machine by the events of
`master.run` and on a network by what the log of `master` tells, and in the end with the result, for what was not told.
A tracker's package is imported when it is asked for, and never otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from v6_algorithm.errors import ExperimentError
from v6_algorithm.learning.metrics import is_score

# The name of what is of all sites together, beside the sites' own names.
POOLED = "pooled"
KINDS = ("tensorboard", "wandb")


class Tracker(Protocol):
    """One place to write numbers to."""

    def log(self, scope: str, part: str, metric: str, value: float, round: int) -> None:
        """Write one number: `scope` is a site or `POOLED`, `part` train, validation or test."""

    def flush(self) -> None:
        """Show what was written: a round is over."""

    def about(self, experiment: Mapping[str, Any]) -> None:
        """Take in what was run, as JSON; it may not have been known at the start."""

    def close(self, best: Mapping[str, float]) -> None:
        """Write the last: the best pooled validation value of each metric for which more is better."""


class Tracking:
    """Feeds trackers; every number is written once, at the round whose model or training it is of."""

    def __init__(self, trackers: Sequence[Tracker], tell: Callable[[str], None] = warnings.warn) -> None:
        self._trackers = list(trackers)
        self._tell = tell
        self._written: set[tuple[str, str, str, int]] = set()
        self._best: dict[str, float] = {}

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take in an event of `master.run`, or what a task's log tells of one."""
        if event["event"] != "round" or not self._trackers:
            return
        for scope, scores in {POOLED: event["scores"]["pooled"], **event["scores"]["sites"]}.items():
            for name, value in scores.items():
                part, metric = name.split("_", 1)
                # A round trains one model and validates the one of the round before.
                self._log(scope, part, metric, value, event["round" if part == "train" else "validated_round"])
        self._each(lambda tracker: tracker.flush())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Take in the result: what no event told, which may be a whole run, and what was tested in the end."""
        if not self._trackers:
            return
        # A log's numbers are rounded, those of a result are not.
        self._best = {}
        for scope, history in {POOLED: result["history"], **result.get("site_history", {})}.items():
            for name, column in history.items():
                if name != "round":
                    # What training has cost under differential privacy is of no part by its name.
                    part, metric = ("train", name) if name == "epsilon" else name.split("_", 1)
                    for round, value in zip(history["round"], column, strict=True):
                        self._log(scope, part, metric, value, round)
        scopes = result["metrics"].get("test", {})
        for scope, scores in {POOLED: scopes.get("pooled", {}), **scopes.get("sites", {})}.items():
            for metric, value in scores.items():
                if is_score(metric):
                    self._log(scope, "test", metric, value, result["best_round"] or result["rounds_run"])
        self._each(lambda tracker: tracker.about(result["experiment"]))

    def close(self) -> None:
        """Close all trackers."""
        self._each(lambda tracker: tracker.close(self._best))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        """Call all trackers; one that cannot write gets no more, for a full disk is to cost no run."""
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except OSError as error:
                self._trackers.remove(tracker)
                self._tell(f"--track: no more is written there: {error.strerror or error}")

    def _log(self, scope: str, part: str, metric: str, value: float | None, round: int) -> None:
        if value is None or round < 1:
            return
        if (scope, part) == (POOLED, "validation"):
            self._best[metric] = max(value, self._best.get(metric, value))
        key = (scope, part, metric, round)
        if key in self._written:
            return
        self._written.add(key)
        self._each(lambda tracker: tracker.log(scope, part, metric, value, round))


@contextmanager
def open_tracking(
    kinds: Sequence[str], folder: Path, experiment: Mapping[str, Any], tell: Callable[[str], None] = warnings.warn
) -> Iterator[Tracking]:
    """Open trackers and close them in the end, also after a failure.

    Parameters
    ----------
    kinds
        ``tensorboard`` or ``wandb``, or both, or none.
    folder
        Where they may write; TensorBoard to its subfolder ``tensorboard``.
    experiment
        What is run, as JSON, or its name alone; for W&B its settings, without the places of the sites' data.
    tell
        Called with a sentence when a tracker can write no more.

    Raises
    ------
    ExperimentError
        When a tracker is not known, not installed, or cannot start.
    """
    opened: list[Tracker] = []
    for kind in dict.fromkeys(kinds):
        opened.append(find(kind)(folder, experiment))
    tracking = Tracking(opened, tell)
    try:
        yield tracking
    finally:
        tracking.close()


def find(kind: str) -> Callable[[Path, Mapping[str, Any]], Tracker]:
    """Return what makes a tracker of this kind; raises ExperimentError when it is not known or not installed."""
    if kind not in KINDS:
        raise ExperimentError(f"--track {kind}: is not known; allowed: {', '.join(KINDS)}")
    try:
        if kind == "tensorboard":
            from v6_algorithm.researcher.tracking.board import Board

            return lambda folder, _: Board(folder / "tensorboard")
        from v6_algorithm.researcher.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases
    except ImportError:
        extra = "tracking" if kind == "tensorboard" else "wandb"
        raise ExperimentError(f"--track {kind}: is not installed: pip install 'v6-algorithm[{extra}]'") from None
