"""Survival metrics: one site's risks and survival curves become counts of pairs, counts in bins of time and score, and
sums of squares. Problems fill it; what can be done with the resulting states is in `state`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics.checks import LARGEST_ROW_VALUE
from v6_algorithm.learning.metrics.survival.concordance import Binned, binned_pairs, exact_pairs

# Scores are log-risks. Bins of 1/16, near the width of the AUROC's, over [-16, 16].
SCORE_BINS = 512
SCORE_RANGE = 16.0
# Squared errors are summed in 1/1024, as confidences are: sums are exact in any order, and a sum over a single row does
# not carry that row's probability in full.
SQUARE_UNITS = 1024


class SurvivalMetrics:
    """Collect the survival metrics of one part at one site.

    The C-index of all sites' rows needs pairs of rows of different sites. Pairs within a site are counted there,
    exactly. Pairs between sites are counted from each site's rows by bin of time, bin of score, and event, as the AUROC
    is from histograms. Of two rows whose times share a bin it is not known which was first: they are taken to be
    comparable as often as the sites' own pairs of that kind. So the C-index of one site is exact, and of several within
    0.005 for parts of 100 rows a site or more (tests/learning/metrics/test_survival_metrics.py);
    `c_index_resolution` bounds the difference, with every pair that the bins leave open for it or against it.
    `c_index_within` is over the sites' own pairs only: exact, and what to look at where the sites' risks are not to be
    compared.

    Parameters
    ----------
    edges : sequence of float
        Times that divide the bins, increasing; a time on an edge is in the bin below. Few, because the state tells how
        many rows are in each bin of time and score.
    horizons : sequence of float, optional
        Times at which survival is predicted, increasing, for the Brier score; none, and there is no Brier score.

    Notes
    -----
    A state over a handful of rows nearly describes each; see `ClassificationMetrics`.
    """

    def __init__(self, edges: Sequence[float], horizons: Sequence[float] = ()) -> None:
        for name, times in (("edges", edges), ("horizons", horizons)):
            if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
                raise ValueError(f"{name} must be increasing finite times")
        self.edges = [float(edge) for edge in edges]
        self.horizons = [float(horizon) for horizon in horizons]
        self._non_finite = 0
        self._loss = 0.0
        self._batches: list[NDArray[np.float64]] = []

    def update(self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike) -> None:
        """Add a batch of rows.

        Rows whose prediction, target or loss is not finite are counted and left out.

        Parameters
        ----------
        prediction : array of float, shape (n, 1 + horizons)
            Log-risk, then the probability to be without the event at each horizon.
        target : array of float, shape (n, 2)
            Time, and 1 if the event was seen or 0 if not.
        loss : array of float, shape (n,)
            Loss of each row, as trained.

        Raises
        ------
        ValueError
            If the shapes differ or an event is neither 0 nor 1.
        """
        rows = np.asarray(prediction, dtype=np.float64)
        targets = np.asarray(target, dtype=np.float64)
        losses = np.asarray(loss, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != 1 + len(self.horizons):
            raise ValueError(f"prediction must have shape (n, {1 + len(self.horizons)}), got {rows.shape}")
        if targets.shape != (len(rows), 2) or losses.shape != (len(rows),):
            raise ValueError(
                f"target and loss must have shapes {(len(rows), 2)} and {(len(rows),)}, "
                f"got {targets.shape} and {losses.shape}"
            )
        if not np.isin(targets[:, 1], (0, 1)).all():
            raise ValueError("target must hold an event of 0 or 1 in its second column")
        usable = (np.abs(np.column_stack([rows, targets, losses])) <= LARGEST_ROW_VALUE).all(axis=1)
        self._non_finite += int((~usable).sum())
        self._loss += float(losses[usable].sum())
        self._batches.append(np.column_stack([targets, rows])[usable])

    def state(self) -> dict[str, Any]:
        """Return what the rows add up to, as plain JSON.

        Returns
        -------
        dict
            `cells` are the bins with rows: bin of time, bin of score, rows with the event, rows without; `joined` is 1
            once they were joined, see `joined_cells`. `exact` and
            `binned` count pairs of the site, once by their rows and once by their bins; see `concordance`. For the
            Brier score, by interval between horizons: `leaving` are rows with the event and without, `early` the summed
            squares of the predicted survival, at each later horizon, of the rows with an event, and `late` at each
            horizon those of one minus it of the rows still there. `expected` is at each horizon the sum of
            the predicted risks, one minus survival, of all rows.
        """
        rows = np.concatenate([np.empty((0, 3 + len(self.horizons))), *self._batches])
        time, event, score, survival = rows[:, 0], rows[:, 1] == 1, rows[:, 2], rows[:, 3:]
        cells = self._cells(time, event, score)
        return {
            "kind": "survival",
            "edges": self.edges,
            "horizons": self.horizons,
            "n": len(rows),
            "non_finite": self._non_finite,
            "joined": 0,
            "loss": self._loss,
            "cells": cells.tolist(),
            "exact": list(exact_pairs(time, event, score, np.searchsorted(self.edges, time, side="left"))),
            "binned": list(pairs_of_cells(cells, len(self.edges))),
            **self._brier(time, event, survival),
        }

    def _cells(self, time: NDArray[Any], event: NDArray[Any], score: NDArray[Any]) -> NDArray[np.int64]:
        times = np.searchsorted(self.edges, time, side="left")
        width = 2 * SCORE_RANGE / SCORE_BINS
        scores = np.clip(np.floor((score + SCORE_RANGE) / width), 0, SCORE_BINS - 1).astype(np.int64)
        place, number = np.unique(times * SCORE_BINS + scores, return_inverse=True)
        counts = np.zeros((len(place), 2), dtype=np.int64)
        np.add.at(counts, (number, (~event).astype(np.int64)), 1)
        return np.column_stack([place // SCORE_BINS, place % SCORE_BINS, counts])

    def _brier(self, time: NDArray[Any], event: NDArray[Any], survival: NDArray[Any]) -> dict[str, Any]:
        horizons = len(self.horizons)
        interval = np.searchsorted(self.horizons, time, side="left")
        leaving = np.zeros((2, horizons + 1), dtype=np.int64)
        np.add.at(leaving, ((~event).astype(np.int64), interval), 1)
        alive, dead = (np.rint(values**2 * SQUARE_UNITS).astype(np.int64) for values in (1 - survival, survival))
        early = np.zeros((horizons, horizons), dtype=np.int64)
        np.add.at(early, interval[event & (interval < horizons)], dead[event & (interval < horizons)])
        late = np.where(interval[:, None] > np.arange(horizons), alive, 0).sum(axis=0)
        expected = np.rint((1 - survival) * SQUARE_UNITS).astype(np.int64).sum(axis=0)
        brier = {"leaving": leaving.tolist(), "early": np.triu(early).tolist(), "late": late.tolist()}
        return brier | {"expected": expected.tolist()}


def pairs_of_cells(cells: NDArray[np.int64], edges: int) -> Binned:
    """Count pairs by bins; `cells` is (cells, 4) as in the state."""
    return binned_pairs(*counts_of_cells(cells, edges))


def counts_of_cells(cells: NDArray[np.int64], edges: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows with the event and without, each (times, scores that occur)."""
    # Only scores that occur: their order is all that counts.
    scores, place = np.unique(cells[:, 1], return_inverse=True)
    counts = np.zeros((2, edges + 1, len(scores)), dtype=np.int64)
    np.add.at(counts[0], (cells[:, 0], place), cells[:, 2])
    np.add.at(counts[1], (cells[:, 0], place), cells[:, 3])
    return counts[0], counts[1]
