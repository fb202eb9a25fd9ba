"""Survival metrics: one site's risks and survival curves become counts of pairs, counts in bins of time and score, and
sums of squares. Problems fill it; what can be done with the resulting states is in `state`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics.checks import LARGEST_ROW_VALUE
from v6_algorithm.learning.metrics.survival.concordance import Binned, binned_pairs, exact_pairs, pairs_of_sites

# Scores are log-risks. Bins of a scale by asinh: 0.0002 wide near 0, for risks that hardly differ, and 2 % of a score
# far from it, so that one patient far out does not put all others into a few bins.
SCORE_BINS = 1024
SCORE_RANGE, _SCORE_SCALE = 64.0, 0.01
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
        usable, rows, losses = self._counted(prediction, target, loss)
        self._non_finite += int((~usable).sum())
        self._loss += float(losses.sum())
        self._batches.append(rows)

    def _counted(
        self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """Return which rows are usable, and of these time, event and prediction beside each other, and the loss."""
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
        usable = np.all(np.abs(np.column_stack([rows, targets, losses])) <= LARGEST_ROW_VALUE, axis=1)
        return usable, np.column_stack([targets, rows])[usable], losses[usable]

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
        times, one = np.searchsorted(self.edges, time, side="left"), np.zeros(len(rows), dtype=np.int64)
        cells = self._cells(times, self._scores(score), event, one)[:, 1:]
        return {
            "kind": "survival",
            "edges": self.edges,
            "horizons": self.horizons,
            "n": len(rows),
            "non_finite": self._non_finite,
            "joined": 0,
            "loss": self._loss,
            "cells": cells.tolist(),
            "exact": list(exact_pairs(time, event, score, times)),
            "binned": list(pairs_of_cells(cells, len(self.edges))),
            **{name: values[0].tolist() for name, values in self._brier(time, event, survival, one, 1).items()},
        }

    def states_of(
        self, prediction: ArrayLike, target: ArrayLike, loss: ArrayLike, lengths: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return what collectors at several sites would tell; rows as for `update`, one site's after the other's.

        Equal to theirs but for the order in which losses are added up. `lengths` are the sites' numbers of rows.
        """
        usable, rows, losses = self._counted(prediction, target, loss)
        sites = len(lengths)
        every = np.repeat(np.arange(sites), lengths)
        site = every[usable]
        counts = np.bincount(site, minlength=sites)
        time, event, score, survival = rows[:, 0], rows[:, 1] == 1, rows[:, 2], rows[:, 3:]
        bins = np.searchsorted(self.edges, time, side="left"), self._scores(score)
        cells = self._cells(*bins, event, site)
        exact, binned = pairs_of_sites(time, event, score, bins, counts.tolist())
        columns = {
            "n": counts.tolist(),
            "non_finite": np.bincount(every[~usable], minlength=sites).tolist(),
            "loss": np.bincount(site, losses, sites).tolist(),
            "cells": [
                of_site.tolist()
                for of_site in np.split(cells[:, 1:], np.searchsorted(cells[:, 0], np.arange(1, sites)))
            ],
            "exact": exact.tolist(),
            "binned": binned.tolist(),
            **{name: values.tolist() for name, values in self._brier(time, event, survival, site, sites).items()},
        }
        empty = SurvivalMetrics(self.edges, self.horizons).state()
        return [empty | dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    @staticmethod
    def _scores(score: NDArray[Any]) -> NDArray[np.int64]:
        """Return the bin of each score."""
        reach = np.arcsinh(SCORE_RANGE / _SCORE_SCALE)
        places = (np.arcsinh(score / _SCORE_SCALE) / reach + 1) * (SCORE_BINS / 2)
        return np.clip(np.floor(places), 0, SCORE_BINS - 1).astype(np.int64)

    def _cells(
        self, times: NDArray[Any], scores: NDArray[np.int64], event: NDArray[Any], site: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Return (cells, 5): site, bin of time, bin of score, rows with the event and without."""
        keys = (site * (len(self.edges) + 1) + times) * SCORE_BINS + scores
        place, number = np.unique(keys, return_inverse=True)
        counts = np.zeros((len(place), 2), dtype=np.int64)
        np.add.at(counts, (number, (~event).astype(np.int64)), 1)
        of_time, of_score = np.divmod(place, SCORE_BINS)
        return np.column_stack([*np.divmod(of_time, len(self.edges) + 1), of_score, counts])

    def _brier(
        self, time: NDArray[Any], event: NDArray[Any], survival: NDArray[Any], site: NDArray[Any], sites: int
    ) -> dict[str, NDArray[np.int64]]:
        """Return what the Brier score is made of, (sites, …) each."""
        horizons = len(self.horizons)
        interval = np.searchsorted(self.horizons, time, side="left")
        leaving = np.zeros((sites, 2, horizons + 1), dtype=np.int64)
        np.add.at(leaving, (site, (~event).astype(np.int64), interval), 1)
        alive, dead = (np.rint(values**2 * SQUARE_UNITS).astype(np.int64) for values in (1 - survival, survival))
        early, late, expected = (
            np.zeros((sites, *shape), dtype=np.int64) for shape in ((horizons, horizons), (horizons,), (horizons,))
        )
        left = event & (interval < horizons)
        np.add.at(early, (site[left], interval[left]), dead[left])
        np.add.at(late, site, np.where(interval[:, None] > np.arange(horizons), alive, 0))
        np.add.at(expected, site, np.rint((1 - survival) * SQUARE_UNITS).astype(np.int64))
        return {"leaving": leaving, "early": np.triu(early), "late": late, "expected": expected}


def scores_at(places: ArrayLike) -> NDArray[np.float64]:
    """Return log-risks at places from 0 to `SCORE_BINS`: whole numbers are edges of bins, halves their middles."""
    reach = np.arcsinh(SCORE_RANGE / _SCORE_SCALE)
    scores: NDArray[np.float64] = _SCORE_SCALE * np.sinh((np.asarray(places) * (2 / SCORE_BINS) - 1) * reach)
    return scores


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
